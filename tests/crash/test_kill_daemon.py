"""A daemon killed under load: what was written is there, the log is whole, the directory is usable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from guardfs.audit.verify import verify
from tests.conftest import StartGuard
from tests.support.guard import GUARDFS, Guard
from tests.support.machine import FULL
from tests.support.mounts import mounts_below
from tests.support.running import start_writer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.mount, pytest.mark.crash]

ROUNDS = 30 if FULL else 3


class Writers:
    """Four processes and four threads of this one, appending to a file each and to one that all share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.returned: dict[str, list[int]] = {}
        self.processes = [
            start_writer("append", directory / self.file(number), f"p{number}") for number in range(4)
        ]
        self.readers = [threading.Thread(target=self._count, args=(number,)) for number in range(4)]
        self.threads = [threading.Thread(target=self._append, args=(number,)) for number in range(4, 8)]
        for thread in [*self.readers, *self.threads]:
            thread.start()

    @staticmethod
    def file(number: int) -> str:
        return "shared.jsonl" if number % 2 else f"own-{number}.jsonl"

    def _count(self, number: int) -> None:
        stdout = self.processes[number].stdout
        assert stdout is not None
        numbers = self.returned.setdefault(f"p{number}", [])
        for line in stdout:
            numbers.append(int(line))

    def _append(self, number: int) -> None:
        worker, count = f"t{number}", 0
        numbers = self.returned.setdefault(worker, [])
        try:
            fd = os.open(self.directory / self.file(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:
            return
        try:
            while True:
                line = f'{{"worker":"{worker}","number":{count},"pad":"{"z" * (count % 90)}"}}\n'.encode()
                os.write(fd, line)
                numbers.append(count)
                count += 1
        except OSError:
            pass
        finally:
            os.close(fd)

    def busy(self) -> bool:
        """Whether each of the eight has written a good deal."""
        return len(self.returned) == 8 and all(len(numbers) > 25 for numbers in list(self.returned.values()))

    def join(self) -> None:
        """Wait until all have met the end of the mount."""
        for process in self.processes:
            process.wait(60)
        for thread in [*self.readers, *self.threads]:
            thread.join(60)
            assert not thread.is_alive()
        for process in self.processes:
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()


def records(directory: Path) -> dict[str, list[int]]:
    """worker -> its numbers in the files, in order; fails on a line that is not whole."""
    found: dict[str, list[int]] = {}
    for path in sorted(directory.glob("*.jsonl")):
        content = path.read_bytes()
        assert not content or content.endswith(b"\n"), f"{path.name} ends amid a line"
        for line in content.splitlines():
            record: dict[str, Any] = json.loads(line)
            found.setdefault(record["worker"], []).append(record["number"])
    return found


def check_all_there(directory: Path, returned: dict[str, list[int]]) -> None:
    """Every write that returned is there, whole, once, in order; at most the one in flight came on top."""
    found = records(directory)
    for worker, numbers in returned.items():
        assert found.get(worker, []) in (numbers, [*numbers, len(numbers)]), worker


def check_log(guard: Guard) -> None:
    """The chain fits. A line that the kill tore may be there, and nothing else."""
    report = verify(str(guard.audit), str(guard.state / "audit.head"))
    assert report.ok, report
    assert all(problem.kind == "torn" for problem in report.problems), report.problems


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_every_write_that_returned_is_there(new_guard: StartGuard, round_: int) -> None:
    guard = new_guard("--max-deaths", "1").start()
    guard.expected = ["the daemon ended with signal SIGKILL"]
    writers = Writers(guard.directory)
    try:
        wait_for(writers.busy, "eight busy writers")
        os.kill(guard.daemon, signal.SIGKILL)
    finally:
        writers.join()
    assert guard.process is not None
    assert guard.process.wait(30) == 1
    assert "IS UNGUARDED from now on" in guard.wait_said("a daemon has died")
    assert not mounts_below(guard.directory), "the dead mount was not taken off"
    check_all_there(guard.directory, writers.returned)
    (guard.directory / "plain-again").write_text("usable\n")

    again = new_guard(directory=guard.directory)
    again.audit, again.state = guard.audit, guard.state
    again.options = guard.options
    again.start()
    check_all_there(guard.directory, writers.returned)
    with (guard.directory / "shared.jsonl").open("a") as file:
        file.write('{"worker":"after","number":0}\n')
    again.stop()
    check_log(again)
    assert again.events(lambda event: event["op"] == "write")[-1]["path"] == "shared.jsonl"


def test_a_dead_mount_of_both_is_cleared_by_the_next_mount(new_guard: StartGuard) -> None:
    guard = new_guard().start()
    (guard.directory / "a.jsonl").write_text("kept\n")
    assert guard.process is not None
    guard.process.kill()
    os.kill(guard.daemon, signal.SIGKILL)
    guard.process.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{guard.daemon}"), "the daemon to be gone")
    with pytest.raises(OSError, match="not connected"):
        os.stat(guard.directory)

    again = new_guard(directory=guard.directory).start()
    assert "a dead mount was cleared away" in again.said()
    assert (guard.directory / "a.jsonl").read_text() == "kept\n"
    assert len(mounts_below(guard.directory)) == 1
    again.stop()


def test_a_dead_mount_is_cleared_by_unmount(new_guard: StartGuard) -> None:
    guard = new_guard().start()
    assert guard.process is not None
    guard.process.kill()
    os.kill(guard.daemon, signal.SIGKILL)
    guard.process.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{guard.daemon}"), "the daemon to be gone")
    done = subprocess.run([*GUARDFS, "unmount", str(guard.directory)], env=guard.env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not mounts_below(guard.directory)


def test_the_supervisors_death_leaves_the_mount_and_sigterm_ends_it(new_guard: StartGuard) -> None:
    guard = new_guard().start()
    guard.expected = ["the supervisor is gone"]
    assert guard.process is not None
    guard.process.kill()
    guard.process.wait()
    guard.wait_said("the supervisor is gone")
    path = guard.directory / "goes-on.jsonl"
    path.write_text("still guarded\n")
    guard.wait_event(lambda event: event["op"] == "write" and event["path"] == "goes-on.jsonl")
    os.kill(guard.daemon, signal.SIGTERM)
    wait_for(lambda: not os.path.exists(f"/proc/{guard.daemon}"), "the daemon to leave")
    assert not mounts_below(guard.directory)
    assert path.read_text() == "still guarded\n"
    check_log(guard)
    assert guard.events()[-1]["op"] == "stop"
    guard.check_said()
