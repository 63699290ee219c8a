"""Bundles for bug reports: of a guard that runs, hangs, or is gone; and nothing in them that is nobody's business."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import watched
from tests.support.agent import NAME, Agent, record
from tests.support.commands import guardfs
from tests.support.guard import Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

POLICY = Path(__file__).parents[2] / "policy/openclaw.toml"
APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"

KEY = "agent:main:feishu:direct:ou_4d1c0ffee"
SECRETS = {
    "message": "meet me at the old mill at nine",
    "branch": "and bring the ledger along",
    "option": "correct horse battery",
    "assigned": "tr0ub4dor",
    "url": "hunter2hunter2",
    "github": "ghp_abcdefgh1234ABCD",
    "environment": "an-ordinary-looking-word",
    "writer's environment": "another-ordinary-word",
    "comment": "the-database-is-called-bluebird",
    "in the policy": "sk-live-0123456789abcdef",
    "session": KEY,
    "user in a session": "ou_4d1c0ffee",
    "home": "/home/ada.lovelace",
}
"""What is planted, by where."""


@pytest.fixture(scope="module")
def place(module_place: Path) -> Path:
    """For all tests here, which use one guard, the last of them when it is gone."""
    return module_place


@pytest.fixture(scope="module")
def guard(place: Path) -> Iterator[Guard]:
    """Enforcing, with secrets all around it, an agent in the middle of a turn, and something on a branch."""
    text = POLICY.read_text()
    text += f"\n# {SECRETS['comment']}\n"
    text += f'\n[[lanes]]\nname = "helper"\nprocess = {{ args = "*--key {SECRETS["in the policy"]}*" }}\n'
    policy = place / "policy.toml"
    policy.write_text(text)
    directory = place / "sessions"
    directory.mkdir()
    options = ("--policy", str(policy), "--mode", "enforce")
    guard = Guard(directory, place / "beside", *options, env={"ACME_API_KEY": SECRETS["environment"]})
    with watched([guard]):
        try:
            _plant(guard.start())
            yield guard
        finally:
            guard.destroy()


def _plant(guard: Guard) -> None:
    """The agent's and another's doings."""
    registry = {KEY: {"sessionId": NAME.removesuffix(".jsonl"), "sessionFile": str(guard.directory / NAME)}}
    (guard.directory / "sessions.json").write_text(json.dumps(registry))
    (guard.directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    said = {
        "type": "message",
        "id": "0000aaaa",
        "parentId": agent.leaf,
        "message": {"content": SECRETS["message"]},
    }
    agent.cycle(agent.look, lambda: agent.append_raw(json.dumps(said).encode() + b"\n"), agent.look)
    secret = record("foreign1", "0000aaaa").replace(b"hi", SECRETS["branch"].encode())
    words = [
        "--password", SECRETS["option"],
        f"apiKey={SECRETS['assigned']}",
        f"https://bob:{SECRETS['url']}@example.org/",
        SECRETS["github"],
        SECRETS["environment"],
        f"{SECRETS['home']}/bin/tool",
        KEY,
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", f"import sys\n{APPEND}", str(guard.directory / NAME), *words],
        input=secret,
        check=True,
        env={**os.environ, "GUARDFS_LANE": "a-claim", "SECRET": SECRETS["writer's environment"]},
    )
    wait_for(lambda: guard.status()["branches"]["open"], "the branch")
    guard.settle()


def bundle(place: Path, *words: object, unknown: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The files of a new bundle, by their names below its top. unknown: secrets that nobody can know to be some."""
    file = place / "report.tar.gz"
    file.unlink(missing_ok=True)
    done = guardfs("doctor", *words, "--bundle", file)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        members = archive.getmembers()
        assert all(member.isfile() and member.name.startswith("report/") for member in members)
        found = {}
        for member in members:
            content = archive.extractfile(member)
            assert content is not None
            found[member.name.removeprefix("report/")] = content.read()
    for name, text in found.items():
        for where in set(SECRETS) - set(unknown):
            assert SECRETS[where] not in text.decode(), f"{where} in {name}"
    return found


def parsed(found: dict[str, bytes], name: str) -> Any:
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in found[name].splitlines()]
    return json.loads(found[name])


def missing(found: dict[str, bytes]) -> list[str]:
    return [name for name in found if name.endswith(".missing.txt")]


