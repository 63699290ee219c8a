"""Enforcement on a real mount: what each process sees while a fence is open, and what is in the file afterwards."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGuard
from tests.support.agent import NAME, Agent, elsewhere, record
from tests.support.guard import Event, Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"


POLICY = Path(__file__).parents[2] / "policy/openclaw.toml"


@pytest.fixture
def guard(start_guard: StartGuard, place: Path) -> Guard:
    """Enforcing, and not waiting for what a gateway may still have to say after its turn."""
    text = POLICY.read_text().replace('linger = "5s"', 'linger = "0s"')
    assert text != POLICY.read_text()
    policy = place / "policy.toml"
    policy.write_text(text)
    return start_guard("--policy", str(policy), "--mode", "enforce")


@pytest.fixture
def agent(guard: Guard) -> Iterator[Agent]:
    (guard.directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    yield Agent(guard.directory)
    assert guard.status()["internal_errors"]["count"] == 0
    assert incidents(guard, "lost") == []


def incidents(guard: Guard, outcome: str) -> list[Event]:
    return [event for event in guard.settle() if event["op"] == "incident" and event["outcome"] == outcome]


def ended(guard: Guard, agent: Agent) -> None:
    """The turn ends, and what waited for that is in the file."""
    agent.end()
    wait_for(lambda: not guard.status()["branches"]["open"], "branches to be rebased")
    wait_for(lambda: not guard.status()["branches"]["ghosts"], "the file to have one name")


def fingerprint(path: Path) -> tuple[int, ...]:
    st = path.stat()
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def path_from_leaf(path: Path) -> list[str]:
    """Ids on the way from the last record to the first, turned round."""
    found = {each["id"]: each for each in records(path) if each["type"] != "session"}
    way, at = [], list(found)[-1] if found else None
    while at is not None and at in found:
        way.append(at)
        at = found[at].get("parentId")
    return way[::-1]


def test_an_append_by_another_process_waits_for_the_turn(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    before = fingerprint(path)
    elsewhere(APPEND, path, data=record("foreign1", "00000001"))
    assert fingerprint(path) == before
    assert b"foreign1" not in path.read_bytes()
    agent.delta()
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000001", "00000002", "foreign1"]
    assert [each["id"] for each in records(path)] == ["s", "00000001", "00000002", "foreign1"]
    (saved,) = incidents(guard, "saved")
    assert saved["culprit"]["change"] == "append"
    (write,) = [e for e in guard.events() if e["op"] == "write" and e["verdict"] == "stage"]
    assert write["fence"]["relation"] == "other" and write["record"]["id"] == "foreign1"


def test_a_writer_reads_what_it_wrote_and_others_do_not(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    seen = elsewhere(
        """
import mmap
path = sys.argv[1]
before = os.stat(path)
with open(path, 'rb', buffering=0) as early, open(path, 'ab', buffering=0) as file:
    file.write(sys.stdin.buffer.read())
    after = os.stat(path)
    again = os.fstat(file.fileno())
    whole = open(path, 'rb').read()
    mapped = mmap.mmap(os.open(path, os.O_RDONLY), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)[:]
    out = os.memfd_create('out')
    os.sendfile(out, os.open(path, os.O_RDONLY), 0, 1 << 20)
    sent = os.pread(out, 1 << 20, 0)
    copy = os.memfd_create('copy')
print(json.dumps([after.st_size - before.st_size, again.st_size == after.st_size, after.st_ino == before.st_ino,
    b'foreign1' in whole, mapped == whole, sent == whole, len(whole) == after.st_size]))
