"""A guard of an ordinary user, over that user's own directory: mounted by fusermount3."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.guard import GUARDFS, Guard, environment
from tests.support.mounts import mounts_below
from tests.support.scraped import Scraped
from tests.support.serving import ANYWHERE
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


UID = pwd.getpwnam("nobody").pw_uid
"""Somebody with an entry in the password file, as fusermount3 wants."""

if not shutil.which("fusermount3"):
    pytest.skip("needs fusermount3 (Debian package fuse3)", allow_module_level=True)
if not os.path.exists("/etc/mtab"):
    pytest.skip("fusermount3 cannot unmount without /etc/mtab", allow_module_level=True)


def _prefix() -> list[str]:
    """Words that make a command run as `UID`, with no right of root's.

    Where the interpreter lies in a directory that is closed to that user (root's own pyenv, say), the command
    keeps the one right to read it: what is tested, mounting without CAP_SYS_ADMIN, stays.
    """
    words = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    again = "import subprocess, sys, guardfs; subprocess.run([sys.executable, '-c', ''], check=True)"
    command = [*words, sys.executable, "-c", again]
    if subprocess.run(command, env=environment(), cwd="/", capture_output=True, check=False).returncode:
        words += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return words


def _with_device(place: Path) -> list[str]:
    """Words that run a command where ordinary users may open /dev/fuse, as udev has it nearly everywhere:
    nothing, or a mount namespace with such a device."""
    if os.stat("/dev/fuse").st_mode & 0o006 == 0o006:
        return []
    node = place / "fuse"
    os.mknod(node, stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
    node.chmod(0o666)
    script = f'mount --bind {node} /dev/fuse && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


@pytest.fixture
def user_guard(place: Path) -> Iterator[Guard]:
    """A running guard of an ordinary user."""
    home = place / "home"
    home.mkdir()
    directory = home / "sessions"
    directory.mkdir()
    beside = place / "own"
    beside.mkdir()
    for path in (home, directory, beside):
        os.chown(path, UID, UID)
    command = [*_with_device(place), *_prefix(), *GUARDFS]
    guard = Guard(directory, beside, "--metrics", ANYWHERE, command=command, env={"HOME": str(home)})
    try:
        guard.launch()
        wait_for(guard.answers, "the guard to answer")
        yield guard
    finally:
        guard.destroy()


def as_nobody(guard: Guard, script: str) -> subprocess.CompletedProcess[str]:
    assert guard.process is not None
    enter = ["nsenter", "-m", "-t", str(guard.process.pid), "--"]  # a mount namespace of its own, perhaps
    return subprocess.run(
        [*enter, *_prefix(), "sh", "-c", script],
        cwd="/",
        env=environment(DIR=str(guard.directory)),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_users_own_directory(user_guard: Guard) -> None:
    guard = user_guard
    done = as_nobody(
        guard,
        'echo one > "$DIR/a.jsonl" && echo two >> "$DIR/a.jsonl" && mv "$DIR/a.jsonl" "$DIR/b.jsonl" && '
        'mkdir "$DIR/d" && ln "$DIR/b.jsonl" "$DIR/d/l" && chmod 640 "$DIR/d/l" && cat "$DIR/d/l"',
    )
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n"), done.stderr
    status = as_nobody(guard, f'{" ".join(GUARDFS)} status --json "$DIR"')
    assert '"mode": "record"' in status.stdout, status.stderr
    metrics = re.search(r"metrics on (http://\S+)", guard.wait_said("metrics on"))
    assert metrics is not None
    assert Scraped(httpx.get(metrics[1]).text).one("guardfs_up") == 1
    assert guard.unmount() == 0, guard.said()
    assert not mounts_below(guard.directory)
    events = guard.events(lambda event: event["op"] == "write")
    assert [event["bytes"] for event in events] == [4, 4]
    assert {event["writer"]["uid"] for event in events} == {UID}
    assert all(event["writer"]["exe"].startswith("/") for event in events)
    assert (guard.directory / "d" / "l").stat().st_uid == UID
    assert (guard.directory / "d" / "l").read_text() == "one\ntwo\n"


def test_unmount_command_of_the_user(user_guard: Guard) -> None:
    done = as_nobody(user_guard, f'{" ".join(GUARDFS)} unmount --force "$DIR"')
    assert done.returncode == 0, done.stderr
    assert user_guard.process is not None
    assert user_guard.process.wait(30) == 0
    assert not mounts_below(user_guard.directory)


def test_a_directory_of_another_is_refused(place: Path) -> None:
    directory = place / "roots"
    directory.mkdir(mode=0o755)
    own = place / "own"
    own.mkdir()
    os.chown(own, UID, UID)
    done = subprocess.run(
        [*_prefix(), *GUARDFS, "mount", str(directory), "--force",
         "--state", str(own / "s"), "--audit", str(own / "a.jsonl")],
        capture_output=True, text=True, env=environment(), cwd="/", timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
