"""`guardfs run --user`: who the command is, and what it may; and what the guard's own processes may."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardfs.mount.capabilities import DAEMON, SUPERVISOR
from tests.support.container import NAMESPACES, Container, children
from tests.support.guard import GUARDFS, environment
from tests.support.machine import STRANGER
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

NOBODY = pwd.getpwnam("nobody")
TELL = 'echo "me $(id -u) $(id -g) $(id -G)"; echo "home $HOME user $USER logname $LOGNAME"; '
RIGHTS = "grep -E '^(Cap|NoNew)' /proc/self/status"


def told(place: Path, script: str, *options: str, first: bool = False) -> dict[str, str]:
    """Run a script under a guard; its lines, by their first words."""
    with Container(place, ["sh", "-c", script], "--force", *options, first=first) as run:
        assert run.ended() == 0, run.complained()
    lines = [line.split(None, 1) for line in run.said().splitlines()]
    return {key.rstrip(":"): value for key, value in lines}


def numbers(status: Path) -> dict[str, int]:
    """The capability sets of a process."""
    lines = [line.split() for line in status.read_text().splitlines() if line.startswith("Cap")]
    return {name[3:-1]: int(value, 16) for name, value in lines}


@pytest.mark.parametrize("first", [True, False])
def test_a_named_user_with_its_groups_and_home_and_no_rights(place: Path, first: bool) -> None:
    found = told(place, TELL + RIGHTS, "--user", "nobody", first=first)
    groups = " ".join(map(str, os.getgrouplist("nobody", NOBODY.pw_gid)))
    assert found["me"] == f"{NOBODY.pw_uid} {NOBODY.pw_gid} {groups}"
    assert found["home"] == f"{NOBODY.pw_dir} user nobody logname nobody"
    assert {found[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (f"{STRANGER}", f"{STRANGER} {STRANGER} {STRANGER}"),
        (f"{STRANGER}:7", f"{STRANGER} 7 7"),
        (f"{NOBODY.pw_uid}", f"{NOBODY.pw_uid} {NOBODY.pw_gid} {NOBODY.pw_gid}"),
        ("nobody:daemon", f"{NOBODY.pw_uid} 1 1"),
    ],
)
def test_users_by_number_and_groups(place: Path, named: str, expected: str) -> None:
    found = told(place, TELL, "--user", named)
    assert found["me"] == expected
    if named.startswith(str(STRANGER)):
        assert found["home"] == "/ user  logname "


def test_without_a_user_the_command_keeps_its_rights_but_gains_none(place: Path) -> None:
    mine = numbers(Path("/proc/self/status"))
    found = told(place, TELL + RIGHTS)
    assert found["me"].startswith("0 0")
    assert int(found["CapEff"], 16) == mine["Eff"] and int(found["CapBnd"], 16) == mine["Bnd"]
    assert found["NoNewPrivs"] == "1"


@pytest.fixture
def set_user_id(place: Path) -> Iterator[str]:
    """A program of root's that runs as root, whoever starts it."""
    program = place / "whoami"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    if os.statvfs(place).f_flag & os.ST_NOSUID:
        pytest.skip("set-user-ID programs do not work on this file system")
    yield str(program)


@pytest.mark.parametrize(
    ("options", "uid"), [([], NOBODY.pw_uid), (["--allow-new-privs"], 0)], ids=["default", "allowed"]
)
def test_set_user_id_programs(place: Path, set_user_id: str, options: list[str], uid: int) -> None:
    found = told(place, f'echo "effective $({set_user_id} -u)"', "--user", "nobody", *options)
    assert found["effective"] == str(uid)


def comes_to(pid: int, sets: dict[str, int]) -> None:
    """Wait until a process has these: the supervisor drops what it does not need once the command is there."""
    wait_for(lambda: numbers(Path(f"/proc/{pid}/status")) == sets, f"{pid} to have {sets}")


def test_supervisor_and_daemon_keep_what_they_need_and_no_more(place: Path) -> None:
    had = numbers(Path("/proc/self/status"))["Prm"]
    with Container(place, ["sh", "-c", "echo up; sleep 600 & wait"], "--force", "--user", "nobody") as run:
        run.wait_said("up")
        daemon, command = children(run.first_pid)
        for pid, kept in ((run.first_pid, SUPERVISOR), (daemon, DAEMON)):
            wanted = sum(1 << bit for bit in kept.values()) & had
            comes_to(pid, {"Prm": wanted, "Eff": wanted, "Bnd": wanted, "Inh": 0, "Amb": 0})
        assert set(numbers(Path(f"/proc/{command}/status")).values()) == {0}
        run.send(15)
        assert run.ended() == 143


@pytest.mark.parametrize("drop", [False, True], ids=["with SETPCAP", "without"])
def test_no_more_than_the_named_capabilities_is_needed(place: Path, drop: bool) -> None:
    names = [name[4:].lower() for name in SUPERVISOR if not (drop and name == "CAP_SETPCAP")]
    only = "-all," + ",".join(f"+{name}" for name in names)
    few = Container(
        place, ["sh", "-c", f"{RIGHTS}; echo x > {place}/sessions/a"], "--force", "--user", "nobody"
    )
    few.words = [*NAMESPACES, "setpriv", f"--bounding-set={only}", "--", *few.words[len(NAMESPACES) :]]
    few.directory.chmod(0o777)
    with few as run:
        assert run.ended() == 0, run.complained()
    assert "CapEff:\t0000000000000000" in run.said()
    assert run.events("write")[0]["writer"]["exe"], "attribution works"
    assert (place / "sessions/a").stat().st_uid == NOBODY.pw_uid


# ---- what is refused


def refused(place: Path, *options: str, prefix: tuple[str, ...] = ()) -> str:
    """Try to run; the one line that says why not."""
    directory = place / "sessions"
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        [*prefix, *GUARDFS, "run", "--sessions", str(directory), "--state", str(place / "state"), *options,
         "--", "touch", str(place / "ran")],
        capture_output=True, text=True, env=environment(), cwd="/", timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert not (place / "ran").exists()
    return line


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("no-such-user", "no user 'no-such-user'"),
        ("nobody:no-such-group", "no group 'no-such-group'"),
        ("", "no user ''"),
        ("nobody:", "no group ''"),
        ("-1", "no user '-1'"),
        ("4294967295", "no user '4294967295'"),
        ("99999999999999999999", "no user"),
        ("0:4294967295", "no group"),
        ("٣", "no user"),
    ],
)
def test_users_that_are_none(place: Path, user: str, said: str) -> None:
    assert said in refused(place, f"--user={user}")


def test_a_container_without_the_right_to_signal_another_user(place: Path) -> None:
    prefix = ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill", "--")
    line = refused(place, "--user", "nobody", prefix=prefix)
    assert "CAP_KILL" in line and "--cap-add KILL" in line


def test_a_command_that_the_user_may_not_start(place: Path) -> None:
    program = place / "closed"
    program.write_text("#!/bin/sh\n")
    program.chmod(stat.S_IRWXU)
    directory = place / "sessions"
    directory.mkdir()
    done = subprocess.run(
        [*GUARDFS, "run", "--sessions", str(directory), "--state", str(place / "state"), "--force", "--user", "nobody",
         "--", str(program)],
        capture_output=True, text=True, env=environment(), cwd="/", timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{program}: Permission denied" in done.stderr and "Traceback" not in done.stderr
