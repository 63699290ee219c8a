"""Options that say from when and until when: ``--since``, ``--until``."""

from __future__ import annotations

from datetime import datetime

import click

from guardfs.audit.select import moment


def moment_of(option: str, text: str | None, now: datetime) -> str | None:
    """The value of *option* as events write a time (UTC). *now*: with the user's zone."""
    if text is None:
        return None
    try:
        return moment(text, now)
    except ValueError:
        raise click.UsageError(
            f"{option} {text!r}: not a time; write 10m, 2h, 14:30 or 2026-05-23T03:37"
        ) from None
