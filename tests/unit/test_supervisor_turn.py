"""A child that ends while the supervisor is busy wakes it all the same."""

from __future__ import annotations

import subprocess
import sys

from tests.support.guard import environment

_CODE = """
import os, select, signal, time
from guardfs.supervise import orphans
from guardfs.supervise.signals import Signals
from guardfs.supervise.supervisor import Supervisor

signals = Signals()
supervisor = Supervisor([], signals)
real = orphans.reap

def reap(own):
    real(own)
    os.kill(os.getpid(), signal.SIGCHLD)  # the daemon ends only now, though its end of the socket was closed before
    os.kill(os.getpid(), signal.SIGTERM)

orphans.reap = reap
os.kill(os.getpid(), signal.SIGCHLD)
first = supervisor._turn(time.monotonic() + 60)
orphans.reap = real
ready, _, _ = select.select([signals], [], [], 0)
second = supervisor._turn(time.monotonic() + 60) if ready else None
print(first, second == [signal.SIGTERM])
"""


def test_the_end_of_a_child_that_comes_after_the_look_for_it_is_not_taken_for_seen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split("\n")[0] == "[] True", done
