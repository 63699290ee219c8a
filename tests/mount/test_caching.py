"""What the kernel may remember: a change made below the mount is seen, once told, and the guard's own never."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from guardfs.mount import libc
from tests.conftest import watched
from tests.support.guard import Event, Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

AT_FDCWD = -100
SOON = 20.0
"""Deadline for what should take a fraction of a second; no test asserts how long it took."""


class Pair(NamedTuple):
    """The guard, its directory through the mount, and the same directory beneath it."""

    guard: Guard
    seen: Path
    below: Path

    def unseen(self, path: str) -> list[Event]:
        return [event for event in self.guard.settle() if event["op"] == "unseen" and event["path"] == path]


@pytest.fixture
def pair(place: Path) -> Iterator[Pair]:
    directory, below = place / "sessions", place / "below"
    directory.mkdir()
    below.mkdir()
    subprocess.run(["mount", "--bind", directory, below], check=True)
    # without this, the guard's mount would show up there as well where mounts are shared
    subprocess.run(["mount", "--make-private", below], check=True)
    guard = Guard(directory, place / "beside")
    try:
        with watched([guard]):
            guard.start()
            yield Pair(guard, directory, below)
            guard.stop()
    finally:
        guard.destroy()
        subprocess.run(["umount", below], check=True)


def content(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def settle(pair: Pair) -> None:
    """Let events of earlier steps be compared: a marker that is made below comes out after them."""
    marker = pair.below / f"marker-{os.urandom(4).hex()}"
    marker.touch()
    pair.guard.wait_event(lambda event: event["op"] == "unseen" and event["path"] == marker.name)


def test_other_files_are_remembered_at_all(pair: Pair) -> None:
    """Without this, the tests below would prove nothing."""
    path = pair.seen / "remembered"
    path.write_text("x")
    assert content(path) == "x"
    path.stat()
    before = pair.guard.status()["operations"]
    for _ in range(200):
        path.stat()
    after = pair.guard.status()["operations"]
    for name in ("lookup", "getattr"):
        assert after.get(name, 0) - before.get(name, 0) < 20


def test_every_look_at_a_transcript_is_seen(pair: Pair) -> None:
    path = pair.seen / "t.jsonl"
    path.write_text("x\n")
    before = len(pair.guard.settle())
    for _ in range(50):
        path.stat()
    looks = [e for e in pair.guard.settle()[before:] if e["op"] == "look" and e["path"] == "t.jsonl"]
    assert len(looks) >= 50


def asked(pair: Pair) -> int:
    """How often the kernel has asked about a name or its attributes."""
    operations: dict[str, int] = pair.guard.status()["operations"]
    return operations.get("lookup", 0) + operations.get("getattr", 0)


def test_a_lock_file_that_is_there_is_not_asked_about_and_one_that_is_not_each_time(pair: Pair) -> None:
    lock = pair.seen / "t.jsonl.lock"
    before = asked(pair)
    for _ in range(50):
        assert not lock.exists()
    assert asked(pair) - before >= 50
    lock.write_text("mine")
    assert lock.stat().st_size == 4
    before = asked(pair)
    for _ in range(50):
        assert lock.stat().st_size == 4
    assert asked(pair) - before < 10
    with pytest.raises(FileExistsError):
        lock.open("x")
    lock.unlink()
    assert not lock.exists()
    lock.open("x").close()


def test_a_lock_file_that_was_made_below_is_asked_about_each_time(pair: Pair) -> None:
    lock, below = pair.seen / "t.jsonl.lock", pair.below / "t.jsonl.lock"
    below.touch()
    assert lock.stat().st_size == 0
    below.write_text("theirs")
    assert lock.read_text() == "theirs" and lock.stat().st_size == 6
    below.unlink()
    assert not lock.exists()


def test_what_is_done_below_to_a_lock_file_of_ours_is_seen(pair: Pair) -> None:
    lock, below = pair.seen / "t.jsonl.lock", pair.below / "t.jsonl.lock"
    lock.write_text("mine")
    assert lock.read_text() == "mine"
    settle(pair)
    below.write_text("not yours any more")
    wait_for(lambda: lock.read_text() == "not yours any more", "the new content", SOON)
    below.unlink()
    wait_for(lambda: content(lock) is None, "the removal", SOON)
    lock.open("x").close()


Change = Callable[[Pair], None]


def _created(pair: Pair) -> None:
    path = pair.seen / "f"
    assert content(path) is None and not path.exists()  # known not to exist
    (pair.below / "f").write_text("new")
    wait_for(lambda: content(path) == "new" and "f" in os.listdir(pair.seen), "the new file", SOON)


def _removed(pair: Pair) -> None:
    path = pair.seen / "f"
    path.write_text("old")
    assert content(path) == "old"
    settle(pair)
    (pair.below / "f").unlink()
    wait_for(lambda: content(path) is None and "f" not in os.listdir(pair.seen), "the removal", SOON)


def _replaced(pair: Pair) -> None:
    path = pair.seen / "f"
    path.write_text("old")
    assert content(path) == "old"
    settle(pair)
    (pair.below / "elsewhere").mkdir()
    (pair.below / "elsewhere" / "f.tmp").write_text("other content")
    (pair.below / "elsewhere" / "f.tmp").rename(pair.below / "f")
    wait_for(lambda: content(path) == "other content", "the replacement", SOON)


def _modified(pair: Pair) -> None:
    path = pair.seen / "f"
    path.write_text("old")
    assert content(path) == "old"
    settle(pair)
    (pair.below / "f").write_bytes(b"longer than before")
    wait_for(lambda: content(path) == "longer than before", "the new content", SOON)


def _attributes(pair: Pair) -> None:
    path = pair.seen / "f"
    path.write_text("x")
    path.chmod(0o600)
    path.stat()
    settle(pair)
    (pair.below / "f").chmod(0o640)
    wait_for(lambda: path.stat().st_mode & 0o777 == 0o640, "the new mode", SOON)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_created, {"created"}),
        (_removed, {"removed"}),
        (_replaced, {"replaced"}),
        # open(O_TRUNC) and write are two changes; inotify may tell of them together or apart
        (_modified, {"modified"}),
        (_attributes, {"attributes"}),
    ],
)
def test_a_change_below_is_seen_and_told(pair: Pair, change: Change, what: set[str]) -> None:
    change(pair)
    settle(pair)
    found = pair.unseen("f")
    assert {event["change"] for event in found} == what
    assert len(found) == 1 or (what <= {"modified", "created"} and len(found) <= 2), found
    assert all(event["lane"] == "unseen" and "writer" not in event for event in found)


def test_a_change_of_a_transcript_below_is_seen_at_once(pair: Pair) -> None:
    path, below = pair.seen / "t.jsonl", pair.below / "t.jsonl"
    path.write_text("one\n")
    assert content(path) == "one\n"
    for number in range(50):
        with below.open("a") as file:
            file.write(f"{number}\n")
        assert path.stat().st_size == below.stat().st_size
        assert content(path) == below.read_text()
    below.unlink()
    assert not path.exists()
    below.write_text("again\n")
    assert content(path) == "again\n"


def test_one_append_below_to_a_transcript_is_told_once(pair: Pair) -> None:
    path = pair.seen / "t.jsonl"
    path.write_text("one\n")
    settle(pair)
    with (pair.below / "t.jsonl").open("a") as file:
        file.write("two\n")
    for _ in range(10):
        path.stat()
    settle(pair)
    (event,) = pair.unseen("t.jsonl")
    assert event["change"] == "modified"
    assert (event["before"]["size"], event["after"]["size"]) == (4, 8)


def test_a_change_below_between_two_appends_of_the_guard_is_told_once(pair: Pair) -> None:
    with (pair.seen / "t.jsonl").open("ab", buffering=0) as through:
        through.write(b"one\n")
        settle(pair)
        with (pair.below / "t.jsonl").open("ab") as file:
            file.write(b"foreign\n")
        through.write(b"two\n")
    settle(pair)
    assert (pair.below / "t.jsonl").read_bytes() == b"one\nforeign\ntwo\n"
    assert len(pair.unseen("t.jsonl")) == 1
    writes = [e for e in pair.guard.events() if e["op"] == "write" and e["path"] == "t.jsonl"]
    assert [(event["offset"], event["bytes"]) for event in writes] == [(0, 4), (12, 4)]


def test_changes_below_in_a_subdirectory(pair: Pair) -> None:
    (pair.seen / "sub" / "deep").mkdir(parents=True)
    assert os.listdir(pair.seen / "sub" / "deep") == []
    (pair.below / "sub" / "deep" / "f").write_text("x")
    wait_for(lambda: content(pair.seen / "sub" / "deep" / "f") == "x", "the file", SOON)
    wait_for(lambda: os.listdir(pair.seen / "sub" / "deep") == ["f"], "the list", SOON)


@pytest.mark.parametrize("name", ["sub/f", "sub/t.jsonl"])
def test_a_file_made_below_is_told_even_if_it_is_looked_at_first(pair: Pair, name: str) -> None:
    (pair.seen / "sub").mkdir()
    assert os.listdir(pair.seen / "sub") == []
    (pair.below / name).write_text("x")
    assert content(pair.seen / name) == "x"  # before inotify's event can have been read
    settle(pair)
    assert "created" in [event["change"] for event in pair.unseen(name)]


def test_a_subdirectory_is_listed_after_its_parent_has_changed(pair: Pair) -> None:
    """The daemon must answer without asking for the mount's own root, whose attributes are not cached now."""
    for name in ("one", "two", "three"):
        (pair.seen / name).mkdir()
        (pair.seen / name / "f").touch()
        assert os.listdir(pair.seen / name) == ["f"]


