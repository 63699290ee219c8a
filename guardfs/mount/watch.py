"""Changes that do not come through the mount: noticed with inotify on the directories below, compared,
logged, invalidated.

inotify tells what changed, not who did it, and reports the guard's own calls as well. So an event is only a
reason to look: the file is stat'ed on the loop, where no operation can come between, and compared with what
the guard left behind (`Core.saw`). What differs was changed by an unseen writer.

Three threads of control: a reader thread (blocked in poll, or gathering for `GATHER_MS`), the loop
(comparing), and an invalidator thread: the kernel may hold a directory's lock while it waits for the guard,
so invalidating from the loop would deadlock.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import stat
import threading
from collections import deque
from collections.abc import Callable

import inotify_simple
import pyfuse3
from inotify_simple import flags as mask

from guardfs.audit.event import Kind
from guardfs.mount.nodes import Node
from guardfs.mount.operations.names import Names

log = logging.getLogger("guardfs.mount")

GATHER_MS = 20
"""How long events gather before they are read: the guard's own writes coalesce, and the loop is disturbed 50
times a second at most.
"""

_APPEARED = mask.CREATE | mask.MOVED_TO
_DISAPPEARED = mask.DELETE | mask.MOVED_FROM
_MASK = _APPEARED | _DISAPPEARED | mask.MODIFY | mask.ATTRIB | mask.ONLYDIR | mask.EXCL_UNLINK

_Change = tuple[int, bytes, int, int]  # node id of the directory, name, how often it appeared and disappeared


_FORGOTTEN = 1024
"""Names of which it is remembered that the kernel has forgotten them, at most; the loop takes them out in a moment."""


class Invalidator:
    """Tells the kernel, from a thread of its own, to forget what it has cached. forgotten: names that it has forgotten,
    with their directory's node id, until somebody takes them out."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="guardfs-inval", daemon=True)
        self.count = 0
        self.forgotten: deque[tuple[int, bytes]] = deque(maxlen=_FORGOTTEN)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def entry(self, parent: int, name: bytes) -> None:
        """The kernel is to look *name* in node *parent* up again."""
        self._queue.put(lambda: self._entry(parent, name))

    def _entry(self, parent: int, name: bytes) -> None:
        try:
            pyfuse3.invalidate_entry(parent, name)
        finally:
            self.forgotten.append((parent, name))

    def node(self, node: int) -> None:
        """The kernel is to ask again for attributes and contents of *node*."""
        self._queue.put(lambda: pyfuse3.invalidate_inode(node))

    def node_now(self, node: int) -> None:
        """The same, and done when it returns. Not for the loop, which the kernel may wait for meanwhile."""
        self._do(lambda: pyfuse3.invalidate_inode(node))

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            self._do(call)

    def _do(self, call: Callable[[], None]) -> None:
        try:
            call()
            self.count += 1
        except OSError as error:
            if error.errno not in (
                errno.ENOENT,
                errno.ENOTDIR,
            ):  # the kernel does not know it: nothing to forget
                log.warning("the kernel would not drop its cache: %s", error)

    def stop(self) -> None:
        """End once the queue is empty; does not wait: a call may hang on an unmounted file system."""
        self._queue.put(None)


