"""Transcripts with more than one view, from the journal and from what an earlier daemon kept beside it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.staging import Branch, Hold, Key
from guardfs.mount.memory.views import BranchKept, StagedKept, staged_view
from guardfs.mount.views import Live, Staged, Views, fingerprint
from guardfs.state.branches import BranchFile, GhostFacts

if TYPE_CHECKING:
    from guardfs.mount.filesystem import FileSystem

log = logging.getLogger("guardfs.memory")

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def restore_views(
    views: Views,
    filesystem: FileSystem,
    kept: list[StagedKept],
    undo: tuple[int, int] | None,
    lost: list[str],
) -> int:
    """Fill *views*; the number of branches. undo: a branch, and its size before a write that comes again. lost: is
    given what could not be put together, in words."""
    ghosts = views.load()
    if undo is not None and undo[0] in views.files:
        views.files[undo[0]].undo(undo[1])
    followers = {file.facts.follows: file for file in views.files.values() if file.facts.follows}
    for each in kept:
        views.recall(each.transcript, each.names, each.told, each.repeats, each.order)
        if not each.staged:
            continue
        try:
            _staged(views, filesystem, each, ghosts, followers)
        except OSError as error:
            lost.append(f"views of {os.fsdecode(each.transcript)}: {error.strerror or error}")
    of = {number for staged in views.of.values() for number in staged.lives}
    for number, file in list(views.files.items()):
        if number not in of:
            _orphan(views, filesystem, file, ghosts, lost)
    known = {staged.ghost[0] for staged in views.of.values() if staged.ghost is not None}
    for number, ghost in ghosts.items():
        if number not in known:
            _lost_ghost(views, filesystem, number, ghost, lost)
    for staged in views.of.values():
        staged.holding = None
    return sum(len(staged.lives) for staged in views.of.values())


def _staged(
    views: Views,
    filesystem: FileSystem,
    kept: StagedKept,
    ghosts: dict[int, GhostFacts],
    followers: dict[int, BranchFile],
) -> None:
    nodes = filesystem.nodes
    parent = nodes.get(kept.parent)
    if parent is None:
        raise OSError(0, "its directory is not known any more")
    staged = Staged(kept.transcript, parent, kept.name, nodes.get(kept.node) if kept.node else None)
    staging = staged.staging
    if kept.hold is not None:
        staging.hold = Hold(*kept.hold)
    staging.forgive, staging.lingers = kept.forgive, kept.lingers
    staged.closed, staged.forgiven = kept.closed, kept.forgiven
    staged.outside = nodes.get(kept.outside) if kept.outside else None
    if kept.ghost in ghosts:
        _ghost(filesystem, staged, kept.ghost, ghosts[kept.ghost])
    for each in kept.branches:
        file = views.files.get(each.number)
        while file is None or file.number in followers:
            file = followers.get(each.number if file is None else file.number)
            if file is None:
                break
        if file is not None:
            _live(views, filesystem, staged, each, file, ghosts)
    for tid, number, when in kept.intents:
        view = staged_view(staged, number)
        if view is not None:
            staged.intents[tid] = view, when
    staged.holding = kept.holding
    if kept.holding is not None:  # the attributes may have been changed since, and may not
        staging.keep(kept.holding, _real(filesystem, staged))
    if staging.idle and not staged.lives:
        return
    views.of[kept.transcript] = staged
    if staged.node is not None and staged.node.view is None:
        staged.node.view = staged


def _real(filesystem: FileSystem, staged: Staged) -> Fingerprint:
    if staged.ghost is not None:
        return fingerprint(os.fstat(staged.ghost_fd))
    try:
        directory = filesystem.fds.of(staged.parent)
        return fingerprint(os.stat(staged.name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return ABSENT


def _ghost(filesystem: FileSystem, staged: Staged, number: int, ghost: GhostFacts) -> None:
    fd = os.open(
        ghost.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=filesystem.fds.of(filesystem.nodes.root)
    )
    st = os.fstat(fd)
    if (st.st_ino, st.st_dev) != (ghost.inode, ghost.device):
        os.close(fd)
        raise OSError(0, "the owner's file is not where it was")
    staged.ghost, staged.ghost_fd, staged.staging.ghost = (number, ghost), fd, True
    node = staged.node
    if node is not None:
        filesystem.fds.give(node, os.dup(fd))
        filesystem.nodes.shared[node.dev, node.ino] = node.file
        filesystem.left(node, st)


def _live(
    views: Views,
    filesystem: FileSystem,
    staged: Staged,
    kept: BranchKept,
    file: BranchFile,
    ghosts: dict[int, GhostFacts],
) -> None:
    facts = file.facts
    kind, process, lane = kept.key
    branch = Branch(
        file.number,
        Key(kind, process, lane),  # type: ignore[arg-type]
        kept.lane,
        kept.shown,
        order=kept.order,
        wall=kept.opened,
    )
    branch.exists, branch.made = kept.exists, kept.made
    branch.whole = kept.whole or facts.whole
    branch.base = 0 if branch.whole else kept.base
    branch.processes = set(kept.processes)
    branch.written, branch.size = kept.written, file.size
    branch.shown = kept.shown
    if branch.shown.size != branch.length and kept.made:  # its last write was not answered
        branch.shown = branch.shown._replace(size=branch.length)
    live = Live(staged, branch, file, _base(filesystem, staged, file, ghosts))
    staged.lives[branch.number] = live
    staged.staging.branches.append(branch)
    node = filesystem.nodes.get(kept.node) if kept.node else None
    if node is not None:
        live.node, node.view = node, live
    for number, journal in kept.handles:
        handle = filesystem.handles.get(number)
        if handle is None:
            continue
        handle.live, handle.journal = live, journal
        live.handles.append(handle)
        if journal:
            handle.fd = os.dup(file.fd)


def _base(filesystem: FileSystem, staged: Staged, file: BranchFile, ghosts: dict[int, GhostFacts]) -> int:
    """The file that a branch stands on: by the transcript's name, or by the one that it has got since."""
    facts = file.facts
    if not facts.exists:
        return -1
    names = [
        ghost.name for ghost in ghosts.values() if (ghost.inode, ghost.device) == (facts.inode, facts.device)
    ]
    found = -1
    for name in (*names, staged.staging.transcript):
        try:
            fd = os.open(name, _READ, dir_fd=filesystem.fds.of(filesystem.nodes.root))
        except FileNotFoundError:
            continue
        st = os.fstat(fd)
        if found < 0 and (st.st_ino, st.st_dev) == (facts.inode, facts.device):
            found = fd
        else:
            os.close(fd)
    if found < 0:
        raise OSError(0, "the file that a branch stands on is gone")
    return found


