"""Generated TOML documents and policies, for the tests of policy files."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from guardfs.policy.examine import examine
from guardfs.policy.problem import Problem

GOOD = """\
version = 1
[[lanes]]
name = "gateway"
process = { exe = "*/node" }
[[lanes]]
name = "mirror"
within = "gateway"
record = { id = "uuid" }
[[rules]]
name = "stage"
verdict = "stage"
when = { lane = "gateway:mirror", operation = ["append", "create"] }
[[rules]]
name = "rest"
verdict = "allow"
"""


def problems(text: str, **more: Any) -> list[Problem]:
    """All that is wrong with *text*."""
    return list(examine(text.encode(), **more).problems)


def texts(text: str, **more: Any) -> list[str]:
    """The same, as lines of a file "p"."""
    return [problem.text("p") for problem in problems(text, **more)]


def with_rule(rule: str, before: str = "") -> str:
    """A policy with one rule above the last one."""
    last = '[[rules]]\nname = "rest"\nverdict = "allow"\n'
    return f'version = 1\n{before}[[rules]]\nname = "x"\n{rule}\n{last}'


KEYS = st.text(st.sampled_from("abcé𝄞 .\"'\\#=[]-_1"), min_size=0, max_size=5)
"""Keys with all that makes TOML's keys hard."""
