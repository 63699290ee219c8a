"""Metrics beside a guard, begun by its supervisor: as little right as it needs, and never the guard's trouble."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import StartGuard, watched
from tests.support.commands import guardfs
from tests.support.guard import GUARDFS, Guard, environment
from tests.support.machine import FULL, STRANGER
from tests.support.mounts import mounts_below
from tests.support.scraped import Scraped
from tests.support.serving import ANYWHERE
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

TOKEN = "correct-horse-battery-staple"


def urls(guard: Guard) -> list[str]:
    """Where it has said that it serves metrics, oldest first."""
    return re.findall(r"metrics on (http://\S+)/metrics", guard.said())


def url(guard: Guard, number: int = 1) -> str:
    return wait_for(lambda: urls(guard)[number - 1 :], "the address of the metrics")[0]


def observer(guard: Guard) -> psutil.Process:
    """The process that serves."""
    assert guard.process is not None
    (found,) = [
        child
        for child in psutil.Process(guard.process.pid).children()
        if "guardfs.serve.supervised" in child.cmdline()
    ]
    return found


def up(guard: Guard, number: int = 1) -> float:
    return Scraped(httpx.get(f"{url(guard, number)}/metrics", timeout=30).text).one("guardfs_up")


@pytest.fixture(scope="module")
def guard(module_place: Path) -> Iterator[Guard]:
    """Of another user's directory, which nobody else may look into."""
    directory = module_place / "sessions"
    directory.mkdir(mode=0o700)
    os.chown(directory, STRANGER, STRANGER)
    guard = Guard(directory, module_place / "beside", "--metrics", ANYWHERE)
    with watched([guard]):
        try:
            yield guard.start()
            guard.stop()
        finally:
            guard.destroy()


def test_it_may_read_and_nothing_else(guard: Guard) -> None:
    assert up(guard) == 1
    seen = observer(guard)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{seen.pid}/status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].split() == []
    assert [int(status[f"Cap{name}"], 16) for name in ("Eff", "Prm")] == [1 << 2, 1 << 2]
    assert [int(status[f"Cap{name}"], 16) for name in ("Inh", "Bnd", "Amb")] == [0, 0, 0]
    assert status["NoNewPrivs"] == "1"
    assert seen.nice() > 0, "the daemon comes first"


