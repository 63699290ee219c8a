"""`guardfs doctor` against the real machine, and against directories made to be wrong in one way each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guardfs.cli.doctor import Check, _below, directory, machine, show
from guardfs.mount import device
from guardfs.supervise import facts

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def doctor(*args: str, before: tuple[str, ...] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "guardfs", "doctor", *args],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8", **environ},
    )


def found(path: Path | str) -> dict[str, Check]:
    return {check.check: check for check in directory(str(path))}


def sessions(base: Path, agent: str = "main") -> Path:
    made = base / "agents" / agent / "sessions"
    made.mkdir(parents=True)
    return made


def test_the_report_and_its_status_agree(tmp_path: Path) -> None:
    said = doctor("--json", str(sessions(tmp_path)))
    rows = json.loads(said.stdout)
    assert all(set(row) == {"check", "ok", "severity", "detail", "mend"} for row in rows)
    assert all(row["ok"] == (row["severity"] != "error") for row in rows)
    assert all(row["mend"] for row in rows if row["severity"] != "ok")
    assert said.returncode == (0 if all(row["ok"] for row in rows) else 1)
    checks = {row["check"] for row in rows}
    assert {"/dev/fuse", "kernel", "fusermount3", "pyfuse3", "python", "pid namespace", "seccomp"} <= checks
    assert said.stderr == ""


def test_what_is_missing_is_status_1_one_line_and_has_a_mend(tmp_path: Path) -> None:
    said = doctor(str(tmp_path / "nowhere"))
    assert said.returncode == 1
    line = next(line for line in said.stdout.splitlines() if "nowhere" in line)
    assert line.startswith("✗ directory") and "No such file" in line and ";" in line
    assert "\x1b" not in said.stdout


def test_bad_options_are_one_line_and_status_2() -> None:
    said = doctor("--jsn")
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1
    assert "Example:" in doctor("--help").stdout


def test_colour_marks_only_the_mark() -> None:
    check = Check("kernel", "error", "old\x1b[2J", "newer")
    assert show(check, colour=False) == "✗ kernel         old?[2J; newer"
    assert show(check, colour=True).startswith("\x1b[31m")


@root
def test_without_capabilities_it_says_which() -> None:
    capsh = shutil.which("setpriv")
    if capsh is None:
        pytest.skip("needs setpriv(1)")
    drop = (capsh, "--bounding-set=-sys_admin,-sys_ptrace,-mknod", "--inh-caps=-all")
    said = doctor("--json", before=drop)
    rows = json.loads(said.stdout)
    assert said.returncode == 1
    details = {(row["severity"], row["detail"]) for row in rows if row["check"] == "capabilities"}
    assert any(severity == "error" and "CAP_SYS_ADMIN" in detail for severity, detail in details)
    assert any(severity == "warning" and "CAP_MKNOD" in detail for severity, detail in details)
    attribution = next(row for row in rows if row["check"] == "attribution")
    assert attribution["severity"] == "warning" and "SYS_PTRACE" in attribution["mend"]


@root
def test_a_nested_pid_namespace_is_told() -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare(1)")
    nested = (unshare, "--pid", "--fork", "--mount-proc")
    if subprocess.run([*nested, "true"], capture_output=True).returncode:
        pytest.skip("pid namespaces are forbidden here")
    rows = json.loads(doctor("--json", before=nested).stdout)
    check = next(row for row in rows if row["check"] == "pid namespace")
    assert check["severity"] == "warning" and "pid 0" in check["detail"]


def test_this_machine_has_every_check_once_at_most() -> None:
    names = [check.check for check in machine()]
    assert len(set(names) - {"capabilities"}) == len([name for name in names if name != "capabilities"])


def test_a_good_directory(tmp_path: Path) -> None:
    checks = found(sessions(tmp_path))
    assert {name for name, check in checks.items() if check.severity == "error"} == set()
    assert checks["agent"].detail == "looks like OpenClaw"
    entry = facts.file_system_of(str(tmp_path))
    assert entry is not None and os.stat(entry.path).st_dev == os.stat(tmp_path).st_dev


def test_a_file_a_symlink_and_a_slash(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    assert "not a directory" in found(tmp_path / "file")["directory"].detail
    for link in (f"{tmp_path}/link", f"{tmp_path}/link/"):
        check = found(link)["directory"]
        assert check.severity == "error" and str(tmp_path) in check.mend


def test_lock_files_present_now(tmp_path: Path) -> None:
    made = sessions(tmp_path)
    assert found(made)["lock files"].severity == "ok"
    for number in range(5):
        (made / f"{number}.jsonl.lock").touch()
    check = found(made)["lock files"]
    assert check.severity == "warning" and check.detail.startswith("5 present now: 0.jsonl.lock")


@pytest.mark.parametrize("name", ["state.sqlite", "sessions.db"])
def test_sqlite_must_never_be_covered(tmp_path: Path, name: str) -> None:
    made = sessions(tmp_path / ".openclaw")
    place = made.parent / "agent"
    place.mkdir()
    (place / "auth.json").touch()
    assert "sqlite" not in found(place)
    (place / name).touch()
    (place / "deeper").mkdir()
    covering = [place, place / "deeper", made.parent, made.parent.parent, tmp_path / ".openclaw", tmp_path]
    for path in covering:
        assert found(path)["sqlite"].severity == "error", path
    beside = found(made)["sqlite"]
    assert beside.severity == "warning" and str(place) in beside.detail


def test_a_database_elsewhere_is_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "x.db").touch()
    assert "sqlite" not in found(tmp_path)


@pytest.mark.parametrize(
    ("place", "first", "agent"),
    [
        (".pi/agent/sessions/--srv--", "", "pi"),
        (".claude/projects/-srv", "", "Claude Code"),
        (".codex/sessions/2026/05/23", "", "Codex CLI"),
        ("copy", '{"type":"session","version":3,"id":"x"}\n', "pi"),
        ("copy", '{"parentUuid":null,"uuid":"x"}\n', "Claude Code"),
        ("copy", '{"a":1}\n', None),
    ],
)
def test_which_agent(tmp_path: Path, place: str, first: str, agent: str | None) -> None:
    made = tmp_path / place
    made.mkdir(parents=True)
    (made / "one.jsonl").write_text(first)
    assert facts.agent_of(str(made)) == agent


def test_the_installed_openclaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lib" / "node_modules" / "openclaw"
    (package / "dist").mkdir(parents=True)
    script = package / "dist" / "openclaw.mjs"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (package / "package.json").write_text('{"name":"openclaw","version":"2026.8.1-beta.2"}')
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "openclaw").symlink_to(script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert facts.openclaw_version() == "2026.8.1-beta.2"
    assert next(check for check in machine() if check.check == "openclaw").severity == "warning"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts.openclaw_version() is None


@pytest.mark.parametrize(
    ("version", "sqlite"),
    [("2026.5.20", False), ("2026.7.35", False), ("2026.8.1", True), ("2026.10.2", True), ("2027.1.0", True)],
)
def test_since_when_transcripts_are_in_sqlite(version: str, sqlite: bool) -> None:
    assert facts.keeps_sqlite(version) is sqlite


def test_fuse_conf(tmp_path: Path) -> None:
    conf = tmp_path / "fuse.conf"
    assert facts.user_allow_other(str(conf)) is False
    conf.write_text("# user_allow_other\nmount_max = 10\n")
    assert facts.user_allow_other(str(conf)) is False
    conf.write_text("  user_allow_other  \n")
    assert facts.user_allow_other(str(conf)) is True


@pytest.mark.parametrize(
    ("fstype", "remote"),
    [
        ("ext4", False),
        ("tmpfs", False),
        ("fuseblk", False),
        ("nfs4", True),
        ("fuse.sshfs", True),
        ("9p", True),
    ],
)
def test_file_systems_that_others_can_change(fstype: str, remote: bool) -> None:
    assert facts.is_remote(fstype) is remote


@root
@pytest.mark.mount
def test_a_guarded_directory_one_inside_it_and_a_dead_guard(tmp_path: Path) -> None:
    """A real mount of the guard's type that nobody serves: told from the mount table, then by its death."""
    made = sessions(tmp_path)
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
    mount = ["mount", "-i", "-t", device.FSTYPE, "-o", options, "guardfs", str(made)]
    try:
        if subprocess.run(mount, pass_fds=[fd], capture_output=True).returncode:
            pytest.skip("mount(8) would not")
    finally:
        held = os.dup(fd)
        os.close(fd)
    try:
        assert next(iter(_below(str(made)))).detail == "already guarded"
        assert next(iter(_below(str(made / "inside")))).detail == f"inside the guard on {made}"
        os.close(held)
        check = found(made)["directory"]
        assert check.severity == "error" and check.mend.startswith("clear the dead mount: guardfs unmount")
    finally:
        subprocess.run(["umount", "-l", str(made)], check=True)
    assert found(made)["guard"].severity == "ok"
