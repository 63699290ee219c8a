"""/dev/fuse and the mount table: mounting, unmounting, finding mounts.

root mounts by mount(2); an ordinary user through the set-uid helper fusermount3, which sends back the
descriptor over a socket (fusermount3(1); the protocol is an environment variable, _FUSE_COMMFD, and one
SCM_RIGHTS message).
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence

import msgspec

from guardfs.errors import GuardError
from guardfs.mount import libc

FSTYPE = "fuse.guardfs"

DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
"""What a call on a mount gets whose server is dead; the second one a call that was under way when it died."""

_INHERITED = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME
"""Mount flags of the directory below that hold above it as well; ST_* and MS_* have the same values for these."""


class Mount(msgspec.Struct, frozen=True):
    """One line of /proc/self/mountinfo. device: "major:minor". shared: it shows in other mount namespaces, too."""

    path: str
    fstype: str
    source: str
    device: str
    root: str
    shared: bool = False


def _unescape(field: str) -> str:
    """Undo the octal escapes of mountinfo (space, tab, newline, backslash)."""
    raw = field.encode("utf-8", "surrogateescape")
    parts = raw.split(b"\\")
    out = [parts[0]]
    for part in parts[1:]:
        out.append(bytes([int(part[:3], 8)]) + part[3:])
    return os.fsdecode(b"".join(out))


def mounts(table: str = "/proc/self/mountinfo") -> list[Mount]:
    """Every mount of this mount namespace, oldest first (proc_pid_mountinfo(5))."""
    found = []
    with open(table, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.rstrip("\n").partition(" - ")
            head, tail = left.split(" "), right.split(" ")
            found.append(
                Mount(
                    path=_unescape(head[4]),
                    fstype=tail[0],
                    source=_unescape(tail[1]),
                    device=head[2],
                    root=_unescape(head[3]),
                    shared=any(field.startswith("shared:") for field in head[6:]),
                )
            )
    return found


def mount_at(path: str) -> Mount | None:
    """The topmost mount whose mount point is *path*, or None."""
    last = None
    for entry in mounts():
        if entry.path == path:
            last = entry
    return last


def guards(table: str = "/proc/self/mountinfo") -> list[Mount]:
    """All guardfs mounts."""
    return [entry for entry in mounts(table) if entry.fstype == FSTYPE]


def is_guard(path: str) -> bool:
    """Whether the topmost mount on *path* is guardfs."""
    top = mount_at(path)
    return top is not None and top.fstype == FSTYPE


def _open_device() -> int:
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise GuardError(
            "/dev/fuse: no such device", "run `modprobe fuse`; in a container, add `--device /dev/fuse`"
        ) from None
    except OSError as error:
        raise GuardError(
            f"/dev/fuse: {error.strerror}", "run as root, or allow the device in the container"
        ) from None


def mount(path: str, source: str) -> int:
    """Mount over *path* and return the /dev/fuse descriptor (not inheritable). *source* is shown in the
    mount table.
    """
    if os.geteuid() == 0:
        return _mount_as_root(path, source)
    return _mount_as_user(path, source)


def _mount_as_root(path: str, source: str) -> int:
    fd = _open_device()
    mode = os.stat(path).st_mode
    options = f"fd={fd},rootmode={mode:o},user_id=0,group_id=0,allow_other,default_permissions"
    try:
        libc.mount(source, os.fsencode(path), FSTYPE, os.statvfs(path).f_flag & _INHERITED, options)
    except OSError as error:
        os.close(fd)
        mend = "the guard needs CAP_SYS_ADMIN: in a container, add `--cap-add SYS_ADMIN`"
        raise GuardError(f"{path}: cannot mount: {error.strerror}", mend) from None
    return fd


def _mount_as_user(path: str, source: str) -> int:
    helper = shutil.which("fusermount3")
    if helper is None:
        raise GuardError("fusermount3: not found", "install the Debian package fuse3, or run as root")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        shown = source.replace("\\", "\\\\").replace(",", "\\,")
        run = subprocess.run(
            [helper, "-o", f"default_permissions,subtype=guardfs,fsname={shown}", "--", path],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            stderr=subprocess.PIPE,
            check=False,
        )
        if run.returncode != 0:
            reason = run.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
            raise GuardError(f"{path}: {reason[0]}", "`guardfs doctor` says what is missing")
        fds = array.array("i")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_LEN(fds.itemsize))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not fds:
        raise GuardError("fusermount3 sent no descriptor", "`guardfs doctor` says what is missing")
    os.set_inheritable(fds[0], False)
    return fds[0]


def unmount(path: str, *, lazy: bool = False, force: bool = False) -> None:
    """Take the topmost mount off *path*; *lazy* detaches a busy one; *force* breaks
    the connection, if root asks. Raises OSError (EBUSY: somebody uses
    it; EINVAL: no mount).
    """
    if os.geteuid() == 0:
        flags = (libc.MNT_DETACH if lazy else 0) | (libc.MNT_FORCE if force else 0)
        libc.unmount(os.fsencode(path), libc.UMOUNT_NOFOLLOW | flags)
        return
    helper = shutil.which("fusermount3") or "fusermount3"
    command = [helper, "-u", *(["-z"] if lazy else []), "--", path]
    run = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    if run.returncode != 0:
        text = run.stderr.decode("utf-8", "replace").strip()
        import errno

        raise OSError(errno.EBUSY if "busy" in text else errno.EINVAL, text or "fusermount3 failed")


def is_top(path: str, number: str) -> bool:
    """Whether the topmost mount on *path* is the one with the device number *number* ("major:minor")."""
    top = mount_at(path)
    return top is not None and top.device == number


def place_of(number: str, path: str, table: Sequence[Mount] | None = None) -> str | None:
    """Where the mount with that device number is: *path* if it is there, else where a rename of a directory above has
    brought it; None if it is nowhere. table: what `mounts` said, for who asks about many.
    """
    entries = mounts() if table is None else table
    places = [entry.path for entry in entries if entry.device == number and entry.root == "/"]
    if path in places:
        return path
    return places[0] if places else None


def is_shared(path: str, number: str) -> bool:
    """Whether the mount on *path* with that device number shows in other mount namespaces, too."""
    return any(entry.shared for entry in mounts() if entry.path == path and entry.device == number)


def abort(path: str, number: str, *, force: bool = False) -> None:
    """Detach the mount with device number *number* from *path*, and no other; for one whose daemon is dead.

    force: calls that wait on it fail. A thread of the daemon's that hangs in one would keep the connection for ever.
    """
    with contextlib.suppress(OSError):
        if is_top(path, number):
            unmount(path, lazy=True, force=force)
