"""Fences as a mount sees them: opened and closed by the owner's lock cycles, broken by others, ended with the owner."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.agent import NAME, Agent, record
from tests.support.guard import Event, Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


def fences(guard: Guard) -> list[Event]:
    return [event for event in guard.settle() if event["op"] in ("fence", "incident", "forgotten", "stale")]


@pytest.fixture
def guard(start_guard: StartGuard) -> Guard:
    return start_guard("--policy", "openclaw")


@pytest.fixture
def agent(guard: Guard) -> Agent:
    (guard.directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    return Agent(guard.directory)


def test_a_turn_is_one_fence_with_a_token_of_its_own(guard: Guard, agent: Agent) -> None:
    for token in (1, 2):
        agent.begin()
        (shown,) = guard.status()["fences"]["list"]
        assert (shown["token"], shown["tgid"], shown["path"]) == (token, os.getpid(), NAME)
        agent.delta()
        agent.delta()
        agent.end()
        assert guard.status()["fences"]["open"] == 0
    told = [(event["change"], event["token"], event.get("reason")) for event in fences(guard)]
    assert told == [
        ("opened", 1, None),
        ("closed", 1, "closed"),
        ("opened", 2, None),
        ("closed", 2, "closed"),
    ]


def by_another_process(guard: Guard, data: bytes) -> None:
    code = (
        f"import sys; open({str(guard.directory / NAME)!r}, 'ab', buffering=0).write(sys.stdin.buffer.read())"
    )
    subprocess.run([sys.executable, "-c", code], input=data, check=True)


CHANGES: dict[str, tuple[Callable[[Guard], object], str, str]] = {
    "a record by another process": (
        lambda guard: by_another_process(guard, record("x", None)),
        "append",
        "lane",
    ),
    "chmod": (lambda guard: (guard.directory / NAME).chmod(0o640), "attributes", "metadata"),
    "touch": (lambda guard: os.utime(guard.directory / NAME), "attributes", "metadata"),
    "hard link": (
        lambda guard: os.link(guard.directory / NAME, guard.directory / "copy"),
        "attributes",
        "metadata",
    ),
    "rename over": (lambda guard: replace(guard), "rename over", "lane"),
    "rename away": (
        lambda guard: (guard.directory / NAME).rename(guard.directory / f"{NAME}.reset.1"),
        "rename away",
        "own",
    ),
    "unlink": (lambda guard: (guard.directory / NAME).unlink(), "unlink", "own"),
    "truncate": (lambda guard: os.truncate(guard.directory / NAME, 3), "truncate", "own"),
}


def replace(guard: Guard) -> None:
    path = guard.directory / NAME
    new = path.with_suffix(".tmp")
    subprocess.run(["/bin/cp", path, new], check=True)
    subprocess.run(["/bin/mv", "-f", new, path], check=True)
    wait_for(lambda: looks_by_another_process(guard, path), "the kernel to ask for what has the name now")


def looks_by_another_process(guard: Guard, path: Path) -> bool:
    """Whether the guard is asked when somebody looks at *path*: for a moment the kernel carries over what it knew of
    the file by its former name (docs/known-issues.md)."""
    subprocess.run(["/usr/bin/stat", path], check=True, stdout=subprocess.DEVNULL)
    return any(
        event["op"] == "look" and event["path"] == NAME and event["writer"]["comm"] == "stat"
        for event in guard.settle()
    )


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_breaks_a_fence_is_an_incident_that_names_it(
    guard: Guard, agent: Agent, name: str
) -> None:
    change, word, kind = CHANGES[name]
    agent.begin()
    agent.delta()
    change(guard)
    agent.end()  # it checks, finds another fingerprint, and gives up: no second look
    (incident,) = [event for event in fences(guard) if event["op"] == "incident"]
    assert (incident["culprit"]["change"], incident["kind"], incident["outcome"]) == (word, kind, "lost")
    assert incident["expected"] != incident["seen"] and incident["token"] == 1
    closed = fences(guard)[-1]
    assert (closed["change"], closed["reason"]) == ("closed", "died")
    assert guard.status()["fences"]["incidents"] == 1


def test_operations_tell_the_fence_and_what_the_rule_would_have_done(guard: Guard, agent: Agent) -> None:
    agent.begin()
    by_another_process(guard, record("x", None))
    agent.delta()
    foreign = guard.wait_event(lambda event: event["op"] == "write" and event.get("would") == "stage")
    assert foreign["fence"]["relation"] == "other" and foreign["fence"]["token"] == 1
    own = [event for event in guard.settle() if event["op"] == "write" and event["path"] == NAME][-1]
    assert own["fence"]["relation"] == "own" and "would" not in own


def test_a_change_below_the_mount_is_an_unseen_writers(
    start_guard: StartGuard, place: Path, below: Callable[[Path], Path]
) -> None:
    directory = place / "sessions"
    directory.mkdir()
    plain = below(directory)
    guard = start_guard("--policy", "openclaw", directory=directory)
    (directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(directory)
    agent.begin()
    (plain / NAME).chmod(0o640)
    agent.end()
    (incident,) = [event for event in fences(guard) if event["op"] == "incident"]
    assert incident["kind"] in ("unseen", "drift", "metadata")
    assert incident["culprit"] is None or "by" not in incident["culprit"]


@pytest.fixture
def below(place: Path) -> Iterator[Callable[[Path], Path]]:
    """A second way to a directory, which goes on leading to it when a guard is mounted over the first."""
    made: list[Path] = []

    def make(directory: Path) -> Path:
        path = place / "below"
        path.mkdir()
        subprocess.run(["mount", "--bind", directory, path], check=True)
        made.append(path)
        return path

    yield make
    for path in made:
        subprocess.run(["umount", "-l", path], check=True)


def test_the_fence_of_a_process_that_ends_is_closed_at_once(guard: Guard, agent: Agent) -> None:
    code = f"""
