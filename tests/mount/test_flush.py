"""`guardfs flush`, `state` and `recover`: what waits on branches, and how it gets into the files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guardfs.audit.verify import verify
from tests.conftest import StartGuard
from tests.support.agent import NAME, Agent, elsewhere, record
from tests.support.commands import guardfs
from tests.support.guard import GUARDFS, Guard, environment
from tests.support.mounts import clear_mounts, mounts_below
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

ROOT = Path(__file__).parents[2]
APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"
HEADER = b'{"type":"session","id":"s"}\n'
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/audit-log.schema.json").read_text()))


def write_policy(place: Path, linger: str = "0s", **fence: str) -> Path:
    """The shipped policy with other times and bounds."""
    text = (ROOT / "policy/openclaw.toml").read_text()
    more = "".join(f'{key} = "{value}"\n' for key, value in fence.items())
    assert 'linger = "5s"' in text
    path = place / "policy.toml"
    path.write_text(
        text.replace('linger = "5s"', f'linger = "{linger}"').replace("[fence]\n", f"[fence]\n{more}")
    )
    return path


def enforcing(start_guard: StartGuard, policy: Path, **more: Any) -> Guard:
    guard: Guard = start_guard("--policy", str(policy), "--mode", "enforce", **more)
    (guard.directory / NAME).write_bytes(HEADER)
    return guard


@pytest.fixture
def guard(start_guard: StartGuard, place: Path) -> Iterator[Guard]:
    guard = enforcing(start_guard, write_policy(place))
    yield guard
    if guard.process is not None and guard.process.poll() is None:
        assert guard.status()["internal_errors"]["count"] == 0
    for event in guard.events():
        SCHEMA.validate(event)


def foreign(guard: Guard, name: str, parent: str = "00000001") -> None:
    elsewhere(APPEND, guard.directory / NAME, data=record(name, parent))


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def killed(guard: Guard) -> None:
    """Supervisor and daemon die, so that nobody takes over; the dead mount is taken off."""
    assert guard.process is not None
    guard.process.kill()
    guard.process.wait(60)
    os.kill(guard.daemon, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{guard.daemon}"), "the daemon to be gone")
    clear_mounts(guard.directory)
    assert not mounts_below(guard.directory)


def test_a_flush_without_a_fence_has_nothing_to_do(guard: Guard) -> None:
    done = guardfs("flush", guard.directory)
    assert (done.returncode, done.stdout) == (0, f"{guard.directory}: nothing waits\n")
    assert guardfs("state", guard.directory).returncode == 0


def test_a_flush_names_what_waits_for_a_fence_and_leaves_it(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    foreign(guard, "foreign1")
    for words in (["flush", guard.directory], ["flush", path]):
        done = guardfs(*words)
        assert done.returncode == 1 and not done.stderr
        assert "1 still waits" in done.stdout and "its owner relies on the transcript" in done.stdout
    (found,) = json.loads(guardfs("flush", guard.directory, "--json").stdout)
    (left,) = found["left"]
    size = len(record("foreign1", "00000001"))
    assert (found["total"], left["why"], left["bytes"], left["path"]) == (1, "fence", size, NAME)
    assert b"foreign1" not in path.read_bytes()

    shown = guardfs("state", guard.directory)
    assert shown.returncode == 1 and f"1 waits, {size} bytes" in shown.stdout
    (listed,) = json.loads(guardfs("state", guard.directory, "--json").stdout)
    (entry,) = listed["entries"]
    assert (entry["kind"], entry["transcript"], entry["bytes"]) == ("branch", NAME, size)
    assert entry["number"] == left["branch"] and entry["opened_ns"] == left["opened_ns"]
    status = guardfs("status", guard.directory).stdout
    assert f"1 waiting ({size} bytes" in status and f"branch {left['branch']} of {left['lane']}" in status

    agent.end()
    assert guardfs("flush", guard.directory).returncode == 0
    assert ids(path)[-1] == "foreign1"
    assert guardfs("state", guard.directory).returncode == 0
    status = guardfs("status", guard.directory).stdout
    assert "1 rebased" in status and "1 turns saved, 0 lost" in status


def test_a_flush_waits_for_the_fence_to_close(guard: Guard) -> None:
    agent = Agent(guard.directory)
    agent.begin()
    foreign(guard, "foreign1")
    asked = guard.status()["operations"].get("setxattr", 0)
    words = [*GUARDFS, "flush", str(guard.directory / NAME), "--timeout", "120"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment(), text=True) as waiting:
        wait_for(lambda: guard.status()["operations"].get("setxattr", 0) >= asked + 2, "it to ask again")
        assert waiting.poll() is None
        agent.end()
        out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0 and "nothing waits" in out
    assert ids(guard.directory / NAME)[-1] == "foreign1"


def test_a_flush_waits_until_the_agent_has_looked_once_more(start_guard: StartGuard, place: Path) -> None:
    guard = enforcing(start_guard, write_policy(place, linger="2s"))
    agent = Agent(guard.directory)
    agent.begin()
    foreign(guard, "foreign1")
    agent.end()
    (found,) = guard.status()["branches"]["list"]
    assert found["why"] == "linger"
    assert guardfs("flush", guard.directory).returncode == 0
    assert ids(guard.directory / NAME)[-1] == "foreign1"


def test_a_flush_names_a_transcript_without_its_name(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    path.rename(guard.directory / f"{NAME}.reset.2026")
    done = guardfs("flush", path)
    assert done.returncode == 1 and "until its owner lets go" in done.stdout
    shown = guardfs("state", guard.directory).stdout
    assert "renamed under its owner" in shown
    assert "files without their name" in guardfs("status", guard.directory).stdout
    agent.end()
    assert guardfs("flush", guard.directory).returncode == 0


def test_a_branch_that_cannot_be_rebased_is_said_once_and_tried_again(
    small_disk: Path, start_guard: StartGuard, place: Path
) -> None:
    guard = enforcing(start_guard, write_policy(place), directory=small_disk)
    guard.expected.append("cannot rebase branch")
    agent, filler = Agent(guard.directory), guard.directory / "filler"
    agent.begin()
    elsewhere(APPEND, guard.directory / NAME, data=record("x" * 30_000, "00000001"))
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - 8192)  # room for a lock file
    agent.end()
    wait_for(lambda: guard.status()["branches"]["failing"], "the rebase to fail")
    done = guardfs("flush", guard.directory)
    assert done.returncode == 1 and "No space left" in done.stdout
    checked = guardfs("status", "--check", guard.directory)
    assert checked.returncode == 1 and "1 branch cannot be rebased" in checked.stderr
    filler.unlink()
    assert guardfs("flush", guard.directory).returncode == 0
    assert len(ids(guard.directory / NAME)[-1]) == 30_000
    status = guard.status()["branches"]
    assert (status["failing"], status["failed"], status["merged"]) == (0, 1, 1)
    assert guardfs("status", "--check", guard.directory).returncode == 0
    events = [event for event in guard.settle() if event["op"] == "branch"]
    assert [event["change"] for event in events] == ["begun", "failed", "rebased"]
    for event in events:
        SCHEMA.validate(event)


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    directory = place / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a tmpfs")
    (directory / "sessions").mkdir()
    yield directory / "sessions"
    subprocess.run(["umount", "-l", directory], check=False)


def test_bounds_hold_and_follow_the_policy(start_guard: StartGuard, place: Path) -> None:
    policy = write_policy(place, max_branch="1k")
    guard = enforcing(start_guard, policy)
    guard.expected.append("could not be staged")
    path, agent = guard.directory / NAME, Agent(guard.directory)
    agent.begin()
    foreign(guard, "y" * 2000)
    assert b"yyy" in path.read_bytes()
    assert guard.status()["branches"]["passed"] == 1
    assert "1 not staged, went through" in guardfs("status", guard.directory).stdout
    (event,) = [event for event in guard.settle() if event["op"] == "unstaged"]
    SCHEMA.validate(event)
    assert event["operation"] == "write" and "max_branch" in event["error"]
    agent.end()
    policy.write_text(policy.read_text().replace('"1k"', '"8k"'))
    wait_for(lambda: guard.status()["policy"]["reloads"] == 1, "the policy to be taken")
    agent.begin()
    foreign(guard, "z" * 2000)
    assert b"zzz" not in path.read_bytes()
    agent.end()
    assert guardfs("flush", guard.directory).returncode == 0
    assert guard.status()["branches"]["passed"] == 1


def test_an_unmount_in_the_middle_of_a_fence_leaves_plain_files(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    foreign(guard, "foreign1")
    guard.stop()
    assert ids(path) == ["s", "00000001", "foreign1"]
    assert guardfs("state", "--state", guard.state).returncode == 0


def test_what_a_killed_guard_left_is_listed_and_recovered_without_mounting(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    foreign(guard, "foreign1")
    refused = guardfs("recover", guard.directory, "--state", guard.state)
    assert refused.returncode == 2 and "guarded already" in refused.stderr
    killed(guard)
    assert b"foreign1" not in path.read_bytes()
    assert guardfs("state", "--state", guard.state).returncode == 1

    other = guard.beside / "other"
    other.mkdir()
    wrong = guardfs("recover", other, "--state", guard.state)
    assert wrong.returncode == 2 and str(guard.directory) in wrong.stderr and list(other.iterdir()) == []

    done = guardfs("recover", guard.directory, "--state", guard.state)
    assert done.returncode == 0 and "appended (1 record" in done.stdout, done
    assert ids(path) == ["s", "00000001", "foreign1"]
    assert guardfs("state", "--state", guard.state).returncode == 0
    again = guardfs("recover", guard.directory, "--state", guard.state)
    assert (again.returncode, again.stdout) == (0, f"{guard.directory}: nothing waits\n")
    (event,) = guard.events(lambda event: event["op"] == "recovered")
    assert (event["path"], event["result"], event["records"]) == (NAME, "appended", 1)
    assert verify(str(guard.audit), str(guard.state / "audit.head")).ok
    shown = guardfs("tail", "--audit", guard.audit, "--op", "recovered", "--op", "branch").stdout
    assert "begins on" in shown and "before the restart appended: 1 record" in shown


def test_what_cannot_be_merged_is_kept_and_makes_recovery_end_with_1(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    foreign(guard, "foreign1")
    killed(guard)
    path.unlink()
    done = guardfs("recover", guard.directory, "--state", guard.state, "--json")
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)["branches"]
    assert found["result"] == "conflict" and ids(guard.directory / found["file"]) == ["foreign1"]


def test_a_directory_that_was_moved_is_recovered_by_force(guard: Guard) -> None:
    agent = Agent(guard.directory)
    agent.begin()
    foreign(guard, "foreign1")
    killed(guard)
    moved = guard.directory.rename(guard.beside / "moved")
    guard.directory.mkdir()
    assert guardfs("recover", moved, "--state", guard.state).returncode == 2
    assert guardfs("recover", moved, "--state", guard.state, "--force").returncode == 0
    assert ids(moved / NAME)[-1] == "foreign1"


BAD = {
    "mode: not guarded": (["mode", "off", "{plain}"], "not guarded"),
    "mode: no such directory": (["mode", "off", "{plain}/absent"], "no such"),
    "mode: no directory": (["mode", "off"], "no directory"),
    "mode: no such mode": (["mode", "of", "{guarded}"], "did you mean 'off'"),
    "mode: too much": (["mode", "off", "{guarded}", "x"], "one word too many"),
    "mode: nothing": (["mode"], "mode"),
    "flush: not guarded": (["flush", "{plain}"], "not guarded"),
    "flush: absent": (["flush", "{guarded}/absent.jsonl"], "no such file"),
    "flush: no transcript": (["flush", "{guarded}/notes.txt"], "no transcript"),
    "flush: no time": (["flush", "{guarded}", "--timeout", "nan"], "timeout"),
    "flush: a negative time": (["flush", "{guarded}", "--timeout", "-1"], "timeout"),
    "recover: guarded": (["recover", "{guarded}"], "guarded already"),
    "recover: state in use": (["recover", "{plain}", "--state", "{state}"], "a guard that runs"),
    "state: absent": (["state", "{plain}/absent"], "no such directory"),
}


@pytest.fixture(scope="module")
def bad_places(module_guard: Guard, module_place: Path) -> dict[str, Path]:
    (module_guard.directory / "notes.txt").write_text("x")
    plain = module_place / "plain"
    plain.mkdir()
    return {"guarded": module_guard.directory, "state": module_guard.state, "plain": plain}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(bad_places: dict[str, Path], name: str) -> None:
    words, said = BAD[name]
    done = guardfs(*(word.format(**bad_places) for word in words))
    assert (done.returncode, done.stdout) == (2, ""), done
    assert said in done.stderr and len(done.stderr.splitlines()) == 1 and ";" in done.stderr, done.stderr
