"""One supervisor over several directories: named, or found by a pattern, now and later."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guard import GUARDFS, environment, events_of
from tests.support.mounts import clear_mounts, mounts_below
from tests.support.running import guardfs
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


class Running:
    """`guardfs` in the foreground, over directories below *place*."""

    def __init__(self, place: Path, *words: object, notify: str = "") -> None:
        self.place = place
        self.output = place / "output"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*GUARDFS, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(NOTIFY_SOCKET=notify),
                cwd=place,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            finally:
                self.process.kill()
        clear_mounts(self.place)

    def said(self) -> str:
        return self.output.read_text()

    def guards(self, *directories: Path) -> None:
        """Wait until it guards these."""

        def look() -> bool:
            assert self.process.poll() is None, self.said()
            return all(f"guarding {each}, " in self.said() for each in directories)

        wait_for(look, f"{directories} to be guarded; {self.output.read_text()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def agent(place: Path, name: str) -> Path:
    sessions = place / "agents" / name / "sessions"
    sessions.mkdir(parents=True)
    return sessions


def writes(audit: Path) -> list[str]:
    return [event["path"] for event in events_of(audit, lambda event: event["op"] == "write")]


@pytest.fixture
def two(place: Path) -> Iterator[tuple[Path, Path]]:
    yield agent(place, "one"), agent(place, "two")


def test_two_named_directories_have_a_daemon_a_log_and_a_state_each(
    place: Path, two: tuple[Path, Path]
) -> None:
    with Running(
        place, "mount", *two, "--force", "--state", place / "state", "--audit", place / "log.jsonl"
    ) as run:
        run.guards(*two)
        for directory in two:
            (directory / f"{directory.parent.name}.jsonl").write_text("x\n")
        status = [json.loads(os.getxattr(directory, "user.guardfs.status")) for directory in two]
        assert len({each["daemon"]["pid"] for each in status}) == 2
        assert {each["daemon"]["supervisor"] for each in status} == {run.process.pid}
        logs, states = (
            [Path(each[a][b]) for each in status] for a, b in (("audit", "file"), ("state", "dir"))
        )
        assert {log.parent for log in logs} == {place} and {each.parent for each in states} == {
            place / "state"
        }
        for log, state, directory in zip(logs, states, two, strict=True):
            assert log.name.startswith("log-") and log.suffix == ".jsonl" and state.name in log.name
            assert directory.parent.name in log.name

        shown = guardfs("tail", "--json", "--lines", 5000).stdout  # without DIR: all guards
        assert "one.jsonl" in shown and "two.jsonl" in shown
        listed = json.loads(guardfs("status", "--json").stdout)
        assert {each["mountpoint"] for each in listed} >= set(map(str, two))
        assert guardfs("incidents").returncode in (0, 1)  # there may be other guards on this machine
        assert run.stop() == 0
    assert not mounts_below(place)
    for log, directory in zip(logs, two, strict=True):
        assert writes(log) == [f"{directory.parent.name}.jsonl"]
        assert events_of(log)[-1]["op"] == "stop"


def test_one_of_them_can_be_unmounted_and_the_other_goes_on(place: Path, two: tuple[Path, Path]) -> None:
    one, other = two
    with Running(place, "mount", one, other, "--force", "--state", place / "state") as run:
        run.guards(one, other)
        assert guardfs("unmount", one, "--force").returncode == 0
        wait_for(lambda: mounts_below(place) == [other], "the one to be gone")
        (other / "a.jsonl").write_text("x\n")
        assert run.process.poll() is None
        assert run.stop() == 0


def test_one_that_cannot_be_guarded_at_the_start_leaves_none(place: Path, two: tuple[Path, Path]) -> None:
    (place / "agents/plain").write_text("")
    done = guardfs("mount", *two, place / "agents/plain", "--force", "--state", place / "state")
    assert done.returncode == 2 and "not a directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not mounts_below(place)


def test_a_directory_in_another_that_is_named_too(place: Path, two: tuple[Path, Path]) -> None:
    done = guardfs("mount", place / "agents", two[0], "--state", place / "state")
    assert done.returncode == 2 and "one guard is enough" in done.stderr


def test_run_repeats_sessions(place: Path, two: tuple[Path, Path]) -> None:
    one, other = two
    named = [word for each in (one, other, one) for word in ("--sessions", each)]
    done = guardfs("run", *named, "--force", "--state", place / "state",
                   "--", "sh", "-c", f"echo x > {one}/a.jsonl; echo y > {other}/b.jsonl; exit 9")  # fmt: skip
    assert done.returncode == 9, done.stderr
    assert not mounts_below(place)
    logs = sorted((place / "state").glob("*/audit.jsonl"))
    assert [writes(log) for log in logs] == [["a.jsonl"], ["b.jsonl"]]


# ---- patterns


def test_what_a_pattern_finds_is_guarded_when_it_appears(place: Path, two: tuple[Path, Path]) -> None:
    address = str(place / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(60)
        words = ("mount", "agents/*/sessions", "--state", place / "state", "--timeout", "60")
        with Running(place, *words, notify=address) as run:
            run.guards(*two)
            assert listener.recv(1000) == b"READY=1\nSTATUS=guarding 2 directories"
            (place / "agents/three").mkdir()
            (place / "agents/.hidden/sessions").mkdir(parents=True)
            (place / "agents/link").symlink_to(two[0].parent)
            (place / "agents/file").write_text("")
            three = place / "agents/three/sessions"
            three.mkdir()
            run.guards(three)
            assert listener.recv(1000) == b"STATUS=guarding 3 directories"
            assert mounts_below(place) == [*two, three]
            (three / "a.jsonl").write_text("x\n")
            assert run.stop() == 0
    assert not mounts_below(place)
    (log,) = (place / "state").glob("*three*/audit.jsonl")
    assert writes(log) == ["a.jsonl"]
    assert "tried again" not in run.said()


def test_a_pattern_that_finds_nothing_yet(place: Path) -> None:
    script = f"mkdir -p {place}/agents/late/sessions; read line < {place}/go; echo x > {place}/agents/late/sessions/a"
    os.mkfifo(place / "go")
    words = (
        "run",
        "--sessions",
        "agents/*/sessions",
        "--force",
        "--state",
        place / "state",
        "--",
        "sh",
        "-c",
        script,
    )
    with Running(place, *words) as run:
        run.guards(place / "agents/late/sessions")
        (place / "go").write_text("\n")
        assert run.process.wait(60) == 0
    assert "no such directory yet" in run.said()
    (log,) = (place / "state").glob("*/audit.jsonl")
    assert writes(log) == ["a"]


def test_one_that_appears_in_a_turn_waits_for_its_end(place: Path, two: tuple[Path, Path]) -> None:
    (place / "agents/new").mkdir()
    new = place / "made"
    new.mkdir()
    lock = new / "s.jsonl.lock"
    lock.write_text(json.dumps({"pid": os.getpid()}))
    words = ("mount", "agents/*/sessions", "--state", place / "state", "--timeout", "60")
    with Running(place, *words) as run:
        run.guards(*two)
        new.rename(place / "agents/new/sessions")
        lock = place / "agents/new/sessions/s.jsonl.lock"
        wait_for(lambda: list((place / "state").glob("*new*/format")), "the guard to wait")
        assert len(mounts_below(place)) == 2
        lock.unlink()
        run.guards(place / "agents/new/sessions")
        assert run.stop() == 0


def test_one_that_was_unmounted_by_hand_stays_so_until_it_is_another(
    place: Path, two: tuple[Path, Path]
) -> None:
    one, other = two
    words = ("mount", "agents/*/sessions", "--force", "--state", place / "state")
    with Running(place, *words) as run:
        run.guards(one, other)
        assert guardfs("unmount", one, "--force").returncode == 0
        (place / "agents/three/sessions").mkdir(parents=True)
        run.guards(place / "agents/three/sessions")  # so it has looked again
        assert one not in mounts_below(place)
        one.rename(place / "kept")  # so that its inode is not given to the next one
        one.mkdir()
        wait_for(lambda: run.said().count(f"guarding {one}, ") == 2, "the new one to be guarded")
        assert one in mounts_below(place)
        assert run.stop() == 0


def test_one_whose_agent_is_renamed_is_guarded_under_its_new_name(
    place: Path, two: tuple[Path, Path]
) -> None:
    one, other = two
    words = ("mount", "agents/*/sessions", "--force", "--state", place / "state")
    with Running(place, *words) as run:
        run.guards(one, other)
        (one / "a.jsonl").write_text("x\n")
        one.parent.rename(place / "agents/uno")
        run.guards(place / "agents/uno/sessions")
        assert (place / "agents/uno/sessions/a.jsonl").read_text() == "x\n"
        assert len(mounts_below(place)) == 2
        assert run.stop() == 0
    assert not mounts_below(place)


def test_one_that_cannot_be_guarded_later_is_said_once_and_tried_again(
    place: Path, two: tuple[Path, Path]
) -> None:
    bad = place / "state"
    words = ("mount", "agents/*/sessions", "--force", "--state", bad)
    with Running(place, *words) as run:
        run.guards(*two)
        from guardfs.state.directory import default_state_dir

        third = place / "agents/three/sessions"
        (bad / os.path.basename(default_state_dir(str(third)))).write_text("in the way")
        third.mkdir(parents=True)
        wait_for(lambda: "tried again" in run.said(), "it to be said")
        assert "not a directory" in run.said() and run.process.poll() is None
        assert mounts_below(place) == list(two)
        assert run.stop() == 0


def test_systemd_gets_its_signs_of_life(place: Path, two: tuple[Path, Path]) -> None:
    address = str(place / "notify")
    code = (
        "import os, sys\n"
        "os.environ.update(NOTIFY_SOCKET=sys.argv[1], WATCHDOG_USEC='200000', WATCHDOG_PID=str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'guardfs', 'mount', *sys.argv[2:]])"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-c", code, address, *map(str, two), "--force", "--state", str(place / "state")],
            env=environment(), cwd="/", stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            while (found := listener.recv(1000)) == b"WATCHDOG=1":
                pass
            assert found == b"READY=1\nSTATUS=guarding 2 directories"
            assert {listener.recv(1000) for _ in range(5)} == {b"WATCHDOG=1"}
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert process.returncode == 0