def test_a_file_that_was_listed_and_never_looked_at_is_removed_below(pair: Pair) -> None:
    (pair.below / "listed.txt").write_text("x")
    wait_for(lambda: "listed.txt" in os.listdir(pair.seen), "the file to be listed", SOON)
    os.listdir(pair.seen)
    settle(pair)
    (pair.below / "listed.txt").unlink()
    wait_for(lambda: "listed.txt" not in os.listdir(pair.seen), "the file to be gone from the list", SOON)
    settle(pair)
    assert [event["change"] for event in pair.unseen("listed.txt")] == ["created", "removed"]


def test_a_directory_renamed_below_while_it_is_in_use_is_still_watched(pair: Pair) -> None:
    (pair.seen / "a").mkdir()
    (pair.seen / "a" / "f").write_text("one")
    user = os.open(pair.seen / "a", os.O_RDONLY | os.O_DIRECTORY)
    try:
        settle(pair)
        (pair.below / "a").rename(pair.below / "b")
        wait_for(lambda: content(pair.seen / "b" / "f") == "one", "the new name", SOON)
    finally:
        os.close(user)
    wait_for(lambda: content(pair.seen / "a" / "f") is None, "the old name to be gone", SOON)
    (pair.below / "b" / "f").write_text("two longer")
    wait_for(lambda: content(pair.seen / "b" / "f") == "two longer", "the change", SOON)
    (pair.below / "b" / "g").write_text("new")
    wait_for(lambda: "g" in os.listdir(pair.seen / "b"), "the new file", SOON)


