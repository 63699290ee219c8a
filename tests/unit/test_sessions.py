"""The registry of sessions, followed on a real file as an agent rewrites it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardfs.mount import sessions
from guardfs.mount.sessions import Sessions
from tests.support.waiting import wait_for

ID = "c9e360ca-52a1-4d38-9d9f-3f2f3a1c6e11"
NEXT = "0b1f7c1e-0a6b-4f0e-8d53-6f1ce2f8a001"
KEY = "agent:main:main"


class Agent:
    """Writes the registry as OpenClaw does: whole, to another name, then a rename."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "sessions.json"
        self.opened = 0

    def replace(self, **ids: str) -> None:
        self.put(
            json.dumps({key.replace("_", ":"): {"sessionId": ids[key]} for key in ids}, indent=2).encode()
        )

    def put(self, data: bytes) -> None:
        new = self.path.with_name(".fs-safe-replace.1.tmp")
        new.write_bytes(data)
        new.rename(self.path)

    def open(self) -> int:
        self.opened += 1
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


Follow = Callable[[], Sessions]


@pytest.fixture
def follow(agent: Agent) -> Iterator[Follow]:
    started: list[Sessions] = []

    def start() -> Sessions:
        followed = Sessions(agent.open)
        started.append(followed)
        followed.start()
        return followed

    yield start
    for followed in started:
        followed.close()


def name(session: str, more: str = "") -> bytes:
    return f"{session}.jsonl{more}".encode()


def until(followed: Sessions, session: str, key: str | None) -> None:
    wait_for(lambda: followed.key_of(name(session)) == key, f"{session} to be of {key}")


def stat(followed: Sessions, key: str) -> Any:
    return followed.stats()[key]


def test_a_transcript_has_the_key_that_the_registry_gives_it(agent: Agent, follow: Follow) -> None:
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    assert followed.key_of(name(ID, ".lock")) == KEY
    assert followed.key_of(name(NEXT)) is None
    stats = followed.stats()
    assert (stats["file"], stats["sessions"], stats["broken"], stats["error"]) == ("sessions.json", 1, 0, "")
    assert stat(followed, "read_ns") > 0


def test_a_replaced_registry_is_read_when_told(agent: Agent, follow: Follow) -> None:
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    before = followed.generation
    agent.replace(agent_main_main=ID, agent_main_cron=NEXT)
    followed.touch()
    until(followed, NEXT, "agent:main:cron")
    assert followed.generation > before


def test_a_change_below_the_mount_is_found_without_being_told(agent: Agent, follow: Follow) -> None:
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    agent.replace(agent_main_main=ID, agent_main_cron=NEXT)
    until(followed, NEXT, "agent:main:cron")


def test_an_archived_transcript_keeps_the_session_that_it_left(agent: Agent, follow: Follow) -> None:
    """`/new`: the key goes on with another transcript, and the old one is renamed."""
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    agent.replace(agent_main_main=NEXT)
    followed.touch()
    until(followed, NEXT, KEY)
    assert followed.key_of(name(ID)) == KEY
    assert followed.key_of(name(ID, ".reset.2026-05-23T03-37-47.123Z")) == KEY
    assert stat(followed, "sessions") == 1


