"""What the supervisor tells a daemon: plain data, sent as JSON over a descriptor."""

from __future__ import annotations

import json
import os

import msgspec

from guardfs.errors import GuardError
from guardfs.mount.protocol import Agreement
from guardfs.transcript.names import EXCLUDE, INCLUDE, LOCK


class AuditOptions(msgspec.Struct, frozen=True):
    """file: path of the log. max_bytes: size at which it is rotated. keep: rotated files kept."""

    file: str
    level: str = "transcripts"
    required: bool = False
    hash_ids: bool = False
    max_bytes: int = 64 << 20
    keep: int = 10


class DaemonConfig(msgspec.Struct, frozen=True):
    """Descriptors are numbers in the daemon: they are inherited.

    mountpoint: real path. device: the mount's number, "major:minor". backing_fd: O_PATH on the directory
    below. fuse_fd: the mounted /dev/fuse.
    control_fd: a stream socket to the supervisor. lock_fd: holds the lock against a second guard. fstype: of
    the directory below.
    """

    mountpoint: str
    device: str
    backing_fd: int
    fuse_fd: int
    control_fd: int
    lock_fd: int
    agreement: Agreement
    state_dir: str
    audit: AuditOptions
    fstype: str
    supervisor_pid: int
    started_ns: int
    verbose: bool = False
    include: tuple[str, ...] = INCLUDE
    exclude: tuple[str, ...] = EXCLUDE
    lock: str = LOCK


def encode_config(config: DaemonConfig) -> bytes:
    """JSON, with paths that are not UTF-8 as escaped surrogates, which msgspec refuses."""
    return json.dumps(msgspec.to_builtins(config)).encode()


def decode_config(data: bytes) -> DaemonConfig:
    """What `encode_config` made."""
    return msgspec.convert(json.loads(data), DaemonConfig)


class Message(msgspec.Struct, omit_defaults=True):
    """One line on the control socket. From the daemon: ``ready``, ``failed`` (what, mend). To it:
    ``stop``.
    """

    kind: str
    what: str = ""
    mend: str = ""


def send(fd: int, message: Message) -> None:
    """Write one message; OSError if the other side is gone."""
    data = msgspec.json.encode(message) + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def parse(line: bytes) -> Message:
    """Read one message."""
    try:
        return msgspec.json.decode(line, type=Message)
    except msgspec.MsgspecError as error:
        raise GuardError(f"the daemon sent {line[:80]!r}: {error}") from None
