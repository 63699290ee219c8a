"""Processes that write in a guarded directory and say who they are.

Run as ``python -m tests.support.writers NAME ARGUMENT...``; prints one line of JSON with the ids that the log
must show.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def ids(**more: Any) -> dict[str, Any]:
    """This thread and process, as it knows itself."""
    return {"tid": threading.get_native_id(), "tgid": os.getpid(), **more}


def one_descriptor(path: str) -> dict[str, Any]:
    """One descriptor, written by its opener, by a forked child and by a second thread."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, b"opener\n")
    found = {"opener": ids(main=True)}
    child = os.fork()
    if child == 0:
        os.write(fd, b"child\n")
        os._exit(0)
    os.waitpid(child, 0)
    found["child"] = {"tid": child, "tgid": child, "main": True}

    def second() -> None:
        os.write(fd, b"thread\n")
        found["thread"] = ids(main=False)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    return found


def exec_in_place(path: str, shell: str) -> None:
    """Writes, then becomes another program, with the same process id and descriptor, that writes too."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, b"before\n")
    os.dup2(fd, 1, inheritable=True)
    print(json.dumps(ids(exe=os.path.realpath(sys.executable))), file=sys.stderr, flush=True)
    os.execv(shell, [shell, "-c", "echo after"])


def as_other(path: str, uid: str, gid: str) -> dict[str, Any]:
    """Opens as root, then changes its user and group, as a set-uid service does, and writes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(fd, b"root\n")
    os.setgroups([])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    os.write(fd, b"other\n")
    return ids()


def append(path: str, worker: str) -> None:
    """Append numbered lines until killed; each number goes to standard output once its write has returned."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    number = 0
    try:
        while True:
            line = f'{{"worker":"{worker}","number":{number},"pad":"{"x" * (number * 37 % 300)}"}}\n'.encode()
            if os.write(fd, line) != len(line):
                break
            os.write(1, b"%d\n" % number)
            number += 1
    except OSError as error:
        os.write(2, f"{error.errno}\n".encode())


def append_count(path: str, worker: str, count: str) -> None:
    """Append so many numbered lines."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in range(int(count)):
        line = f'{{"worker":"{worker}","number":{number},"pad":"{"y" * (number * 31 % 500)}"}}\n'.encode()
        assert os.write(fd, line) == len(line)


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    if result is not None:
        print(json.dumps(result))
