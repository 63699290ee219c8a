"""What the supervisor tells a daemon: plain data, sent as JSON over a descriptor."""

from __future__ import annotations

import json
import os

import msgspec

from guardfs.errors import GuardError
from guardfs.mount.protocol import Agreement
from guardfs.policy.effective import Overrides
from guardfs.policy.model import Policy


class PolicyOptions(msgspec.Struct, frozen=True):
    """The policy to begin with, checked. source: its file, or the name of a shipped one. path: the file to follow, as
    the operator named it, but absolute; None for a shipped policy. digest: SHA-256 of the file's bytes, hex. over:
    options of the command line.
    """

    policy: Policy
    source: str
    path: str | None
    digest: str
    over: Overrides = Overrides()


class TakeOver(msgspec.Struct, frozen=True):
    """A daemon that takes the connection of an earlier one over. number: how often that was done on this mount, this
    time included. cause: in words. since_ns: wall clock, when the earlier one was found dead or hanging. orderly: it
    was asked to leave. anew: the connection could not be taken over, and the directory was mounted anew."""

    number: int
    cause: str
    since_ns: int
    orderly: bool = False
    anew: bool = False


class DaemonConfig(msgspec.Struct, frozen=True):
    """Descriptors are numbers in the daemon: they are inherited.

    mountpoint: real path. device: the mount's number, "major:minor". backing_fd: O_PATH on the directory below.
    fuse_fd: the mounted /dev/fuse. control_fd: a stream socket to the supervisor. lock_fd: holds the lock against a
    second guard. audit: path of the log. fstype: of the directory below. memory_fd: what daemons leave to the next one
    (`guardfs.mount.memory`), -1 if nothing is to be left. held_fds: both ends of a socket in which open files wait
    that have no name any more. heartbeat: seconds between two signs of life, 0 for none. takeover: None for the first
    daemon of a mount.
    """

    mountpoint: str
    device: str
    backing_fd: int
    fuse_fd: int
    control_fd: int
    lock_fd: int
    agreement: Agreement
    state_dir: str
    audit: str
    policy: PolicyOptions
    fstype: str
    supervisor_pid: int
    started_ns: int
    verbose: bool = False
    memory_fd: int = -1
    held_fds: tuple[int, int] = (-1, -1)
    heartbeat: float = 0.0
    takeover: TakeOver | None = None


def encode_config(config: DaemonConfig) -> bytes:
    """JSON, with paths that are not UTF-8 as escaped surrogates, which msgspec refuses."""
    return json.dumps(msgspec.to_builtins(config)).encode()


def decode_config(data: bytes) -> DaemonConfig:
    """What `encode_config` made."""
    return msgspec.convert(json.loads(data), DaemonConfig)


class Message(msgspec.Struct, omit_defaults=True):
    """One line on the control socket. From the daemon: ``ready``; ``failed`` (what, mend); ``names`` (what: the
    policy's table `[transcripts]`, as JSON); ``alive`` (what: requests answered so far);
    ``busy`` (what: seconds in which it may answer nobody); ``refused`` (what, mend: it
    cannot take over); ``upgrade`` (an operator wants another daemon). From the supervisor: ``hand`` (let go of it).
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
