"""sd_notify(3): tell systemd, if it asked, that the guard is ready or stopping."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send *state* ("READY=1", "STOPPING=1", "STATUS=...") to $NOTIFY_SOCKET; silently nothing without
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
