"""The whole file system, and its face towards pyfuse3."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pyfuse3
import trio

from guardfs.mount.caller import interrupted
from guardfs.mount.dispatch import detach
from guardfs.mount.memory.requests import OPERATIONS as OPERATIONS_KEPT
from guardfs.mount.operations.enforced import Enforced
from guardfs.mount.operations.parts import Held, Later

_THREADS = 16
"""Blocking calls (fsync, reads from the disk) under way at once. More would only wait for the same disk."""

_LOOK_SECONDS = 0.02
"""How often a call that waits for a fence looks whether it may go on, or its caller is gone."""


class FileSystem(Enforced):
    """All operations."""


def _served(name: str) -> Callable[..., Any]:
    """A pyfuse3 handler for the method *name* of the file system: the one wrapper around every operation.

    OSError is the caller's; any other error is the guard's own: counted, logged, answered with EIO. In
    pyfuse3 an exception that is no FUSEError would end the mount.
    """

    known = name in OPERATIONS_KEPT

    async def handler(self: Operations, *args: Any) -> Any:
        filesystem = self.filesystem
        try:
            filesystem.operations[name] = filesystem.operations.get(name, 0) + 1
            if known and filesystem.keeper is not None:
                result = filesystem.keeper.answer(name, getattr(filesystem, name), args)
            else:
                result = getattr(filesystem, name)(*args)
            if result.__class__ is Later:
                return await self.finish(result)
            if result.__class__ is Held:
                return await self.hold(result)
            return result
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            filesystem.internal_error(name)
            raise pyfuse3.FUSEError(errno.EIO) from None

    handler.__name__ = name
    handler.__qualname__ = f"Operations.{name}"
    return handler


def _of_directory(name: str) -> Callable[..., Any]:
    """The same for an operation on a directory, which pyfuse3 names by the number of an open one."""
    served = _served(name)

    def handler(self: Operations, number: int, *args: Any) -> Any:
        return served(self, self.node(), *args)

    return handler


class Operations(pyfuse3.Operations):
    """What pyfuse3 calls. node: the node id of the request at hand."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False  # agreed upon with the kernel by the supervisor, not through libfuse

    def __init__(self, filesystem: FileSystem) -> None:
        super().__init__()
        self.filesystem = filesystem
        self.node: Callable[[], int] = lambda: 0
        self._threads = trio.CapacityLimiter(_THREADS)

    async def finish(self, later: Later) -> Any:
        """Let other requests in, do the work in a thread, come back to the loop for the rest."""
        await detach()
        while True:
            try:
                result = await trio.to_thread.run_sync(later.work, limiter=self._threads)
            except OSError as error:
                if later.failed is not None:
                    later.failed(error)
                if later.answered is not None:
                    later.answered()
                raise
            if later.answered is not None:
                later.answered()
            result = later.then(result)
            if result.__class__ is not Later:
                return result
            later = result

    async def hold(self, held: Held) -> Any:
        """Let other requests in until the wait is over; the caller may leave at any time."""
        await detach()
        try:
            deadline = trio.current_time() + held.seconds
            while not held.over():
                if interrupted(held.request):
                    raise OSError(errno.EINTR, os.strerror(errno.EINTR))
                if trio.current_time() >= deadline:
                    break
                await trio.sleep(_LOOK_SECONDS)
        finally:
            held.left()
        keeper = self.filesystem.keeper
        if keeper is not None:
            keeper.resumed("open", held.unique)
        result = held.then(not held.over())
        if result.__class__ is Later:
            return await self._rest(result)
        if keeper is not None:
            keeper.done(0)
        return result

    async def _rest(self, later: Later) -> Any:
        return later.then(await trio.to_thread.run_sync(later.work, limiter=self._threads))

    def init(self) -> None:
        """Nothing to do: the handshake is the supervisor's."""

    def forget(self, inode_list: Any) -> None:  # type: ignore[override]
        """References given back. A plain method: nobody waits for an answer."""
        try:
            self.filesystem.forget(inode_list)
        except Exception:
            self.filesystem.internal_error("forget")

    async def poll(self, *args: Any) -> int:
        """Plain files are always ready; after ENOSYS the kernel knows."""
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def opendir(self, inode: int, ctx: Any) -> int:
        """Directories need not be opened; after ENOSYS the kernel knows."""
        raise pyfuse3.FUSEError(errno.ENOSYS)


OPERATIONS = (
    "lookup getattr setattr readlink mknod mkdir unlink rmdir symlink rename link open read write flush release fsync "
    "readdir fsyncdir statfs setxattr getxattr listxattr removexattr access create"
).split()
"""Every operation that the kernel can ask for, by its name in pyfuse3."""

for _name in OPERATIONS:
    setattr(Operations, _name, (_of_directory if _name in ("readdir", "fsyncdir") else _served)(_name))
