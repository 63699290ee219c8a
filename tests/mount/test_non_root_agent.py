"""An agent that is not root under a guard of root's: files belong to their writers, with the modes that they gave them;
and another user reaches no more than without the guard."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.agent import NAME, Agent, record
from tests.support.container import Container
from tests.support.guard import Guard
from tests.support.lab import path_from_leaf
from tests.support.machine import STRANGER
from tests.support.posix import Side, as_user
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

AGENT, OTHER = STRANGER, STRANGER + 1
HEADER = b'{"type":"session","id":"s"}\n'
POLICY = Path(__file__).parents[2] / "policy/openclaw.toml"


def as_other(user: int, script: str, *args: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a script of sh as a process of that user."""
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "sh", "-c", script, "sh"]
    return subprocess.run([*words, *map(str, args)], input=data, capture_output=True, check=False)


def owned(path: Path) -> tuple[int, int, str]:
    info = path.lstat()
    return info.st_uid, info.st_gid, oct(stat.S_IMODE(info.st_mode))


def tree(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything in it: owner, group, mode, and what it holds."""
    found: dict[str, tuple[object, ...]] = {".": owned(directory)}
    for path in sorted(directory.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(directory))] = (*owned(path), path.lstat().st_nlink, content)
    return found


# ---- ordinary files

SCRIPT = """
umask {mask}; cd "$1" || exit 9
echo header > s.jsonl; echo one >> s.jsonl; echo x > s.jsonl.lock; rm s.jsonl.lock
mkdir sub; echo in > sub/t.jsonl; ln sub/t.jsonl sub/again; ln -s t.jsonl sub/link
cp s.jsonl new; mv new s.jsonl; echo two >> s.jsonl; : > emptied; echo more > emptied
mkdir shared; chmod 2770 shared; echo mine > shared/file; mkdir shared/deeper
echo tight > tight; chmod 600 tight; chmod 4755 tight; echo again >> tight
touch -d 2001-02-03 old.jsonl; mkfifo pipe
for command in "chown 0 s.jsonl" "chgrp 0 s.jsonl" "cat roots" "rm -f roots-dir/x" "echo > roots" "chmod 777 roots" \
    "mv roots mine" "rm -f roots" "mknod device c 1 3" "cat $2" "ls $3"; do
    if (eval "$command") > /dev/null 2>&1; then echo "done: $command"; else echo "refused: $command"; fi
done
"""


@pytest.fixture
def sides(place: Path) -> tuple[Path, Path]:
    """Two equal directories of the agent's, with something of root's in them; the second is to be guarded."""
    made = []
    for name in ("plain", "sessions"):
        directory = place / name
        directory.mkdir()
        (directory / "roots").write_text("not for you")
        (directory / "roots").chmod(0o600)
        (directory / "roots-dir").mkdir()
        (directory / "roots-dir/x").write_text("")
        os.chown(directory, AGENT, AGENT)
        made.append(directory)
    return made[0], made[1]


@pytest.mark.parametrize("mask", ["022", "077", "002"])
@pytest.mark.parametrize("mode", ["record", "enforce"])
def test_what_an_agent_leaves_is_what_it_leaves_without_a_guard(
    place: Path, sides: tuple[Path, Path], mask: str, mode: str
) -> None:
    plain, guarded = sides
    script = SCRIPT.replace("{mask}", mask)
    inner = [place / "audit.jsonl", place / "state"]
    inner[0].touch(0o600)
    inner[1].mkdir(0o700)
    wanted = as_other(AGENT, script, plain, *inner)
    assert wanted.returncode == 0, wanted.stderr
    options = ["--force", "--user", f"{AGENT}:{AGENT}", "--policy", str(POLICY), "--mode", mode]
    with Container(place, ["sh", "-c", script, "sh", str(guarded), *map(str, inner)], *options) as run:
        assert run.ended() == 0, run.complained()
    assert run.said() == wanted.stdout.decode()
    assert "done: mv roots mine" in run.said(), "the directory is the agent's own"
    assert [line for line in run.said().splitlines() if line.startswith("done")] == [
        "done: mv roots mine",
        "done: rm -f roots",
    ]
    assert tree(guarded) == tree(plain)


# ---- what others reach

MODES = (0o755, 0o711, 0o700, 0o1777)


@pytest.fixture
def enforcing(start_guard: StartGuard, place: Path) -> Guard:
    """Over a directory of the agent's."""
    policy = place / "policy.toml"
    policy.write_text(POLICY.read_text().replace('linger = "5s"', 'linger = "0s"'))
    directory = place / "sessions"
    directory.mkdir()
    os.chown(directory, AGENT, AGENT)
    return start_guard("--policy", str(policy), "--mode", "enforce", directory=directory)


@pytest.fixture
def turn(enforcing: Guard) -> Iterator[Agent]:
    """A turn of the agent's on a transcript that is nobody else's; ended afterwards."""
    path = enforcing.directory / NAME
    path.write_bytes(HEADER)
    path.chmod(0o600)
    os.chown(path, AGENT, AGENT)
    agent = Agent(enforcing.directory)
    with as_user(AGENT):
        agent.begin()
    yield agent
    with as_user(AGENT):
        agent.end()
    settled(enforcing)
    assert enforcing.status()["internal_errors"]["count"] == 0


def settled(guard: Guard) -> None:
    wait_for(lambda: not guard.status()["branches"]["open"], "branches to be rebased")


def append(user: int, path: Path, name: str, parent: str | None = "00000001") -> bool:
    return as_other(user, 'cat >> "$1"', path, data=record(name, parent)).returncode == 0


@pytest.mark.parametrize("mode", MODES, ids=oct)
def test_another_user_reaches_in_a_turn_what_it_reaches_without_a_guard(
    enforcing: Guard, turn: Agent, place: Path, mode: int
) -> None:
    plain = place / "plain"
    plain.mkdir()
    for directory in (plain, enforcing.directory):
        for name, permissions in ((NAME, 0o600), ("r.jsonl", 0o644), ("g.jsonl", 0o660), ("w.jsonl", 0o666)):
            path = directory / name
            if not path.exists():
                path.write_bytes(HEADER)
            path.chmod(permissions)
            os.chown(path, AGENT, AGENT)
        (directory / "in").mkdir(0o700)
        (directory / "in/x").write_text("x")
        os.chown(directory / "in", AGENT, AGENT)
        os.chown(directory, AGENT, AGENT)
        directory.chmod(mode)
    (plain / NAME).write_bytes((enforcing.directory / NAME).read_bytes())
    assert append(AGENT, enforcing.directory / NAME, "staged01"), "there is a branch, too"
    assert append(AGENT, plain / NAME, "staged01")

    sides = [Side(os.fsencode(plain)), Side(os.fsencode(enforcing.directory))]
    for name in (NAME, "r.jsonl", "g.jsonl", "w.jsonl", "in/x", "in", f"{NAME}.lock", "other.jsonl"):
        raw = name.encode()
        for operation, *args in (
            ("open", raw, os.O_RDONLY),
            ("open", raw, os.O_WRONLY | os.O_APPEND),
            ("access", raw, os.R_OK),
            ("listing", raw),
            ("create", raw, os.O_WRONLY, 0o600),
            ("truncate", raw, 0),
            ("chmod", raw, 0o777),
            ("chown", raw, OTHER, OTHER, True),
            ("setxattr", raw, b"user.guardfs.lane", b"mine", 0),
            ("link", raw, b"linked.jsonl", True),
            ("rename", raw, b"elsewhere.jsonl", 0),
            ("unlink", raw),
        ):
            with as_user(OTHER):
                wanted, found = (side.do(operation, *args) for side in sides)
            assert isinstance(wanted, str) == isinstance(found, str) and (
                wanted == found or not isinstance(wanted, str)
            ), f"{operation} {args}: guarded {found!r}, plain {wanted!r}"
    for side in sides:
        side.close_all()
    enforcing.directory.chmod(0o755)


def test_what_was_staged_keeps_owner_and_mode(enforcing: Guard, turn: Agent) -> None:
    path = enforcing.directory / NAME
    assert append(AGENT, path, "foreign1") and append(0, path, "foreign2")
    assert not append(OTHER, path, "foreign3")
    assert enforcing.status()["branches"]["open"], "they wait"
    with as_user(AGENT):
        turn.end()
    settled(enforcing)
    assert path_from_leaf(path.read_bytes()) == ["00000001", "foreign1", "foreign2"]
    assert owned(path) == (AGENT, AGENT, "0o600")
    with as_user(AGENT):
        turn.begin()


@pytest.mark.parametrize("maker", [AGENT, 0])
def test_a_replaced_transcript_is_its_writers(enforcing: Guard, turn: Agent, maker: int) -> None:
    path = enforcing.directory / NAME
    script = 'umask 077; cat > "$1.tmp"; chmod 640 "$1.tmp"; mv "$1.tmp" "$1"'
    done = as_other(maker, script, path, data=HEADER + record("replaced", None))
    assert done.returncode == 0, done.stderr
    assert enforcing.status()["branches"]["open"] == 1
    with as_user(AGENT):
        turn.end()
    settled(enforcing)
    assert b"replaced" in path.read_bytes()
    assert owned(path) == (maker, maker, "0o640")
    path.chmod(0o600)
    os.chown(path, AGENT, AGENT)
    with as_user(AGENT):
        turn.begin()


def test_a_transcript_that_is_made_in_a_turn_is_its_makers(enforcing: Guard) -> None:
    path = enforcing.directory / NAME
    agent = Agent(enforcing.directory)
    with as_user(AGENT):
        agent.cycle(agent.look, agent.look)  # relies on there being none
        script = 'umask 027; cat > "$1"'
        assert as_other(AGENT, script, path, data=HEADER + record("made0001", None)).returncode == 0
        assert enforcing.status()["branches"]["open"] == 1
        agent.cycle(agent.look)
    settled(enforcing)
    assert owned(path) == (AGENT, AGENT, "0o640")
    assert b"made0001" in path.read_bytes()


# ---- what the guard keeps


@pytest.mark.parametrize("user", [AGENT, OTHER])
def test_state_and_log_are_closed_to_both(enforcing: Guard, turn: Agent, user: int) -> None:
    assert append(AGENT, enforcing.directory / NAME, "staged01")
    kept = [path for path in enforcing.state.rglob("*") if path.is_file()]
    assert any(path.parent.name == "branches" for path in kept), "there is a journal"
    assert owned(enforcing.state) == (0, 0, "0o700")
    assert {owned(path)[2] for path in [enforcing.audit, *kept]} == {"0o600"}
    for path in [enforcing.audit, *kept]:
        assert as_other(user, 'cat "$1"', path).returncode != 0
    assert as_other(user, 'ls "$1"', enforcing.state).returncode != 0


@pytest.mark.parametrize("user", [AGENT, OTHER])
def test_neither_switches_the_guard_off(enforcing: Guard, user: int) -> None:
    with as_user(user), pytest.raises(PermissionError):
        os.setxattr(enforcing.directory, "user.guardfs.control", b'{"do":"mode","mode":"off"}')
    assert enforcing.status()["policy"]["mode"] == "enforce"
    done = as_other(user, 'umount "$1" || fusermount3 -u "$1"', enforcing.directory)
    assert done.returncode != 0 and os.path.ismount(enforcing.directory)


def test_a_directory_that_is_closed_keeps_its_status_to_itself(enforcing: Guard) -> None:
    enforcing.directory.chmod(0o711)
    with as_user(OTHER), pytest.raises(PermissionError):
        os.getxattr(enforcing.directory, "user.guardfs.status")
    with as_user(AGENT):
        assert os.getxattr(enforcing.directory, "user.guardfs.status")
