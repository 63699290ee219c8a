"""The demo's gateway with OpenClaw's temper: a turn whose check fails ends there. Others change its transcript.

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
from io import StringIO
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


class DiedError(Exception):
    """The transcript is not what it was."""


class Turn(gateway.Turn):
    """A turn that ends at the first check that fails, and into which a story breaks."""

    def check(self) -> None:
        if self.look() != self.seen:
            raise DiedError

    def die_or_end(self, story: str, number: int) -> None:
        """One turn. DiedError where OpenClaw gives it up."""
        with self.cycle():
            question = pi.message("user", f"{SECRET} question {number}", pi.leaf(self.path))
            parent = pi.append(self.path, question)
            self.remember()
        for delta in range(gateway.DELTAS):
            time.sleep(gateway.DELTA_SECONDS)
            if delta == 2:
                meanwhile(story, self.path, number)
            with self.cycle():
                self.check()
                self.remember()
        with self.cycle():
            self.check()
            answer = pi.message(
                "assistant", f"{SECRET} answer {number}", parent, provider="demo", model="demo-1"
            )
            pi.append(self.path, answer)
            self.remember()
        with self.cycle():
            self.check()


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
            try:
                Turn(paths[0], pool, StringIO()).die_or_end(story, number)
            except DiedError:
                died.append(story)
        Turn(paths[1], pool, StringIO()).die_or_end("quiet", len(stories))
        gateway.replace_registry(directory)
    print(json.dumps(died))


if __name__ == "__main__":
    main()
