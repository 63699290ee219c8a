"""What the last mount was: so that `guardfs recover` needs no more than the directory."""

from __future__ import annotations

import logging
import os

import msgspec

from guardfs.errors import GuardError
from guardfs.state.directory import StateDirectory

log = logging.getLogger("guardfs.state")

NAME = "guarded.json"


class Guarded(msgspec.Struct, frozen=True):
    """sessions: real path of the directory; audit: of the log; both raw bytes. format: of its transcripts
    (`guardfs.transcript.formats`). hash_ids: the log holds hashes of session keys and user ids."""

    sessions: bytes
    audit: bytes
    format: str
    hash_ids: bool = False


def remember(state: StateDirectory, guarded: Guarded) -> None:
    """Note it. Never raises: a guard can do without."""
    try:
        state.write(NAME, msgspec.json.encode(guarded) + b"\n")
    except OSError as error:
        log.warning("%s: %s", state.file(NAME), error.strerror)


def recall(state: StateDirectory) -> Guarded | None:
    """What was noted; None if nothing was. GuardError where it cannot be read."""
    return recall_at(state.path)


def recall_at(directory: str) -> Guarded | None:
    """The same for a state directory that is only looked at: it need not be there."""
    name = os.path.join(directory, NAME)
    try:
        with open(name, "rb") as file:
            return msgspec.json.decode(file.read(), type=Guarded)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GuardError(f"{name}: {error.strerror}", "run it as the user who mounted, or as root") from None
    except msgspec.MsgspecError as error:
        raise GuardError(
            f"{name}: not what guardfs wrote: {error}", "remove it, and name the --policy"
        ) from None
