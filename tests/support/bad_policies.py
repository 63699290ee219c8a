"""Ten ways to spoil a policy file. Each takes the path of a good one, which has rules, and ``"15m"`` in ``[fence]``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Spoil = Callable[[Path], object]

_RULES = "\n[[rules]]\n"


def _edit(change: Callable[[str], str]) -> Spoil:
    def spoil(path: Path) -> None:
        text = path.read_text()
        changed = change(text)
        assert changed != text, "the policy has nothing to spoil"
        path.write_text(changed)

    return spoil


def _first(table: str) -> Spoil:
    """*table* stands before the first rule."""
    return _edit(lambda text: text.replace(_RULES, f"\n{table}\n{_RULES}", 1))


BAD: dict[str, tuple[Spoil, str]] = {
    "syntax": (_edit(lambda text: text + "[["), r":\d+:\d+"),
    "unknown key": (
        _edit(lambda text: text.replace("[fence]", "[fence]\nidle_timeuot = 1", 1)),
        "idle_timeout",
    ),
    "wrong type": (_first('[[lanes]]\nname = "typed"\npath = 8'), r":\d+:\d+.*path"),
    "duplicate name": (
        _first('[[rules]]\nname = "twice"\nverdict = "allow"\nwhen = { path = "a" }\n' * 2),
        "twice",
    ),
    "unreachable rule": (
        _edit(lambda text: text + '\n[[rules]]\nname = "late"\nverdict = "allow"\n'),
        "late|last|reach",
    ),
    "bad glob": (_first('[[lanes]]\nname = "globbed"\npath = "*[a"'), r"\[a"),
    "unknown lane in a rule": (
        _first('[[rules]]\nname = "whose"\nverdict = "allow"\nwhen = { lane = "nobodys" }'),
        "nobodys",
    ),
    "bad duration": (_edit(lambda text: text.replace('"15m"', '"15 mins"', 1)), "15 mins"),
    "writable by others": (lambda path: path.chmod(0o666), "chmod go-w"),
    "file removed": (lambda path: path.unlink(), "gone"),
}
"""By what is wrong: how to make it so, and a regular expression for what is said of it."""