def test_an_exchange_makes_a_transcript_of_what_was_none_at_once(pair: Pair) -> None:
    (pair.seen / "e.jsonl").write_text("transcript\n")
    (pair.seen / "e.tmp").write_text("other\n")
    (pair.seen / "e.tmp").stat()
    names = os.fsencode(pair.seen / "e.jsonl"), os.fsencode(pair.seen / "e.tmp")
    libc.rename(AT_FDCWD, names[0], AT_FDCWD, names[1], libc.RENAME_EXCHANGE)

    def looked() -> bool:
        count = len(pair.guard.settle())
        for _ in range(3):
            (pair.seen / "e.jsonl").stat()
        return [e["op"] for e in pair.guard.settle()[count:] if e["path"] == "e.jsonl"].count("look") >= 3

    wait_for(looked, "looks at the new transcript to be logged", SOON)


def test_a_link_that_lies_elsewhere_changes_a_file(pair: Pair) -> None:
    (pair.below / "unwatched").mkdir()  # nobody looks at it through the mount
    elsewhere = pair.below / "unwatched" / "h"
    (pair.seen / "h.txt").write_text("1")
    os.link(pair.below / "h.txt", elsewhere)
    wait_for(lambda: (pair.seen / "h.txt").stat().st_nlink == 2, "the link to be seen", SOON)
    elsewhere.write_text("three")
    wait_for(lambda: content(pair.seen / "h.txt") == "three", "the change", SOON)


def test_a_fifo_that_takes_a_name_below_holds_nobody_up(pair: Pair) -> None:
    with pytest.raises(FileNotFoundError):
        (pair.seen / "p.txt").stat()
    os.mkfifo(pair.below / "p.txt")
    done = subprocess.run(
        ["timeout", "20", "sh", "-c", f"exec 3<> {pair.seen}/p.txt"], check=False, timeout=60
    )  # read and write: a fifo opens at once
    assert done.returncode == 0
    assert (pair.seen).is_dir()


