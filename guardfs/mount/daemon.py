"""The daemon: serves one mount. Started by the supervisor as `python -m guardfs.mount.daemon CONFIG_FD`.

Start-up, the same for a first daemon and for one that replaces a dead one: read the configuration, let libfuse take a
made-up INIT from a socket, and a request that shows where its session is, put the real /dev/fuse in the socket's place,
prove the attribution, say `ready`.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import pyfuse3
import trio

from guardfs import __version__
from guardfs.audit.chain import HEAD_NAME
from guardfs.audit.event import Kind, Notice
from guardfs.audit.log import AuditLog
from guardfs.errors import GuardError
from guardfs.fence.lockfile import parse_holder
from guardfs.lanes.process import ProcessTable
from guardfs.mount import capabilities, device, libc, protocol
from guardfs.mount.caching import MEMORY, is_remote
from guardfs.mount.caller import libfuse_version
from guardfs.mount.config import DaemonConfig, Message, decode_config, send
from guardfs.mount.control import Control
from guardfs.mount.dispatch import Dispatcher
from guardfs.mount.fences import FenceKeeper
from guardfs.mount.filesystem import FileSystem, Operations
from guardfs.mount.heir import CannotTakeOverError, Heir
from guardfs.mount.layout import check_layout
from guardfs.mount.line import Line
from guardfs.mount.loop import RequestLoop
from guardfs.mount.merging import Merger
from guardfs.mount.recovery import notice_of, recover
from guardfs.mount.reload import PolicyKeeper
from guardfs.mount.selfcheck import prove_attribution
from guardfs.mount.session import Session
from guardfs.mount.sessions import Sessions
from guardfs.mount.status import Status
from guardfs.mount.views import Views
from guardfs.mount.watch import Invalidator, Watch
from guardfs.policy.effective import effective
from guardfs.policy.model import Policy, bytes_of
from guardfs.state.branches import BranchStore
from guardfs.state.directory import StateDirectory
from guardfs.state.guarded import Guarded, remember
from guardfs.state.tokens import TokenStore
from guardfs.transcript.formats import FORMATS
from guardfs.transcript.names import NameRules

log = logging.getLogger("guardfs")

_SWITCH_SECONDS = 0.0002
"""How long another thread (the log's) may keep the interpreter while a request waits for it. Python's
default is 5 ms.
"""


_FINISH_SECONDS = 10.0
"""What requests that are in a thread get to be finished, before another daemon takes over."""


def _descriptor_budget() -> tuple[int, int]:
    """How many O_PATH descriptors, and how many threads of writers (two descriptors each), may be held.

    Together a good half of the limit, which is raised as far as it goes; the rest is for the agent's open files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass
    return min(16384, max(16, (soft - 64) // 2)), min(256, max(8, soft // 32))


_GC_THRESHOLDS = (20_000, 50, 100)
"""The tables hold no reference cycles: there is next to nothing to find, and to look through 100,000 nodes takes
milliseconds."""


class Daemon:
    """One mount's server, from configuration to the end of the connection."""

    def __init__(self, config: DaemonConfig) -> None:
        self.config = config
        self.heir = Heir(config)
        config = self.config = msgspec.structs.replace(config, policy=self.heir.options())
        state = StateDirectory(config.state_dir)
        paths, threads = _descriptor_budget()
        settings = effective(config.policy.policy, config.policy.over)
        self.sessions = Sessions(self._open_registry, config.policy.policy.transcripts.registry)
        self.audit = AuditLog(
            config.audit,
            state.file(HEAD_NAME),
            level=settings.level,
            max_bytes=settings.max_bytes,
            keep=settings.keep,
            hash_key=state.key() if settings.hash_ids else None,
            sessions=self.sessions,
            inherited=config.takeover is not None,
        )
        self.tokens = TokenStore(state)
        self.policy = PolicyKeeper(config.policy, self.audit, self.tokens.floor)
        self.fences = FenceKeeper(self.policy.judge, self.audit, self.tokens)
        self.filesystem = FileSystem(
            root_fd=config.backing_fd,
            descriptors=paths,
            names=NameRules(config.policy.policy.transcripts),
            judge=self.policy.judge,
            processes=ProcessTable(threads),
            audit=self.audit,
            audit_required=settings.required,
            in_memory=config.fstype in MEMORY,
        )
        self.line = Line(config, lambda: self.heir.keeps, lambda: sum(self.filesystem.operations.values()))
        self.store = BranchStore(state.path)
        self._bound(config.policy.policy)
        self._state = state
        format = FORMATS[config.policy.policy.transcripts.format]
        self.merger = Merger(self.store, self.filesystem.below, format)
        self.views = Views(self.filesystem, self.store, self.merger)
        self.filesystem.views = self.views
        self.filesystem.settled = self.views.changed
        self.filesystem.format_changed = self.views.use
        self.fences.ended = lambda effects: self.views.changed(b"", effects)
        self.fences.ticked = self._ticked
        self.fences.went_wrong = self.filesystem.internal_error
        self.views.busy = self.line.busy
        self.dispatcher = Dispatcher(self.filesystem)
        self.invalidator = Invalidator()
        self.watch: Watch | None = None
        self._stopped = False
        self.heir.attach(self.filesystem, self.policy, lambda call: setattr(self.store, "about", call))

    def _ticked(self) -> None:
        """The clock, or the end of a process, may have changed something of the views."""
        self.views.everything_due()
        if self.filesystem.keeper is not None:
            self.filesystem.keeper.now()

    def _open_registry(self) -> int:
        """The registry of sessions, as it is below the mount."""
        name = self.policy.policy.transcripts.registry
        if not name:
            raise FileNotFoundError(errno.ENOENT, "the policy names no registry")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=self.config.backing_fd)

    def _connect(self) -> RequestLoop:
        """Let libfuse begin on a socket that holds the made-up INIT."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number, agreement = theirs.detach(), self.config.agreement
        check_layout()
        operations = Operations(self.filesystem)
        pyfuse3.init(operations, f"/dev/fd/{number}", set())

        def greeting() -> Iterator[None]:
            ours.send(protocol.made_up_init(agreement))
            yield
            protocol.check_init_reply(ours.recv(4096), agreement)
            ours.send(protocol.made_up_statfs())
            yield
            ours.close()
            session, unique = self.dispatcher.greeted or (0, 0)
            if unique != protocol.GREETING:
                raise GuardError(
                    f"libfuse {libfuse_version()} keeps its requests where guardfs does not expect them",
                    "install a libfuse 3.10 to 3.18",
                )
            # EAGAIN, when a request was interrupted before it was read, is better than a read that blocks
            # the loop
            os.set_blocking(self.config.fuse_fd, False)
            os.dup2(self.config.fuse_fd, number, inheritable=False)
            loop.session = Session(session, number, agreement.max_write)
            operations.node = loop.session.node
            self.heir.connected()

        loop = RequestLoop(
            number,
            self.dispatcher,
            greeting(),
            self.audit.spare,
            self.invalidator.forgotten,
            self.filesystem.forgotten,
        )
        loop.install()
        return loop

    def _begin_watch(self, post: Callable[[Callable[[], None]], None]) -> None:
        """Long timeouts are for directories whose changes are announced."""
        if is_remote(self.config.fstype):
            log.warning(
                "%s is on %s: changes by other hosts are not announced, so names are cached for a second only",
                self.config.mountpoint,
                self.config.fstype,
            )
            return
        try:
            watch = Watch(self.filesystem, self.invalidator, post)
            watch.start()
        except OSError as error:
            log.warning("no inotify (%s): names are cached for a second only", error.strerror)
            return
        if watch.refused:
            return
        self.watch = watch
        self.filesystem.watcher = watch
        if self.heir.takes_over:
            self.heir.watch(self.filesystem, watch)

    async def serve(self) -> None:
        """Answer requests until the mount is gone."""
        token = trio.lowlevel.current_trio_token()
        self.audit.start()
        self.tokens.start()
        self.filesystem.forget_entry = self.invalidator.entry
        self.filesystem.forget_node = self.invalidator.node
        self.filesystem.forget_now = self.invalidator.node_now
        self.filesystem.fences_changed = self.fences.changed
        if self.heir.takes_over:
            self.heir.restore(self.filesystem)
        else:
            self._emit(
                "start",
                options=msgspec.to_builtins(self.policy.settings),
                policy={"source": self.config.policy.source, "digest": self.config.policy.digest},
            )
            self._recover()
            self._seed_locks()
        self._remember(self.policy.policy)
        self._begin_watch(token.run_sync_soon)
        self.sessions.start()
        self.filesystem.registry_changed = self.sessions.touch
        self.policy.changed = self._policy_changed
        self.policy.start(self.filesystem, token.run_sync_soon)
        status = Status(
            self.config,
            self.filesystem,
            self.dispatcher,
            self.watch,
            self.invalidator,
            {
                "policy": self.policy.facts,
                "sessions": self.sessions.stats,
                "fences": self.fences.facts,
                "branches": self.views.facts,
            },
            self.heir.facts,
        )
        self.filesystem.status = status.encode
        self.filesystem.status_of = self.fences.of
        control = Control(self.policy, self.views, frozenset((0, os.geteuid())), self.line)
        self.filesystem.ask, self.filesystem.answer = control.ask, control.answer
        loop = self._connect()
        try:
            async with trio.open_nursery() as nursery:
                self.dispatcher.install(nursery)
                self.fences.start(nursery)
                self.fences.resume()
                nursery.start_soon(self._signals, loop)
                nursery.start_soon(self._ready, loop)
                nursery.start_soon(self.line.listen, loop.stop)
                nursery.start_soon(self.line.beat)
                await self._requests()
                if self.line.handing:
                    await self._hand_over()
                else:
                    self.views.finish()
                nursery.cancel_scope.cancel()
        finally:
            self.dispatcher.remove()

    def _recover(self) -> None:
        """What a guard before this one has left on branches goes to where it belongs."""
        for found in recover(self.store, self.merger, self.config.backing_fd, self.filesystem.below):
            if found.merged is None:
                name = os.fsdecode(found.transcript)
                log.warning("%s: what %s wrote cannot be rebased yet: %s", name, found.lane, found.error)
            self.audit.emit(notice_of(found, time.time_ns()))

    def _remember(self, policy: Policy) -> None:
        """For `guardfs recover`."""
        config = self.config
        sessions, audit = os.fsencode(config.mountpoint), os.fsencode(config.audit)
        format, hash_ids = policy.transcripts.format, self.policy.settings.hash_ids
        remember(self._state, Guarded(sessions, audit, format, hash_ids))

    def _bound(self, policy: Policy) -> None:
        """How much may be staged; what is there already stays."""
        self.store.max_branch = bytes_of(policy.fence.max_branch)
        self.store.max_total = bytes_of(policy.fence.max_staged)

    def _seed_locks(self) -> None:
        """Lock files that are there already: the mount was forced, or a dead agent left them."""
        names = NameRules(self.policy.policy.transcripts)
        root = self.filesystem.fds.path(self.filesystem.nodes.root)
        found = []
        with os.scandir(root) as entries:
            for entry in entries:
                if names.kind(entry.name) is not Kind.LOCK:
                    continue
                try:
                    with open(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                        found.append((entry.name, parse_holder(file.read(4096))))
                except OSError:
                    continue
        self.policy.judge.seed(found, time.monotonic_ns(), time.time_ns())

    def _policy_changed(self, policy: Policy) -> None:
        """Another policy is in force; the supervisor must know which files are locks, for its quiet moment."""
        self.sessions.file = policy.transcripts.registry
        self.sessions.touch()
        self._bound(policy)
        self._remember(policy)
        self.heir.keep_policy(policy, self.policy.digest)
        self.filesystem.counters.use(self.policy.judge.decider.lane_names)
        names = msgspec.json.encode(policy.transcripts).decode()
        self.line.tell(Message("names", names))

    async def _requests(self) -> None:
        """pyfuse3's session loop, with one worker: what waits has detached itself."""
        await pyfuse3.main(1, 1)

    async def _ready(self, loop: RequestLoop) -> None:
        await loop.serving.wait()
        self.invalidator.start()  # not before libfuse knows the protocol
        try:
            await prove_attribution(self.filesystem, self.config.mountpoint)
        except GuardError as error:
            self.line.tell(Message("failed", error.what, error.mend))
            loop.stop()
            return
        if not self.filesystem.processes.sees_all():
            log.warning(
                "no CAP_SYS_PTRACE: the executables of other users' processes will be unknown; "
                "in a container, add `--cap-add SYS_PTRACE`"
            )
        gc.collect()
        gc.freeze()  # what start-up made lives as long as the daemon; the collector need not look at it again
        gc.set_threshold(*_GC_THRESHOLDS)
        if self.config.takeover is not None:
            self.heir.forget_caches(self.filesystem, self.invalidator)
            self.audit.emit(self.heir.notice())
        self.line.tell(Message("ready"))

    async def _hand_over(self) -> None:
        """Finish what has begun. Callers that wait for a fence go on waiting: they are sent to the next daemon."""
        with trio.move_on_after(_FINISH_SECONDS):
            while self.dispatcher.detached > self.views.waits.held:  # noqa: ASYNC110  (for 10 s, once)
                await trio.sleep(0.005)

    async def _signals(self, loop: RequestLoop) -> None:
        """SIGTERM without a supervisor unmounts; SIGHUP opens the log anew (after a rotation by others) and
        looks at the policy file."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    self.audit.reopen()
                    self.policy.look()
                elif number == signal.SIGTERM and not self.line.supervised():
                    await trio.to_thread.run_sync(device.abort, self.config.mountpoint, self.config.device)

    def _emit(self, op: str, **fields: object) -> None:
        self.audit.emit(
            Notice(
                op,
                time.time_ns(),
                {"version": __version__, "pid": os.getpid(), "mountpoint": self.config.mountpoint, **fields},
            )
        )

    def close(self) -> None:
        """After the connection is gone: everything goes to the log, and the log to its file."""
        if self._stopped:
            return
        self._stopped = True
        self.policy.close()
        self.sessions.close()
        if self.watch is not None:
            self.watch.stop()
        self.invalidator.stop()
        for handle in self.filesystem.handles.values():
            try:
                os.close(handle.fd)
            except OSError:
                pass
        self.views.close()
        if not self.line.handing:  # else the next one says that it has taken over
            self._emit("stop", operations=dict(sorted(self.filesystem.operations.items())))
        self.audit.close()


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out replies that nobody waits for any more: a caller that was killed, a mount that is gone (ENOENT)."""
    return not record.getMessage().endswith(f"fuse_reply_* failed with {os.strerror(errno.ENOENT)}")


def main() -> int:
    """Entry point."""
    fd = int(sys.argv[1])
    with open(fd, "rb") as file:
        config = decode_config(file.read())
    logging.basicConfig(
        level=logging.DEBUG if config.verbose else logging.INFO,
        format="guardfs[%(process)d] %(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    pyfuse3_log = logging.getLogger("pyfuse3")
    pyfuse3_log.setLevel(logging.WARNING)
    pyfuse3_log.addFilter(_is_news)
    try:
        libc.prctl(libc.PR_SET_NAME, b"guardfs-daemon")
    except OSError:
        pass
    capabilities.keep(capabilities.DAEMON.values())
    sys.setswitchinterval(_SWITCH_SECONDS)
    os.umask(0)
    daemon: Daemon | None = None
    try:
        daemon = Daemon(config)
        trio.run(daemon.serve)
    except GuardError as error:
        refused = isinstance(error, CannotTakeOverError)
        send(config.control_fd, Message("refused" if refused else "failed", error.what, error.mend))
        return error.exit_status
    except BaseException:
        log.exception("the daemon ends")
        return 1
    finally:
        if daemon is not None:
            daemon.close()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # threads that hang on the dead mount must not keep the process
