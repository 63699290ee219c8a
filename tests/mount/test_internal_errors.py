"""An error of the guard's own in each operation in turn: EIO or success for the caller, never a hang, never
done twice, and the mount lives on."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import watched
from tests.support.faulty import FAULTS
from tests.support.guard import Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


class Faulty:
    """A guard with a switch for its faults."""

    def __init__(self, place: Path) -> None:
        self.switch = place / "faults"
        self.switch.write_text("")
        directory = place / "sessions"
        directory.mkdir()
        self.guard = Guard(
            directory,
            place / "beside",
            command=[sys.executable, "-m", "tests.support.faulty"],
            env={FAULTS: str(self.switch)},
        )
        self.guard.expected = [
            "internal error",
            "Traceback",
            "InjectedError",
            "request failed outside",
            "nor can the",
        ]
        self.number = 0

    def fresh(self) -> Path:
        """A directory of files that the kernel has not looked at through the mount."""
        self.number += 1
        below = self.guard.directory / f"case-{self.number}"
        below.mkdir()
        (below / "file").write_bytes(b"content")
        (below / "gone").write_bytes(b"")
        (below / "dir").mkdir()
        (below / "link").symlink_to("file")
        os.setxattr(below / "file", "user.note", b"v")
        return below

    @contextmanager
    def fault(self, where: str, what: str) -> Iterator[None]:
        self.switch.write_text(f"{where} {what}")
        try:
            yield
        finally:
            self.switch.write_text("")

    def errors(self) -> int:
        return int(self.guard.status()["internal_errors"]["count"])


@pytest.fixture(scope="module")
def faulty(module_place: Path) -> Iterator[Faulty]:
    made = Faulty(module_place)
    with watched([made.guard]):
        try:
            made.guard.start()
            yield made
            # no check of descriptors: an error injected between an operation and its thread loses the latter's
            assert made.guard.unmount() == 0
            made.guard.check_said()
        finally:
            made.guard.destroy()


Act = Callable[[Path], object]


def _with_file(flags: int, act: Callable[[int], object]) -> Act:
    def run(below: Path) -> object:
        fd = os.open(below / "file", flags)
        try:
            return act(fd)
        finally:
            os.close(fd)

    return run


def _sync_directory(below: Path) -> None:
    fd = os.open(below / "dir", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _forget(below: Path) -> None:
    os.unlink(below / "gone")
    os.stat(below)


ACTS: dict[str, tuple[str, Act]] = {
    "lookup": ("lookup", lambda below: os.stat(below / "never looked at")),
    "getattr": ("getattr", _with_file(os.O_RDONLY, lambda fd: os.fstat(fd))),
    "chmod": ("setattr", lambda below: os.chmod(below / "file", 0o600)),
    "truncate": ("setattr", lambda below: os.truncate(below / "file", 3)),
    "utimens": ("setattr", lambda below: os.utime(below / "file", (1, 1))),
    "readlink": ("readlink", lambda below: os.readlink(below / "link")),
    "mknod": ("mknod", lambda below: os.mknod(below / "fifo", stat.S_IFIFO | 0o600)),
    "mkdir": ("mkdir", lambda below: os.mkdir(below / "made")),
    "unlink": ("unlink", lambda below: os.unlink(below / "gone")),
    "rmdir": ("rmdir", lambda below: os.rmdir(below / "dir")),
    "symlink": ("symlink", lambda below: os.symlink("x", below / "made-link")),
    "rename": ("rename", lambda below: os.rename(below / "gone", below / "there")),
    "link": ("link", lambda below: os.link(below / "file", below / "second")),
    "open": ("open", lambda below: os.close(os.open(below / "file", os.O_RDONLY))),
    "read": ("read", _with_file(os.O_RDONLY, lambda fd: os.read(fd, 10))),
    "append": ("write", _with_file(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"+more"))),
    "fsync": ("fsync", _with_file(os.O_WRONLY, os.fsync)),
    "fdatasync": ("fsync", _with_file(os.O_WRONLY, os.fdatasync)),
    "readdir": ("readdir", lambda below: os.listdir(below / "dir")),
    "fsyncdir": ("fsyncdir", _sync_directory),
    "statfs": ("statfs", os.statvfs),
    "setxattr": ("setxattr", lambda below: os.setxattr(below / "file", "user.new", b"1")),
    "getxattr": ("getxattr", lambda below: os.getxattr(below / "file", "user.note")),
    "listxattr": ("listxattr", lambda below: os.listxattr(below / "file")),
    "removexattr": ("removexattr", lambda below: os.removexattr(below / "file", "user.note")),
    "create": ("create", lambda below: os.close(os.open(below / "new", os.O_WRONLY | os.O_CREAT, 0o600))),
}

UNHEARD: dict[str, Act] = {
    "release": _with_file(os.O_RDONLY, lambda fd: None),
    "forget": _forget,
}
"""Operations whose answer nobody waits for."""


def usable(directory: Path) -> None:
    """The mount serves everything, after all that."""
    path = directory / "after.jsonl"
    path.write_text("one\n")
    with path.open("a") as file:
        file.write("two\n")
    assert path.read_text() == "one\ntwo\n"
    assert "after.jsonl" in os.listdir(directory)
    path.unlink()


def backing(faulty: Faulty, below: Path) -> Path:
    """The same directory, looked at from beneath the mount: through the daemon's own descriptor."""
    for fd in Path(f"/proc/{faulty.guard.daemon}/fd").iterdir():
        try:
            info = os.stat(fd)
        except OSError:
            continue
        if stat.S_ISDIR(info.st_mode) and os.minor(info.st_dev) != faulty.guard.connection:
            return fd / below.name
    raise AssertionError("no descriptor of the directory below")


