"""Writers read from the real /proc: processes and threads of every kind that can stand behind a request.

The test is the guard here: it looks a thread up while the thread waits on a pipe, as a caller waits for an
answer.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from guardfs.lanes.process import ProcessTable
from guardfs.lanes.procfs import parse_stat
from guardfs.lanes.writer import Process, Writer
from tests.support.descriptors import open_descriptors

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
DEADLINE = 20  # seconds: for a machine that is busy with something else

# what children run: tell(...) reports and waits for a line from the test
TALK = """
import ctypes, json, os, sys, threading
def tell(*facts):
    os.write(1, json.dumps(facts).encode() + b"\\n")
    return hear()
def hear():
    line = b""
    while not line.endswith(b"\\n"):
        char = os.read(0, 1)
        if not char: os._exit(0)
        line += char
    return line.strip().decode()
def me(): return threading.get_native_id()
def rename(name): ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
"""


class Child:
    """A Python process that does a step, tells what it did, and waits for the next line."""

    def __init__(self, code: str, args: tuple[str, ...] = (), **options: object) -> None:
        self.popen: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-c", TALK + code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **options,  # type: ignore[call-overload]
        )
        self.pid = self.popen.pid

    def heard(self) -> list[int]:
        out = self.popen.stdout
        assert out is not None
        line = out.readline()
        assert line, "the child ended before it said anything"
        facts: list[int] = json.loads(line)
        return facts

    def go(self, word: str = "") -> None:
        pipe: IO[bytes] | None = self.popen.stdin
        assert pipe is not None
        pipe.write(word.encode() + b"\n")
        pipe.flush()

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def table() -> Iterator[ProcessTable]:
    made = ProcessTable()
    yield made
    made.close()


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def make(code: str, args: tuple[str, ...] = (), **options: object) -> Child:
        children.append(Child(code, args, **options))
        return children[-1]

    yield make
    for each in children:
        each.end()


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another process does; fails when it never does."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.001)


def program(writer: Writer) -> Process:
    assert writer.process is not None
    return writer.process


def look(table: ProcessTable, tid: int) -> Writer:
    return table.writer(tid, os.getuid(), os.getgid())


def test_every_fact_of_this_process(table: ProcessTable) -> None:
    tid = threading.get_native_id()
    writer = table.writer(tid, 12, 34)
    process = program(writer)
    assert (writer.tid, writer.tgid, writer.main) == (tid, os.getpid(), tid == os.getpid())
    assert (writer.uid, writer.gid, writer.known) == (12, 34, "ok")
    with open("/proc/thread-self/comm") as comm:
        assert writer.comm == comm.read().rstrip("\n")
    assert process.exe == os.path.realpath("/proc/self/exe")
    with open("/proc/self/cmdline", "rb") as cmdline:
        assert list(process.args) == [part.decode() for part in cmdline.read().split(b"\0")[:-1]]
    assert process.parents[0][0] == os.getppid()
    assert process.parents[-1][0] == 1
    assert process.pidns == os.stat("/proc/self/ns/pid").st_ino
    with open("/proc/self/stat") as stat:
        assert process.start == int(stat.read().rpartition(")")[2].split()[19])
    assert process.cgroup is not None and process.cgroup.startswith("/")


def test_the_same_object_until_something_changes(table: ProcessTable) -> None:
    tid = threading.get_native_id()
    first = look(table, tid)
    assert all(look(table, tid) is first for _ in range(10))
    assert table.stats()["looks"] == 1


def test_threads_of_one_process_share_its_facts(table: ProcessTable, child: Callable[..., Child]) -> None:
    one = child("""
def work():
    rename(b"worker")
    tell(me())
    threading.Event().wait()
threading.Thread(target=work, daemon=True).start()
threading.Event().wait()
""")
    (tid,) = one.heard()
    main, worker = look(table, one.pid), look(table, tid)
    assert tid != one.pid
    assert (main.main, worker.main) == (True, False)
    assert worker.tgid == main.tgid == one.pid
    assert worker.comm == "worker"
    assert worker.process is main.process
    assert table.stats()["programs"] == 1


def test_exec_in_place_is_another_program(table: ProcessTable, child: Callable[..., Child]) -> None:
    """Same pid, same start time, same executable, same thread name: only the program is another."""
    one = child("""
