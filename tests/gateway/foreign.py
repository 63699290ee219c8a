"""A foreign process: what a cron script, a watchdog or a backup tool does to a transcript behind the
gateway's back.

    python -m tests.gateway.foreign append TRANSCRIPT [--kind user] [--tag TAG] [--lock]
    python -m tests.gateway.foreign replace|touch|chmod|link TRANSCRIPT

prints one line of JSON: ``{"pid", "how", "tag", "id", "parent"}``. `change` does the same from Python, in a
process of its own. Only the standard library is used, and nothing of the guard.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HOW = ("append", "replace", "touch", "chmod", "link")
KINDS = ("user", "custom", "assistant", "model_change")
LOCK_SECONDS = 60.0


def change(
    transcript: Path, how: str = "append", kind: str = "user", *, tag: str | None = None, lock: bool = False
) -> dict[str, Any]:
    """Run this module as its own process, return what it printed; CalledProcessError if the change failed."""
    command = [sys.executable, __file__, how, str(transcript), "--kind", kind]
    command += ["--tag", tag] if tag else []
    command += ["--lock"] if lock else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def record(kind: str, parent: str | None, tag: str) -> dict[str, Any]:
    """A well-formed record of the pi format that carries *tag* and goes on from the record *parent*."""
    now = datetime.now(UTC)
    stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    base: dict[str, Any] = {"type": "message", "id": secrets.token_hex(4), "parentId": parent}
    base["timestamp"] = stamp
    if kind == "custom":
        return {**base, "type": "custom", "customType": "foreign", "data": {"tag": tag}}
    if kind == "model_change":
        return {**base, "type": "model_change", "provider": "fake", "modelId": "fake-1", "note": tag}
    message: dict[str, Any] = {"role": kind, "content": [{"type": "text", "text": f"foreign {tag}"}]}
    if kind == "assistant":
        counts: dict[str, Any] = dict.fromkeys(("input", "output", "cacheRead", "cacheWrite"), 0)
        usage = {**counts, "totalTokens": 0, "cost": {**counts, "total": 0}}
        message |= {"api": "openai-completions", "provider": "fake", "model": "fake-1"}
        message |= {"stopReason": "stop", "usage": usage}
    return {**base, "message": {**message, "timestamp": int(now.timestamp() * 1000)}}


def last_id(transcript: str) -> str | None:
    """The id of the last record in the file; None where there is none."""
    found = None
    with open(transcript, "rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("type") != "session":
                found = entry.get("id", found)
    return found


@contextlib.contextmanager
def lock_file(transcript: str) -> Iterator[None]:
    """Hold the lock file as the gateway does: created O_EXCL, with the holder's pid and start time."""
    path = transcript + ".lock"
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            break
        except FileExistsError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
    with open("/proc/self/stat") as stat:
        start = int(stat.read().rpartition(")")[2].split()[19])
    holder = {"pid": os.getpid(), "createdAt": datetime.now(UTC).isoformat(), "starttime": start}
    os.write(descriptor, json.dumps(holder, indent=2).encode() + b"\n")
    try:
        yield
    finally:
        os.close(descriptor)
        os.unlink(path)


def perform(transcript: str, how: str, kind: str, tag: str) -> dict[str, Any]:
    """Do it here and now, in this process."""
    done: dict[str, Any] = {"pid": os.getpid(), "how": how, "tag": None, "id": None, "parent": None}
    if how in ("append", "replace"):
        entry = record(kind, last_id(transcript), tag)
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        done |= {"tag": tag, "id": entry["id"], "parent": entry["parentId"]}
    if how == "append":
        descriptor = os.open(transcript, os.O_WRONLY | os.O_APPEND)
        written = os.write(descriptor, line)  # one record is one write call
        os.close(descriptor)
        if written != len(line):
            raise OSError(f"{transcript}: {written} of {len(line)} bytes written")
    elif how == "replace":
        with open(transcript, "rb") as old, open(transcript + ".foreign.tmp", "wb") as new:
            new.write(old.read() + line)
        os.rename(transcript + ".foreign.tmp", transcript)
    elif how == "touch":
        os.utime(transcript)
    elif how == "chmod":
        os.chmod(transcript, os.stat(transcript).st_mode ^ 0o040)
    elif how == "link":
        os.link(transcript, f"{transcript}.link-{tag}")
    return done


def main() -> None:
    """Parse, perform, print."""
    parser = argparse.ArgumentParser(description="change a transcript as a foreign process would")
    parser.add_argument("how", choices=HOW)
    parser.add_argument("transcript")
    parser.add_argument("--kind", choices=KINDS, default="user")
    parser.add_argument("--tag", default=f"F{secrets.token_hex(4)}")
    parser.add_argument("--lock", action="store_true", help="hold the transcript's lock file meanwhile")
    args = parser.parse_args()
    with lock_file(args.transcript) if args.lock else contextlib.nullcontext():
        done = perform(args.transcript, args.how, args.kind, args.tag)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
