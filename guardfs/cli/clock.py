"""Times of events for people: local, to the millisecond. Pure but for the time zone."""

from __future__ import annotations

from datetime import datetime

from guardfs.audit.show import safe


def day_clock(time: str) -> str:
    """``2026-05-23 05:37:47.123``; what is no time, as it is."""
    return _local(time, "%Y-%m-%d %H:%M:%S")


def clock(time: str) -> str:
    """``05:37:47.123``."""
    return _local(time, "%H:%M:%S")


def day_second(time: str) -> str:
    """``05-23 05:37:47``."""
    return _local(time, "%m-%d %H:%M:%S", fraction=False)


def _local(time: str, form: str, *, fraction: bool = True) -> str:
    try:
        local = datetime.fromisoformat(time).astimezone()
    except (ValueError, OverflowError, OSError):
        return safe(time)
    return local.strftime(form) + (f".{local.microsecond // 1000:03d}" if fraction else "")
