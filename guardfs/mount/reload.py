"""The policy in force: compiled, put in place of the old one between two requests, told of in log and status.

The follower's thread hands over what it has checked, or what is wrong with it. A policy is compiled there; the loop
only exchanges references, so no request waits for a reload.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from guardfs.audit.event import Notice
from guardfs.audit.log import AuditLog
from guardfs.mount.config import PolicyOptions
from guardfs.mount.filesystem import FileSystem
from guardfs.policy.decide import Decider
from guardfs.policy.effective import Effective, effective, unchangeable
from guardfs.policy.follow import Follower
from guardfs.policy.judge import Judge
from guardfs.policy.model import Policy
from guardfs.policy.problem import PolicyError, Problem
from guardfs.policy.users import ids
from guardfs.transcript.names import NameRules

log = logging.getLogger("guardfs.policy")

_TOLD = 20
"""Problems of a refused policy that stand in its event; `guardfs policy check` shows all."""

Post = Callable[[Callable[[], None]], None]

Command = Literal["record", "enforce", "off", "policy"]
"""What an operator can say of the mode; policy: what policy and options say is to hold again."""


class SetBy(msgspec.Struct, frozen=True):
    """Who said so. tgid 0: somebody outside the guard's pid namespace."""

    uid: int
    tgid: int
    comm: str


_SAID = msgspec.msgpack.Decoder(
    tuple[tuple[Literal["record", "enforce", "off"], SetBy, int] | None, dict[bytes, dict[int, bool]]]
)