""",
        path,
        data=record("foreign1", "00000001"),
    )
    assert json.loads(seen) == [len(record("foreign1", "00000001")), *[True] * 6]
    others = subprocess.run(["cat", path], capture_output=True, check=True).stdout
    assert b"foreign1" not in others and b"00000001" in others
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000001", "foreign1"]


def test_two_foreign_writers_end_on_one_path(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    for name in ("foreign1", "foreign2", "foreign3"):
        elsewhere(APPEND, path, data=record(name, "00000001"))
    agent.delta()
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000001", "00000002", "foreign1", "foreign2", "foreign3"]


def test_attributes_change_below_and_the_owner_keeps_what_it_relies_on(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    before = fingerprint(path)
    for code in (
        "os.chmod(sys.argv[1], 0o640)",
        "os.utime(sys.argv[1], (1, 1))",
        "os.link(sys.argv[1], sys.argv[1] + '.sync')",
        "os.rename(sys.argv[1] + '.sync', sys.argv[1] + '.synced')",
        "os.unlink(sys.argv[1] + '.synced')",
        "os.setxattr(sys.argv[1], 'user.backup', b'1')",
    ):
        elsewhere(code, path)
        assert fingerprint(path) == before, code
        assert json.loads(elsewhere("print(oct(os.stat(sys.argv[1]).st_mode)[-3:])", path)) == 640
    agent.delta()
    ended(guard, agent)
    assert path.stat().st_mode & 0o777 == 0o640
    assert path_from_leaf(path) == ["00000001", "00000002"]
    assert len(incidents(guard, "saved")) >= 1


def test_a_truncation_and_a_rewrite_by_another_process(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    before = fingerprint(path)
    elsewhere(
        "open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())",
        path,
        data=b'{"type":"session","id":"s"}\n' + record("anew", None),
    )
    assert fingerprint(path) == before
    agent.delta()
    ended(guard, agent)
    assert path_from_leaf(path) == ["anew", "00000002"]


def test_a_replacement_by_rename(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    before = fingerprint(path)
    elsewhere(
        """
