"""What `guardfs explain` prints for people. Pure."""

from __future__ import annotations

from guardfs.audit.facts import Outcome
from guardfs.audit.show import CYAN, DIM, GREEN, RED, YELLOW, safe
from guardfs.lanes.writer import Writer
from guardfs.policy.explain import Explanation, Trial
from guardfs.policy.facts import Facts

_NAME = 24


class Story:
    """Puts a story together. colour: with ANSI colours. marks: of what matched and what did not."""

    def __init__(self, *, colour: bool, marks: tuple[str, str]) -> None:
        self._colour = colour
        self._yes, self._no = marks

    def text(
        self, title: str, facts: Facts, found: Explanation, notes: list[str], logged: Outcome | None
    ) -> str:
        """Several lines. title: what this is about; notes: what the reader should know before."""
        lines = [self._paint(safe(title), CYAN)]
        lines += [f"  {name:<10}{safe(what)}" for name, what in _facts(facts)]
        lines += [self._paint(f"  note      {safe(note)}", YELLOW) for note in notes]
        lines += ["", "lanes"]
        lines += [self._trial(trial) for trial in found.lanes]
        lines.append(self._lane(found))
        lines += ["", "rules"]
        lines += [self._trial(trial) for trial in found.rules]
        lines.append(self._verdict(found))
        if logged is not None and logged != (found.lane, found.rule, found.verdict):
            said = f"the log says: lane {logged.lane}, rule {logged.rule!r}, {logged.verdict}"
            lines += ["", self._paint("  " + safe(said), YELLOW)]
        return "\n".join(lines) + "\n"

    def _trial(self, trial: Trial) -> str:
        mark = self._paint(self._yes, GREEN) if trial.matched else self._paint(self._no, RED)
        return f"  {mark} {safe(trial.name):<{_NAME}}  {self._paint(safe(trial.decisive()), DIM)}"

    def _lane(self, found: Explanation) -> str:
        by = {
            "": f"by {', '.join(found.evidence)}" if found.evidence else "which asks nothing",
            "label": "no lane of the policy matches, so it is the name of the program",
            "claim.attribute": "no lane of the policy matches, and the writer claims this one by user.guardfs.lane",
            "claim.environment": "no lane of the policy matches, and the writer claims this one by GUARDFS_LANE",
        }
        return f"  lane: {self._paint(safe(found.lane), CYAN)}, {by[found.fallback]}"

    def _verdict(self, found: Explanation) -> str:
        colour = GREEN if found.verdict == "allow" else YELLOW
        more = f" ({_errno(found.errno)})" if found.errno else ""
        if found.verdict == "wait":
            more = f" (then {found.on_timeout})"
        return f"  verdict: {self._paint(found.verdict + more, colour)}, by the rule {safe(repr(found.rule))}"

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def _facts(facts: Facts) -> list[tuple[str, str]]:
    path = facts.path.decode("utf-8", "backslashreplace")
    to = "" if facts.to is None else f" -> {facts.to.decode('utf-8', 'backslashreplace')}"
    found = [
        ("operation", f"{facts.operation}: {path}{to} ({facts.file})"),
        ("writer", _writer(facts.writer)),
    ]
    record = facts.record
    if record is not None:
        said = [
            value for value in (record.type, record.role, record.id, record.provider, record.model) if value
        ]
        if record.invalid or record.part:
            said = ["not a record" if record.invalid else "part of a record"]
        found.append(
            ("record", " ".join(said) + (f", continues {facts.continues}" if facts.continues else ""))
        )
    found.append(("state", f"fence {facts.fence}, lock {facts.lock}"))
    environment = facts.writer.process.environ_lane if facts.writer.process is not None else None
    claims = [f"{name}={value}" for name, value in
              (("GUARDFS_LANE", environment), ("user.guardfs.lane", facts.claim)) if value is not None]  # fmt: skip
    if claims:
        found.append(("claims", ", ".join(claims)))
    return found


def _writer(writer: Writer) -> str:
    process = writer.process
    parts = []
    if process is not None:
        parts.append(process.exe or "executable unknown")
        args = " ".join(process.args)
        if args:
            parts.append(f"[{args if len(args) <= 200 else args[:199] + '…'}]")
    if writer.known != "ok":
        parts.append(writer.known)
    if writer.tgid:
        thread = f"thread {writer.comm}" if writer.comm else "thread"
        parts.append(f"{thread} ({'main' if writer.main else 'pool'})")
    parts += [
        f"{name} {number}" for name, number in (("user", writer.uid), ("group", writer.gid)) if number >= 0
    ]
    return " ".join(parts) or "unknown"


def _errno(number: int) -> str:
    import errno

    return errno.errorcode.get(number, str(number))