def test_transcripts_that_left_are_remembered_up_to_a_bound(
    agent: Agent, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REMEMBERED", 2)
    monkeypatch.setattr(sessions, "PAUSE", 0.0)
    agent.replace(key=ID)
    followed = follow()
    until(followed, ID, "key")
    for number in range(4):
        agent.replace(key=str(number))
        followed.touch()
        until(followed, str(number), "key")
    known = [followed.key_of(name(session)) for session in (ID, "0", "1", "2", "3")]
    assert known == [None, None, "key", "key", "key"]


@pytest.mark.parametrize("broken", [b"", b'{"agent:main:main": {"sessionId": "', b"[]", b"\xff\xfe"])
def test_a_broken_registry_changes_nothing_and_is_counted(
    agent: Agent, follow: Follow, broken: bytes
) -> None:
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    agent.put(broken)
    followed.touch()
    wait_for(lambda: stat(followed, "broken"), "the broken registry to be seen")
    assert followed.key_of(name(ID)) == KEY
    assert stat(followed, "error").startswith("sessions.json: is ")
    agent.replace(agent_main_main=NEXT)
    followed.touch()
    until(followed, NEXT, KEY)
    assert stat(followed, "error") == ""


def test_a_registry_that_goes_away_changes_nothing(agent: Agent, follow: Follow) -> None:
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    agent.path.unlink()
    followed.touch()
    wait_for(lambda: stat(followed, "error"), "the loss to be seen")
    assert stat(followed, "error") == "sessions.json: No such file or directory"
    assert (followed.key_of(name(ID)), stat(followed, "broken")) == (KEY, 1)


def test_an_agent_that_has_no_registry_yet_is_nothing_broken(agent: Agent, follow: Follow) -> None:
    followed = follow()
    wait_for(lambda: stat(followed, "error"), "the first look")
    assert (stat(followed, "broken"), stat(followed, "reads"), followed.generation) == (0, 0, 0)
    agent.replace(agent_main_main=ID)
    followed.touch()
    until(followed, ID, KEY)


def test_a_registry_that_is_no_file_is_said(agent: Agent, follow: Follow) -> None:
    os.mkfifo(agent.path)
    followed = follow()
    wait_for(lambda: stat(followed, "error"), "the pipe to be seen")
    assert stat(followed, "error") == "sessions.json: is no regular file"


def test_a_registry_that_is_too_large_is_not_read(agent: Agent, follow: Follow) -> None:
    agent.path.touch()
    os.truncate(agent.path, sessions.MAX_BYTES + 1)
    followed = follow()
    wait_for(lambda: stat(followed, "error"), "the size to be seen")
    assert stat(followed, "error") == "sessions.json: has more than 64 MiB"
    assert stat(followed, "reads") == 0


def test_a_rewrite_that_changes_no_session_drops_no_cache(agent: Agent, follow: Follow) -> None:
    """The gateway rewrites its registry four times a turn, mostly for a time of day in it."""
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    before, reads = followed.generation, stat(followed, "reads")
    agent.put(json.dumps({KEY: {"sessionId": ID, "updatedAt": 7}}).encode())
    followed.touch()
    wait_for(lambda: stat(followed, "reads") > reads, "the second read")
    wait_for(lambda: followed._wake.is_set() is False, "the thread to wait again")
    assert followed.generation == before


def test_many_rewrites_are_few_reads(agent: Agent, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PAUSE", 3600.0)
    agent.replace(agent_main_main=ID)
    followed = follow()
    until(followed, ID, KEY)
    for number in range(200):
        agent.replace(agent_main_main=str(number))
        followed.touch()
    assert stat(followed, "reads") == 1
    assert agent.opened == 1


def test_who_sees_the_generation_sees_its_sessions(
    agent: Agent, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's thread asks while the registry changes under it; what it keeps is never older than the generation."""
    monkeypatch.setattr(sessions, "PAUSE", 0.0)
    agent.replace(key="0")
    followed = follow()
    until(followed, "0", "key")
    stale: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            generation = followed.generation
            if followed.key_of(name(str(generation - 1))) is None:
                stale.append(generation)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(1, 40):
            agent.replace(key=str(number))
            followed.touch()
            until(followed, str(number), "key")
    finally:
        done.set()
        asking.join()
    assert followed.generation == 40
    assert stale == []


def test_close_ends_the_thread(agent: Agent) -> None:
    agent.replace(agent_main_main=ID)
    followed = Sessions(agent.open)
    followed.start()
    until(followed, ID, KEY)
    followed.close()
    assert not followed._thread.is_alive()
