"""A gateway in a turn, for tests that end it: ``python -m tests.support.turning DIR``.

Says ``streaming`` once its first record is written and it lets go of the lock. At SIGTERM it writes what it has of
the reply, ends its turn, says ``ended`` and exits with status 143. With ``rude`` as a further word it dies at SIGTERM
with its lock file still there.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.support.agent import Agent


def main() -> None:
    directory, rude = Path(sys.argv[1]), sys.argv[2:] == ["rude"]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    agent = Agent(directory)
    agent.begin()
    print("streaming", flush=True)
    signal.sigwait([signal.SIGTERM])
    if rude:
        agent.lock.write_text(f'{{"pid":{os.getpid()}}}')
        os._exit(3)
    agent.delta()
    agent.end()
    print("ended", flush=True)
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
