"""Open files that have no name any more: no later daemon could open them again, so they wait in a socket.

Descriptors that were sent over a socket and not received stay open, whoever dies: the supervisor holds both ends, and
so does every daemon, which sends, and receives to throw away what is not needed any more.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable

_CROWD = 64
"""Files after which those are looked for that nobody uses any more; they take room on the disk."""


class Deposit:
    """fds: the receiving and the sending end."""

    def __init__(self, fds: tuple[int, int]) -> None:
        self._take, self._give = (socket.socket(fileno=os.dup(fd)) for fd in fds)
        self._take.setblocking(False)
        self._give.setblocking(False)
        self._count = 0
        self._limit = _CROWD
        self.needed: Callable[[int], bool] = lambda node: True

    def put(self, node: int, fd: int) -> None:
        """The file *fd* is that of *node*. OSError where it cannot be kept."""
        if self._count >= self._limit:
            self.sweep()
        self._send(node, fd)

    def _send(self, node: int, fd: int) -> None:
        rights = array.array("i", [fd])
        self._give.sendmsg(
            [node.to_bytes(8, "little")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())]
        )
        self._count += 1

    def _receive(self) -> tuple[int, int] | None:
        try:
            data, ancillary, _, _ = self._take.recvmsg(8, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        fds = array.array("i")
        for level, kind, sent in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(sent[: len(sent) - len(sent) % fds.itemsize])
        self._count = max(0, self._count - 1)
        return int.from_bytes(data, "little"), (fds[0] if fds else -1)

    def sweep(self) -> None:
        """Throw away what is not needed; one after the other, so that at most one is on no side at any time."""
        kept = 0
        for _ in range(self._count):
            found = self._receive()
            if found is None:
                break
            node, fd = found
            try:
                if self.needed(node):
                    self._send(node, fd)
                    kept += 1
            finally:
                if fd >= 0:
                    os.close(fd)
        self._limit = max(_CROWD, 2 * kept)

    def all(self) -> dict[int, int]:
        """What an earlier daemon has put there: descriptors, by node, which are the caller's to close. All is sent once
        more."""
        found: dict[int, int] = {}
        while (each := self._receive()) is not None:
            node, fd = each
            if fd < 0:
                continue
            if node in found:
                os.close(fd)
            else:
                found[node] = fd
        for node, fd in found.items():
            self._send(node, fd)
        return found

    def close(self) -> None:
        """Let go of both ends; what waits there stays."""
        self._take.close()
        self._give.close()
