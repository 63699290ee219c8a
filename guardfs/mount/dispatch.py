"""From pyfuse3's request handlers to ours, without a trip through the scheduler.

pyfuse3 starts a coroutine for every request, its `fuse_*_async`, looked up as module globals, and awaits it
in one of its worker tasks. Here those globals are replaced by plain functions that run the original
coroutine to its end at once, which is what nearly every request needs: the reply is sent before the next
request is read. What is to be said of the request (judgement, log, fences) is done after that, while the
caller wakes up. A handler that must wait says `await detach()` first: from there on it is a trio task of its
own, and other requests are answered meanwhile.
"""

from __future__ import annotations

import errno
import logging
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

import pyfuse3
import trio

from guardfs.mount.caller import reply_error
from guardfs.mount.counters import Counters, clock, took
from guardfs.mount.layout import clear_flags, flags_of, request_of, session_of, unique_of

log = logging.getLogger("guardfs.mount")

_DETACHED = object()


@types.coroutine
def detach() -> Generator[object, None, None]:
    """Make the rest of the handler a task of its own. What may change across it: everything but what the
    handler holds itself.
    """
    yield _DETACHED


class _Held(Protocol):
    request: object
    request_flags: int
    settles_later: bool
    counters: Counters
    noted: deque[Any]

    def settle(self) -> None: ...


class Dispatcher:
    """Runs requests. detached: counts those that became tasks and are not finished yet. greeted: libfuse's session, and
    the number of the made-up request that it was learnt from."""

    def __init__(self, held: _Held) -> None:
        self._held = held
        self._counters = held.counters
        self._nursery: trio.Nursery | None = None
        self._originals: dict[str, Any] = {}
        self.detached = 0
        self.broken = 0
        self.greeted: tuple[int, int] | None = None

    def install(self, nursery: trio.Nursery) -> None:
        """Take pyfuse3's handlers over; detached requests run in *nursery*."""
        self._nursery = nursery
        self._held.settles_later = True
        for name in [n for n in vars(pyfuse3) if n.startswith("fuse_") and n.endswith("_async")]:
            original = getattr(pyfuse3, name)
            self._originals[name] = original
            timing = self._counters.timing(
                name.removeprefix("fuse_").removesuffix("_async").removesuffix("_buf")
            )
            if name in ("fuse_setattr_async", "fuse_setxattr_async"):
                clear = name == "fuse_setxattr_async"
                setattr(pyfuse3, name, self._with_flags(original, timing, clear=clear))
            elif name == "fuse_statfs_async":
                setattr(pyfuse3, name, self._greeted(self._plain(original, timing)))
            else:
                setattr(pyfuse3, name, self._plain(original, timing))

    def remove(self) -> None:
        """Give pyfuse3 its handlers back."""
        for name, original in self._originals.items():
            setattr(pyfuse3, name, original)
        self._originals.clear()

    def _plain(
        self, original: Callable[..., Coroutine[Any, Any, None]], timing: list[int]
    ) -> Callable[..., None]:
        held, run = self._held, self._run
        noted, settle = held.noted, held.settle

        def handle(container: object, *args: Any) -> None:
            held.request = container
            run(container, original(container, *args), timing)
            if noted:
                settle()

        return handle

    def _with_flags(
        self, original: Callable[..., Coroutine[Any, Any, None]], timing: list[int], *, clear: bool
    ) -> Callable[..., None]:
        """For the operations whose flags pyfuse3 keeps to itself."""
        held, run = self._held, self._run
        noted, settle = held.noted, held.settle

        def handle(container: object, *args: Any) -> None:
            held.request = container
            held.request_flags = flags_of(container)
            if clear:
                clear_flags(container)
            run(container, original(container, *args), timing)
            if noted:
                settle()

        return handle

    def _greeted(self, handle: Callable[..., None]) -> Callable[..., None]:
        """The first of them is no kernel's: it only shows where libfuse's session is."""

        def first(container: object, *args: Any) -> None:
            if self.greeted is not None:
                handle(container, *args)
                return
            self.greeted = session_of(container) or 0, unique_of(container)
            reply_error(request_of(container) or 0, errno.ENOSYS)

        return first

    def _run(self, container: object, coroutine: Coroutine[Any, Any, None], timing: list[int]) -> None:
        begin = clock()
        try:
            yielded = coroutine.send(None)
        except StopIteration:
            took(timing, clock() - begin)
            return
        except Exception:
            self._broke(container)
            return
        if yielded is _DETACHED and self._nursery is not None:
            self.detached += 1
            self._nursery.start_soon(self._finish, container, coroutine, timing, begin)
            return
        # a handler that awaits without detach() first is a mistake of ours: end it, answer, go on
        coroutine.close()
        try:
            raise RuntimeError("a handler waited without detach()")
        except RuntimeError:
            self._broke(container)

    async def _finish(
        self, container: object, coroutine: Coroutine[Any, Any, None], timing: list[int], begin: int
    ) -> None:
        try:
            await _resume(coroutine)
        except Exception:
            self._broke(container)
        finally:
            took(timing, clock() - begin)
            self.detached -= 1
            self._held.settle()

    def _broke(self, container: object) -> None:
        """pyfuse3 itself failed before it answered (it answers as its last act, and logs failures of
        that).
        """
        self.broken += 1
        log.exception("a request failed outside its handler; answered with EIO")
        request = request_of(container)
        if request is not None:
            reply_error(request, errno.EIO)


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Await a coroutine that has already begun."""
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            yielded = step(value)
        except StopIteration:
            return
        try:
            value = yield yielded
            step = coroutine.send
        except BaseException as error:
            value, step = error, coroutine.throw
