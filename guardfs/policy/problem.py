"""What is wrong with a policy file, and where. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from guardfs.errors import GuardError

Severity = Literal["error", "warning"]


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a policy.

    line, column: 1-based, in lines and characters; None where the file as a whole is meant. key: the key's path
    ("rules[3].when.lane", counted from 0) or "". what: the fault. mend: what to do about it, or "".
    """

    line: int | None
    column: int | None
    key: str
    what: str
    mend: str = ""
    severity: Severity = "error"

    def text(self, source: str) -> str:
        """One line, as compilers write it: ``FILE:LINE:COLUMN: KEY: WHAT; MEND``."""
        place = source if self.line is None else f"{source}:{self.line}:{self.column}"
        kind = "warning: " if self.severity == "warning" else ""
        key = f"{self.key}: " if self.key else ""
        mend = f"; {self.mend}" if self.mend else ""
        return printable(f"{place}: {kind}{key}{self.what}{mend}")

    def to_json(self, source: str) -> dict[str, object]:
        """For editors and CI."""
        return {"file": source, **msgspec.structs.asdict(self)}

    @property
    def order(self) -> tuple[int, int, int]:
        """For sorting: as they stand in the file, an error before a warning."""
        return (self.line or 0, self.column or 0, self.severity == "warning")


def printable(text: str) -> str:
    """*text* on one line, without characters that would act on a terminal; what a file holds is not to be trusted."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def key_text(path: Sequence[str | int]) -> str:
    """A key's path as operators read it: ``rules[3].when.lane``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = part.isascii() and part.replace("-", "").replace("_", "").isalnum()
            text += ("." if text else "") + (part if bare else quoted(part))
    return text


def quoted(text: str, limit: int = 60) -> str:
    """*text* in single quotes, shortened, with what cannot be printed escaped."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "'" + printable(shown.replace("'", "\\'")) + "'"


class PolicyError(GuardError):
    """A policy cannot be used. Carries all that is wrong with it; as a message, it is the first problem in one line.

    source: the file as errors name it. kind: ``unreadable`` (there is no such file, or it cannot be read),
    ``untrusted`` (others than root and the guard's user may have written it), ``invalid`` (what it says is wrong).
    problems: in the order of the file, warnings among them. digest: SHA-256 in hex of what was read, None if nothing.
    """

    def __init__(
        self,
        source: str,
        problems: Sequence[Problem],
        *,
        kind: Literal["unreadable", "untrusted", "invalid"] = "invalid",
        digest: str | None = None,
    ) -> None:
        self.source = source
        self.problems = tuple(problems)
        self.kind = kind
        self.digest = digest
        errors = [problem for problem in self.problems if problem.severity == "error"]
        first = errors[0].text(source)
        more = len(errors) - 1
        super().__init__(first, f"and {more} more; `guardfs policy check {source}` shows all" if more else "")
