"""Who wrote: the log's answer against what the writers know of themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGuard
from tests.support.guard import GUARDFS, Event, Guard
from tests.support.machine import STRANGER
from tests.support.running import writer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


def writes(guard: Guard, path: str) -> list[Event]:
    """The write events on *path*, once the log is complete."""
    return [event for event in guard.settle() if event["op"] == "write" and event["path"] == path]


def identity(event: Event) -> dict[str, Any]:
    return {key: event["writer"][key] for key in ("tid", "tgid", "main")}


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.lock"])
def test_one_descriptor_three_writers(guard: Guard, name: str) -> None:
    told = writer("one_descriptor", guard.directory / name)
    found = [identity(event) for event in writes(guard, name)]
    assert found == [told["opener"], told["child"], told["thread"]]
    assert len({(who["tid"], who["tgid"]) for who in found}) == 3


def test_one_descriptor_three_writers_of_a_file_whose_writes_are_merged(guard: Guard) -> None:
    told = writer("one_descriptor", guard.directory / "notes.txt")
    found = sorted((identity(event) for event in writes(guard, "notes.txt")), key=lambda who: who["tid"])
    assert found == sorted(
        (told[who] for who in ("opener", "child", "thread")), key=lambda who: int(who["tid"])
    )


def test_the_test_process_itself_and_a_thread_of_it(guard: Guard) -> None:
    path = guard.directory / "a.jsonl"
    path.write_text("main\n")
    tids = [threading.get_native_id()]

    def other() -> None:
        tids.append(threading.get_native_id())
        with path.open("a") as file:
            file.write("thread\n")

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert [identity(event) for event in writes(guard, "a.jsonl")] == [
        {"tid": tids[0], "tgid": os.getpid(), "main": True},
        {"tid": tids[1], "tgid": os.getpid(), "main": False},
    ]


def test_a_shell_that_appends(guard: Guard) -> None:
    shell = subprocess.Popen(["sh", "-c", "echo x >> f.jsonl"], cwd=guard.directory)
    assert shell.wait() == 0
    (event,) = writes(guard, "f.jsonl")
    who = event["writer"]
    assert (who["tgid"], who["tid"], who["main"]) == (shell.pid, shell.pid, True)
    assert who["exe"] == os.path.realpath(shutil.which("sh") or "/bin/sh")
    assert (event["bytes"], event["offset"], event["append"]) == (2, 0, True)
    described = [event for event in guard.events() if event["op"] == "process" and event["tgid"] == shell.pid]
    assert described[-1]["args"] == ["sh", "-c", "echo x >> f.jsonl"]
    assert described[-1]["parents"][0]["pid"] == os.getpid()


def test_exec_in_place_is_another_program_of_the_same_process(guard: Guard) -> None:
    shell = os.path.realpath(shutil.which("sh") or "/bin/sh")
    told = writer("exec_in_place", guard.directory / "x.jsonl", shell)
    before, after = writes(guard, "x.jsonl")
    assert before["writer"]["tgid"] == after["writer"]["tgid"] == told["tgid"]
    assert before["writer"]["start"] == after["writer"]["start"]
    assert (before["writer"]["exe"], after["writer"]["exe"]) == (told["exe"], shell)


def test_a_writer_that_has_changed_its_user(guard: Guard) -> None:
    gid = STRANGER + 1
    told = writer("as_other", guard.directory / "u.jsonl", STRANGER, gid)
    first, second = writes(guard, "u.jsonl")
    assert (first["writer"]["uid"], first["writer"]["gid"]) == (0, 0)
    assert (second["writer"]["uid"], second["writer"]["gid"]) == (STRANGER, gid)
    assert first["writer"]["tgid"] == second["writer"]["tgid"] == told["tgid"]


def test_a_process_in_a_pid_namespace_below_is_named_as_seen_from_here(guard: Guard) -> None:
    unshare = subprocess.Popen(
        ["unshare", "-pf", "--mount-proc", "sh", "-c", "echo $$; echo x >> n.jsonl; exec sleep 1000"],
        cwd=guard.directory,
        stdout=subprocess.PIPE,
    )
    try:
        assert unshare.stdout is not None
        inner = int(unshare.stdout.readline())
        event = guard.wait_event(lambda event: event["op"] == "write" and event["path"] == "n.jsonl")
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        assert inner == 1
        assert [str(event["writer"]["tgid"])] == children
        assert event["writer"].get("known", "ok") == "ok"
        described = guard.wait_event(
            lambda found: found["op"] == "process" and found["tgid"] == event["writer"]["tgid"]
        )
        assert described["pidns"] != os.stat("/proc/self/ns/pid").st_ino
    finally:
        for child in Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        unshare.wait()
        assert unshare.stdout is not None
        unshare.stdout.close()


def test_a_caller_outside_the_guards_pid_namespace_is_not_guessed(new_guard: StartGuard) -> None:
    """The guard lives in a pid namespace of its own; a process of ours enters its mount namespace only."""
    guard = new_guard(command=["unshare", "-pf", "--mount-proc", "--kill-child", *GUARDFS])
    process = guard.launch()
    wait_for(lambda: "guarding" in guard.said(), "the guard to answer")
    (supervisor,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    enter = ["nsenter", "-m", "-t", supervisor, "--"]
    done = subprocess.run([*enter, "sh", "-c", f"echo x >> {guard.directory}/o.jsonl"], check=False)
    assert done.returncode == 0
    event = guard.wait_event(lambda event: event["op"] == "write" and event["path"] == "o.jsonl")
    who = event["writer"]
    assert who["known"] == "outside"
    assert (who["tid"], who["tgid"]) == (0, 0)
    assert "exe" not in who and "start" not in who
    assert (who["uid"], who["gid"]) == (0, 0)
    os.kill(int(supervisor), signal.SIGTERM)
    assert process.wait(60) == 0, guard.said()
    assert (guard.directory / "o.jsonl").read_text() == "x\n"


def test_a_read_by_another_thread_is_named_at_level_all(start_guard: StartGuard) -> None:
    guard = start_guard("--audit-level", "all")
    path = guard.directory / "r.jsonl"
    path.write_text("one\n")
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    tids = []

    def read() -> None:
        tids.append(threading.get_native_id())
        assert os.pread(fd, 100, 0) == b"one\n"

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    os.close(fd)
    found = [event for event in guard.settle() if event["op"] == "read" and event["path"] == "r.jsonl"]
    assert [identity(event) for event in found] == [{"tid": tids[0], "tgid": os.getpid(), "main": False}]


def test_bytes_of_the_events_add_up_to_the_size(guard: Guard) -> None:
    path = guard.directory / "sum.jsonl"
    with path.open("ab", buffering=0) as file:
        for number in range(200):
            file.write(b'{"type":"message","id":"%08x"}\n' % number * (1 + number % 7))
    found = writes(guard, "sum.jsonl")
    assert sum(event["bytes"] for event in found) == path.stat().st_size
    position = 0
    for event in found:
        assert event["offset"] == position
        position += event["bytes"]
