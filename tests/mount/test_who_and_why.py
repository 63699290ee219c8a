"""A guard, an agent that keeps to the protocol, a foreign writer; then the commands that say who it was."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.mount.test_fences import by_another_process
from tests.support.agent import NAME, Agent, record
from tests.support.guard import GUARDFS, Guard

pytestmark = pytest.mark.mount

WORDS = "session file changed while embedded prompt lock was released"


@pytest.fixture
def guard(start_guard: StartGuard) -> Guard:
    return start_guard("--policy", "openclaw")


@pytest.fixture
def agent(guard: Guard) -> Agent:
    (guard.directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    return Agent(guard.directory)


def ask(guard: Guard, *args: object, status: int = 0) -> str:
    done = subprocess.run([*GUARDFS, *map(str, args)], env=guard.env, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (status, ""), done.stdout + done.stderr
    return done.stdout


def killed(guard: Guard, agent: Agent) -> None:
    agent.begin()
    agent.delta()
    by_another_process(guard, record("bf09c3d4", agent.leaf))
    agent.end()
    guard.settle()


def test_from_the_error_line_to_the_culprit(guard: Guard, agent: Agent) -> None:
    killed(guard, agent)
    (row,) = [
        json.loads(line) for line in ask(guard, "incidents", guard.directory, "--json", status=1).splitlines()
    ]
    assert row["culprit_process"]["comm"].startswith("python")
    assert row["owner_process"]["tgid"] == os.getpid() != row["culprit_process"]["tgid"]
    line = f'lane task error: lane=main durationMs=60000 error="{WORDS}: /x/{NAME}"'
    (answer,) = json.loads(ask(guard, "explain", guard.directory, "--log-line", line, "--json"))
    assert answer["incident"]["seq"] == row["seq"]
    (event,) = [event for event in guard.events() if event["seq"] == answer["incident"]["culprit_event"]]
    assert (event["op"], event["record"]["id"]) == ("write", "bf09c3d4")


def test_blame_finds_the_log_of_the_guard_that_the_transcript_lies_under(guard: Guard, agent: Agent) -> None:
    killed(guard, agent)
    agent.begin()
    agent.end()
    guard.settle()
    rows = [json.loads(line) for line in ask(guard, "blame", agent.path, "--json", status=1).splitlines()]
    assert [row["known"] for row in rows] == ["log"] * len(rows)
    assert [row["written"]["by"]["tgid"] == os.getpid() for row in rows] == [True, True, True, False, True]
    (killer,) = [row for row in rows if "killed" in row["written"]]
    assert (killer["record"]["id"], killer["standing"]) == ("bf09c3d4", "forgotten")
    assert sum(row["bytes"] + 1 for row in rows) == agent.path.stat().st_size
    assert (
        json.loads(ask(guard, "blame", agent.path, "--json", "--text", "-n", "1", status=1))["text"] == "hi"
    )


def test_an_append_of_several_requests_is_one_record_of_one_writer(guard: Guard, agent: Agent) -> None:
    with agent.path.open("ab", buffering=0) as file:
        file.write(record("00000abc", None)[:-4] + b" " * 500_000 + b'"}}\n')
    guard.settle()
    row = json.loads(ask(guard, "blame", agent.path, "--json", "-n", "1"))
    assert row["known"] == "log" and row["bytes"] > 500_000 and "ended" not in row


def test_status_of_a_transcript_tells_who_relies_on_it(guard: Guard, agent: Agent) -> None:
    assert "nobody relies on it now" in ask(guard, "status", agent.path)
    agent.begin()
    by_another_process(guard, record("x", None))
    shown = ask(guard, "status", agent.path)
    assert f"token 1, python[{os.getpid()}], open for" in shown.replace(agent_lane(guard), "python")
    assert ", 1 change since it looked" in shown
    found = json.loads(ask(guard, "status", agent.path, "--json"))
    assert found["transcript"] == NAME and found["mountpoint"] == str(guard.directory)
    assert [fence["token"] for fence in found["fences"]] == [1]
    agent.end()
    assert json.loads(ask(guard, "status", agent.path, "--json"))["fences"] == []


def agent_lane(guard: Guard) -> str:
    lane: str = guard.status()["fences"]["list"][0]["owner"]
    return lane


def test_status_of_a_transcript_that_is_not_there_yet(guard: Guard) -> None:
    agent = Agent(guard.directory)
    done = subprocess.run([*GUARDFS, "status", agent.path], env=guard.env, capture_output=True, text=True)
    assert done.returncode == 2 and "nobody relies on that" in done.stderr
    agent.cycle(agent.look, agent.look, agent.look)
    assert "token 1" in ask(guard, "status", agent.path)
    agent.end()


def test_status_of_what_is_no_transcript(guard: Guard) -> None:
    (guard.directory / "sessions.json").write_text("{}")
    done = subprocess.run(
        [*GUARDFS, "status", guard.directory / "sessions.json"], env=guard.env, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "no transcript" in done.stderr


def test_the_attribute_is_in_no_list_and_in_no_copy(guard: Guard, agent: Agent, place: Path) -> None:
    assert os.listxattr(agent.path) == []
    subprocess.run(["cp", "--preserve=all", agent.path, place / "copy"], check=True)
    assert os.listxattr(place / "copy") == []
