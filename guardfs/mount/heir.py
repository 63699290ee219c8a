"""What a daemon has from the one before it on the same mount, and leaves to the one after it.

`guardfs.mount.memory` says how it is kept, and how it is put together again; here it is tied to a daemon.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from guardfs import __version__
from guardfs.audit.event import Kind as NameKind
from guardfs.audit.event import Notice
from guardfs.errors import GuardError
from guardfs.mount.config import DaemonConfig, PolicyOptions
from guardfs.mount.filesystem import FileSystem
from guardfs.mount.memory.deposit import Deposit
from guardfs.mount.memory.keeper import Keeper
from guardfs.mount.memory.restore import Restored, Restorer, directories, records_of
from guardfs.mount.memory.store import Kind, Record, Store, Word
from guardfs.mount.protocol import EPOCH_MINOR, ask_to_resend, new_epoch
from guardfs.mount.reload import PolicyKeeper
from guardfs.mount.watch import Invalidator, Watch
from guardfs.policy.model import Policy

log = logging.getLogger("guardfs.mount")

_CANNOT = "nothing of the daemon before it can be read"
_MEND = "the directory is mounted anew"


class CannotTakeOverError(GuardError):
    """There is nothing to take over: the supervisor must mount anew."""


class Heir:
    """takes_over: an earlier daemon has served this connection. keeper: None where nothing is kept."""

    def __init__(self, config: DaemonConfig) -> None:
        self._config = config
        self._records: dict[int, list[Record]] = {}
        self.keeper: Keeper | None = None
        self.restored = Restored()
        self.takes_over = config.takeover is not None and not config.takeover.anew
        self._store = Store(config.memory_fd) if config.memory_fd >= 0 else None
        if self.takes_over:
            if self._store is None or not self._store.known:
                raise CannotTakeOverError(_CANNOT, _MEND)
            try:
                self._records = records_of(self._store)
            except (ValueError, IndexError) as error:
                raise CannotTakeOverError(f"{_CANNOT}: {error}", _MEND) from None
        elif self._store is not None:
            self._store.clear()

    def options(self) -> PolicyOptions:
        """The policy to begin with: that of the daemon before, if there was one."""
        options = self._config.policy
        found = self._records.get(Kind.POLICY)
        if not found:
            return options
        try:
            digest, policy = json.loads(found[-1].data)
            return msgspec.structs.replace(options, digest=digest, policy=msgspec.convert(policy, Policy))
        except (ValueError, msgspec.ValidationError):
            log.exception("the policy of the last daemon cannot be read: the one of the mount holds")
            return options

    def attach(self, filesystem: FileSystem, policy: PolicyKeeper, about: Callable[[Any], None]) -> None:
        """From now on everything is kept. about: is given what the journal is to call (`BranchStore.about`)."""
        if self._store is None:
            return
        ends = self._config.held_fds
        deposit = Deposit(ends) if min(ends) >= 0 else None
        keeper = self.keeper = Keeper(self._store, filesystem, deposit)
        if self.takes_over:
            keeper.adopt(Kind.POLICY, self._records.get(Kind.POLICY, []))
            said = keeper.adopt(Kind.MODE, self._records.get(Kind.MODE, []))
            if said is not None:
                policy.recall(said)
            filesystem.judge.recall_claims(keeper.adopt(Kind.CLAIM, self._records.get(Kind.CLAIM, [])))
        else:
            filesystem.nodes.ledger, filesystem.keeper = keeper.nodes, keeper
            filesystem.judge.machine.journal = keeper.fences
        about(keeper.running.branch)
        policy.commanded = lambda: keeper.only(Kind.MODE, policy.said())
        filesystem.judge.claims_changed = lambda data: keeper.only(Kind.CLAIM, data)
        self._store.words[Word.DAEMONS] += 1

    def keep_policy(self, policy: Policy, digest: str) -> None:
        """Another policy is in force."""
        if self.keeper is not None:
            self.keeper.only(Kind.POLICY, json.dumps([digest, msgspec.to_builtins(policy)]).encode())

    def restore(self, filesystem: FileSystem) -> None:
        """Put together what the last daemon knew; before anything is served, and with the log open."""
        keeper = self.keeper
        assert keeper is not None
        try:
            restorer = Restorer(filesystem, keeper, self._records)
            self.restored = restorer.found
            restorer.tables()
        except Exception as error:
            log.exception("nothing can be put together again")
            raise CannotTakeOverError(f"{_CANNOT}: {error!r}", _MEND) from None
        filesystem.nodes.ledger = keeper.nodes
        restorer.fences()
        restorer.views()
        restorer.files()
        filesystem.keeper = keeper
        restorer.settle()
        if filesystem.views is not None:
            try:
                filesystem.views.resume()
                keeper.views.keep(filesystem.views)
            except Exception as error:
                log.exception("views cannot be resumed")
                self.restored.lost.append(f"views: {error!r}")
        self._records = {}

    def watch(self, filesystem: FileSystem, watch: Watch | None) -> None:
        """Have changes announced in the directories that the kernel knows."""
        if watch is not None:
            for node in directories(filesystem):
                try:
                    filesystem.fds.of(node)
                except OSError:  # it is gone; the call that has removed it may come again
                    continue
                filesystem.watch(node)

    def connected(self) -> None:
        """Before the first request is read: have those sent again that the last daemon has not answered."""
        if not self.takes_over:
            return
        os.write(self._config.fuse_fd, ask_to_resend())
        if self._config.agreement.minor >= EPOCH_MINOR:
            try:
                os.write(self._config.fuse_fd, new_epoch())
            except OSError as error:
                log.warning("names that appeared meanwhile may be seen late: %s", error.strerror)

    def forget_caches(self, filesystem: FileSystem, invalidator: Invalidator) -> None:
        """Nobody watched the directories below for a while: the kernel is to ask for everything once more."""
        for node in filesystem.nodes:
            if node.kind is NameKind.OTHER:
                invalidator.node(node.id)

    def notice(self) -> Notice:
        """The event of a take-over, once everything is served again."""
        takeover, found = self._config.takeover, self.restored
        assert takeover is not None
        wall = time.time_ns()
        fields: dict[str, Any] = {
            "number": takeover.number,
            "cause": takeover.cause,
            "orderly": takeover.orderly,
            "anew": takeover.anew,
            "pid": os.getpid(),
            "version": __version__,
            "took_ms": max(0, wall - takeover.since_ns) // 1_000_000,
            "resent": 0 if self.keeper is None else self.keeper.resent,
            "restored": {
                "nodes": found.nodes,
                "handles": found.handles,
                "fences": found.fences,
                "branches": found.branches,
                "notes": found.notes,
            },
        }
        if found.lost:
            fields["lost"] = found.lost[:20]
        return Notice("takeover", wall, fields)

    def facts(self) -> dict[str, Any]:
        """For `status`: restarts of the daemon on this mount. since_ns: of the last one."""
        takeover = self._config.takeover
        if takeover is None:
            return {"restarts": 0, "restart_ns": None, "restart_cause": None}
        return {
            "restarts": takeover.number,
            "restart_ns": takeover.since_ns,
            "restart_cause": takeover.cause,
        }

    @property
    def keeps(self) -> bool:
        """Whether a later daemon will find what it needs."""
        return self.keeper is not None and not self.keeper.broken
