"""Follows a policy file: notices within a fraction of a second that it has changed, however, and has it loaded.

By asking five times a second what the path leads to now, not by inotify: a file is edited in place, replaced by a
rename, reached through a symlink that is swapped (or through a directory that is one: Kubernetes' ConfigMap and its
``..data``), made writable for others, or changed by another host on a network file system. One stat(2) sees all of
these; inotify would need a watch for every component of every path on the way, and sees nothing of the last. A look
costs some microseconds, a wake-up some ten.

Loading happens in a process of its own (`loader`). A change that cannot be loaded is refused, once, with all that is
wrong with it; what is in force stays.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from guardfs.policy.model import Policy
from guardfs.policy.problem import PolicyError, Problem

log = logging.getLogger("guardfs.policy")

POLL = 0.2
"""Seconds between two looks."""

SETTLED = 0.05
"""Seconds since its last change after which a file is taken for written."""

STEP = 0.05
"""Seconds between two looks at a file that has not settled. What is missing in two of them is gone."""

PATIENCE = 2.0
"""Seconds that a file which changes all the time is waited for; then it is loaded as it is."""

TIMEOUT = 10.0
"""Seconds that loading may take."""

RETRY = 5.0
MAX_RETRY = 320.0
"""Seconds after which a file is loaded again whose loader failed (no memory, killed): it may be a good one. Doubled
each time, up to the second."""

MAX_ANSWER = 32 << 20
"""Bytes that the loader may say; a policy has less than one MiB."""

LOADER = (sys.executable, "-P", "-B", "-m", "guardfs.policy.loader")
"""What is run with the name of a policy. -P: nothing is imported from where it is run; -B: nothing is written."""

_Look = tuple[int, ...] | str  # what the path leads to: numbers that change with it, or why it leads nowhere


class Change(NamedTuple):
    """A policy that can be used. digest: SHA-256 of the file, in hex."""

    policy: Policy
    digest: str
    warnings: tuple[Problem, ...]


class Refusal(NamedTuple):
    """What is wrong with a file. digest: None where none could be read. again: it is the loader that failed."""

    problems: tuple[Problem, ...]
    digest: str | None
    again: bool = False


class _Answer(msgspec.Struct):
    policy: Policy | None = None
    digest: str | None = None
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()


class Follower:
    """Follows one policy file in a thread of its own. All methods may be called by any thread.

    path: the file, absolute. digest: of the policy in force ("" for none). name: what the loader is told, where that is
    not the path: a shipped policy's name. poll: seconds. loader: the command that loads it; timeout: its seconds.

    The callbacks are called in the follower's thread, one after the other:
    loaded(policy, digest, warnings): this one is to be in force. PolicyError, where it is a good one but not for this
    guard, is a refusal with its problems; so is anything else that it raises, which is logged.
    refused(problems, digest): the file cannot be used, or is gone; what is in force stays.
    unchanged(asked): the file says (again) what is in force: after a refusal, or because `now` was called.
    """

    def __init__(
        self,
        path: str,
        digest: str,
        loaded: Callable[[Policy, str, Sequence[Problem]], None],
        refused: Callable[[Sequence[Problem], str | None], None],
        unchanged: Callable[[bool], None] | None = None,
        *,
        name: str | None = None,
        poll: float = POLL,
        loader: Sequence[str] = LOADER,
        timeout: float = TIMEOUT,
    ) -> None:
        self.path = path
        self._loader = loader
        self._timeout = timeout
        self._name = name or path
        self._digest = digest
        self._loaded = loaded
        self._refused = refused
        self._unchanged = unchanged or (lambda asked: None)
        self._poll = poll
        self._acted: _Look | None = None
        self._retry = RETRY
        self._retry_at = 0.0  # 0: not
        self._refusal: Refusal | None = None
        self._asked = False
        self._reloads = 0
        self._refusals = 0
        self._loaded_ns = 0
        self._checked_ns = 0
        self._closing = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="guardfs-policy", daemon=True)

    def start(self) -> None:
        """Begin. The file is loaded once at once: it may have changed since the policy in force was read."""
        self._thread.start()

    def now(self) -> None:
        """Load the file at once, changed or not (SIGHUP). Does not wait."""
        self._asked = True
        self._wake.set()

    def close(self) -> None:
        """End, and with it a loader that runs. Waits for the thread, unless a dead file system holds it."""
        self._closing = True
        self._wake.set()
        with self._lock:
            if self._child is not None:
                self._child.kill()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(TIMEOUT)

    def stats(self) -> dict[str, object]:
        """For status. digest: of the policy in force. reloads, refused: changes taken and not. error: what is wrong
        with the file now, in one line, or "". loaded_ns: when the policy in force was loaded (0: at the start);
        checked_ns: when the file was last looked at; both since the epoch."""
        refusal = self._refusal
        return {
            "file": self.path,
            "digest": self._digest,
            "reloads": self._reloads,
            "refused": self._refusals,
            "error": "" if refusal is None else one_line(refusal.problems, self.path),
            "loaded_ns": self._loaded_ns,
            "checked_ns": self._checked_ns,
        }

    # ---- the thread

    def _run(self) -> None:
        while not self._closing:
            try:
                self._check()
            except Exception:  # the thread that follows must not end before the guard does
                log.exception("following %s", self.path)
            self._wake.wait(self._poll)
            self._wake.clear()

    def _check(self) -> None:
        """One look, and what follows from it."""
        asked, self._asked = self._asked, False
        look = self._look()
        again = look == self._acted and 0 < self._retry_at <= time.monotonic()
        if look == self._acted and not asked and not again:
            return
        patience = time.monotonic() + PATIENCE
        look = self._settle(look, patience)
        while not self._closing:
            result = self._load(look)
            after = self._look()
            if after == look or time.monotonic() > patience:
                break
            look = self._settle(after, patience)  # it changed while it was read
        else:
            return
        if self._closing:  # the loader was killed
            return
        self._acted = look
        self._retry_at = 0.0
        self._retry = min(2 * self._retry, MAX_RETRY) if again else RETRY
        if isinstance(result, Refusal) and result.again:
            self._retry_at = time.monotonic() + self._retry
        if isinstance(result, Change):
            self._take(result, asked)
        else:
            self._refuse(result, asked)

    def _look(self) -> _Look:
        self._checked_ns = time.time_ns()
        try:
            st = os.stat(self.path)
        except FileNotFoundError:
            return "is gone; the policy in force stays"
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return f"cannot be looked at ({reason}); the policy in force stays"
        return (
            st.st_mtime_ns,
            st.st_ctime_ns,
            st.st_dev,
            st.st_ino,
            st.st_size,
            st.st_mode,
            st.st_uid,
            st.st_gid,
        )

    def _settle(self, look: _Look, patience: float) -> _Look:
        """What the path leads to once that stays the same; an editor may be in the midst of it."""
        while not self._closing and time.monotonic() < patience:
            if not isinstance(look, str):
                age = time.time_ns() - max(look[0], look[1])
                if not 0 <= age < SETTLED * 1e9:  # below zero: the clock of another host
                    return look
            time.sleep(STEP)
            before, look = look, self._look()
            if isinstance(look, str) and look == before:
                return look
        return look

    def _take(self, change: Change, asked: bool) -> None:
        if change.digest == self._digest:
            if asked or self._refusal is not None:
                self._refusal = None
                self._unchanged(asked)
            return
        try:
            self._loaded(change.policy, change.digest, change.warnings)
        except PolicyError as error:
            self._refuse(Refusal(error.problems, change.digest), asked)
            return
        except Exception as error:
            log.exception("putting %s into force", self.path)
            what = f"cannot be put into force: {type(error).__name__}: {error}"
            self._refuse(Refusal((_problem(what),), change.digest), asked)
            return
        self._digest, self._refusal = change.digest, None
        self._loaded_ns = time.time_ns()
        self._reloads += 1

    def _refuse(self, refusal: Refusal, asked: bool) -> None:
        if refusal == self._refusal and not asked:
            return
        self._refusal = refusal
        self._refusals += 1
        self._refused(refusal.problems, refusal.digest)

    def _load(self, look: _Look) -> Change | Refusal:
        if isinstance(look, str):
            return Refusal((_problem(look, "put it back"),), None)
        try:
            with self._lock:
                if self._closing:
                    return Refusal((), None)
                self._child = subprocess.Popen(
                    [*self._loader, self._name],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is not meant for it
                    cwd="/",
                )
        except OSError as error:
            return _failed(f"the process that loads policies cannot be started: {error.strerror or error}")
        child = self._child
        try:
            said, complaint = child.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return _failed(f"loading it took more than {self._timeout:g} s")
        finally:
            with self._lock:
                self._child = None
        return understood(child.returncode, said, complaint)


def understood(status: int, said: bytes, complaint: bytes) -> Change | Refusal:
    """What the loader's end means. status: its exit status, or the negative number of the signal that ended it."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return _failed(f"the process that loads policies was ended by {name}")
    try:
        if status not in (0, 1) or len(said) > MAX_ANSWER:
            raise ValueError(status)
        answer = msgspec.convert(json.loads(said), _Answer)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        last = complaint.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2][:200]
        return _failed(f"the process that loads policies failed with status {status}: {last or 'no word'}")
    if answer.policy is not None and answer.digest is not None:
        return Change(answer.policy, answer.digest, answer.warnings)
    return Refusal(answer.problems or _failed("refused without a reason").problems, answer.digest)


def one_line(problems: Sequence[Problem], source: str) -> str:
    """The first error of *problems*, and how many more there are."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return errors[0].text(source) + more


def _problem(what: str, mend: str = "") -> Problem:
    return Problem(None, None, "", what, mend)


def _failed(what: str) -> Refusal:
    return Refusal((_problem(what, "the policy in force stays"),), None, again=True)