@pytest.mark.parametrize("name", ACTS)
def test_an_error_before_the_operation_acts(faulty: Faulty, name: str) -> None:
    operation, act = ACTS[name]
    below = faulty.fresh()
    before = faulty.errors()
    names = sorted(os.listdir(backing(faulty, below)))
    with faulty.fault("before", operation), pytest.raises(OSError) as caught:
        act(below)
    assert caught.value.errno == errno.EIO
    assert faulty.errors() > before
    assert sorted(os.listdir(backing(faulty, below))) == names, "it acted all the same"
    assert (backing(faulty, below) / "file").read_bytes() == b"content"
    usable(faulty.guard.directory)


@pytest.mark.parametrize("name", ACTS)
def test_an_error_after_the_operation_has_acted(faulty: Faulty, name: str) -> None:
    operation, act = ACTS[name]
    below = faulty.fresh()
    before = faulty.errors()
    with faulty.fault("after", operation):
        try:
            act(below)
        except OSError as error:
            # lookups of what is not there, and calls that need a name that is by now gone, say so
            assert error.errno in (errno.EIO, errno.ENOENT, errno.EEXIST)
    assert faulty.errors() > before
    found = (backing(faulty, below) / "file").read_bytes()
    assert found == {"append": b"content+more", "truncate": b"con"}.get(name, b"content"), (
        "done twice, or not"
    )
    usable(faulty.guard.directory)


@pytest.mark.parametrize("operation", UNHEARD)
def test_an_error_where_nobody_waits_for_the_answer(faulty: Faulty, operation: str) -> None:
    below = faulty.fresh()
    before = faulty.errors()
    with faulty.fault("before", operation):
        UNHEARD[operation](below)
        wait_for(lambda: _counted(faulty) > before, f"an error in {operation} to be counted")
    usable(faulty.guard.directory)


def _counted(faulty: Faulty) -> int:
    return faulty.errors()


@pytest.mark.parametrize("where", ["writer", "emit"])
@pytest.mark.parametrize(
    "name", ["append", "chmod", "create", "unlink", "rename", "mkdir", "link", "setxattr"]
)
def test_an_error_while_it_is_told_to_the_log_is_not_the_callers(
    faulty: Faulty, name: str, where: str
) -> None:
    _, act = ACTS[name]
    below = faulty.fresh()
    before = faulty.errors()
    with faulty.fault(where, "*"):
        act(below)
        wait_for(lambda: _counted(faulty) > before, "the error to be counted, which is after the answer")
    found = (backing(faulty, below) / "file").read_bytes()
    assert found == (b"content+more" if name == "append" else b"content")
    usable(faulty.guard.directory)


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("fsync", _with_file(os.O_WRONLY, os.fsync)),
        ("fdatasync", _with_file(os.O_WRONLY, os.fdatasync)),
    ],
)
def test_an_error_in_a_thread(faulty: Faulty, what: str, act: Act) -> None:
    below = faulty.fresh()
    before = faulty.errors()
    with faulty.fault("work", what), pytest.raises(OSError) as caught:
        act(below)
    assert caught.value.errno == errno.EIO
    assert faulty.errors() > before
    assert faulty.guard.status()["detached"] == 0
    assert (backing(faulty, below) / "file").read_bytes() == b"content"
    act(below)
    usable(faulty.guard.directory)
