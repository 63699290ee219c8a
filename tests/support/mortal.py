"""The demo's gateway, a turn at a time, with others that change its transcript: the turn dies of it.

    python -m tests.support.mortal DIRECTORY STORY...

A story is one turn of the first session: ``quiet`` (nobody), or who comes in while it streams: ``cron`` (a script that
appends), ``chmod``, ``replace`` (a sync tool's temporary file and rename) or ``new`` (the gateway itself renames the
transcript away, as for /new). ``pause`` is no turn: nothing happens for 2.5 seconds. Each text that goes into a record
holds `SECRET`. Prints one line of JSON: the stories whose turn died.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "writers"))

import gateway
import pi

SECRET = "the-text-of-a-message"
SESSION = next(iter(gateway.SESSIONS))
PAUSE = 2.5  # seconds; the picture calls it a silence from 2 on

POLICY = """version = 1
[transcripts]
include = ["*.jsonl"]
registry = "sessions.json"
[[lanes]]
name = "gateway"
process = { args = "*tests.support.mortal*" }
[[lanes]]
name = "reset"
within = "gateway"
operation = "rename"
to = "*.reset.*"
[[lanes]]
name = "mirror"
within = "gateway"
process = { main = false }
operation = "append"
file = "transcript"
[[lanes]]
name = "run"
within = "gateway"
process = { main = true }
operation = "append"
file = "transcript"
[[lanes]]
name = "registry"
within = "gateway"
path = ["sessions.json", ".fs-safe-replace.*"]
[[lanes]]
name = "cron"
process = { args = "*cron-note*" }
[[lanes]]
name = "permissions"
process = { exe = "*/chmod" }
[[lanes]]
name = "sync-tool"
process = { exe = ["*/cp", "*/mv"] }
[[rules]]
name = "other lanes wait their turn on a branch"
when = { fence = "other", operation = ["append", "rewrite", "create", "rename", "unlink", "attributes"] }
verdict = "stage"
[[rules]]
name = "everything else"
verdict = "allow"
"""

APPEND = """set -eu
printf '{"type":"custom","id":"c%s","parentId":null,"customType":"note","data":{"note":"%s"}}\\n' "$3" "$2" >>"$1"
"""
REPLACE = """set -eu
cp "$1" "$1.part"
mv "$1.part" "$1"
"""


def lives(story: str, path: str, number: int, pool: ThreadPoolExecutor) -> bool:
    """One turn, into which *story* breaks; whether it came to its end."""
    try:
        for delta, _ in enumerate(gateway.Turn(path, pool).run(f"{SECRET} {number}")):
            time.sleep(gateway.DELTA_SECONDS)
            if delta == 2:
                meanwhile(story, path, number)
    except gateway.TurnLost:
        return False
    return True


def meanwhile(story: str, path: str, number: int) -> None:
    """What the others do."""
    if story == "cron":
        subprocess.run(["/bin/sh", "-c", APPEND, "cron-note", path, SECRET, str(number)], check=True)
    elif story == "chmod":
        subprocess.run(["chmod", "0640", path], check=True)
    elif story == "replace":
        subprocess.run(["/bin/sh", "-c", REPLACE, "sync-tool", path], check=True)
    elif story == "new":
        os.rename(path, f"{path}.reset.{number}")


def main() -> None:
    directory, stories = sys.argv[1], sys.argv[2:]
    pi.name_thread("gateway")
    died = []
    with ThreadPoolExecutor(4, initializer=pi.name_thread, initargs=("gateway",)) as pool:
        paths = [os.path.join(directory, session + ".jsonl") for session in gateway.SESSIONS.values()]
        for path, session in zip(paths, gateway.SESSIONS.values(), strict=True):
            pi.append(path, pi.header(session))
        gateway.replace_registry(directory)
        for number, story in enumerate(stories):
            if story == "pause":
                time.sleep(PAUSE)
                continue
            if not os.path.exists(paths[0]):
                pi.append(paths[0], pi.header(gateway.SESSIONS[SESSION]))
            if not lives(story, paths[0], number, pool):
                died.append(story)
        if not lives("quiet", paths[1], len(stories), pool):
            died.append("the other session's")
        gateway.replace_registry(directory)
    print(json.dumps(died))


if __name__ == "__main__":
    main()
