"""A network namespace with nothing but a loopback interface, which containers and threads of the tests share."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40  # IFF_UP, IFF_RUNNING
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(path: str) -> None:
    """Put the calling thread into the namespace *path*."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


class Network:
    """See the module. It lasts as long as a child process, which `close` ends."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()  # it is in its namespace now
        self.path = f"/proc/{self._holder.pid}/ns/net"
        with self.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread, and the sockets and processes that it makes, are in the namespace."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.enter()
            yield
        finally:
            _enter(f"/proc/self/fd/{own}")
            os.close(own)

    def enter(self) -> None:
        """Put the calling thread there for good."""
        _enter(self.path)

    def close(self) -> None:
        """End the namespace, once nothing is in it any more."""
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
