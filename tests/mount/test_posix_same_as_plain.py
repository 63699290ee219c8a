"""The same operations on a plain directory and through a guard: same results, same errnos, same files."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.guard import Guard
from tests.support.machine import FULL, STRANGER
from tests.support.posix import UTIME_NOW, UTIME_OMIT, Side, as_user

pytestmark = pytest.mark.mount

EXAMPLES, STEPS = (5000, 100) if FULL else (400, 60)
SHRINK = FULL or "GUARDFS_SHRINK" in os.environ
"""Whether a failure is made as short as possible first, which takes minutes."""

MAX_OPEN = 6

_LEAVES = [b"a", b"b.jsonl", b"b.jsonl.lock", b"\xff\xfe\x80 not utf-8", "ä € 漢".encode(), b"n" * 255]
_DIRECTORIES = [b"d", b"e.jsonl"]
_ODD = [b".", b"..", b"n" * 256, b"a/below-a-file", b"d/..", b"absent/x", b"d/", b"a/"]
_PATHS = [
    *_LEAVES,
    *_DIRECTORIES,
    *(directory + b"/" + leaf for directory in _DIRECTORIES for leaf in (b"a", b"b.jsonl", b"d")),
]
paths = st.sampled_from(_PATHS) | st.sampled_from(_PATHS + _ODD)
modes = st.sampled_from([0o644, 0o600, 0o755, 0o777, 0o000, 0o4755, 0o2755, 0o6777, 0o1777, 0o2775, 0o444])
access = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
extra = st.lists(
    st.sampled_from([os.O_APPEND, os.O_TRUNC, os.O_EXCL, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_DSYNC]),
    max_size=2,
).map(lambda flags: _or(flags))
DATA = {
    "nothing": b"",
    "x": b"x",
    "record": b'{"type":"message"}\n',
    "page": b"\0" * 4096,
    "long": b"long " * 40_000,
}
data = st.sampled_from(sorted(DATA))
sizes = st.sampled_from([0, 1, 17, 4096, 5000, 131_072])
ids = st.sampled_from([-1, 0, STRANGER, 1])
times = st.sampled_from(
    [(0, UTIME_NOW), (0, UTIME_OMIT), (1_000_000_000, 123_456_789), (1, 999_999_999), (0, 0), (-5, 7)]
)
attributes = st.sampled_from(
    [b"user.note", b"user.guardfs.lane", b"user." + b"x" * 60, b"user.", b"nonsense.x", b"trusted.note"]
)


def _or(flags: list[int]) -> int:
    result = 0
    for flag in flags:
        result |= flag
    return result


class Both(RuleBasedStateMachine):
    """Does each step on both sides and compares; afterwards compares the trees, as root."""

    plain_root: bytes
    guarded_root: bytes
    users: tuple[int, ...] = (0,)
    numbers: Iterator[int] = itertools.count()

    @initialize(mode=st.sampled_from([0o755, 0o777, 0o1777, 0o2777]))
    def begin(self, mode: int) -> None:
        number = next(self.numbers)
        os.umask(0o022)
        bases = []
        for root in (self.plain_root, self.guarded_root):
            base = root + b"/%d" % number
            os.mkdir(base)
            os.chmod(base, mode)
            bases.append(base)
        self.plain, self.guarded = Side(bases[0]), Side(bases[1])

    def teardown(self) -> None:
        os.umask(0o022)
        if hasattr(self, "plain"):
            self.plain.close_all()
            self.guarded.close_all()
            assert self.guarded.tree() == self.plain.tree()

    def both(self, operation: str, *args: Any, user: int = 0) -> Any:
        with as_user(user):
            wanted = self.plain.do(operation, *args)
        with as_user(user):
            found = self.guarded.do(operation, *args)
        assert found == wanted, f"{operation}{args} as {user}: guarded {found!r}, plain {wanted!r}"
        return found

    def user(self, choose: st.DataObject) -> int:
        return (
            choose.draw(st.sampled_from(self.users), label="user") if len(self.users) > 1 else self.users[0]
        )

    # ---- names

    @precondition(lambda self: len(self.plain.open_files) < MAX_OPEN)
    @rule(
        path=paths,
        access=access,
        extra=extra,
        mode=modes,
        mask=st.sampled_from([0, 0o022, 0o077]),
        pick=st.data(),
    )
    def create(self, path: bytes, access: int, extra: int, mode: int, mask: int, pick: st.DataObject) -> None:
        os.umask(mask)
        self.both(
            "create", path, access | extra & ~os.O_DIRECTORY | os.O_NONBLOCK, mode, user=self.user(pick)
        )

    @precondition(lambda self: len(self.plain.open_files) < MAX_OPEN)
    @rule(path=paths, access=access, extra=extra, pick=st.data())
    def open(self, path: bytes, access: int, extra: int, pick: st.DataObject) -> None:
        self.both("open", path, access | extra & ~os.O_EXCL | os.O_NONBLOCK, user=self.user(pick))

    @rule(path=paths, mode=modes, pick=st.data())
    def mkdir(self, path: bytes, mode: int, pick: st.DataObject) -> None:
        self.both("mkdir", path, mode, user=self.user(pick))

    @rule(
        operation=st.sampled_from(["rmdir", "unlink", "readlink", "listing", "listxattr"]),
        path=paths,
        pick=st.data(),
    )
    def with_path(self, operation: str, path: bytes, pick: st.DataObject) -> None:
        self.both(operation, path, user=self.user(pick))

    @rule(points_to=paths, path=paths, pick=st.data())
    def symlink(self, points_to: bytes, path: bytes, pick: st.DataObject) -> None:
        self.both("symlink", points_to, path, user=self.user(pick))

    @rule(source=paths, to=paths, follow=st.booleans(), pick=st.data())
    def link(self, source: bytes, to: bytes, follow: bool, pick: st.DataObject) -> None:
        self.both("link", source, to, follow, user=self.user(pick))

    @rule(source=paths, to=paths, flags=st.sampled_from([0, 0, 1, 2, 3]), pick=st.data())
    def rename(self, source: bytes, to: bytes, flags: int, pick: st.DataObject) -> None:
        self.both("rename", source, to, flags, user=self.user(pick))

    @rule(
        path=paths,
        kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG]),
        mode=modes,
        pick=st.data(),
    )
    def mknod(self, path: bytes, kind: int, mode: int, pick: st.DataObject) -> None:
        device = os.makedev(1, 3) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        self.both("mknod", path, kind | mode, device, user=self.user(pick))

    # ---- attributes

    @rule(path=paths, follow=st.booleans(), pick=st.data())
    def stat(self, path: bytes, follow: bool, pick: st.DataObject) -> None:
        self.both("stat", path, follow, user=self.user(pick))

    @rule(path=paths, mode=modes, pick=st.data())
    def chmod(self, path: bytes, mode: int, pick: st.DataObject) -> None:
        self.both("chmod", path, mode, user=self.user(pick))

    @rule(path=paths, uid=ids, gid=ids, follow=st.booleans(), pick=st.data())
    def chown(self, path: bytes, uid: int, gid: int, follow: bool, pick: st.DataObject) -> None:
        # chown(-1, -1) clears set-id bits, but FUSE is asked nothing when it changes nothing else
        hypothesis.assume((uid, gid) != (-1, -1))
        self.both("chown", path, uid, gid, follow, user=self.user(pick))

    @rule(path=paths, size=sizes, pick=st.data())
    def truncate(self, path: bytes, size: int, pick: st.DataObject) -> None:
        self.both("truncate", path, size, user=self.user(pick))

    @rule(path=paths, atime=times, mtime=times, pick=st.data())
    def utimens(
        self, path: bytes, atime: tuple[int, int], mtime: tuple[int, int], pick: st.DataObject
    ) -> None:
        self.both("utimens", path, atime, mtime, user=self.user(pick))

    @rule(
        path=paths,
        name=attributes,
        value=st.sampled_from([b"", b"v", b"\xff" * 20]),
        flags=st.sampled_from([0, 1, 2]),
        pick=st.data(),
    )
    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int, pick: st.DataObject) -> None:
        self.both("setxattr", path, name, value, flags, user=self.user(pick))

    @rule(operation=st.sampled_from(["getxattr", "removexattr"]), path=paths, name=attributes, pick=st.data())
    def xattr(self, operation: str, path: bytes, name: bytes, pick: st.DataObject) -> None:
        self.both(operation, path, name, user=self.user(pick))

    # ---- open files

    def index(self, choose: st.DataObject) -> int:
        return choose.draw(st.integers(0, len(self.plain.open_files) - 1), label="open file")

    has_open = precondition(lambda self: bool(self.plain.open_files))

    @has_open
    @rule(content=data, pick=st.data())
    def write(self, content: str, pick: st.DataObject) -> None:
        self.both("write", self.index(pick), DATA[content], user=self.user(pick))

    @has_open
    @rule(content=data, offset=sizes, pick=st.data())
    def pwrite(self, content: str, offset: int, pick: st.DataObject) -> None:
        self.both("pwrite", self.index(pick), DATA[content], offset, user=self.user(pick))

    @has_open
    @rule(size=sizes, pick=st.data())
    def read(self, size: int, pick: st.DataObject) -> None:
        self.both("read", self.index(pick), size)

    @has_open
    @rule(size=sizes, offset=sizes, pick=st.data())
    def pread(self, size: int, offset: int, pick: st.DataObject) -> None:
        self.both("pread", self.index(pick), size, offset)

    @has_open
    @rule(offset=sizes, whence=st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]), pick=st.data())
    def seek(self, offset: int, whence: int, pick: st.DataObject) -> None:
        self.both("seek", self.index(pick), offset, whence)

    @has_open
    @rule(size=sizes, pick=st.data())
    def ftruncate(self, size: int, pick: st.DataObject) -> None:
        self.both("ftruncate", self.index(pick), size, user=self.user(pick))

    @has_open
    @rule(mode=modes, pick=st.data())
    def fchmod(self, mode: int, pick: st.DataObject) -> None:
        self.both("fchmod", self.index(pick), mode, user=self.user(pick))

    @has_open
    @rule(operation=st.sampled_from(["fstat", "fsync", "close", "close"]), pick=st.data())
    def with_file(self, operation: str, pick: st.DataObject) -> None:
        self.both(operation, self.index(pick))


@pytest.fixture(scope="module")
def roots(module_guard: Guard, module_place: Path) -> tuple[bytes, bytes]:
    """A plain directory and the guarded one, on the same file system."""
    plain = module_place / "plain"
    plain.mkdir()
    return os.fsencode(plain), os.fsencode(module_guard.directory)


@pytest.mark.parametrize(
    "users", [(0,), (STRANGER,), (0, STRANGER)], ids=["root", "other-user", "both-in-turn"]
)
def test_random_operations_have_the_same_outcome(roots: tuple[bytes, bytes], users: tuple[int, ...]) -> None:
    machine: type[Both] = type(
        "Machine", (Both,), {"plain_root": roots[0], "guarded_root": roots[1], "users": users}
    )
    settings = hypothesis.settings(
        max_examples=EXAMPLES if users == (0,) else EXAMPLES // 2,
        stateful_step_count=STEPS,
        report_multiple_bugs=False,
        phases=[phase for phase in hypothesis.Phase if SHRINK or phase is not hypothesis.Phase.shrink],
    )
    run_state_machine_as_test(machine, settings=settings)