import os, sys
from pathlib import Path
from tests.mount.test_fences import Agent
agent = Agent(Path({str(guard.directory)!r}))
agent.begin()
print("open", flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=guard.env,
        cwd=guard.env["PYTHONPATH"],
    )
    assert child.stdout is not None and child.stdout.readline() == b"open\n"
    assert guard.status()["fences"]["open"] == 1
    child.kill()
    child.wait()
    child.stdout.close()
    assert child.stdin is not None
    child.stdin.close()
    wait_for(lambda: guard.status()["fences"]["open"] == 0, "the fence of the dead process to be closed")
    assert fences(guard)[-1]["reason"] == "exit"


def test_an_owner_that_falls_silent_loses_its_fence_and_is_known_when_it_comes_back(
    start_guard: StartGuard, place: Path
) -> None:
    policy = place / "policy.toml"
    policy.write_text(
        'version = 1\n[fence]\nidle_timeout = "200ms"\n[[rules]]\nname = "all"\nverdict = "allow"\n'
    )
    policy.chmod(0o644)
    guard = start_guard("--policy", str(policy))
    (guard.directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    wait_for(lambda: guard.status()["fences"]["open"] == 0, "the silent fence to be closed")
    agent.delta()
    told = [(event["op"], event.get("reason")) for event in fences(guard)]
    assert ("fence", "idle") in told and ("stale", None) in told


def test_tokens_grow_over_a_restart(start_guard: StartGuard, place: Path) -> None:
    directory = place / "sessions"
    directory.mkdir()
    tokens = []
    for _ in range(2):
        guard = start_guard("--policy", "openclaw", "--state", str(place / "state"), directory=directory)
        (directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
        agent = Agent(directory)
        agent.begin()
        tokens.append(guard.status()["fences"]["list"][0]["token"])
        agent.end()
        guard.stop()
    assert 0 < tokens[0] < tokens[1]
