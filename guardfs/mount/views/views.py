"""When which view ends: told of every change to fences, and of time."""

from __future__ import annotations

import time
from typing import Any

from guardfs.closing import let_go
from guardfs.fence.effects import Effect, FenceClosed, FenceOpened, WroteUnlocked
from guardfs.fence.events import ProcessKey
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.staging import Branch, Key
from guardfs.mount.views.haunting import Haunting
from guardfs.mount.views.live import Live, Staged, fingerprint, text
from guardfs.mount.views.looking import MAX_ERRORS
from guardfs.state.branches import BranchFile, GhostFacts
from guardfs.transcript.formats import Format

REWRITE_NS = 1_000_000_000
"""How long somebody who writes a file anew may think about what comes next."""

OVERDUE = 8
"""How many times as long as branches linger they may wait, where one turn follows the other."""


class Views(Haunting):
    """All transcripts of a mount that have more than one view."""

    def changed(self, transcript: bytes, effects: tuple[Effect, ...]) -> None:
        """Something happened to *transcript*'s lock or fences: pin who needs it, rebase what is ready. Never raises."""
        if not effects and transcript not in self.of:
            return
        for effect in effects:
            try:
                self._follow(transcript, effect)
            except Exception:
                self._core.internal_error("following a fence")
                self.went_wrong(transcript)
        if transcript:
            self.due(transcript)

    def _follow(self, transcript: bytes, effect: Effect) -> None:
        if isinstance(effect, FenceOpened):
            relies = self._core.judge.machine.relies(effect.fence.transcript, effect.fence.process)
            opened = effect.baseline if relies is None else relies
            self._pin(effect.fence.transcript, effect.fence.process, opened, opening=True)
        elif isinstance(effect, FenceClosed):
            staged = self.of.get(effect.fence.transcript)
            if effect.reason == "idle":
                relies = self._core.judge.machine.relies(effect.fence.transcript, effect.fence.process)
                if relies is not None:
                    self._pin(effect.fence.transcript, effect.fence.process, relies, opening=False)
            elif staged is not None:
                if effect.reason == "closed":
                    staged.closed = time.monotonic_ns()
                    staged.staging.lingers = effect.fence.process
                branch = staged.staging.own(effect.fence.process)
                if (
                    branch is not None
                ):  # first what it wrote itself, then what its process's other lanes did meanwhile
                    for each in (branch, staged.staging.side(effect.fence.process)):
                        if each is not None:
                            self._order += 1
                            each.order = self._order
            if effect.fence.transcript != transcript:
                self.due(effect.fence.transcript)
        elif isinstance(effect, WroteUnlocked) and self._core.judge.enforcing(effect.fence.transcript):
            staged = self.staged(effect.fence.transcript)
            if staged is not None:
                staged.staging.forgive = True

    def _pin(self, transcript: bytes, process: ProcessKey, relies: Fingerprint, *, opening: bool) -> None:
        """*process* goes on seeing what it relies on, whatever happens to the file."""
        judge = self._core.judge
        owners, enforcing = judge.machine.owners(transcript), judge.enforcing(transcript)
        staged = self.of.get(transcript)
        strange = opening and staged is not None and staged.strange(relies)
        if judge.off or (opening and not (enforcing and (len(owners) > 1 or strange))):
            return
        if not opening and staged is None and not enforcing:
            return
        staged = self.staged(transcript)
        if staged is None:
            return
        if opening:
            staged.staging.disown(process, relies)
            adopted = staged.staging.adopt(process)
            if adopted is not None or not (strange or staged.staging.pins(owners, process)):
                return
        key = Key("process", process, "")
        if staged.staging.of(key) is None:
            try:
                live = self.branch(staged, key, "owner", base=relies)
            except FileNotFoundError:
                return  # nothing can show it what it relies on any more
            except OSError as error:
                self.could_not(transcript, "fence", error)
                return
            live.branch.shown = relies if relies.exists else live.branch.shown

    def keep_for_beginners(self, transcript: bytes) -> None:
        """The file that has the name is about to lose it, or its content, and no owner is in the way: whoever begins a
        turn on it goes on seeing it."""
        staged, machine = self.of.get(transcript), self._core.judge.machine
        if staged is None:
            return
        if not staged.staging.ghost and staged.staging.write_through(machine.owners(transcript)):
            return
        for process, saw in machine.beginning(transcript):
            if staged.staging.own(process) is not None:
                continue
            try:
                directory = self._core.fds.of(staged.parent)
                st = self._core.below.stat(staged.name, dir_fd=directory, follow_symlinks=False)
                if st.st_ino == saw.ino:
                    base = fingerprint(st)
                    self.branch(staged, Key("process", process, ""), "owner", base=base)
            except FileNotFoundError:
                return
            except OSError as error:
                self.could_not(transcript, "fence", error)
                return

    def lingers(self, staged: Staged) -> bool:
        """Whether the agent may still have to say something before the branches go behind it."""
        return time.monotonic_ns() - staged.closed < self._core.judge.linger_ns

    def overdue(self, staged: Staged) -> bool:
        """Whether branches have waited for so long that whoever reads under the lock is to find what is on them, be it
        a turn or not."""
        oldest = min((branch.opened for branch in staged.staging.branches), default=self._core.clock())
        return self._core.clock() - oldest > OVERDUE * self._core.judge.linger_ns

    def due(self, transcript: bytes, *, now: bool = False) -> None:
        """Rebase what waits for *transcript*, if its time has come. now: nobody is to be waited for but those who rely
        on the file; and while the guard is switched off not even they. Never raises: what goes wrong is told, and tried
        again."""
        if self._errors.get(transcript, 0) >= 2 * MAX_ERRORS:
            return  # what it has is in the journal, for the next mount
        try:
            self._due(transcript, now=now)
        except Exception:
            self._core.internal_error("rebase")
            self.went_wrong(transcript)

    def _due(self, transcript: bytes, *, now: bool) -> None:
        staged, off = self.of.get(transcript), self._core.judge.off
        if staged is not None:
            self.touched.add(transcript)
        if staged is None or (not now and not off and self.lingers(staged)):
            return
        machine, staging = self._core.judge.machine, staged.staging
        ready: list[Branch] | None
        if off:
            ready = sorted(staging.branches, key=lambda branch: branch.order)
        else:
            held = not now and machine.held(transcript)
            owners = (
                machine.fenced(transcript) if now else machine.owners(transcript)
            )  # a turn begins on what is ready
            ready = staging.ready(owners, machine.away(transcript), held)
        if ready is None:
            return
        relied = not off and bool(machine.fenced(transcript) or machine.away(transcript))
        staging.hold, staging.lingers, staging.forgive = None, (0, 0), staging.forgive and relied
        try:
            place = self.place(staged)
            if staged.ghost is not None:
                self._rest(staged, place, waits=any(branch.size for branch in ready))
        except OSError as error:
            self._stays(staged, error)
            return
        for branch in ready:
            if branch.closed:
                continue
            live = staged.lives[branch.number]
            if not branch.size and not branch.whole and self.awaited(live):
                continue  # its lane has not come to write yet
            if not off and self._rewriting(live):
                break
            if not self._rebase(staged, live, place):
                break  # the order is kept: the others wait with it
        else:
            self._rested(staged)
        self._leave(staged)

    def _rewriting(self, live: Live) -> bool:
        """Whether somebody is about to write the file anew: half of one is not to take its place."""
        if not live.branch.whole or not live.branch.exists or time.monotonic_ns() - live.busy >= REWRITE_NS:
            return False
        return any(handle.writable and not handle.append for handle in live.handles)

    def everything_due(self) -> None:
        """Try all. One that goes wrong does not keep the others."""
        for transcript in list(self.of):
            self.due(transcript)

    def waiting(self, transcript: bytes = b"") -> list[dict[str, Any]]:
        """The branches of *transcript*, or of all, that are not rebased, and the files that lost their name. why: a
        fence is open, the lock is held, the agent may look once more (linger), or the rebase has failed. Times in ns
        since the epoch, sizes in bytes."""
        return [
            facts
            for name, staged in self.of.items()
            if not transcript or name == transcript
            for facts in self._waiting(name, staged)
        ]

    def _waiting(self, transcript: bytes, staged: Staged) -> list[dict[str, Any]]:
        machine = self._core.judge.machine
        if machine.owners(transcript) or machine.away(transcript):
            why = "fence"
        elif self.lingers(staged):
            why = "linger"
        else:
            why = "lock" if machine.held(transcript) else "failed"
        about = {"path": text(transcript), "why": why}
        found = [
            {
                **about,
                "branch": live.branch.number,
                "lane": live.branch.lane,
                "bytes": live.branch.size,
                "base": live.branch.base,
                "opened_ns": live.branch.opened,
                "error": self.failing.get(live.branch.number, ""),
            }
            for live in staged.lives.values()
        ]
        if staged.ghost is not None:
            number, ghost = staged.ghost
            found.append({**about, "ghost": number, "lane": ghost.lane, "file": text(ghost.name)})
        return found

    def _leave(self, staged: Staged) -> None:
        staging = staged.staging
        if not staging.idle:
            return
        if staged.node is not None and staged.node.view is staged:
            staged.node.view = None
            self._core.forget_node(staged.node.id)
            self.unknown(staged.node)
        if staged.outside is not None:
            self._core.forget_node(staged.outside.id)
        self.of.pop(staging.transcript, None)

    def use(self, format: Format) -> None:
        """From now on transcripts are of this format."""
        self._merger.format = format

    def finish(self) -> None:
        """The mount is gone, and nobody relies on it any more: rebase everything."""
        self._core.judge.switch(enforces=False, off=True)
        self.everything_due()

    # ---- from one daemon to the next

    def load(self) -> dict[int, GhostFacts]:
        """Read the journal; the ghosts."""
        return self._store.load()

    @property
    def files(self) -> dict[int, BranchFile]:
        """The branches of the journal, by number."""
        return self._store.files

    def begun(self, file: BranchFile) -> bool:
        """Whether its rebase has begun."""
        return self._store.begun(file) is not None

    def drop(self, file: BranchFile) -> None:
        """It holds nothing, and nobody knows it."""
        self._store.drop(file)

    def rest(self, number: int) -> None:
        """The ghost *number* is none."""
        self._store.rest(number)

    def next_order(self) -> int:
        """A number behind all that were given."""
        self._order += 1
        return self._order

    def resume(self) -> None:
        """Finish the rebases that had begun, and keep apart who relies on what."""
        for staged in list(self.of.values()):
            for live in list(staged.lives.values()):
                if self.begun(live.file):
                    self._rebase(staged, live, (staged.parent, staged.name))
            self._leave(staged)
        machine = self._core.judge.machine
        for view in list(machine.fences(time.monotonic_ns())):
            self._pin(view.fence.transcript, view.fence.process, view.baseline, opening=True)
        for transcript in machine.transcripts():
            for process in machine.away(transcript):
                relies = machine.relies(transcript, process)
                if relies is not None:
                    self._pin(transcript, process, relies, opening=False)

    def close(self) -> None:
        """Let go of what is left, which stays in the journal."""
        for staged in list(self.of.values()):
            for live in staged.lives.values():
                if live.base_fd >= 0:
                    let_go(live.base_fd)
            if staged.ghost_fd >= 0:
                let_go(staged.ghost_fd)
        self._store.close()

    def facts(self) -> dict[str, Any]:
        """For `status`. Times in ns since the epoch, sizes in bytes. failing: branches whose rebase failed, and is
        tried again."""
        lives = [live for staged in self.of.values() for live in staged.lives.values()]
        return {
            "enforcing": self._core.judge.enforces,
            "open": len(lives),
            "bytes": self._store.total,
            "oldest_ns": min((live.branch.opened for live in lives), default=None),
            "merged": self.merged,
            "failed": self.failed,
            "failing": len(self.failing),
            "conflicts": self.conflicts,
            "passed": self.passed,
            "given_up": len(self.given_up),
            "held": self.waits.held,
            "ghosts": sum(staged.ghost is not None for staged in self.of.values()),
            "list": self.waiting()[:100],
        }
