"""The demo's second process on the same session, like `openclaw agent --local`; honours the lock file, which helps
nobody: the gateway lets go of it while its own reply streams.

    python agent.py TRANSCRIPT ROUNDS

SIGTERM: the round under way is the last.
"""

from __future__ import annotations

import signal
import sys
import time

import pi

SECONDS = 0.9  # between two rounds: somebody types


def main() -> None:
    path, left = sys.argv[1], int(sys.argv[2])

    def end(number: int, frame: object) -> None:
        nonlocal left
        left = 0

    signal.signal(signal.SIGTERM, end)
    pi.name_thread("agent")
    number = 0
    while number < left:
        time.sleep(SECONDS)
        with pi.lock_cycle(path):
            parent = pi.append(path, pi.message("user", f"typed in a terminal {number}", pi.leaf(path)))
        with pi.lock_cycle(path):
            pi.append(
                path,
                pi.message("assistant", f"answered there {number}", parent, provider="demo", model="demo-1"),
            )
        time.sleep(SECONDS / 2)
        with pi.lock_cycle(path):  # only an assistant's: a turn survives that, and then forgets it
            pi.append(path, pi.message("assistant", f"a reminder {number}", pi.leaf(path), model="demo-1"))
        number += 1


if __name__ == "__main__":
    main()
