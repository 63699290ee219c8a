"""Which processes PID 1 ends, and whom it waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from guardfs.supervise import orphans
from tests.support.container import children
from tests.support.waiting import wait_for


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process and its child."""
    with subprocess.Popen(["sh", "-c", "sleep 600 & echo; wait"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"\n"
        (child,) = children(parent.pid)
        yield parent.pid, child
        os.kill(child, 9)


def test_what_is_kept_is_kept_with_its_children(family: tuple[int, int]) -> None:
    parent, child = family
    assert {parent, child} <= set(orphans.others([]))
    assert not {parent, child} & set(orphans.others([parent]))
    assert {parent} == {parent, child} & set(orphans.others([child]))
    assert os.getpid() not in orphans.others([])


def test_zombies_are_nobody(family: tuple[int, int]) -> None:
    with subprocess.Popen(["true"]) as ended:
        wait_for(lambda: ended.pid not in orphans.others([]), "it to have ended")
        assert os.path.exists(f"/proc/{ended.pid}")


REAP = """
import os, subprocess, sys, time
from guardfs.supervise import orphans
orphans.adopt()
own = subprocess.Popen(["sh", "-c", "exit 7"])
script = 'for i in 1 2 3 4 5 6 7 8 9; do sh -c "(exit 3) & (exit 4) &"; done'
subprocess.run(["sh", "-c", script], check=True)
for _ in range(3000):
    orphans.reap([own])
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        break
    time.sleep(0.01)
else:
    sys.exit("children are left")
print(own.returncode)
"""


def test_all_are_waited_for_and_ones_own_keep_their_status() -> None:
    done = subprocess.run([sys.executable, "-c", REAP], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("7\n", "")
