"""What single values cannot mean: slips in globs, times, errors, conditions that contradict each other. Pure."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Literal

from guardfs.policy.model import Conditions, Policy, Rule, bytes_of, seconds
from guardfs.policy.places import Path
from guardfs.policy.problem import Severity, quoted
from guardfs.policy.reach import asks

Found = tuple[Path, str, str, Severity]
"""Where, what, mend."""

_GLOBS = frozenset(
    "process.exe process.args process.thread process.container process.ancestor path to claim lane "
    "record.type record.role record.provider record.model".split()
)
_WITHOUT_RECORD = frozenset(("look", "unlink", "rename", "truncate", "attributes"))
_WITH_NAME = frozenset(("rename", "attributes", "rewrite"))  # a rename onto a transcript rewrites it
_HELD = frozenset(("append", "rewrite", "create", "look"))
_COMM = 15
_DAY = 86400.0


def values(policy: Policy, known: Callable[[Literal["user", "group"], str], bool] | None) -> Iterator[Found]:
    """Every problem of a single value in a policy whose form is right."""
    yield from _transcripts(policy)
    yield from _times(policy)
    if bytes_of(policy.audit.max_size) == 0:
        yield ("audit", "max_size"), "a log of no size", 'write it like "64M"', "error"
    for key in ("environment", "attribute"):
        yield from _globs(("claims", key), getattr(policy.claims, key), "claim", as_list=True)
    tables: list[tuple[Path, Conditions | None]] = []
    for index, lane in enumerate(policy.lanes):
        tables += [(("lanes", index), lane), (("lanes", index, "unless"), lane.unless)]
    for index, rule in enumerate(policy.rules):
        tables += [(("rules", index, "when"), rule.when), (("rules", index, "unless"), rule.unless)]
        yield from _rule(("rules", index), rule, policy)
    for path, conditions in tables:
        if conditions is not None:
            yield from _conditions(path, conditions, policy, known)


def _transcripts(policy: Policy) -> Iterator[Found]:
    files = policy.transcripts
    for key in ("include", "exclude"):
        globs = getattr(files, key)
        yield from _globs(("transcripts", key), globs, "include", as_list=True)
        for index, glob in enumerate(globs):
            if "/" in glob:
                what = f"{quoted(glob)} has a directory in it"
                yield ("transcripts", key, index), what, "these are globs on file names alone", "error"
    if not files.include:
        yield ("transcripts", "include"), "nothing is a transcript", 'name some files: ["*.jsonl"]', "error"
    for index, glob in enumerate(files.exclude):
        if not glob.strip("*"):
            yield (
                ("transcripts", "exclude", index),
                f"{quoted(glob)} excludes everything",
                "leave it out",
                "error",
            )
    for key, name in (("lock", files.lock), ("registry", files.registry)):
        if "/" in name or name in (".", "..") or not name.isprintable():
            what = f"{quoted(name)} is no file name"
            yield (
                ("transcripts", key),
                what,
                "it lies beside the transcripts; name it without directories",
                "error",
            )
    if files.lock.count("{transcript}") > 1 or files.lock == "{transcript}":
        what = "the lock file of a transcript is another file, with the transcript's name in it once"
        yield ("transcripts", "lock"), what, 'write it like "{transcript}.lock"', "error"


def _times(policy: Policy) -> Iterator[Found]:
    idle, wait = seconds(policy.fence.idle_timeout), seconds(policy.fence.wait_timeout)
    for key, value, least, most, short, long in (
        (
            "idle_timeout",
            idle,
            10.0,
            _DAY,
            "a fence ends while the model still thinks",
            "a fence outlives its owner",
        ),
        ("wait_timeout", wait, 0.1, 600.0, "hardly a fence ends in it", "a writer hangs"),
    ):
        text = quoted(getattr(policy.fence, key))
        path: Path = ("fence", key)
        if value <= 0:
            yield path, f"{text} is no time at all", 'write it like "15m"', "error"
        elif value > 30 * _DAY:
            yield path, f"{text} is longer than a month", 'write it like "15m"', "error"
        elif value < least:
            yield path, f"{text} is very short: {short}", "", "warning"
        elif value > most:
            yield path, f"{text} is very long: {long}", "", "warning"


def _rule(path: Path, rule: Rule, policy: Policy) -> Iterator[Found]:
    if rule.errno is not None:
        if rule.verdict != "deny":
            yield (
                (*path, "errno"),
                f"a rule that says {quoted(rule.verdict)} gives no error",
                'only "deny" does',
                "error",
            )
        elif not isinstance(getattr(errno, rule.errno, None), int):
            import difflib

            near = difflib.get_close_matches(rule.errno, errno.errorcode.values(), 1)
            mend = f"did you mean {quoted(near[0])}?" if near else "it stands in errno(3), like EACCES"
            yield (*path, "errno"), f"Linux knows no error {quoted(rule.errno)}", mend, "error"
    if rule.on_timeout is not None and rule.verdict != "wait":
        yield (
            (*path, "on_timeout"),
            f"a rule that says {quoted(rule.verdict)} waits for nothing",
            'only "wait" does',
            "error",
        )
    operations = {str(word) for word in asks(rule.when).get("operation", ())}
    if rule.verdict == "wait" and operations and not operations & _HELD:
        what = f"{' and '.join(sorted(operations))} cannot wait: it would hold up the directory for everybody"
        yield (*path, "verdict"), what, 'say "stage"', "error"


def _conditions(
    path: Path,
    conditions: Conditions,
    policy: Policy,
    known: Callable[[Literal["user", "group"], str], bool] | None,
) -> Iterator[Found]:
    asked = asks(conditions)
    if not asked and path[-1] == "unless":
        yield path, "asks nothing, so it always holds", "leave it out, or ask something", "error"
    if conditions.process is not None and not any(key.startswith("process.") for key in asked):
        yield (*path, "process"), "asks nothing", "leave it out, or ask something", "error"
    for key, texts in asked.items():
        table: object = conditions
        here = path
        for part in key.split("."):
            table = getattr(table, part)
            here = (*here, part)
        as_list = isinstance(table, list | tuple)
        if as_list and not texts:
            yield (
                here,
                "the list is empty, so this never holds",
                "leave the key out, or name something",
                "error",
            )
        if key in _GLOBS:
            yield from _globs(here, texts, key, as_list=as_list)
        if key in ("process.user", "process.group") and known is not None:
            kind: Literal["user", "group"] = "user" if key == "process.user" else "group"
            for index, name in enumerate(texts):
                if isinstance(name, str) and not known(kind, name):
                    at = (*here, index) if as_list else here
                    yield (
                        at,
                        f"this machine knows no {kind} {quoted(name)}, so this never holds",
                        "",
                        "warning",
                    )
    yield from _never(path, asked, policy)


def _never(path: Path, asked: dict[str, tuple[str | int | bool, ...]], policy: Policy) -> Iterator[Found]:
    """Conditions that cannot hold together, or not under this policy."""
    operations = {str(word) for word in asked.get("operation", ())}
    if operations and operations <= _WITHOUT_RECORD and "record" in asked:
        what = f"{' and '.join(sorted(operations))} writes no record, so this never holds"
        yield (*path, "record"), what, "leave one of the two out", "error"
    if operations and "to" in asked and not operations & _WITH_NAME:
        what = f"{' and '.join(sorted(operations))} has no new name, so this never holds"
        yield (*path, "to"), what, 'it belongs to operation = "rename" or "attributes" (links)', "error"
    if "claim" in asked and not (policy.claims.environment or policy.claims.attribute):
        yield (
            (*path, "claim"),
            "no claim is believed, so this never holds",
            "say in [claims] which are",
            "error",
        )
    if policy.fence.protocol == "none" and "fence" in asked and "none" not in asked["fence"]:
        what = 'there are no fences (fence.protocol = "none"), so this never holds'
        yield (*path, "fence"), what, "", "error"
    if policy.transcripts.lock == "" and "lock" in asked and "free" not in asked["lock"]:
        yield (
            (*path, "lock"),
            'there are no lock files (transcripts.lock = ""), so this never holds',
            "",
            "error",
        )
    for file in ("lock", "registry"):
        if getattr(policy.transcripts, file) == "" and asked.get("file") == (file,):
            what = f'there is no such file (transcripts.{file} = ""), so this never holds'
            yield (*path, "file"), what, "", "error"


def _globs(path: Path, globs: tuple[object, ...], key: str, *, as_list: bool) -> Iterator[Found]:
    for index, glob in enumerate(globs):
        at = (*path, index) if as_list else path
        slip = glob_slip(str(glob), key)
        if slip is not None:
            yield at, *slip


def glob_slip(glob: str, key: str) -> tuple[str, str, Severity] | None:
    """What is wrong with *glob* as a condition on *key*: what, mend, severity."""
    unclosed = _bracket(glob)
    if unclosed is not None:
        return f"in the glob {quoted(glob)}, {unclosed}", "write [[] where the character [ is meant", "error"
    if key in ("path", "to") and glob.startswith(("/", "./", "../")):
        return (
            f"{quoted(glob)} never matches: paths begin below the sessions directory",
            "leave the beginning out",
            "error",
        )
    if key == "process.exe" and glob[0] not in "/*?[":
        return (
            f"{quoted(glob)} never matches: an executable is a whole path",
            f"write {quoted('*/' + glob)}",
            "error",
        )
    if key == "process.thread" and not any(char in glob for char in "*?[") and len(glob.encode()) > _COMM:
        cut = glob.encode()[:_COMM].decode(errors="ignore")
        return (
            f"{quoted(glob)} never matches: the kernel keeps 15 bytes of a name",
            f"write {quoted(cut)}",
            "error",
        )
    if "{" in glob and "}" in glob and "," in glob[glob.index("{") :]:
        return f"braces are plain characters in {quoted(glob)}", "write a list of globs", "warning"
    return None


def _bracket(glob: str) -> str | None:
    """What is wrong with the brackets of *glob*."""
    at = 0
    while (start := glob.find("[", at)) >= 0:
        first = start + 1 + (glob[start + 1 : start + 2] == "!")
        end = glob.find("]", first + 1)
        if end < 0:
            return "a '[' is not closed"
        inside = glob[first:end]
        for place in range(1, len(inside) - 1):
            if inside[place] == "-" and inside[place - 1] > inside[place + 1]:
                return f"the range {quoted(inside[place - 1 : place + 2])} runs backwards"
        at = end + 1
    return None
