"""`guardfs doctor`: can this machine mount, and why not; is there anything to guard in a directory."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from typing import Literal

import click
import msgspec

from guardfs.bounded import bounded
from guardfs.errors import GuardError
from guardfs.lanes import procfs
from guardfs.mount import device
from guardfs.supervise import facts

MINIMUM_KERNEL = (5, 4)
RESEND_KERNEL = (6, 9)  # FUSE_NOTIFY_RESEND
MINIMUM_PYTHON = (3, 11)
ENOUGH_DESCRIPTORS = 1024
DIRECTORY_SECONDS = 10.0  # a network file system may take some
ENOUGH_WATCHES = 8192  # the kernel's old default; a sessions directory takes one


class Check(msgspec.Struct, frozen=True):
    """One line of the report. severity: ``ok``, ``warning`` (works, at a loss), ``error`` (cannot mount)."""

    check: str
    severity: Literal["ok", "warning", "error"]
    detail: str
    mend: str = ""


def machine() -> Iterator[Check]:
    """Checks of this machine and of this process's rights."""
    yield _device()
    yield from _rights()
    yield _kernel()
    yield _helper()
    yield _binding()
    version = platform.python_version()
    if sys.version_info >= MINIMUM_PYTHON:
        yield Check("python", "ok", version)
    else:
        yield Check("python", "error", f"{version} is too old", "use Python 3.11 or newer")
    yield from _visibility()
    yield from _limits()
    yield from _openclaw()


def _device() -> Check:
    if not os.path.exists("/dev/fuse"):
        mend = "load the module: modprobe fuse; in a container: --device /dev/fuse"
        return Check("/dev/fuse", "error", "not there", mend)
    problem = facts.device_error()
    if problem is not None:
        mend = "run as root or chmod 0666 /dev/fuse; in a container: --device /dev/fuse"
        return Check("/dev/fuse", "error", problem, mend)
    return Check("/dev/fuse", "ok", "can be opened")


