"""sd_notify(3): tell systemd, if it asked, that the guard is ready or stopping."""

from __future__ import annotations

import os
import socket


def watchdog() -> float | None:
    """Seconds between two signs of life that systemd wants of this process (WatchdogSec=), halved as advised; None
    for no signs.
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(os.environ["WATCHDOG_USEC"]) / 2_000_000
    except (KeyError, ValueError):
        return None
    return seconds if seconds > 0 else None


def notify(state: str) -> None:
    """Send *state* ("READY=1", "STOPPING=1", "STATUS=...", lines) to $NOTIFY_SOCKET; silently nothing without
    one.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError:  # systemd is not there: nobody to tell
        pass
