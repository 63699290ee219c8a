"""The parts of a bundle, scrubbed, and the file that they go into."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from guardfs import __version__
from guardfs.bundle import machine
from guardfs.bundle.guard import Looked, environment
from guardfs.bundle.scrub import Scrubber
from guardfs.errors import GuardError
from guardfs.mount import device
from guardfs.serve.plan import Known
from guardfs.state.directory import default_state_dir
from guardfs.state.guarded import recall_at

_LATEST = 5
"""State directories of guards that are gone that are looked at where nothing is guarded."""

README = """guardfs {version}: facts for a bug report, made {when} UTC.

versions.json   of guardfs and what it runs on
kernel.json     kernel, rights and limits of the process that made this, mounts, connections
doctor.json     what `guardfs doctor` found
guard-N/        one guard each:
  guard.json      where it is, whether it answers, how it was started
  status.json     what it says of itself (if it answers), counters.json: what it has counted
  policy.json     the policy in force, without comments
  events.jsonl    the last events of its audit log; notices.jsonl: those of the guard's own from further back
  journal.json    what waits on branches: names and sizes; files.json: names, sizes and modes of state and log
  processes.json  its processes, and where their threads wait

Not in here: text of messages (it is in no log), contents of transcripts and branches, environments. What looks like a
secret is masked as ***; session keys, users and groups are hashes with a key that was thrown away. Masks are a net,
not a proof: please look through it before you send it. What the guard printed on its standard error is not in here
either: add it if you have it (journalctl -u guardfs, docker logs), and look through that, too.
"""


def known_guards(directory: str | None, state: str | None = None) -> list[Known]:
    """The guard of *directory*, running or not; without one those that are mounted, or else the latest that were.
    state: where its state is, if it is gone and that is not the usual place."""
    mounted = list(dict.fromkeys(entry.path for entry in device.guards()))
    if directory is not None:
        plain = os.path.abspath(directory)
        inside = [path for path in mounted if (plain + "/").startswith(path + "/")]
        if inside:
            return [_recalled(max(inside, key=len), state)]
        real = os.path.realpath(plain)
        inside = [path for path in mounted if (real + "/").startswith(path + "/")]
        return [_recalled(max(inside, key=len) if inside else real, state)]
    return [_recalled(path) for path in mounted] or list(_latest())


def _recalled(sessions: str, state: str | None = None) -> Known:
    state = state or default_state_dir(sessions)
    try:
        found = recall_at(state)
    except GuardError:
        found = None
    return Known(sessions, state, os.fsdecode(found.audit) if found else os.path.join(state, "audit.jsonl"))


def _latest() -> Iterator[Known]:
    """Guards that are gone, by what they have left where states are kept."""
    base = os.path.dirname(default_state_dir("/"))
    try:
        with os.scandir(base) as listed:
            states = sorted((each.stat().st_mtime, each.path) for each in listed if each.is_dir())
    except OSError:
        return
    for _, state in states[::-1][:_LATEST]:
        try:
            found = recall_at(state)
        except GuardError:
            continue
        if found is not None:
            yield _recalled(os.fsdecode(found.sessions), state)


def collect(known: Iterable[Known], findings: Callable[[], Any]) -> Iterator[tuple[str, bytes]]:
    """File names and contents, scrubbed. findings: what `guardfs doctor` says."""
    looked = [Looked(each) for each in known]
    scrubber = Scrubber([dict(os.environ), *(environment(pid) for each in looked for pid in each.pids())])
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    yield "README.txt", README.format(version=__version__, when=when).encode()
    parts: list[tuple[str, Callable[[], Any]]] = [
        ("versions.json", machine.versions),
        ("kernel.json", machine.kernel),
        ("doctor.json", findings),
    ]
    for number, guard in enumerate(looked, 1):
        parts += [(f"guard-{number}/{name}", part) for name, part in guard.parts()]
    for name, part in parts:
        yield _written(name, part, scrubber)


def _written(name: str, part: Callable[[], Any], scrubber: Scrubber) -> tuple[str, bytes]:
    try:
        found = part()
        if name.endswith(".jsonl"):
            lines = (json.dumps(scrubber.value(each), ensure_ascii=True) for each in found)
            return name, "".join(line + "\n" for line in lines).encode()
        return name, (json.dumps(scrubber.value(found), indent=2) + "\n").encode()
    except Exception as error:  # the rest is wanted all the same, and this says what is missing
        reason = scrubber.text(str(error) or type(error).__name__)
        return f"{name.rpartition('.')[0]}.missing.txt", f"{reason}\n".encode()


def write(path: str, parts: Iterable[tuple[str, bytes]]) -> list[str]:
    """Put *parts* into a .tar.gz at *path*, which is not there yet, for its owner alone; the names of the parts."""
    mend = "name another file, or remove that one"
    top = (
        os.path.basename(path).removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
        or "guardfs-bundle"
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GuardError(f"{path}: {error.strerror}", mend) from None
    names = []
    try:
        with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in parts:
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(content))
                names.append(name)
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise GuardError(f"{path}: {error.strerror or error}", "name a place with room for it") from None
        raise
    return names
