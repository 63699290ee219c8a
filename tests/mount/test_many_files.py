"""Sizes and numbers: many files with few descriptors, large files, many appenders, and what belongs to whom."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.guard import GUARDFS, Guard
from tests.support.machine import FULL, STRANGER
from tests.support.posix import as_user
from tests.support.running import start_writer

pytestmark = pytest.mark.mount

FILES = 100_000 if FULL else 20_000
APPENDS = 5000 if FULL else 300


def test_many_files_with_few_descriptors(new_guard: StartGuard, place: Path) -> None:
    directory = place / "many"
    directory.mkdir()
    for number in range(FILES):
        os.close(os.open(directory / f"session-{number:06}.jsonl", os.O_CREAT | os.O_WRONLY, 0o644))
    limited = ["prlimit", f"--nofile={4096}:{4096}", *GUARDFS]
    guard = new_guard(directory=directory, command=limited).start()
    assert resource.prlimit(guard.daemon, resource.RLIMIT_NOFILE) == (4096, 4096)
    for _ in range(2):
        names = os.listdir(directory)
        assert len(names) == FILES
        for name in names:
            assert os.stat(directory / name).st_nlink == 1
    open_files = [os.open(directory / f"session-{number:06}.jsonl", os.O_RDONLY) for number in range(1000)]
    status = guard.status()
    for fd in open_files:
        os.close(fd)
    assert status["daemon"]["resident"] < 250_000_000, status["daemon"]
    assert status["daemon"]["descriptors"] < 4096
    guard.stop()


def test_a_deep_tree_with_few_descriptors(new_guard: StartGuard) -> None:
    limited = ["prlimit", "--nofile=128:128", *GUARDFS]
    guard = new_guard(command=limited).start()
    for number in range(300):
        deep = guard.directory / f"{number % 7}" / f"{number}"
        deep.mkdir(parents=True)
        (deep / "f.jsonl").write_text(f"{number}\n")
    for number in range(300):
        assert (guard.directory / f"{number % 7}" / f"{number}" / "f.jsonl").read_text() == f"{number}\n"
    (guard.directory / "0" / "0").rename(guard.directory / "6" / "moved")
    assert (guard.directory / "6" / "moved" / "f.jsonl").read_text() == "0\n"
    shutil.rmtree(guard.directory / "3")
    assert guard.status()["daemon"]["descriptors"] < 128
    guard.stop()


def test_a_path_longer_than_path_max(guard: Guard) -> None:
    here = os.open(guard.directory, os.O_RDONLY)
    try:
        for _ in range(30):
            os.mkdir("d" * 200, dir_fd=here)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        fd = os.open("deep.jsonl", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
        os.write(fd, b"reached\n")
        os.close(fd)
        os.rename("deep.jsonl", "deeper.jsonl", src_dir_fd=here, dst_dir_fd=here)
        assert os.stat("deeper.jsonl", dir_fd=here).st_size == 8
        assert os.listdir(here) == ["deeper.jsonl"]
    finally:
        os.close(here)


def test_a_file_over_4_gigabytes(guard: Guard) -> None:
    path = guard.directory / "large"
    far = 5 * 2**30 + 7
    with path.open("wb") as file:
        os.pwrite(file.fileno(), b"far away", far)
    assert path.stat().st_size == far + 8
    with path.open("rb") as file:
        assert os.pread(file.fileno(), 100, far) == b"far away"
        assert os.pread(file.fileno(), 4, 2**32 - 2) == b"\0\0\0\0"
    os.truncate(path, 2**32 + 1)
    assert path.stat().st_size == 2**32 + 1


@pytest.mark.parametrize("name", ["shared.jsonl", "shared.txt"])
def test_eight_processes_append_to_one_file(guard: Guard, name: str) -> None:
    path = guard.directory / name
    writers = [start_writer("append_count", path, f"w{number}", APPENDS) for number in range(8)]
    for writer in writers:
        _, said = writer.communicate(timeout=300)
        assert writer.returncode == 0, said
    seen: dict[bytes, int] = {}
    for line in path.read_bytes().splitlines():
        worker, number = line.split(b",")[:2]
        assert line.endswith(b'"}')
        assert int(number.partition(b":")[2]) == seen.get(worker, 0), "lost, doubled or out of order"
        seen[worker] = seen.get(worker, 0) + 1
    assert sorted(seen.values()) == [APPENDS] * 8
    writes = [event for event in guard.settle() if event["op"] == "write" and event["path"] == name]
    assert sum(event["bytes"] for event in writes) == path.stat().st_size
    assert {event["writer"]["tgid"] for event in writes} == {writer.pid for writer in writers}


def test_an_unlinked_file_lives_as_long_as_it_is_open(guard: Guard) -> None:
    path = guard.directory / "u.jsonl"
    path.write_text("one\n")
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY)
    path.unlink()
    path.write_text("another file\n")
    os.lseek(first, 0, os.SEEK_END)
    os.write(first, b"two\n")
    os.close(first)
    assert os.pread(second, 100, 0) == b"one\ntwo\n"
    info = os.fstat(second)
    assert (info.st_nlink, info.st_size) == (0, 8)
    os.fchmod(second, 0o600)
    assert os.fstat(second).st_mode & 0o777 == 0o600
    assert path.read_text() == "another file\n"
    os.close(second)


def test_unlinked_and_closed_files_leave_no_descriptor(guard: Guard) -> None:
    for number in range(500):
        path = guard.directory / f"{number}.jsonl"
        path.write_text("x")
        with path.open() as file:
            path.unlink()
            assert file.read() == "x"
    guard.check_idle()
    assert guard.status()["path_descriptors"] < 60, guard.status()


def test_set_id_bits_go_when_another_user_writes(guard: Guard) -> None:
    for mode, left in ((0o4777, 0o777), (0o2777, 0o777), (0o6777, 0o777), (0o2767, 0o2767)):
        for how in ("write", "truncate", "ftruncate", "O_TRUNC"):
            path = guard.directory / f"{mode:o}-{how}"
            path.write_text("content")
            path.chmod(mode)
            os.chown(path, STRANGER + 1, STRANGER + 1)
            path.chmod(mode)
            plain_left = left
            with as_user(STRANGER):
                if how == "truncate":
                    os.truncate(path, 2)
                else:
                    fd = os.open(path, os.O_RDWR | (os.O_TRUNC if how == "O_TRUNC" else 0))
                    if how == "write":
                        os.write(fd, b"x")
                    elif how == "ftruncate":
                        os.ftruncate(fd, 2)
                    os.close(fd)
            if mode == 0o2767:
                continue  # set-gid without group execute: mandatory locking once, kernels differ
            assert stat.S_IMODE(path.stat().st_mode) == plain_left, (oct(mode), how)


def test_what_is_made_belongs_to_its_maker_and_to_a_set_gid_directorys_group(guard: Guard) -> None:
    shared = guard.directory / "shared"
    shared.mkdir()
    os.chown(shared, 0, STRANGER + 7)
    shared.chmod(0o2777)
    guard.directory.chmod(0o777)
    os.umask(0o027)
    try:
        with as_user(STRANGER):
            (shared / "file").write_text("x")
            (shared / "dir").mkdir()
            (guard.directory / "own").write_text("x")
            os.symlink("x", guard.directory / "link")
            os.mkfifo(guard.directory / "fifo", 0o666)
    finally:
        os.umask(0o022)
    found = (shared / "file").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (STRANGER, STRANGER + 7, 0o640)
    found = (shared / "dir").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (STRANGER, STRANGER + 7, 0o2750)
    for name, mode in (("own", 0o640), ("link", 0o777), ("fifo", 0o640)):
        found = os.lstat(guard.directory / name)
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (STRANGER, STRANGER, mode)


@pytest.mark.skipif(not shutil.which("setfacl"), reason="needs setfacl (Debian package acl)")
def test_default_acls_decide_the_mode_instead_of_the_umask(guard: Guard, place: Path) -> None:
    found = []
    for root in (place / "plain", guard.directory / "guarded"):
        root.mkdir()
        subprocess.run(
            ["setfacl", "-d", "-m", f"u::rwx,g::rwx,o::-,u:{STRANGER}:rwx,m::rwx", root], check=True
        )
        os.umask(0o077)
        try:
            (root / "file").touch()
            (root / "dir").mkdir()
        finally:
            os.umask(0o022)
        listed = [
            subprocess.run(["getfacl", "-cn", name], cwd=root, check=True, capture_output=True).stdout
            for name in ("file", "dir")
        ]
        with as_user(STRANGER):
            listed.append(b"readable" if os.access(root / "file", os.R_OK, effective_ids=True) else b"closed")
        found.append(listed)
    assert found[0] == found[1]