class Watch:
    """inotify watches, one a directory that the kernel knows.

    post: runs a function on the loop, from any thread. Raises OSError where inotify is not to be had.
    """

    def __init__(
        self, core: Names, invalidator: Invalidator, post: Callable[[Callable[[], None]], None]
    ) -> None:
        self._core = core
        self._invalidator = invalidator
        self._post = post
        self._inotify = inotify_simple.INotify()
        self._nodes: dict[int, int] = {}  # watch descriptor -> node id
        self._watches: dict[int, int] = {}  # node id -> watch descriptor
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="guardfs-watch", daemon=True)
        self.refused = 0

    def start(self) -> None:
        """Begin with the root directory."""
        self.add(self._core.nodes.root, self._core.fds.path(self._core.nodes.root))
        self._thread.start()

    def add(self, node: Node, path: bytes) -> None:
        """Watch the directory *node*, which *path* leads to."""
        try:
            watch = self._inotify.add_watch(path, _MASK)
        except OSError as error:
            self.refused += 1
            if self.refused == 1:
                log.warning(
                    "%s: changes made below the mount will be noticed late: %s; raise fs.inotify.max_user_watches",
                    os.fsdecode(node.path()),
                    error.strerror,
                )
            return
        before = self._nodes.get(watch)
        if (
            before is not None and before != node.id
        ):  # a directory that was renamed below: inotify knows it still
            self._watches.pop(before, None)
        self._nodes[watch] = node.id
        self._watches[node.id] = watch
        node.watched = True

    def remove(self, node: Node) -> None:
        """The kernel has forgotten the directory *node*."""
        watch = self._watches.pop(node.id, None)
        if watch is not None and self._nodes.get(watch) == node.id:
            del self._nodes[watch]
            try:
                self._inotify.rm_watch(watch)
            except OSError:  # the directory is gone, and its watch with it
                pass

    def stop(self) -> None:
        """End; the reader thread leaves at its next wake-up, and is a daemon thread."""
        self._stopping = True

    def _run(self) -> None:
        while not self._stopping:
            try:
                events = self._inotify.read(timeout=1000, read_delay=GATHER_MS)
            except (OSError, ValueError):
                return
            if not events or self._stopping:
                continue
            changes: dict[tuple[int, bytes], list[int]] = {}
            overflow = False
            for watch, bits, _, name in events:
                if bits & mask.Q_OVERFLOW:
                    overflow = True
                node = self._nodes.get(watch)
                if node is None or not name:
                    continue
                key = (node, os.fsencode(name))
                counts = changes.setdefault(key, [0, 0])
                counts[0] += bits & _APPEARED != 0
                counts[1] += bits & _DISAPPEARED != 0
            try:
                if overflow:
                    self._post(self._everything)
                elif changes:
                    batch = [(*key, *counts) for key, counts in changes.items()]
                    self._post(lambda batch=batch: self._compare(batch))  # type: ignore[misc]
            except Exception:
                log.debug("the loop has ended; the watch ends too")
                return

    def _everything(self) -> None:
        """Events were lost: whatever is known may have changed."""
        log.warning("more changes below the mount than inotify could hold: every known name is checked")
        self._compare([(parent, name, 0, 0) for parent, name in self._core.nodes.entries()])

    def _compare(self, changes: list[_Change]) -> None:
        """On the loop: look at each name, log what somebody else changed, and queue what the kernel must
        forget.
        """
        touched: set[int] = set()
        for parent_id, name, appeared, gone in changes:
            try:
                if self._compare_one(parent_id, name, appeared, gone):
                    touched.add(parent_id)
            except Exception:
                self._core.internal_error("watch")
        for node_id in touched:
            node = self._core.nodes.get(node_id)
            if node is not None:
                node.turns += 1
            self._invalidator.node(node_id)

    def _compare_one(self, parent_id: int, name: bytes, appeared: int, gone: int) -> bool:
        """Whether the directory itself has changed, by another's hand."""
        core = self._core
        parent = core.nodes.get(parent_id)
        if parent is None:
            return False
        known = core.nodes.entry(parent, name)
        foreign = appeared > 0 and not core.expected(parent, name, appeared)
        taken = gone > 0 and not core.expected(parent, name, gone, gone=True)
        try:
            st = core.below.stat(name, dir_fd=core.fds.of(parent), follow_symlinks=False)
        except OSError:
            if known is None:
                if taken and not foreign:  # one that was there before, and that nobody has looked at
                    core.unseen(core.child_path(parent, name), core.kind(name), "removed", None, None)
                return taken
            core.vanished(parent, name, core.kind(name), "removed")
            self._invalidator.entry(parent_id, name)
            return True
        if known is None:
            return (foreign or not appeared) and self._unknown(parent, name, st, foreign)
        if (known.dev, known.ino) != (st.st_dev, st.st_ino):
            core.vanished(parent, name, core.kind(name), "replaced")
            self._invalidator.entry(parent_id, name)
            return True
        before = known.seen
        core.saw(known, st)
        if foreign:  # made by somebody else, and looked at before the report came
            core.unseen(core.child_path(parent, name), core.kind(name), "created", None, known.seen)
            return True
        if before is None or known.seen is None or known.kind is Kind.TRANSCRIPT:
            return False
        if before[3] != known.seen[3] or (before != known.seen and not known.is_dir):
            self._invalidator.node(known.id)
        return False

    def _unknown(self, parent: Node, name: bytes, st: os.stat_result, appeared: bool) -> bool:
        """A name that the kernel does not know: new, or never looked at, or just forgotten."""
        core = self._core
        if core.nodes.last_seen(st) == (st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_mode):
            return False
        if stat.S_ISDIR(st.st_mode) and not appeared:
            return False
        after = (st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_mode)
        core.unseen(
            core.child_path(parent, name), core.kind(name), "created" if appeared else "modified", None, after
        )
        if appeared:
            self._invalidator.entry(parent.id, name)  # it may be known not to exist
        return appeared
