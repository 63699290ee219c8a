"""The demo's second process on the same session, like `openclaw agent --local`; honours the lock file.

python agent.py TRANSCRIPT ROUNDS
"""

from __future__ import annotations

import sys
import time

import pi

SECONDS = 0.9  # between two rounds: somebody types


def main() -> None:
    path, rounds = sys.argv[1], int(sys.argv[2])
    pi.name_thread("agent")
    for number in range(rounds):
        time.sleep(SECONDS)
        with pi.lock_cycle(path):
            parent = pi.append(path, pi.message("user", f"typed in a terminal {number}", pi.leaf(path)))
        with pi.lock_cycle(path):
            pi.append(
                path,
                pi.message("assistant", f"answered there {number}", parent, provider="demo", model="demo-1"),
            )


if __name__ == "__main__":
    main()
