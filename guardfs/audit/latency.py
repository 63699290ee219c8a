"""How long an event takes to the disk: from the operation's time to the moment its line can be read."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from guardfs.audit.follow import Follower


class Latency(NamedTuple):
    """Milliseconds from an operation's request to its line in the file, as a reader sees it; count of events
    measured."""

    events: int
    p50: float
    p99: float
    max: float


def watch(
    path: str, *, stop: Callable[[], bool], poll: float = 0.0005, since: float | None = None
) -> Latency:
    """Follows the live log at *path* until *stop()*, and what is written up to then. Merged runs are left
    out: they are late on purpose. poll: seconds between two looks, the error of the measure. since: epoch
    seconds; older events are left out.

    Raises ValueError if nothing came.
    """
    follower = Follower(path)
    begun = time.time() if since is None else since
    lags: list[float] = []
    try:
        ending = False
        while True:
            found = follower.poll()
            now = time.time()
            for line in found:
                event = line.event
                if event and "writer" in event and not ("count" in event or _mergeable(event)):
                    then = datetime.fromisoformat(event["time"]).timestamp()
                    if then >= begun:
                        lags.append((now - then) * 1000)
            if ending:
                break
            ending = stop()
            time.sleep(poll)
    finally:
        follower.close()
    if not lags:
        raise ValueError(f"{path}: no event came")
    lags.sort()
    return Latency(len(lags), lags[len(lags) // 2], lags[max(0, -(-len(lags) * 99 // 100) - 1)], lags[-1])


def _mergeable(event: dict[str, object]) -> bool:
    return event.get("op") == "write" and "session" not in event