class PolicyKeeper:
    """Holds the policy of one mount. Before `start` it is only the one to begin with.

    What an operator says of the mode comes before policy and options: `record` and `enforce` until another policy is
    taken, `off` until the operator says otherwise. changed: told of a policy that was taken; commanded: called when an
    operator has set the mode.
    """

    def __init__(self, options: PolicyOptions, audit: AuditLog, token_floor: int = 0) -> None:
        self.policy = options.policy
        self.digest = options.digest
        self.settings: Effective = effective(options.policy, options.over)
        decider, names = Decider(options.policy, ids), NameRules(options.policy.transcripts)
        self.judge = Judge(decider, names, token_floor)
        self.judge.switch(enforces=self.settings.mode == "enforce")
        self._command: tuple[Literal["record", "enforce", "off"], SetBy, int] | None = None
        self.changed: Callable[[Policy], None] = lambda policy: None
        self.commanded: Callable[[], None] = lambda: None
        self._options = options
        self._audit = audit
        self._since_ns = time.time_ns()
        self._reloads = 0
        self._refused = 0
        self._error = ""
        self._follower: Follower | None = None
        self._filesystem: FileSystem | None = None
        self._post: Post = lambda work: work()

    def start(self, filesystem: FileSystem, post: Post) -> None:
        """Follow the file from now on. post: runs a function on the loop."""
        self._filesystem = filesystem
        self._post = post
        self._tell("loaded", new=self.digest)
        if self._options.path is not None:
            self._follower = Follower(
                self._options.path, self.digest, self._loaded, self._refuse, self._unchanged
            )
            self._follower.start()

    def look(self) -> None:
        """Look at the file now (SIGHUP)."""
        if self._follower is not None:
            self._follower.now()

    def close(self) -> None:
        """Follow no more."""
        if self._follower is not None:
            self._follower.close()

    # ---- the mode

    @property
    def mode(self) -> Literal["record", "enforce", "off"]:
        """The one in force."""
        return self.settings.mode if self._command is None else self._command[0]

    def set_mode(self, mode: Command, by: SetBy) -> None:
        """An operator wants another one. Open fences end as they began, unless all is switched off."""
        before, wall = self.mode, time.time_ns()
        self._command = None if mode == "policy" else (mode, by, wall)
        self._switch()
        log.warning("mode %s, was %s: set by %s[%d], user %d", self.mode, before, by.comm, by.tgid, by.uid)
        process = {"tgid": by.tgid, "comm": by.comm}
        self._tell_mode(before, "policy" if mode == "policy" else "command", by=process, uid=by.uid)
        self.commanded()

    def said(self) -> bytes:
        """What an operator has said of the mode, and what holds for open fences, for the next daemon."""
        return msgspec.msgpack.encode((self._command, self.judge.began()))

    def recall(self, data: bytes) -> None:
        """Go on from what `said` told."""
        self._command, began = _SAID.decode(data)
        self._switch()
        self.judge.recall(began)

    def _switch(self) -> None:
        self.judge.switch(enforces=self.mode == "enforce", off=self.mode == "off")

    def _tell_mode(self, before: str, source: str, **more: Any) -> None:
        facts = {"mode": self.mode, "before": before, "from": source, **more}
        self._audit.emit(Notice("mode", time.time_ns(), facts))

    # ---- in the follower's thread

    def _loaded(self, policy: Policy, digest: str, warnings: Sequence[Problem]) -> None:
        settings = effective(policy, self._options.over)
        cannot = unchangeable(self.settings, settings, self.policy, policy)
        if cannot is not None:
            raise PolicyError(self._options.source, [Problem(None, None, "", *cannot)], digest=digest)
        for problem in warnings:
            log.warning("%s", problem.text(self._options.source))
        decider, names = Decider(policy, ids), NameRules(policy.transcripts)
        self._post(lambda: self._apply(policy, digest, settings, decider, names))

    def _refuse(self, problems: Sequence[Problem], digest: str | None) -> None:
        lines = [problem.text(self._options.source) for problem in problems if problem.severity == "error"]
        for line in lines[:_TOLD]:
            log.error("%s", line)
        log.error("%s: not taken; the policy in force stays", self._options.source)
        self._refused += 1
        self._error = lines[0] if lines else "not taken"
        told = [
            {
                "line": problem.line,
                "column": problem.column,
                "key": problem.key,
                "what": problem.what,
                "mend": problem.mend,
            }
            for problem in problems[:_TOLD]
        ]
        self._post(
            lambda: self._tell("refused", old=self.digest, new=digest, problems=told, total=len(problems))
        )

    def _unchanged(self, asked: bool) -> None:
        """The file is (again) what is in force."""
        self._error = ""
        log.info("%s: %s", self._options.source, "not changed" if asked else "back to the policy in force")

    # ---- on the loop

    def _apply(
        self, policy: Policy, digest: str, settings: Effective, decider: Decider, names: NameRules
    ) -> None:
        filesystem = self._filesystem
        assert filesystem is not None
        old, before, mode = self.digest, self.policy, self.mode
        self.judge.use(decider, names)
        if policy.transcripts != before.transcripts:
            filesystem.reclassify(names)
        filesystem.audit_required = settings.required
        self._audit.use(settings.level, settings.max_bytes, settings.keep)
        self.policy, self.digest, self.settings = policy, digest, settings
        if self._command is not None and self._command[0] != "off":
            self._command = None
        self._switch()
        self._since_ns = time.time_ns()
        self._reloads += 1
        self._error = ""
        log.info("%s: taken; %d lanes, %d rules", self._options.source, len(policy.lanes), len(policy.rules))
        self._tell("loaded", old=old, new=digest)
        if self.mode != mode:
            self._tell_mode(mode, "policy")
        self.changed(policy)

    # ---- anywhere

    def _tell(self, change: str, **more: Any) -> None:
        facts = {"source": self._options.source, "change": change, "mode": self.mode, **more}
        self._audit.emit(Notice("policy", time.time_ns(), facts))

    def facts(self) -> dict[str, Any]:
        """For `status`. hits: operations that each rule has decided since this policy is in force."""
        hits, policy = self.judge.hits, self.policy
        return {
            "source": self._options.source,
            "mode": self.mode,
            "mode_from": self._mode_from(),
            "old_fences": self.judge.old_fences,
            "followed": self._options.path is not None,
            "digest": self.digest,
            "since_ns": self._since_ns,
            "reloads": self._reloads,
            "refused": self._refused,
            "error": self._error,
            "lanes": len(policy.lanes),
            "hits": {rule.name: hits[index] for index, rule in enumerate(policy.rules)},
            "transcripts": msgspec.to_builtins(policy.transcripts),
        }

    def _mode_from(self) -> dict[str, Any]:
        """Who says what the mode is."""
        if self._command is None:
            return {"source": "policy" if self._options.over.mode is None else "option"}
        _, by, wall = self._command
        return {"source": "command", "since_ns": wall, **msgspec.to_builtins(by)}
