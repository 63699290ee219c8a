"""A policy in a running guard: lanes and rules in events, a change of the file taken over or refused, claims."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support import bad_policies
from tests.support.guard import Event, Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

POLICY = """\
version = 1

[transcripts]
include = ["*.jsonl"]

[claims]
environment = ["nightly-*"]
attribute = ["nightly-*"]

[fence]
idle_timeout = "15m"

[[lanes]]
name = "python"
process = { exe = "*python*" }
unless = { claim = "*" }

[[lanes]]
name = "writer"
within = "python"
operation = "append"
record = { id = "hex8" }

[[rules]]
name = "appends of the writer"
verdict = "stage"
when = { lane = "python:writer" }

[[rules]]
name = "the rest"
verdict = "allow"
"""
GOOD = POLICY.replace('name = "the rest"', 'name = "the rest, renamed"')
RECORD = b'{"type":"message","id":"0badcafe","parentId":null,"message":{"role":"user","content":"hi"}}\n'


@pytest.fixture
def policy(place: Path) -> Path:
    """A policy file that a guard may trust."""
    path = place / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o644)
    return path


def append(guard: Guard, name: str = "a.jsonl", data: bytes = RECORD) -> None:
    with (guard.directory / name).open("ab", buffering=0) as file:
        file.write(data)


def writes(event: Event) -> bool:
    return event["op"] == "write" and str(event["path"]).endswith(".jsonl")


def rule_now(guard: Guard) -> str:
    """The rule that decides an ordinary operation now."""
    (guard.directory / "probe.txt").touch()
    return str(guard.settle()[-1].get("rule"))


def test_events_name_lane_evidence_and_rule(start_guard: StartGuard, policy: Path) -> None:
    guard = start_guard("--policy", str(policy))
    append(guard)
    event = guard.wait_event(writes)
    assert event["lane"] == "python:writer" and event["class"] == "append"
    assert event["evidence"] == ["process.exe", "operation", "record.id"]
    assert (event["rule"], event["verdict"], event["would"]) == ("appends of the writer", "allow", "stage")
    made = guard.wait_event(lambda event: event["op"] == "create")
    assert (made["lane"], made["rule"], made["verdict"]) == ("python", "the rest", "allow")
    status = guard.status()["policy"]
    assert status["hits"]["appends of the writer"] == 1 and status["source"] == str(policy)


def test_a_lock_says_whose_it_is(start_guard: StartGuard, policy: Path) -> None:
    guard = start_guard("--policy", str(policy))
    (guard.directory / "a.jsonl.lock").touch()
    append(guard)
    code = f"open({str(guard.directory / 'a.jsonl')!r}, 'ab', buffering=0).write(b'x')"
    subprocess.run([sys.executable, "-c", code], check=True)
    (guard.directory / "a.jsonl.lock").unlink()
    append(guard)
    assert [event.get("lock") for event in guard.settle() if writes(event)] == ["own", "other", None]


def test_a_rename_onto_a_transcript_rewrites_it(start_guard: StartGuard, policy: Path) -> None:
    guard = start_guard("--policy", str(policy))
    append(guard)
    (guard.directory / "new").write_bytes(RECORD)
    (guard.directory / "new").rename(guard.directory / "a.jsonl")
    (guard.directory / "a.jsonl").rename(guard.directory / "a.jsonl.bak.1")
    over, away = (event for event in guard.settle() if event["op"] == "rename")
    assert (over["class"], away["class"]) == ("rewrite", "rename")


def test_claims_are_marked_and_count_where_they_are_believed(start_guard: StartGuard, policy: Path) -> None:
    guard = start_guard("--policy", str(policy))
    path = guard.directory / "a.jsonl"
    code = f"open({str(path)!r}, 'ab', buffering=0).write(b'x')"
    for claim in ("nightly-copy", "gateway"):
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "GUARDFS_LANE": claim})
    believed, not_believed = (event for event in guard.settle() if writes(event))
    assert (believed["lane"], believed["evidence"]) == ("nightly-copy", ["claim.environment"])
    assert not_believed["lane"].startswith("python")

    before = path.stat()
    os.setxattr(path, "user.guardfs.lane", b"nightly-index")
    assert os.getxattr(path, "user.guardfs.lane") == b"nightly-index"
    assert os.listxattr(path) == []
    append(guard)
    event = [event for event in guard.settle() if writes(event)][-1]
    assert event["claim"] == event["lane"] == "nightly-index"
    assert event["evidence"] == ["claim.attribute"]
    os.removexattr(path, "user.guardfs.lane")
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "user.guardfs.lane")
    assert caught.value.errno == errno.ENODATA
    after = os.stat(guard.directory / "a.jsonl")
    assert (
        after.st_ctime_ns == after.st_mtime_ns and before.st_ino == after.st_ino
    )  # only the append changed it


def test_a_good_change_is_in_force_and_told(start_guard: StartGuard, policy: Path) -> None:
    guard = start_guard("--policy", str(policy))
    first = guard.status()["policy"]["digest"]
    assert rule_now(guard) == "the rest"
    policy.write_text(GOOD)
    wait_for(lambda: rule_now(guard) == "the rest, renamed", "the change to be in force")
    event = guard.wait_event(lambda event: event["op"] == "policy" and "old" in event)
    status = guard.status()["policy"]
    assert (event["change"], event["old"], event["new"]) == ("loaded", first, status["digest"])
    assert first != status["digest"] and status["reloads"] == 1 and not status["error"]


def swap_link(policy: Path, text: str) -> None:
    """As Kubernetes updates a ConfigMap: the directory's link is renamed over."""
    new = policy.parent / "..data-new"
    new.mkdir()
    (new / "policy.toml").write_text(text)
    link = policy.parent / "..data.tmp"
    link.symlink_to(new.name)
    link.rename(policy.parent / "..data")