def _rights() -> Iterator[Check]:
    missing = facts.missing_capabilities()
    if os.geteuid() != 0:
        yield Check("user", "ok", f"uid {os.geteuid()}: guards this user's own files and processes")
        if facts.user_allow_other():
            yield Check("allow_other", "ok", "user_allow_other is set in /etc/fuse.conf")
        else:
            mend = "add the line user_allow_other to /etc/fuse.conf if others must use the mount"
            yield Check("allow_other", "warning", "other users cannot use the mount", mend)
    else:
        yield Check("user", "ok", "root")
        if "CAP_SYS_ADMIN" in missing:
            mend = "in a container: --cap-add SYS_ADMIN (and --security-opt apparmor=unconfined)"
            yield Check("capabilities", "error", "CAP_SYS_ADMIN is missing: mount(2) is forbidden", mend)
        others = [name for name in missing if name not in ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")]
        if others:
            mend = "in a container: " + " ".join(f"--cap-add {name.removeprefix('CAP_')}" for name in others)
            detail = f"missing: {', '.join(others)}; some operations of other users will fail"
            yield Check("capabilities", "warning", detail, mend)
        elif "CAP_SYS_ADMIN" not in missing:
            yield Check("capabilities", "ok", "all that mounting and passing operations through needs")
    if "CAP_SYS_PTRACE" in missing:
        mend = "run as root; in a container: --cap-add SYS_PTRACE"
        yield Check("attribution", "warning", "executables of other users' processes stay hidden", mend)
    else:
        yield Check("attribution", "ok", "CAP_SYS_PTRACE: every visible process can be named")


def _kernel() -> Check:
    release, version = platform.release(), procfs.kernel_release()
    if version < MINIMUM_KERNEL:
        return Check("kernel", "error", f"{release} is too old", "use Linux 5.4 or newer")
    if version < RESEND_KERNEL:
        detail = f"{release}: requests in flight are lost when a daemon is replaced"
        return Check("kernel", "warning", detail, "Linux 6.9 and newer can send them again")
    return Check("kernel", "ok", release)


def _helper() -> Check:
    helper = facts.mount_helper()
    root = os.geteuid() == 0
    if helper is None:
        mend = "install fuse3 (apt install fuse3)"
        detail = "not installed: only root can mount" if root else "not installed; only root mounts without"
        return Check("fusermount3", "warning" if root else "error", detail, mend)
    version = f"libfuse {helper.version}" if helper.version else "libfuse of unknown version"
    if not helper.setuid:
        mend = f"chmod u+s {helper.path}, or mount as root"
        return Check("fusermount3", "warning" if root else "error", f"{version}, not set-uid root", mend)
    if not root and not os.path.exists("/etc/mtab"):
        detail = f"{version}, but it cannot unmount without /etc/mtab"
        return Check("fusermount3", "error", detail, "as root: ln -s /proc/self/mounts /etc/mtab")
    if not root and facts.self_status("NoNewPrivs") == "1":
        detail = f"{version}, but no_new_privs is set: set-uid programs get no rights"
        mend = "start without no_new_privs (systemd: NoNewPrivileges=no), or as root"
        return Check("fusermount3", "error", detail, mend)
    return Check("fusermount3", "ok", version)


def _binding() -> Check:
    try:
        import pyfuse3
    except ImportError as error:
        mend = "apt install libfuse3-dev pkg-config gcc, then pip install pyfuse3"
        return Check("pyfuse3", "error", f"cannot be imported: {error}", mend)
    return Check("pyfuse3", "ok", str(pyfuse3.__version__))


def _visibility() -> Iterator[Check]:
    if facts.in_nested_pid_namespace():
        mend = "share the pid namespace of the writers (docker run --pid=host or --pid=container:NAME)"
        yield Check("pid namespace", "warning", "nested: writers outside it show as pid 0, unnamed", mend)
    else:
        yield Check("pid namespace", "ok", "the machine's own: every writer has an id")
    hidden = facts.hidepid()
    if hidden in ("0", "off"):
        yield Check("/proc", "ok", "shows every process")
    elif "CAP_SYS_PTRACE" in facts.missing_capabilities():
        mend = "run with CAP_SYS_PTRACE, or mount -o remount,hidepid=0 /proc"
        yield Check("/proc", "warning", f"hidepid={hidden} hides other users' processes", mend)
    else:
        yield Check("/proc", "ok", f"hidepid={hidden}, which CAP_SYS_PTRACE sees through")
    if facts.self_status("Seccomp") == "2":
        mend = "if mounting fails with EPERM: --security-opt seccomp=unconfined"
        yield Check("seccomp", "warning", "a filter is active; it may forbid mount(2)", mend)
    else:
        yield Check("seccomp", "ok", "no filter")


def _limits() -> Iterator[Check]:
    watches = facts.number_in("/proc/sys/fs/inotify/max_user_watches")
    if watches is None or watches < ENOUGH_WATCHES:
        mend = "sysctl fs.inotify.max_user_watches=65536"
        yield Check(
            "inotify", "warning", f"{watches or 'no'} watches: changes below the mount get lost", mend
        )
    else:
        yield Check("inotify", "ok", f"{watches} watches")
    soft, hard = facts.descriptor_limit()
    if soft < ENOUGH_DESCRIPTORS:
        detail = f"{soft} (hard limit {hard}): a busy directory needs more"
        yield Check("open files", "warning", detail, f"ulimit -n {max(hard, ENOUGH_DESCRIPTORS)}")
    else:
        yield Check("open files", "ok", f"{soft} (hard limit {hard})")


def _openclaw() -> Iterator[Check]:
    version = facts.openclaw_version()
    if version is None:
        return
    if facts.keeps_sqlite(version):
        mend = "this version needs no guard; never mount over agents/ID/agent"
        yield Check("openclaw", "warning", f"{version} keeps transcripts in SQLite: nothing to fence", mend)
    else:
        yield Check("openclaw", "ok", f"{version} keeps transcripts in files")


def directory(path: str) -> Iterator[Check]:
    """Checks of a directory that is to be guarded."""
    bare = path.rstrip("/") or "/"
    try:
        os.lstat(bare)
        if os.path.islink(bare):
            mend = f"name the directory itself: {os.path.realpath(bare)}"
            yield Check("directory", "error", f"{path} is a symbolic link", mend)
            return
        if not os.path.isdir(bare):
            yield Check("directory", "error", f"{path} is not a directory", "name the sessions directory")
            return
        real = os.path.realpath(bare)
        locks = facts.lock_files(real)
    except OSError as error:
        dead = "Transport endpoint" in (error.strerror or "")
        mend = f"clear the dead mount: guardfs unmount {path}" if dead else "check path and permissions"
        yield Check("directory", "error", f"{path}: {error.strerror}", mend)
        return
    yield Check("directory", "ok", real)
    yield from _below(real)
    if locks:
        shown = ", ".join(locks[:3]) + (", ..." if len(locks) > 3 else "")
        mend = "mounting waits until they are gone; --force does not"
        yield Check("lock files", "warning", f"{len(locks)} present now: {shown}", mend)
    else:
        yield Check("lock files", "ok", "none: a quiet moment")
    yield from _agent(real)


def _below(real: str) -> Iterator[Check]:
    entry = facts.file_system_of(real)
    if entry is None:
        return
    if entry.fstype == device.FSTYPE:
        mend = f"guardfs status {entry.path}; to take it off: guardfs unmount {entry.path}"
        where = "already guarded" if entry.path == real else f"inside the guard on {entry.path}"
        yield Check("guard", "error", where, mend)
        return
    yield Check("guard", "ok", "not guarded yet")
    if facts.is_remote(entry.fstype):
        mend = "let no other host write there"
        detail = f"{entry.fstype} on {entry.path}: changes by other hosts are not announced"
        yield Check("file system", "warning", detail, mend)
    else:
        yield Check("file system", "ok", f"{entry.fstype} on {entry.path}")


def _agent(real: str) -> Iterator[Check]:
    covered = facts.sqlite_places(real)
    if covered:
        mend = "guard the directory that holds the .jsonl files, and nothing above it"
        detail = f"a mount here would cover SQLite databases in {covered[0]}: never mount over them"
        yield Check("sqlite", "error", detail, mend)
        return
    beside = facts.sqlite_beside(real)
    if beside is not None:
        mend = "an OpenClaw from 2026.8.1 on needs no guard"
        detail = f"this agent keeps its transcripts in SQLite ({beside}): nothing to fence here"
        yield Check("sqlite", "warning", detail, mend)
    agent = facts.agent_of(real)
    if agent is None:
        mend = "name the directory that holds the .jsonl transcripts"
        yield Check("agent", "warning", "no agent's transcripts recognised here", mend)
    else:
        yield Check("agent", "ok", f"looks like {agent}")


def _checks(path: str | None) -> list[Check]:
    """All of them. A directory whose guard hangs is not waited for."""
    found = list(machine())
    if path is None:
        return found
    try:
        plain = os.path.abspath(path)
        if any(guard.path == plain for guard in device.guards()):
            bounded(lambda: os.statvfs(plain))
        return found + bounded(lambda: list(directory(path)), DIRECTORY_SECONDS)
    except TimeoutError:
        mend = f"guardfs status {path}; `guardfs unmount --force {path}` clears a dead guard away"
        return [*found, Check("directory", "error", f"{path}: does not answer: its file system hangs", mend)]
    except OSError:  # `directory` says which
        return [*found, *directory(path)]


def _bundle(path: str | None, state: str | None, bundle: str) -> int:
    """Write the bundle, and say what is in it."""
    from guardfs.bundle.collect import collect, known_guards, write

    place = os.path.realpath(os.path.dirname(os.path.abspath(bundle))) + "/"
    for guard in device.guards():
        if place.startswith(guard.path + "/"):
            raise GuardError(f"{bundle}: inside the guarded directory {guard.path}", "name another place")

    def findings() -> list[dict[str, str]]:
        return [msgspec.structs.asdict(check) for check in _checks(path)]

    names = write(bundle, collect(known_guards(path, state), findings))
    size = os.stat(bundle).st_size / 1000
    click.echo(
        f"{bundle}: {len(names)} files, {size:.0f} kB; look through it before you send it (README.txt)"
    )
    for name in names:
        if name.endswith(".missing.txt"):
            click.echo(f"{name.removesuffix('.missing.txt')}: could not be had; that file says why")
    return 0


_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


def show(check: Check, *, colour: bool) -> str:
    """One line for people."""
    mark, name = _MARKS[check.severity]
    if colour:
        mark = click.style(mark, fg=name, bold=True)
    mend = f"; {check.mend}" if check.mend else ""
    # names of files are others' to choose: no control character of theirs reaches the terminal
    line = "".join(char if char.isprintable() else "?" for char in f"{check.check:<14} {check.detail}{mend}")
    return f"{mark} {line}"


@click.command(
    epilog="Example:  guardfs doctor ~/.openclaw/agents/main/sessions",
)
@click.argument("path", metavar="[DIR]", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print a list of {check, ok, severity, detail, mend}.")
@click.option(
    "--bundle",
    metavar="FILE",
    help="Put what a bug report needs of the guard of DIR, or of all guards, into a .tar.gz: versions, kernel, "
    "counters, policy, the last events. No message text, no secrets.",
)
@click.option(
    "--state",
    metavar="DIR",
    help="With --bundle: where a guard that is gone has left its state. Default: as `mount`'s.",
)
def command(path: str | None, as_json: bool, bundle: str | None, state: str | None) -> int:
    """Say whether this machine can mount, and why not; with DIR, whether that directory can be guarded.

    Exit status: 0 it can (warnings may remain) or the bundle is written, 1 something is missing, 2 could not run.
    """
    if bundle is not None:
        return _bundle(path, state, bundle)
    if state is not None:
        raise GuardError(f"--state {state}: for what?", "it goes with --bundle")
    checks = _checks(path)
    failed = [check for check in checks if check.severity == "error"]
    if as_json:
        rows = [{"ok": check.severity != "error", **msgspec.structs.asdict(check)} for check in checks]
        click.echo(json.dumps(rows, indent=2))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for check in checks:
            click.echo(show(check, colour=colour), color=colour)
        what = f"{len(failed)} thing(s) missing" if failed else "can mount"
        click.echo(f"{'✗' if failed else '✓'} {what}")
    return 1 if failed else 0