def test_a_file_made_below_is_opened_by_those_only_who_may(pair: Pair) -> None:
    """A name that the kernel believes to be absent is created; what has appeared meanwhile has its own mode."""
    pair.seen.chmod(0o777)
    program = (
        "import os, sys\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "path, below = sys.argv[1:]\n"
        "try: os.stat(path)\n"
        "except FileNotFoundError: pass\n"
        "print('ready', flush=True); input()\n"
        "try: print(os.read(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666), 100))\n"
        "except PermissionError: print('refused')\n"
    )
    for number in range(5):
        name = f"secret-{number}"
        with subprocess.Popen(
            [sys.executable, "-c", program, str(pair.seen / name), str(pair.below / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None and child.stdin is not None
            assert child.stdout.readline() == "ready\n"
            fd = os.open(pair.below / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, b"secret")
            os.close(fd)
            assert child.communicate("\n", timeout=30)[0] == "refused\n"


def test_a_directory_renamed_below(pair: Pair) -> None:
    (pair.seen / "before").mkdir()
    (pair.seen / "before" / "f").write_text("x")
    assert content(pair.seen / "before" / "f") == "x"
    settle(pair)
    (pair.below / "before").rename(pair.below / "after")
    wait_for(lambda: content(pair.seen / "after" / "f") == "x", "the new name", SOON)
    wait_for(lambda: content(pair.seen / "before" / "f") is None, "the old name to be gone", SOON)


def test_a_file_renamed_into_a_transcript_is_one_at_once(pair: Pair) -> None:
    (pair.seen / "x.tmp").write_text("header\n")
    (pair.seen / "x.tmp").stat()
    (pair.seen / "x.tmp").rename(pair.seen / "y.jsonl")
    pair.guard.wait_event(lambda event: event["op"] == "rename")

    def looked() -> bool:
        count = len(pair.guard.settle())
        (pair.seen / "y.jsonl").stat()
        (pair.seen / "y.jsonl").stat()
        return [e["op"] for e in pair.guard.settle()[count:] if e["path"] == "y.jsonl"].count("look") >= 2

    wait_for(looked, "looks at the new transcript to be logged", SOON)
    with (pair.below / "y.jsonl").open("a") as file:
        file.write("foreign\n")
    assert content(pair.seen / "y.jsonl") == "header\nforeign\n"


def _busy(root: Path, seed: int, rounds: int) -> None:
    """Everything an agent, its tools and a careless script do, in one directory."""
    chance = random.Random(seed)
    for number in range(rounds):
        name = root / chance.choice(
            ["a.jsonl", "b.jsonl", "c", "d.json", "e.jsonl.lock", "sub/f", "sub/g.jsonl"]
        )
        other = root / chance.choice(["a.jsonl", "c", "d.json", "sub/f", "h"])
        try:
            match number % 12:
                case 0 | 1 | 2 | 3:
                    with name.open("ab", buffering=0) as file:
                        file.write(b"x" * chance.randrange(1, 3000))
                        file.write(b"y\n")
                case 4:
                    temporary = root / f".tmp.{seed}.{number}"
                    temporary.write_text("whole")
                    temporary.rename(other)
                case 5:
                    name.chmod(chance.choice([0o600, 0o640, 0o644]))
                case 6:
                    os.utime(name)
                case 7:
                    name.unlink()
                case 8:
                    os.truncate(name, chance.randrange(100))
                case 9:
                    os.link(name, root / f"link.{seed}.{number}")
                case 10:
                    os.setxattr(name, "user.note", b"%d" % number)
                case 11:
                    directory = root / f"dir.{seed}.{number}"
                    directory.mkdir()
                    directory.chmod(0o700)
                    (directory / "x").write_text("x")
                    (directory / "x").unlink()
                    directory.rmdir()
        except (FileNotFoundError, FileExistsError):
            pass
        if number % 7 == 0:
            os.listdir(root)
            name.exists()


def test_the_guards_own_changes_are_never_taken_for_anothers(pair: Pair) -> None:
    (pair.seen / "sub").mkdir()
    threads = [threading.Thread(target=_busy, args=(pair.seen, seed, 700)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settle(pair)
    found = [e for e in pair.guard.events() if e["op"] == "unseen" and not e["path"].startswith("marker-")]
    assert found == []
    assert (pair.seen / "a.jsonl").exists() == (pair.below / "a.jsonl").exists()
    assert sorted(os.listdir(pair.seen)) == sorted(os.listdir(pair.below))


def test_synchronous_writes_are_not_taken_for_anothers(pair: Pair) -> None:
    def write(name: str) -> None:
        fd = os.open(pair.seen / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC, 0o644)
        try:
            for _ in range(60):
                os.write(fd, b"line\n")
        finally:
            os.close(fd)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("s.jsonl", "s.jsonl", "plain")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settle(pair)
    assert (pair.below / "s.jsonl").stat().st_size == 600
    assert [
        e for e in pair.guard.events() if e["op"] == "unseen" and not e["path"].startswith("marker-")
    ] == []
