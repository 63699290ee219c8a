"""Where to listen: an address as an operator writes it, and whether strangers could reach it."""

from __future__ import annotations

import ipaddress
import re
import socket

import msgspec

from guardfs.errors import GuardError

_BACKLOG = 64


class Address(msgspec.Struct, frozen=True):
    """host: an IP address, without brackets. port: 0 for any that is free."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str, option: str) -> Address:
    """The address in ``HOST:PORT``. HOST is an IP address or ``localhost``: what a name means tomorrow, nobody knows.
    GuardError names *option*."""
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([0-9]{1,5})", text.strip())
    mend = "write it like 127.0.0.1:9464 or [::1]:9464"
    if match is None or int(match[3]) > 65535:
        raise GuardError(f"{option} {text!r}: no address", mend)
    host = match[1] or match[2]
    if host == "localhost":
        host = "127.0.0.1"
    try:
        return Address(str(ipaddress.ip_address(host or "")), int(match[3]))
    except ValueError:
        raise GuardError(f"{option} {text!r}: {host!r} is no IP address", mend) from None


def listen(address: Address) -> socket.socket:
    """A socket that listens there. OSError if that cannot be."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def bound(listener: socket.socket) -> Address:
    """Where *listener* listens: its port is known now."""
    host, port, *_ = listener.getsockname()
    return Address(host, port)
