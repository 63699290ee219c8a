"""The state directory: what a guard keeps outside the mount. One per guarded directory.

format        {"format": 1}: the layout of everything else; a newer one is refused
audit.jsonl   the audit log, unless it is told to be elsewhere
audit.head    the end of the log's hash chain
hash.key      32 random bytes, for --audit-hash-ids
tokens        no fencing token up to this number is given again
guarded.json  what the last mount was (`guarded`)
branches/     the journal of staged changes (`branches`)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets

import msgspec

from guardfs.errors import GuardError

FORMAT = 1
RESERVED = ("format", "audit.head", "hash.key", "tokens", "guarded.json", "branches")


def default_state_dir(sessions: str) -> str:
    """Where the guard of the directory *sessions* (a real path) keeps its state: below /var/lib for root,
    the user's own state otherwise.
    """
    if os.geteuid() == 0:
        base = "/var/lib/guardfs"
    else:
        home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        base = os.path.join(home, "guardfs")
    tail = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(sessions.split("/")[-3:])).strip("-.")
    return os.path.join(base, f"{tail}-{hashlib.sha256(os.fsencode(sessions)).hexdigest()[:10]}")


class StateDirectory:
    """The open state directory; made if it is missing. Raises GuardError where it cannot be used."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._check_format()
            probe = os.path.join(path, f".probe-{os.getpid()}")
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            os.unlink(probe)
        except OSError as error:
            raise GuardError(
                f"{path}: cannot keep state there: {error.strerror}", "name a writable directory with --state"
            ) from None

    def _check_format(self) -> None:
        name = self.file("format")
        try:
            with open(name, "rb") as file:
                found = msgspec.json.decode(file.read()).get("format")
        except FileNotFoundError:
            self.write("format", msgspec.json.encode({"format": FORMAT}) + b"\n")
            return
        except (msgspec.MsgspecError, AttributeError):
            raise GuardError(
                f"{name}: not a state directory of guardfs", "name another with --state"
            ) from None
        if not isinstance(found, int) or found > FORMAT:
            raise GuardError(
                f"{name}: state of format {found}, this guardfs knows {FORMAT}",
                "use the guardfs that wrote it, or newer",
            )

    def lock(self) -> int:
        """Keep others out: a descriptor that holds the lock until it, and every copy of it, is closed."""
        fd = os.open(self.file("format"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise GuardError(
                f"{self.path}: state of a guard that runs", "give each guard its own --state"
            ) from None
        except OSError:  # a file system without locks
            pass
        return fd

    def write(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """Put *data* in place of the file *name*, whole or not at all; with *sync*, on the disk before it returns."""
        path = self.file(name)
        temporary = f"{path}.tmp-{os.getpid()}"
        fd = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(fd)
        os.rename(temporary, path)
        if sync:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def file(self, name: str) -> str:
        """The path of the file *name* in the state directory."""
        return os.path.join(self.path, name)

    def key(self) -> bytes:
        """The key for hashed ids, made on first use: 32 bytes."""
        name = self.file("hash.key")
        try:
            with open(name, "rb") as file:
                key = file.read()
        except FileNotFoundError:
            key = secrets.token_bytes(32)
            self.write("hash.key", key)
        if len(key) != 32:
            raise GuardError(f"{name}: not a key of 32 bytes", "remove it, and a new one is made")
        return key