def test_without_the_right_to_change_its_user_it_keeps_that_and_reads() -> None:
    """As in a container that was started without CAP_SETUID."""
    code = """
from guardfs.mount import capabilities
from guardfs.serve.rights import lessen
capabilities.keep([1, 2, 21])  # DAC_OVERRIDE, DAC_READ_SEARCH, SYS_ADMIN
lessen()
print(open("/proc/self/status").read())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["0"] * 4
    assert [int(status[f"Cap{name}"], 16) for name in ("Eff", "Prm")] == [1 << 2, 1 << 2]


def test_a_guard_that_hangs_is_down(guard: Guard) -> None:
    assert up(guard) == 1
    os.kill(guard.daemon, signal.SIGSTOP)
    try:
        wait_for(lambda: up(guard) == 0, "the hang to be seen")
        answer = httpx.get(f"{url(guard)}/readyz")
        assert answer.status_code == 503 and "does not answer" in answer.json()["guards"][0]["reasons"][0]
    finally:
        os.kill(guard.daemon, signal.SIGCONT)
    wait_for(lambda: up(guard) == 1, "the guard to be back")


def test_when_it_dies_it_is_begun_again_and_the_guard_goes_on(guard: Guard) -> None:
    guard.expected.append("what serves metrics")
    assert up(guard) == 1
    assert f"serves     {url(guard)}\n" in guardfs("status", guard.directory).stdout
    first = observer(guard)
    first.kill()
    assert "begun again in 1 s" in guard.wait_said("what serves metrics and page ended with signal SIGKILL")
    (guard.directory / "a.jsonl").write_bytes(b"{}\n")
    assert up(guard, 2) == 1
    assert observer(guard).pid != first.pid


def test_it_ends_when_the_supervisor_is_killed(start_guard: StartGuard) -> None:
    guard = start_guard("--metrics", ANYWHERE)
    assert up(guard) == 1 and guard.process is not None
    seen = observer(guard)
    guard.process.kill()
    guard.process.wait()
    wait_for(lambda: not seen.is_running(), "the server to end")
    guard.destroy()


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port that somebody else has."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken


def test_a_port_that_is_taken_keeps_nobody_and_is_had_later(
    start_guard: StartGuard, taken: socket.socket
) -> None:
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    guard = start_guard("--metrics", address, "--web", ANYWHERE)
    said = guard.wait_said("no metrics")
    assert address in said and "is in use" in said and "the guard goes on" in said
    guard.wait_said("the page on http://")
    (guard.directory / "a.jsonl").write_bytes(b"{}\n")
    assert guard.status()["operations"]["create"] == 1
    taken.close()
    assert up(guard) == 1
    assert len(re.findall("no metrics", guard.said())) == 1


def test_the_token_is_needed_at_both_addresses_and_all_ends_with_the_guard(
    start_guard: StartGuard, place: Path
) -> None:
    token = place / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    guard = start_guard("--metrics", "0.0.0.0:0", "--web", ANYWHERE, "--web-token-file", str(token))
    page = re.search(r"page on (http://\S+)", guard.wait_said("the page on"))
    assert page is not None
    for address in (url(guard).replace("0.0.0.0", "127.0.0.1") + "/metrics", page[1]):
        assert httpx.get(address).status_code == 401
        assert httpx.get(address, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    seen = observer(guard)
    assert TOKEN not in " ".join(seen.cmdline()) + guard.said()
    guard.stop()
    assert not seen.is_running()


def test_what_cannot_be_is_said_before_anything_is_mounted(place: Path) -> None:
    directory = place / "sessions"
    directory.mkdir()
    mount: list[object] = ["mount", directory, "--state", place / "state"]
    run: list[object] = ["run", "--sessions", directory, "--state", place / "state"]
    cases: list[tuple[list[object], str]] = [
        ([*mount, "--metrics", "9464"], "no address"),
        ([*mount, "--web", "0.0.0.0:8470"], "other machines reach it"),
        ([*mount, "--web-token-file", "/nowhere"], "/nowhere"),
        ([*run, "--metrics", "[::]:9464", "--", "false"], "other machines reach it"),
    ]
    for words, said in cases:
        done = guardfs(*words)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
        assert not mounts_below(directory)


def test_run_serves_for_as_long_as_its_command_runs(place: Path) -> None:
    directory = place / "sessions"
    directory.mkdir()
    script = """
import re, sys, time, urllib.request
while not (found := re.search(r"metrics on (http://\\S+)", open(sys.argv[1]).read())):
    time.sleep(0.02)
print(urllib.request.urlopen(found[1]).read().decode())
sys.exit(7)
"""
    output = place / "out"
    with output.open("wb") as said:
        done = subprocess.run(
            [*GUARDFS, "run", "--sessions", directory, "--state", place / "state", "--force", "--metrics", ANYWHERE,
             "--", sys.executable, "-c", script, output],
            stderr=said, stdout=subprocess.PIPE, env=environment(), check=False,
        )  # fmt: skip
    assert done.returncode == 7, output.read_text()
    assert Scraped(done.stdout.decode()).one("guardfs_up", sessions=str(directory)) == 1


@pytest.mark.skipif(not FULL, reason="waits for seconds: only with GUARDFS_FULL=1")
def test_one_that_hangs_does_not_keep_the_guard(start_guard: StartGuard) -> None:
    guard = start_guard("--metrics", ANYWHERE)
    assert up(guard) == 1
    seen = observer(guard)
    seen.suspend()
    guard.stop()
    assert not seen.is_running()
