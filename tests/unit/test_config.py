"""What supervisor and daemon tell each other."""

from __future__ import annotations

import os

import pytest

from guardfs.errors import GuardError
from guardfs.mount.config import (
    DaemonConfig,
    Message,
    PolicyOptions,
    decode_config,
    encode_config,
    parse,
    send,
)
from guardfs.mount.protocol import Agreement
from guardfs.policy.effective import Overrides
from guardfs.policy.load import load


def test_a_configuration_survives_the_journey() -> None:
    loaded = load("openclaw")
    config = DaemonConfig(
        device="0:42",
        mountpoint="/srv/s\udcffx",  # a name that is not UTF-8, as os.fsdecode gives it
        backing_fd=3,
        fuse_fd=4,
        control_fd=5,
        lock_fd=6,
        agreement=Agreement(42, (1 << 39) | 1, 131072, 1 << 20),
        state_dir="/var/lib/x",
        audit="/var/log/x.jsonl",
        policy=PolicyOptions(
            loaded.policy, loaded.source, "/etc/guardfs/p.toml", loaded.digest, Overrides(level="all")
        ),
        fstype="ext4",
        supervisor_pid=1,
        started_ns=2,
    )
    assert decode_config(encode_config(config)) == config


def test_messages() -> None:
    read, write = os.pipe()
    with open(read, "rb") as file:
        send(write, Message("failed", "the thing\nin two lines", "the mend"))
        send(write, Message("ready"))
        os.close(write)
        first, second = file.read().splitlines()
    assert parse(first) == Message("failed", "the thing\nin two lines", "the mend")
    assert parse(second) == Message("ready")


@pytest.mark.parametrize("line", [b"", b"ready", b'{"kind":7}', b"[]", b"\xff"])
def test_a_message_that_is_none(line: bytes) -> None:
    with pytest.raises(GuardError):
        parse(line)


def test_a_message_to_nobody() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(OSError):
        send(write, Message("ready"))
    os.close(write)