def replace(policy: Path, text: str) -> None:
    """As editors save."""
    new = policy.with_suffix(".tmp")
    new.write_text(text)
    new.rename(policy)


@pytest.mark.parametrize(
    "how", [replace, swap_link, Path.write_text], ids=["rename", "link above", "in place"]
)
def test_a_change_is_noticed_however_it_is_made(
    start_guard: StartGuard, place: Path, how: Callable[[Path, str], object]
) -> None:
    home = place / "etc"
    (home / "..data-old").mkdir(parents=True)
    (home / "..data-old" / "policy.toml").write_text(POLICY)
    (home / "..data").symlink_to("..data-old")
    path = home / "policy.toml"
    path.symlink_to("..data/policy.toml")
    guard = start_guard("--policy", str(path))
    how(path, GOOD)
    wait_for(lambda: rule_now(guard) == "the rest, renamed", "the change to be in force")


BAD = bad_policies.BAD


@pytest.mark.parametrize("name", BAD)
def test_a_bad_change_keeps_the_old_policy_and_says_why(
    start_guard: StartGuard, policy: Path, name: str
) -> None:
    damage, said = BAD[name]
    guard = start_guard("--policy", str(policy))
    guard.expected = [r"guardfs\[\d+\] ERROR"]
    before = guard.status()["policy"]
    damage(policy)
    event = guard.wait_event(lambda event: event["op"] == "policy" and event["change"] == "refused")
    assert event["old"] == before["digest"] and event["problems"]
    guard.wait_said(said)
    status = guard.status()["policy"]
    assert status["digest"] == before["digest"] and status["refused"] == 1 and status["error"]
    assert rule_now(guard) == "the rest"
    policy.unlink(missing_ok=True)
    policy.write_text(POLICY)
    policy.chmod(0o644)
    wait_for(lambda: not guard.status()["policy"]["error"], "the guard to see that the file is right again")
    policy.write_text(GOOD)
    wait_for(lambda: rule_now(guard) == "the rest, renamed", "the next good change to be in force")


def test_another_choice_of_transcripts_takes_effect_on_files_that_are_known(
    start_guard: StartGuard, policy: Path
) -> None:
    guard = start_guard("--policy", str(policy))
    (guard.directory / "a.chat").write_bytes(RECORD)
    (guard.directory / "a.chat").stat()
    policy.write_text(GOOD.replace('["*.jsonl"]', '["*.chat"]'))
    wait_for(lambda: rule_now(guard) == "the rest, renamed", "the change to be in force")

    def looked() -> bool:
        (guard.directory / "a.chat").stat()
        return any(event["op"] == "look" and event["path"] == "a.chat" for event in guard.settle())

    wait_for(looked, "looks at the new transcript to be seen")
    append(guard, "a.chat")
    event = guard.wait_event(lambda event: event["op"] == "write" and "record" in event)
    assert (event["path"], event["lane"]) == ("a.chat", "python:writer")


def test_sighup_looks_at_the_file_at_once_and_opens_the_log_anew(
    start_guard: StartGuard, policy: Path
) -> None:
    guard = start_guard("--policy", str(policy))
    assert guard.process is not None
    guard.process.send_signal(signal.SIGHUP)
    guard.wait_said("not changed")


def test_the_registry_gives_sessions_their_names(start_guard: StartGuard) -> None:
    guard = start_guard("--policy", "openclaw")
    key = "agent:main:feishu:direct:ou_1"
    temporary = guard.directory / ".fs-safe-replace.1.x.tmp"
    temporary.write_text(f'{{"{key}": {{"sessionId": "0b5e55ed", "updatedAt": 1}}}}')
    temporary.rename(guard.directory / "sessions.json")

    def named() -> bool:
        append(guard, "0b5e55ed.jsonl")
        return bool([event for event in guard.settle() if writes(event)][-1]["session"] == key)

    wait_for(named, "the session's key in events")
    (guard.directory / "sessions.json").write_text("{ broken")
    wait_for(lambda: guard.status()["sessions"]["broken"], "the broken registry to be noticed")
    assert named()


def test_a_policy_in_the_guarded_directory_is_refused(new_guard: StartGuard, place: Path) -> None:
    directory = place / "sessions"
    directory.mkdir()
    path = directory / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o644)
    guard = new_guard("--policy", str(path), directory=directory)
    with pytest.raises(RuntimeError, match="the policy would lie"):
        guard.start()
