"""Guards as they are seen from beside: those that answer, hang, die, come and go. Nobody waits long for any."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from guardfs.serve.guards import ANSWER_SECONDS, Guard, Guards, guarded_path, mounted
from guardfs.serve.plan import Known
from tests.conftest import StartGuard
from tests.support.commands import guardfs
from tests.support.guard import Guard as Running

pytestmark = pytest.mark.mount

T = TypeVar("T")

_ASKS = 2
"""Requests that `os.getxattr` makes, for the second status of the test itself."""


async def wait_for(look: Callable[[], Awaitable[T]], what: str) -> T:
    """The first true result of *look*."""
    with trio.move_on_after(30):
        while True:
            found = await look()
            if found:
                return found
            await trio.sleep(0.02)
    raise TimeoutError(what)


async def test_a_guard_says_what_is_known_of_it(module_guard: Running) -> None:
    guards = Guards(mounted)
    (seen,) = [each for each in guards if each.sessions == str(module_guard.directory)]
    status = await seen.status()
    assert status is not None and status["daemon"]["pid"] == module_guard.daemon
    assert (seen.state, seen.audit, seen.trouble) == (str(module_guard.state), str(module_guard.audit), None)
    assert guards.get(seen.name) is seen and guards.get("nobody") is None
    assert seen.name.replace("-", "").replace(".", "").replace("_", "").isalnum()


async def test_all_who_ask_within_a_second_share_one_answer(module_guard: Running) -> None:
    seen = Guard(Known(str(module_guard.directory)))
    before = module_guard.status()["operations"]["getxattr"]
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(seen.status)
    assert await seen.status() is await seen.status()
    asked = module_guard.status()["operations"]["getxattr"] - before - _ASKS
    assert 1 <= asked <= 2, "one answer, or two where the second went by meanwhile"


async def test_a_daemon_that_hangs_keeps_one_thread_and_nobody(module_guard: Running) -> None:
    seen = Guard(Known(str(module_guard.directory)))
    assert await seen.status() is not None
    os.kill(module_guard.daemon, signal.SIGSTOP)
    try:
        await wait_for(lambda: _silent(seen), "no answer")
        assert seen.trouble == f"does not answer within {ANSWER_SECONDS:g} s"
        assert (seen.audit, seen.state) == (str(module_guard.audit), str(module_guard.state))
        for _ in range(5):
            seen._status._asked = float("-inf")  # as if a second had gone by
            begun = trio.current_time()
            assert await seen.status() is None
            assert trio.current_time() - begun < ANSWER_SECONDS, "waited for a second thread"
    finally:
        os.kill(module_guard.daemon, signal.SIGCONT)
    await wait_for(seen.status, "an answer again")
    assert seen.trouble is None


async def _silent(guard: Guard) -> bool:
    return await guard.status() is None


async def test_a_guard_that_nobody_has_asked_yet_and_that_hangs_is_known_by_its_state(
    module_guard: Running,
) -> None:
    os.kill(module_guard.daemon, signal.SIGSTOP)
    try:
        seen = Guard(Known(str(module_guard.directory), state=str(module_guard.state)))
        assert seen.audit == str(module_guard.audit)
        assert guarded_path(str(module_guard.directory)) == str(module_guard.directory)
    finally:
        os.kill(module_guard.daemon, signal.SIGCONT)


async def test_guards_come_and_go_and_a_named_directory_stays(start_guard: StartGuard, place: Path) -> None:
    first = start_guard()
    guards = Guards(lambda: [each for each in mounted() if each.sessions.startswith(f"{place}/")])
    (one,) = guards
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guards.keep)
        second = await trio.to_thread.run_sync(start_guard)
        named = Guards(partial(list, [Known(str(second.directory))]))
        (seen,) = named
        assert await seen.status() is not None

        async def count(wanted: int) -> bool:
            return len(guards) == wanted

        await wait_for(lambda: count(2), "the second guard")
        assert [each.sessions for each in guards] == sorted(map(str, (first.directory, second.directory)))
        assert next(iter(guards)) is one, "what is known of the first was forgotten"
        await trio.to_thread.run_sync(second.stop)
        await wait_for(lambda: count(1), "the second guard to go")
        nursery.cancel_scope.cancel()
    named.look()
    assert list(named) == [seen]
    await wait_for(lambda: _silent(seen), "the answer to be old")
    assert seen.trouble == "not guarded"


def test_status_waits_for_no_guard_that_hangs(module_guard: Running) -> None:
    """Nor does any other command: they all ask in this way."""
    os.kill(module_guard.daemon, signal.SIGSTOP)
    try:
        done = guardfs("status", module_guard.directory)
    finally:
        os.kill(module_guard.daemon, signal.SIGCONT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "does not answer" in done.stderr, done.stderr
