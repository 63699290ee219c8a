"""Load by programs that were written to break file systems, and load that goes on for long."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from guardfs.audit.verify import verify
from tests.conftest import StartGuard
from tests.support.guard import Guard
from tests.support.machine import FULL

pytestmark = pytest.mark.mount

SECONDS = 60 if FULL else 6
SOAK_SECONDS = int(os.environ.get("GUARDFS_SOAK_SECONDS", "1800"))

STRESSORS = (
    "access acl chattr chdir chmod chown dentry dir dirdeep dirmany dup fallocate fcntl fiemap file-ioctl filename "
    "flock flushcache fpunch fstat getdent handle hdd inotify io iomix link locka lockf lockofd metamix open "
    "readahead rename revio seek sendfile sync-file symlink touch unlink utime verity xattr"
).split()
"""Members of stress-ng's filesystem class that work in the directory they are given.

Not fsize: it expects of fallocate(2) an error that glibc's imitation, used where there is none, does not always give
(over bindfs it fails likewise).
"""


def _known(stressor: str) -> bool:
    """Whether the installed stress-ng has it."""
    done = subprocess.run(["stress-ng", f"--{stressor}", "0", "--dry-run"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not shutil.which("stress-ng"), reason="needs stress-ng (Debian package stress-ng)")
def test_stress_ng_filesystem_class(guard: Guard) -> None:
    known = [name for name in STRESSORS if _known(name)]
    assert len(known) > 20
    groups = [known[first : first + 8] for first in range(0, len(known), 8)]
    for group in groups:
        words = [word for name in group for word in (f"--{name}", "1")]
        done = subprocess.run(
            ["stress-ng", *words, "--timeout", f"{max(1, SECONDS // len(groups))}s", "--verify",
             "--temp-path", str(guard.directory), "--hdd-bytes", "8m", "--iomix-bytes", "4m",
             "--readahead-bytes", "8m", "--seek-size", "4m", "--revio-bytes", "4m"],
            capture_output=True, text=True, timeout=SECONDS * 20 + 60, check=False,
        )  # fmt: skip
        failed = [line for line in done.stderr.splitlines() if "fail" in line and "failed: 0" not in line]
        assert done.returncode in (0, 3, 4), (
            group,
            done.stderr,
        )  # 3, 4: not enough resources, not implemented
        assert not failed, failed
    (guard.directory / "still.jsonl").write_text("alive\n")


@pytest.mark.skipif(not shutil.which("fio"), reason="needs fio (Debian package fio)")
@pytest.mark.parametrize("pattern", ["randrw", "write", "randwrite"])
def test_fio_with_verification(guard: Guard, pattern: str) -> None:
    done = subprocess.run(
        ["fio", "--name=verify", f"--directory={guard.directory}", f"--rw={pattern}", "--size=8m", "--bsrange=512-64k",
         "--ioengine=psync", "--numjobs=3", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--fsync=64",
         f"--runtime={SECONDS}", "--output-format=terse"],
        capture_output=True, text=True, timeout=SECONDS * 20 + 120, check=False, cwd=guard.beside,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify:" not in done.stderr, done.stderr


class Load:
    """Threads that do what agents do, with files that come and go, until they are told to stop."""

    def __init__(self, directory: Path, workers: int = 4) -> None:
        self.stopping = threading.Event()
        self.failures: list[BaseException] = []
        self.rounds = [0] * workers
        self.threads = [
            threading.Thread(target=self._work, args=(directory, number)) for number in range(workers)
        ]
        for thread in self.threads:
            thread.start()

    def _work(self, directory: Path, number: int) -> None:
        try:
            while not self.stopping.is_set():
                self._round(directory, number, self.rounds[number])
                self.rounds[number] += 1
        except BaseException as error:
            self.failures.append(error)

    @staticmethod
    def _round(directory: Path, number: int, turn: int) -> None:
        transcript = directory / f"session-{number}-{turn % 50}.jsonl"
        held = directory / f"{transcript.name}.lock"
        fd = os.open(held, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, b'{"pid":%d}' % os.getpid())
        with transcript.open("ab", buffering=0) as file:
            file.write(b'{"type":"message","id":"%08x","message":{"role":"user"}}\n' % turn)
        transcript.stat()
        os.close(fd)
        held.unlink()
        registry = directory / f"sessions-{number}.json"
        temporary = directory / f".replace.{number}.{turn}.tmp"
        content = f'{{"turn": {turn}}}'
        temporary.write_text(content)
        temporary.rename(registry)
        assert registry.read_text() == content
        if turn % 20 == 0:
            assert transcript.name in os.listdir(directory)
        if turn % 50 == 49:
            transcript.rename(directory / f"{transcript.name}.reset.{number}")
        if turn % 200 == 0:
            subprocess.run(["sh", "-c", f"echo x >> {directory}/cron.jsonl"], check=True)

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()
        assert not self.failures, self.failures


@pytest.mark.soak
def test_long_load_takes_no_more_descriptors_and_memory(start_guard: StartGuard) -> None:
    guard = start_guard("--audit-size", "8M", "--audit-keep", "3")
    load = Load(guard.directory)
    try:
        time.sleep(min(60, SOAK_SECONDS / 4))  # what the daemon needs under this load is there by now
        first = guard.status()
        end = time.monotonic() + SOAK_SECONDS - min(60, SOAK_SECONDS / 4)
        while time.monotonic() < end:
            time.sleep(1)
            assert not load.failures, load.failures
        last = guard.status()
    finally:
        load.stop()
    grown = last["daemon"]["resident"] - first["daemon"]["resident"]
    assert grown < 5_000_000, f"{grown} bytes more after {sum(load.rounds)} rounds"
    idle = guard.status()
    assert idle["handles"] == 0
    assert last["daemon"]["descriptors"] <= first["daemon"]["descriptors"] + 8, (first, last)
    assert idle["audit"]["dropped"] == 0 and idle["audit"]["gaps"] == 0
    guard.stop()
    assert verify(str(guard.audit), str(guard.state / "audit.head")).ok


def test_short_load_leaves_a_whole_log(guard: Guard) -> None:
    """The same load for a moment, so that every run of CI has had it."""
    load = Load(guard.directory)
    try:
        end = time.monotonic() + SECONDS / 2
        while time.monotonic() < end and not load.failures:
            time.sleep(0.05)
    finally:
        load.stop()
    assert min(load.rounds) > 5
    guard.stop()
    report = verify(str(guard.audit), str(guard.state / "audit.head"))
    assert report.ok and not report.problems, report
    assert not guard.events(lambda event: event["op"] in ("unseen", "gap", "error"))


def test_what_a_thread_has_made_or_removed_it_finds_so_in_the_next_list(guard: Guard) -> None:
    """Several readers of one directory at once, while names come and go."""
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(400):
            name = f"{number}-{turn}.txt"
            (guard.directory / name).touch()
            if name not in os.listdir(guard.directory):
                wrong.append(f"{name} is missing")
            (guard.directory / name).unlink()
            if name in os.listdir(guard.directory):
                wrong.append(f"{name} is still there")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