def test_of_a_guard_that_runs_it_tells_everything_but_what_was_said(guard: Guard, place: Path) -> None:
    written = b"".join(
        path.read_bytes() for path in (guard.audit, guard.directory / NAME, place / "policy.toml")
    )
    for where in ("message", "comment", "in the policy", "session", "home"):
        assert SECRETS[where].encode() in written, f"not planted: {where}"
    found = bundle(place, guard.directory)
    assert missing(found) == []
    assert parsed(found, "guard-1/status.json")["daemon"]["pid"] == guard.daemon
    assert parsed(found, "guard-1/counters.json")["operations"]
    assert parsed(found, "guard-1/guard.json")["answers"] is True
    assert parsed(found, "guard-1/guard.json")["started_with"]["options"]["mode"] == "enforce"
    lanes = [lane["name"] for lane in parsed(found, "guard-1/policy.json")["parsed"]["lanes"]]
    assert lanes[-1] == "helper" and "gateway" in lanes
    (branch,) = parsed(found, "guard-1/journal.json")
    assert branch["transcript"] == NAME and branch["size"] > 0
    events = parsed(found, "guard-1/events.jsonl")
    logged = guard.events()
    assert [event["seq"] for event in events] == [event["seq"] for event in logged][: len(events)]
    assert [event["prev"] for event in events] == [event["prev"] for event in logged][: len(events)], (
        "the chain"
    )
    assert {event["op"] for event in parsed(found, "guard-1/notices.jsonl")} >= {"start", "policy", "branch"}
    sessions = {event["session"] for event in events if "session" in event}
    assert any(re.fullmatch("h:[0-9a-f]{16}", session) for session in sessions)
    assert {type(event["writer"]["uid"]) for event in events if "writer" in event} == {str}
    names = {Path(row["path"]).name for row in parsed(found, "guard-1/files.json")}
    assert {"format", "tokens", "audit.jsonl", "branches"} <= names
    daemon = parsed(found, "guard-1/processes.json")[0]
    assert daemon["pid"] == guard.daemon and daemon["status"]["State"] and daemon["threads"]
    assert parsed(found, "versions.json")["packages"]["pyfuse3"]
    assert parsed(found, "kernel.json")["release"] == os.uname().release
    assert {row["check"] for row in parsed(found, "doctor.json")} >= {"kernel", "guard"}
    assert b"look through it" in found["README.txt"]


def test_of_a_guard_that_hangs_it_tells_what_can_be_had(guard: Guard, place: Path) -> None:
    os.kill(guard.daemon, signal.SIGSTOP)
    try:
        found = bundle(place, guard.directory, "--state", guard.state)
    finally:
        os.kill(guard.daemon, signal.SIGCONT)
    assert missing(found) == []
    summary = parsed(found, "guard-1/guard.json")
    assert summary["answers"] is False and "no answer" in summary["trouble"]
    assert "guard-1/status.json" not in found
    assert parsed(found, "guard-1/events.jsonl") and parsed(found, "guard-1/journal.json")
    daemon = parsed(found, "guard-1/processes.json")[0]
    assert daemon["pid"] == guard.daemon and daemon["status"]["State"].startswith("T")
    row = next(row for row in parsed(found, "doctor.json") if row["check"] == "directory")
    assert row["severity"] == "error" and "hangs" in row["detail"]


def test_where_there_was_never_a_guard_it_tells_of_the_machine(place: Path) -> None:
    plain = place / "plain"
    plain.mkdir()
    found = bundle(place, plain)
    assert parsed(found, "versions.json")["guardfs"]
    assert parsed(found, "guard-1/guard.json")["answers"] is False
    assert b"no such file" in found["guard-1/events.missing.txt"].lower()
    assert not (plain.parent / "state").exists()


def test_a_log_that_holds_something_else_is_left_out(guard: Guard, place: Path) -> None:
    """Whatever has got into it."""
    with guard.audit.open("ab") as log:
        log.write(
            json.dumps({"message": SECRETS["message"]}).encode() + b"\n" + SECRETS["message"].encode() + b"\n"
        )
    found = bundle(place, guard.directory)
    assert parsed(found, "guard-1/events.jsonl")


def test_a_policy_that_is_broken_is_told_without_its_text(guard: Guard, place: Path) -> None:
    guard.expected.append(r"policy\.toml")
    (place / "policy.toml").write_text(f"[[lanes]] # {SECRETS['comment']}\nname = [{SECRETS['comment']}\n")
    wait_for(lambda: guard.status()["policy"]["error"], "the refusal")
    found = bundle(place, guard.directory)
    assert "line 2" in parsed(found, "guard-1/policy.json")["broken"]


def test_what_cannot_be_written_is_one_line(guard: Guard, place: Path) -> None:
    there = place / "there.tar.gz"
    there.write_text("mine")
    for file, said in (
        (there, "File exists"),
        (place / "nowhere/b.tar.gz", "No such file"),
        (guard.directory / "b.tar.gz", "inside the guarded directory"),
    ):
        done = guardfs("doctor", "--bundle", file)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1 and said in done.stderr
    assert there.read_text() == "mine"
    done = guardfs("doctor", "--state", place)
    assert done.returncode == 2 and "--bundle" in done.stderr


def test_of_a_guard_that_is_gone_it_tells_what_it_left(guard: Guard, place: Path) -> None:
    assert guard.unmount() == 0
    guard.check_said()
    # a word in the arguments of somebody, and in the environment of a guard that is no more
    found = bundle(place, guard.directory, "--state", guard.state, unknown=("environment",))
    assert missing(found) == []
    assert parsed(found, "guard-1/guard.json")["trouble"] != ""
    assert [event["op"] for event in parsed(found, "guard-1/notices.jsonl")][-1] == "stop"
    assert parsed(found, "guard-1/processes.json") == []
    assert "policy.toml" in parsed(found, "guard-1/policy.json")["source"]