path = sys.argv[1]
data = open(path, 'rb').read()
with open(path + '.tmp', 'wb') as file: file.write(data + sys.stdin.buffer.read())
os.rename(path + '.tmp', path)
assert b'foreign1' in open(path, 'rb').read()
""",
        path,
        data=record("foreign1", "00000001"),
    )
    assert fingerprint(path) == before
    agent.delta()
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000001", "foreign1", "00000002"]
    assert sorted(each.name for each in guard.directory.iterdir()) == [NAME]


def test_a_new_session_while_a_turn_runs(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    archive = guard.directory / f"{NAME}.reset.2026"
    agent.begin()
    before = fingerprint(path)
    os.rename(path, archive)  # the main thread, without the lock
    assert fingerprint(path) == before
    assert not json.loads(elsewhere("print(json.dumps(os.path.exists(sys.argv[1])))", path))
    assert archive.exists()
    agent.delta()
    agent.delta()
    ended(guard, agent)
    assert not path.exists()
    assert path_from_leaf(archive) == ["00000001", "00000002", "00000003"]


def test_a_compaction_by_lines_while_a_turn_runs(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    agent.delta()
    before = fingerprint(path)
    kept = path.read_bytes().splitlines(keepends=True)[-1]
    os.rename(path, guard.directory / f"{NAME}.bak.2026")
    path.write_bytes(kept)
    assert fingerprint(path) == before
    agent.delta()
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000002", "00000003"]


def test_a_removal_while_a_turn_runs_loses_nothing(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    before = fingerprint(path)
    elsewhere("os.unlink(sys.argv[1])", path)
    assert fingerprint(path) == before
    agent.delta()
    ended(guard, agent)
    assert not path.exists()
    guard.expected.append("removed while .* it is kept as")
    (kept,) = guard.directory.iterdir()
    assert kept.name.startswith(f"{NAME}.conflict.") and path_from_leaf(kept) == ["00000001", "00000002"]


def test_a_removal_after_which_nothing_is_written_is_a_removal(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    elsewhere("os.unlink(sys.argv[1])", path)
    ended(guard, agent)
    assert list(guard.directory.iterdir()) == []


def test_a_note_for_a_transcript_that_does_not_exist_yet(guard: Guard) -> None:
    """`chat.inject` while the first reply streams: the main thread makes the header, a pool thread appends in a lock
    cycle of its own; the run still sees no file."""
    agent = Agent(guard.directory)
    path = guard.directory / NAME
    agent.cycle(agent.read, agent.look, agent.look)  # absent: the fence
    with path.open("wb", buffering=0) as file:
        file.write(b'{"type":"session","id":"s"}\n')

    def ensure() -> None:
        if not path.exists():
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(file, b'{"type":"session","id":"s"}\n')
            os.close(file)

    def note() -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, record("6f9619ff-8b86-4011-b42d-00cf4fc964ff", None, "assistant"))
        os.close(file)

    agent.cycle(ensure, agent.look, agent.read, note)
    agent.cycle(agent.look, agent.look)
    assert not path.exists()

    def flush() -> None:
        agent.append_raw(b'{"type":"session","id":"s"}\n')
        agent.append()
        agent.append()

    agent.cycle(agent.look, flush, agent.look)
    agent.delta()
    ended(guard, agent)
    note_id = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
    assert path_from_leaf(path) == ["00000001", "00000002", "00000003", note_id]
    assert [each["type"] for each in records(path)].count("session") == 1
    assert incidents(guard, "lost") == []


def test_a_second_agent_on_the_same_session(guard: Guard, agent: Agent) -> None:
    """Two owners in two processes: each has its own view; both conversations are in the file, in order."""
    path = guard.directory / NAME
    agent.begin()
    before = fingerprint(path)
    elsewhere(
        """
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.support.agent import Agent
agent = Agent(Path(sys.argv[1]).parent, first=0x100)
agent.leaf = '00000001'
agent.begin()
path = Path(sys.argv[1])
def state():
    st = path.stat()
    return (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
before = state()
agent.delta()
assert state() != before
before = state()
assert b'00000101' in path.read_bytes()
agent.delta()
agent.end()
""",
        path,
        Path(__file__).parents[2],
    )
    assert fingerprint(path) == before
    agent.delta()
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000001", "00000002", "00000100", "00000101", "00000102"]


def test_what_the_run_writes_past_its_own_lock_is_forgiven(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    before = fingerprint(path)
    agent.append()  # no lock, and it does not look afterwards
    seen: list[tuple[int, ...]] = []
    agent.cycle(lambda: seen.append(fingerprint(path)), lambda: seen.append(fingerprint(path)))
    assert seen[0] == before and seen[1] != before
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000001", "00000002"]


def test_the_modification_time_is_that_of_the_last_write_not_of_the_rebase(
    guard: Guard, agent: Agent
) -> None:
    path = guard.directory / NAME
    agent.begin()
    written = json.loads(
        elsewhere(f"{APPEND}\nprint(os.stat(sys.argv[1]).st_mtime_ns)", path, data=record("f", None))
    )
    ended(guard, agent)
    assert path.stat().st_mtime_ns >= written
    (rebased,) = [e for e in guard.settle() if e["op"] == "branch" and e["change"] == "rebased"]
    assert rebased["records"] == 1
    assert path.stat().st_mtime_ns < path.stat().st_ctime_ns


def test_without_a_fence_nothing_is_staged(guard: Guard, agent: Agent) -> None:
    path = guard.directory / NAME
    agent.begin()
    ended(guard, agent)
    elsewhere(APPEND, path, data=record("f", "00000001"))
    assert b'"f"' in path.read_bytes()
    assert guard.status()["branches"]["open"] == 0
    assert [e for e in guard.settle() if e.get("verdict") == "stage"] == []


def rules(place: Path, text: str, fence: str = "") -> Path:
    """A policy with OpenClaw's lanes, and *text* before its rules."""
    policy = place / "rules.toml"
    shipped = POLICY.read_text().replace('linger = "5s"', f'linger = "0s"\n{fence}')
    first = shipped.index("[[rules]]")
    policy.write_text(shipped[:first] + text + shipped[first:])
    return policy


WAIT = """
[[rules]]
name = "scripts wait"
verdict = "wait"
when = { fence = "other", file = "transcript", operation = "append" }
"""


def start(code: str, *args: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import os, sys\n{code}", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def wait_held(guard: Guard, number: int) -> None:
    wait_for(lambda: guard.status()["branches"]["held"] == number, f"{number} callers to be held")


def test_an_open_for_writing_waits_until_the_fence_closes(start_guard: StartGuard, place: Path) -> None:
    guard = start_guard("--policy", str(rules(place, WAIT)), "--mode", "enforce")
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    before = fingerprint(path)
    writer = start(APPEND, path)
    wait_held(guard, 1)
    agent.delta()  # the owner's own appends do not wait for the one that is held
    assert writer.poll() is None and fingerprint(path) != before
    agent.end()
    out, _ = writer.communicate(record("foreign1", "00000002"))
    assert writer.returncode == 0, out
    assert path_from_leaf(path) == ["00000001", "00000002", "foreign1"]
    wait_held(guard, 0)
    (told,) = [e for e in guard.settle() if e["op"] == "open" and e["verdict"] == "wait"]
    assert told["in_vain"] is False and told["waited_ms"] >= 0


def test_a_waiting_caller_that_is_killed_leaves_at_once(start_guard: StartGuard, place: Path) -> None:
    guard = start_guard("--policy", str(rules(place, WAIT)), "--mode", "enforce")
    (guard.directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    writer = start(APPEND, guard.directory / NAME)
    wait_held(guard, 1)
    writer.kill()
    writer.communicate()
    wait_held(guard, 0)
    agent.end()


def test_a_wait_in_vain_becomes_what_the_policy_says(start_guard: StartGuard, place: Path) -> None:
    policy = (
        rules(place, WAIT, "max_waiting = 1")
        .read_text()
        .replace('wait_timeout = "30s"', 'wait_timeout = "100ms"')
    )
    (place / "rules.toml").write_text(policy)
    guard = start_guard("--policy", str(place / "rules.toml"), "--mode", "enforce")
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    before = fingerprint(path)
    elsewhere(APPEND, path, data=record("foreign1", "00000001"))
    assert fingerprint(path) == before
    ended(guard, agent)
    assert path_from_leaf(path) == ["00000001", "foreign1"]


DENY = """
[[rules]]
name = "the sync tool stays away"
verdict = "deny"
errno = "EROFS"
when = { process = { args = "*-c *" }, file = "transcript", operation = [
    "append", "rewrite", "truncate", "rename", "unlink"
] }
"""


def test_a_denied_writer_is_told_the_errno_of_the_policy(start_guard: StartGuard, place: Path) -> None:
    guard = start_guard("--policy", str(rules(place, DENY)), "--mode", "enforce")
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    seen = elsewhere(
        """
path = sys.argv[1]
def errno_of(act):
    try: act()
    except OSError as error: return error.errno
    return 0
print(json.dumps([errno_of(act) for act in (
    lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b'x'),
    lambda: os.open(path, os.O_WRONLY | os.O_TRUNC),
    lambda: os.truncate(path, 3),
    lambda: os.unlink(path),
    lambda: os.rename(path, path + '.gone'),
    lambda: open(path).read())]))
""",
        path,
    )
    assert json.loads(seen) == [errno.EROFS] * 5 + [0]
    assert path.read_bytes() == b'{"type":"session","id":"s"}\n'
    denied = [e for e in guard.settle() if e["verdict" if "verdict" in e else "op"] == "deny"]
    assert {(e["op"], e["errno"]) for e in denied} == {
        (op, errno.EROFS) for op in ("write", "truncate", "unlink", "rename")
    }