tell(0)
again = sys.argv[1]
os.execv(sys.executable, [sys.executable, "-c", again, "second"])
""", (TALK + "tell(1)",))  # fmt: skip
    one.heard()
    before = look(table, one.pid)
    one.go()
    one.heard()
    after = look(table, one.pid)
    assert before.comm == after.comm and program(before).exe == program(after).exe
    assert program(before).start == program(after).start
    assert program(after).args[-1] == "second"
    assert program(before).args[-1] != "second"
    assert look(table, one.pid) is after


def test_exec_of_the_shell_is_noticed(table: ProcessTable) -> None:
    shell = subprocess.Popen(
        ["/bin/sh", "-c", "echo; read line; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert shell.stdin is not None and shell.stdout is not None
    try:
        shell.stdout.readline()
        assert program(look(table, shell.pid)).args[:2] == ("/bin/sh", "-c")
        shell.stdin.write(b"\nhello\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == b"hello\n"
        writer = look(table, shell.pid)
        assert writer.comm == "cat"
        assert program(writer).args == ("cat",)
        assert os.path.basename(program(writer).exe or "") == os.path.basename(
            os.path.realpath(shutil.which("cat") or "")
        )
    finally:
        shell.kill()
        shell.wait()
        shell.stdin.close()
        shell.stdout.close()


def test_exec_by_another_thread_takes_the_leaders_id(
    table: ProcessTable, child: Callable[..., Child]
) -> None:
    one = child("""
def work():
    tell(me())
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], "second"])
threading.Thread(target=work, daemon=True).start()
threading.Event().wait()
""", (TALK + "tell(me())",))  # fmt: skip
    (worker,) = one.heard()
    before, thread = look(table, one.pid), look(table, worker)
    assert thread.process is before.process and not thread.main
    one.go()
    (now,) = one.heard()
    assert now == one.pid
    after = look(table, one.pid)
    assert after.main and program(after).args[-1] == "second"
    assert look(table, worker).known == "exited"


def test_a_vfork_child_that_execs_is_not_its_parent(
    table: ProcessTable, child: Callable[..., Child], tmp_path: Path
) -> None:
    """Before its exec such a child shares the parent's memory, which goes on living after it."""
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    # the C library's posix_spawn is CLONE_VM|CLONE_VFORK; opening a fifo holds the child before its exec
    parent = child(
        """
os.posix_spawn(sys.executable, [sys.executable, "-c", sys.argv[2], "spawned"], dict(os.environ),
               file_actions=[(os.POSIX_SPAWN_OPEN, 9, sys.argv[1], os.O_RDONLY, 0)])
os.wait()
""",
        (str(fifo), TALK + "tell(me())"),
    )
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    until(lambda: children.read_text() != "")
    pid = int(children.read_text())
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    early, parents = look(table, pid), look(table, parent.pid)
    assert early.tgid == pid and early.main
    assert program(early).args == program(parents).args
    assert early.process is not parents.process
    with open(fifo, "wb"):
        (spawned,) = parent.heard()
    assert spawned == pid
    late = look(table, pid)
    assert program(late).args[-1] == "spawned"
    assert look(table, parent.pid) is parents


def test_a_thread_that_ended(table: ProcessTable) -> None:
    ready, done = threading.Event(), threading.Event()
    tids: list[int] = []

    def work() -> None:
        tids.append(threading.get_native_id())
        ready.set()
        done.wait(DEADLINE)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(DEADLINE)
    assert look(table, tids[0]).known == "ok"
    done.set()
    thread.join()
    until(lambda: not os.path.exists(f"/proc/self/task/{tids[0]}"))
    gone = look(table, tids[0])
    assert (gone.known, gone.process, gone.tgid) == ("exited", None, 0)
    assert table.stats()["threads"] == 0


@root
def test_a_reused_id_is_another_writer(table: ProcessTable, child: Callable[..., Child]) -> None:
    first = child("tell(0)", ("first",))
    first.heard()
    number = first.pid
    before = look(table, number)
    first.end()
    for _ in range(200):
        try:
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(number - 1))
        except OSError:
            pytest.skip("pids cannot be chosen here (ns_last_pid)")
        second = child("tell(0)", ("second",))
        second.heard()
        if second.pid == number:
            break
        second.end()
    else:
        pytest.skip("another process took the id every time")
    after = look(table, number)
    assert program(before).args[-1] == "first"
    assert program(after).args[-1] == "second"
    assert program(after).start >= program(before).start