def _orphan(
    views: Views,
    filesystem: FileSystem,
    file: BranchFile,
    ghosts: dict[int, GhostFacts],
    lost: list[str],
) -> None:
    """A branch of which nothing else is known: it had just been made, or what was kept could not be read."""
    facts = file.facts
    begun = views.begun(file)
    if file.size == 0 and not facts.replaces and not (facts.whole and facts.made) and not begun:
        views.drop(file)  # whoever made it comes again
        return
    staged = views.staged(facts.transcript)
    if staged is None:
        lost.append(f"a branch of {os.fsdecode(facts.transcript)}: it stays in the journal")
        return
    try:
        base_fd = _base(filesystem, staged, file, ghosts)
    except OSError as error:
        base_fd = -1
        log.warning("%s: %s", os.fsdecode(facts.transcript), error.strerror)
    kind = facts.key if facts.key in ("process", "side", "lane") else "lane"
    lane = facts.lane.partition(":")[0] if kind == "lane" else ""
    key = Key(kind, facts.process if kind != "lane" else (0, 0), lane)  # type: ignore[arg-type]
    base = ABSENT if base_fd < 0 else fingerprint(os.fstat(base_fd))
    branch = Branch(file.number, key, facts.lane, base, order=views.next_order(), wall=facts.opened)
    branch.exists, branch.made = facts.exists, facts.made
    branch.whole, branch.base = facts.whole, 0 if facts.whole else facts.base
    branch.wrote(file.size, file.written)
    staged.lives[branch.number] = Live(staged, branch, file, base_fd)
    staged.staging.branches.append(branch)


def _lost_ghost(
    views: Views, filesystem: FileSystem, number: int, ghost: GhostFacts, lost: list[str]
) -> None:
    """A file of which nobody knows whether its name was taken away: the call that did so was not answered."""
    nodes = filesystem.nodes
    try:
        st = os.stat(ghost.transcript, dir_fd=filesystem.fds.of(nodes.root), follow_symlinks=False)
        if (st.st_ino, st.st_dev) == (ghost.inode, ghost.device):
            views.rest(number)  # it has its name still
            return
    except FileNotFoundError:
        pass
    staged = views.staged(ghost.transcript)
    if staged is None:
        lost.append(f"{os.fsdecode(ghost.transcript)}: is {os.fsdecode(ghost.name)} now")
        return
    node = nodes.entry(staged.parent, staged.name)
    staged.node = node
    _ghost(filesystem, staged, number, ghost)
    if node is not None:
        nodes.unname(staged.parent, staged.name)
        nodes.detach(node)
        node.names = [(staged.parent, staged.name)]
        nodes.changed(node)
        node.view = staged
        if staged.holding is not None:
            staged.staging.keep(staged.holding, fingerprint(os.fstat(staged.ghost_fd)))
