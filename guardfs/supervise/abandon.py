"""`python -m guardfs.supervise.abandon DIR STATE AUDIT CAUSE DEATHS`: the last thing that is done for a directory whose
daemons keep dying. It is plain again; what waits on branches goes into its files, and the log is told."""

from __future__ import annotations

import os
import sys
import time

from guardfs.audit.chain import HEAD_NAME
from guardfs.audit.event import Notice
from guardfs.audit.log import AuditLog
from guardfs.errors import GuardError
from guardfs.mount.backing import Backing
from guardfs.mount.merging import Merger
from guardfs.mount.recovery import notice_of, recover
from guardfs.state.branches import BranchStore
from guardfs.state.directory import StateDirectory
from guardfs.state.guarded import recall
from guardfs.supervise.say import say
from guardfs.transcript.formats import FORMATS


def abandon(directory: str, state_dir: str, audit: str, cause: str, deaths: int) -> bool:
    """Whether nothing waits any more."""
    state = StateDirectory(state_dir)
    lock = state.lock()
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    guarded = recall(state)
    found = []
    if guarded is not None and guarded.format in FORMATS:
        store, below = BranchStore(state.path), Backing()
        try:
            found = recover(store, Merger(store, below, FORMATS[guarded.format]), root, below)
        finally:
            store.close()
    for each in found:
        name = os.fsdecode(each.transcript)
        result = f"waits still: {each.error}" if each.merged is None else each.merged.result
        say(f"{name}: what {each.lane} wrote: {result}")
    key = state.key() if guarded is not None and guarded.hash_ids else None
    log = AuditLog(audit, state.file(HEAD_NAME), hash_key=key, keep=1000)
    log.start()
    log.emit(Notice("unguarded", time.time_ns(), {"mountpoint": directory, "cause": cause, "deaths": deaths}))
    for each in found:
        log.emit(notice_of(each, time.time_ns()))
    log.close()
    os.close(root)
    os.close(lock)
    return all(each.merged is not None for each in found)


def main() -> int:
    """Entry point."""
    directory, state, audit, cause, deaths = sys.argv[1:]
    try:
        return 0 if abandon(directory, state, audit, cause, int(deaths)) else 1
    except GuardError as error:
        say(str(error))
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