def test_a_leader_that_ended_before_its_threads(table: ProcessTable, child: Callable[..., Child]) -> None:
    one = child("""
def work():
    tell(me())
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
""", ("zombie-leader",))  # fmt: skip
    (worker,) = one.heard()

    def leader_is_zombie() -> bool:
        with open(f"/proc/{one.pid}/task/{one.pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"

    until(leader_is_zombie)
    writer = look(table, worker)
    assert (writer.known, writer.main, writer.tgid) == ("ok", False, one.pid)
    assert program(writer).args[-1] == "zombie-leader"
    assert program(writer).exe == os.path.realpath(sys.executable)
    assert look(table, worker) is writer


def test_a_fork_is_another_process(table: ProcessTable, child: Callable[..., Child]) -> None:
    one = child("""
rename(rb"back\\slash )x")
if os.fork() == 0:
    tell(os.getpid())
    os._exit(0)
os.wait()
""")
    (pid,) = one.heard()
    parent, forked = look(table, one.pid), look(table, pid)
    assert forked.tgid == pid and forked.process is not parent.process
    assert program(forked).args == program(parent).args
    assert program(forked).parents[0] == (one.pid, "back\\slash )x")


def test_a_new_name_and_a_new_identity_make_a_new_writer(
    table: ProcessTable, child: Callable[..., Child]
) -> None:
    one = child("""
tell(0)
rename(b"odd ) (name")
tell(0)
rename(b"odd ) (name) R")
tell(0)
""")
    one.heard()
    first = table.writer(one.pid, 0, 0)
    other = table.writer(one.pid, 1000, 0)
    assert (other.uid, other.gid) == (1000, 0) and other.process is first.process
    assert table.writer(one.pid, 1000, 0) is other
    assert table.writer(one.pid, 1000, 7).gid == 7
    for name in ("odd ) (name", "odd ) (name) R"):
        one.go()
        one.heard()
        renamed = look(table, one.pid)
        assert renamed.comm == name
        assert renamed.process is first.process
        assert look(table, one.pid) is renamed


def test_names_and_arguments_that_are_not_utf8(table: ProcessTable) -> None:
    one = subprocess.Popen(
        [b"/bin/sh", b"-c", b"echo; read line", b"caf\xe9", b"", b"z"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert one.stdin is not None and one.stdout is not None
    try:
        one.stdout.readline()
        args = program(look(table, one.pid)).args
        assert args[3:] == ("caf\\xe9", "", "z")
        json.dumps(args).encode()
    finally:
        one.communicate(b"\n")


def test_a_long_argument_list_is_cut(table: ProcessTable, child: Callable[..., Child]) -> None:
    one = child("tell(0)", tuple("x" * 1000 for _ in range(100)))
    one.heard()
    args = program(look(table, one.pid)).args
    assert args[0] == sys.executable
    assert 30_000 < sum(len(arg) + 1 for arg in args) <= 32 * 1024 + 1


def test_the_lane_that_a_process_claims(table: ProcessTable, child: Callable[..., Child]) -> None:
    environ = dict(os.environ, PADDING="p" * 100_000, NOT_GUARDFS_LANE="no", GUARDFS_LANE="backup")
    claiming, silent = child("tell(0)", env=environ), child("tell(0)", env={"XGUARDFS_LANE": "no"})
    claiming.heard()
    silent.heard()
    assert program(look(table, claiming.pid)).environ_lane == "backup"
    assert program(look(table, silent.pid)).environ_lane is None


def test_outside(table: ProcessTable) -> None:
    writer = table.writer(0, 5, 6)
    assert writer.known == "outside"
    assert (writer.tid, writer.tgid, writer.uid, writer.gid, writer.process) == (0, 0, 5, 6, None)
    assert table.writer(0, 5, 6) is writer
    assert table.writer(0, 5, 7) is not writer


def test_a_kernel_thread(table: ProcessTable) -> None:
    try:
        with open("/proc/2/stat") as stat:
            assert "(kthreadd)" in stat.read()
    except (OSError, AssertionError):
        pytest.skip("no kernel threads in this pid namespace")
    writer = table.writer(2, 0, 0)
    assert (writer.known, writer.comm) == ("kernel", "kthreadd")
    assert program(writer).exe is None and program(writer).args == ()
    assert table.writer(2, 0, 0) is writer


def test_an_id_that_never_was(table: ProcessTable) -> None:
    with open("/proc/sys/kernel/pid_max") as limit:
        beyond = int(limit.read()) + 1
    assert table.writer(beyond, 0, 0).known == "exited"
    assert table.stats()["threads"] == 0


def test_a_process_that_was_killed_and_not_reaped(table: ProcessTable, child: Callable[..., Child]) -> None:
    """It has no memory any more: what it ran is remembered, not asked for."""
    seen, unseen = child("tell(0)", ("seen",)), child("tell(0)", ("unseen",))
    seen.heard()
    unseen.heard()
    before = look(table, seen.pid)
    for each in (seen, unseen):
        os.kill(each.pid, signal.SIGKILL)
        os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOWAIT)
    after = look(table, seen.pid)
    assert after.process is before.process and after.known == "ok"
    stranger = look(table, unseen.pid)
    assert stranger.known == "exited" and stranger.tgid == unseen.pid
    assert program(stranger).exe is None


def test_the_table_is_bounded_and_closes_what_it_forgets(child: Callable[..., Child]) -> None:
    before = open_descriptors()
    one = child("""
ready = threading.Barrier(13)
tids = []
def work():
    tids.append(me())
    ready.wait()
    threading.Event().wait()
for _ in range(12): threading.Thread(target=work, daemon=True).start()
ready.wait()
tell(*tids)
""")
    tids = one.heard()
    pipes = open_descriptors()
    table = ProcessTable(limit=4)
    for _ in range(3):
        for tid in tids:
            assert look(table, tid).tid == tid
    assert table.stats()["threads"] == 4
    assert table.stats()["evicted"] == 32
    assert open_descriptors() == pipes + 4
    recent = look(table, tids[-4])  # used again: now the youngest
    look(table, tids[0])
    assert look(table, tids[-4]) is recent
    assert table.stats()["looks"] == 37
    table.close()
    assert open_descriptors() == pipes
    one.end()
    assert open_descriptors() == before


def test_no_descriptor_left_makes_room_and_answers(child: Callable[..., Child]) -> None:
    """Run apart: the limit is that of a process."""
    code = """
import os, resource, sys, threading
from guardfs.lanes.process import ProcessTable
ready, done, tids = threading.Barrier(9), threading.Event(), []
def work():
    tids.append(threading.get_native_id()); ready.wait(); done.wait()
for _ in range(8): threading.Thread(target=work, daemon=True).start()
ready.wait()
table = ProcessTable()
known = [table.writer(tid, 0, 0).known for tid in tids[:6]]
used = len(os.listdir("/proc/self/fd"))  # one of them was the listing's own, so one is free
resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1, used - 1))
known += [table.writer(tid, 0, 0).known for tid in tids]
done.set()
assert known == ["ok"] * 14, known
assert table.stats()["evicted"] > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _arguments(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


@root
def test_without_the_right_to_look(child: Callable[..., Child]) -> None:
    """A guard without CAP_SYS_PTRACE: the executable is hidden and said so; an exec is still noticed."""
    setpriv, sleep = shutil.which("setpriv"), shutil.which("sleep")
    if setpriv is None or sleep is None:
        pytest.skip("needs setpriv(1)")
    one = child("""
tell(0)
os.execv(sys.argv[1], [sys.argv[1], "60"])
""", (sleep,))  # fmt: skip
    one.heard()
    code = f"""
import json, os, sys
from guardfs.lanes.process import ProcessTable
table = ProcessTable()
def facts():
    writer = table.writer({one.pid}, 0, 0)
    same = table.writer({one.pid}, 0, 0) is writer
    process = writer.process
    return [writer.known, writer.tgid, process.exe, process.args, writer.comm, same, table.sees_all()]
for line in sys.stdin:
    print(json.dumps(facts()), flush=True)
"""
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    blind = subprocess.Popen(
        [setpriv, "--bounding-set=-sys_ptrace", "--inh-caps=-all", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        text=True,
    )
    assert blind.stdin is not None and blind.stdout is not None
    try:

        def ask() -> list[object]:
            assert blind.stdin is not None and blind.stdout is not None
            blind.stdin.write("\n")
            blind.stdin.flush()
            answer: list[object] = json.loads(blind.stdout.readline())
            return answer

        known, tgid, exe, args, _, same, sees_all = ask()
        assert (known, tgid, exe, same, sees_all) == ("hidden", one.pid, None, True, False)
        assert isinstance(args, list) and args[0] == sys.executable
        one.go()
        # the arguments are in their place after the executable is: until then the program is not one that could ask
        until(lambda: _arguments(one.pid) == f"{sleep}\0" + "60\0")
        known, _, exe, args, comm, _, _ = ask()
        assert (known, exe, args, comm) == ("hidden", None, [sleep, "60"], "sleep")
    finally:
        blind.stdin.close()
        blind.wait()
        blind.stdout.close()


@root
def test_a_process_in_a_pid_namespace_of_its_own(table: ProcessTable) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare(1)")
    one = subprocess.Popen(
        [unshare, "--pid", "--fork", "/bin/sh", "-c", "echo; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert one.stdin is not None and one.stdout is not None
    try:
        if not one.stdout.readline():
            pytest.skip("pid namespaces are forbidden here")
        with open(f"/proc/{one.pid}/task/{one.pid}/children") as children:
            inner = int(children.read().split()[0])
        writer = look(table, inner)
        assert program(writer).args == ("/bin/sh", "-c", "echo; read line")
        assert program(writer).pidns not in (None, os.stat("/proc/self/ns/pid").st_ino)
        assert program(writer).parents[0][0] == one.pid
    finally:
        one.communicate(b"\n")


@pytest.mark.parametrize("line", [b"", b"no parenthesis", b"1 (cut) S 1 2 3"])
def test_what_is_not_a_stat_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse_stat(line)
