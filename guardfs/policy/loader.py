"""Load one policy file and say, in JSON, what it is: `python -P -m guardfs.policy.loader NAME_OR_PATH`.

A process of its own, so that no parse, no memory and no crash of a parser written in C can touch the requests that
the daemon answers. It bounds itself before it reads anything.

Standard output: ``{"policy": ..., "digest": "...", "warnings": [...]}``, or ``{"problems": [...], "digest": ...}``
with the digest null where nothing could be read. Exit status: 0, or 1 with problems.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

CPU_SECONDS = 10
MEMORY = 1 << 30
"""Bytes of address space; the interpreter and its libraries take some 100 MB of it."""


def bound() -> None:
    """From now on this process ends when it takes too long, and gets no more memory than its share."""
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        if hard == resource.RLIM_INFINITY or hard > value:
            resource.setrlimit(limit, (value, value))
    os.nice(5)  # the agent's requests come first
    signal.alarm(2 * CPU_SECONDS)  # nobody may be left to end it


def load_as_json(name_or_path: str) -> tuple[str, int]:
    """What is written, and the exit status. ASCII; a path that is not UTF-8 stands in it as escaped surrogates."""
    import json  # here, so that it comes after `bound`

    import msgspec

    from guardfs.policy.load import load
    from guardfs.policy.problem import PolicyError

    try:
        found = load(name_or_path)
    except PolicyError as error:
        said: dict[str, object] = {"problems": error.problems, "digest": error.digest}
        return json.dumps(msgspec.to_builtins(said)), 1
    said = {"policy": found.policy, "digest": found.digest, "warnings": found.warnings}
    return json.dumps(msgspec.to_builtins(said)), 0


def main() -> int:
    """Entry point."""
    bound()
    written, status = load_as_json(sys.argv[1])
    sys.stdout.write(written)
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
