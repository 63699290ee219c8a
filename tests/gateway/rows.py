"""What kills a turn: one row each, done to a real gateway while a reply streams. `tests.gateway.play` plays them.

A reply is held at a certain piece while the change is made, so that nothing is left to chance; only the racing rows let
it stream.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.gateway import foreign
from tests.gateway.gateway import Gateway, GatewayError, Turn
from tests.gateway.model import ModelServer

PIECES = 8
EARLY, LATE = 1, PIECES - 1


@dataclass(frozen=True)
class Culprit:
    """Who must be named. change: the word of the incident; op: of the operation; pid: 0 where the harness cannot know;
    record: id of the record that was written, if one was; to: how the other name of a rename or link begins, after the
    transcript's."""

    lane: str
    change: str
    op: str
    pid: int = 0
    record: str | None = None
    to: str | None = None


@dataclass
class Scene:
    """What a change is made to. word: stands in the message whose reply is held. turns: further ones, by what they are.
    said: texts that were accepted, each of which must be in one record. stale: requests that the gateway refused with
    `file lock stale`."""

    gateway: Gateway
    model: ModelServer
    key: str
    word: str
    transcript: Path
    turns: dict[str, Turn] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    stale: int = 0


@dataclass(frozen=True)
class Row:
    """One row. says: in the words of an operator. do: makes the change; who did it. within: makes it part of the turn:
    what to add to the message, and how to learn afterwards who did it. hold: after how many pieces of the reply, None:
    the reply streams meanwhile. dies: of the change, every time (None: it may or may not). forgets: the record that was
    written is on a dead branch then. fresh: in a session's first turn, which has no transcript yet. alone: no other row
    is played meanwhile."""

    name: str
    says: str
    do: Callable[[Scene], Culprit] | None
    within: Callable[[Scene], tuple[str, Callable[[], Culprit]]] | None = None
    hold: int | None = EARLY
    dies: bool | None = True
    forgets: bool = False
    fresh: bool = False
    alone: bool = False


# ---- the changes


def _foreign(how: str, kind: str = "user", *, lock: bool = False) -> Callable[[Scene], Culprit]:
    change, op = {
        "append": ("append", "write"),
        "touch": ("attributes", "attributes"),
        "chmod": ("attributes", "attributes"),
        "link": ("attributes", "link"),
        "replace": ("rename over", "rename"),
    }[how]
    to = {"link": ".link-", "replace": ".foreign.tmp"}.get(how)

    def do(scene: Scene) -> Culprit:
        done = foreign.change(scene.transcript, how, kind, lock=lock)
        return Culprit("foreign", change, op, done["pid"], done["id"] if how == "append" else None, to)

    return do


def _by_the_tool(scene: Scene) -> tuple[str, Callable[[], Culprit]]:
    tag = f"T{scene.key.rpartition(':')[2]}"
    words = [
        sys.executable,
        foreign.__file__,
        "append",
        str(scene.transcript),
        "--kind",
        "custom",
        "--tag",
        tag,
    ]
    told = scene.gateway.state / f"{tag}.json"
    call = json.dumps({"command": f"{shlex.join(words)} > {shlex.quote(str(told))}"})

    def who() -> Culprit:
        done = json.loads(told.read_text())
        return Culprit("tool", "append", "write", done["pid"], done["id"])

    return f"[tool=exec {call}]", who


def _new(scene: Scene) -> Culprit:
    scene.gateway.ask("chat.send", sessionKey=scene.key, message="/new")
    after = scene.gateway.turn_async(scene.key, "after [say=after]")  # waits for the turn that is under way
    scene.model.release(scene.word)
    scene.turns["after"] = after.result()
    return Culprit("gateway:reset", "rename away", "rename", _pid(scene), to=".reset.")


def _compact(scene: Scene) -> Culprit:
    scene.gateway.ask("sessions.compact", key=scene.key, maxLines=2)
    return Culprit("gateway:backup", "rename away", "rename", _pid(scene), to=".bak.")


def _inject(scene: Scene) -> Culprit:
    try:
        scene.gateway.ask("chat.inject", sessionKey=scene.key, message="a note")
        scene.said.append("a note")
    except GatewayError as error:  # the run was in its lock at that moment; the header is there all the same
        if "file lock stale" not in str(error):
            raise
        scene.stale += 1
    return Culprit("gateway:header", "create", "create", _pid(scene))


def _local_agent(scene: Scene) -> Culprit:
    message = "local [say=local] [hold=-1]"  # it sees the question that is under way, with its mark to hold
    words = ["agent", "--local", "--session-id", scene.transcript.stem, "--message", message, "--json"]
    before = scene.transcript.stat().st_size
    with subprocess.Popen(
        scene.gateway.install.command(*words),
        env=scene.gateway.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    with scene.transcript.open("rb") as file:
        file.seek(before)
        line = file.readline()  # none where the local agent works on a branch of its own
    # its own message quotes the question that is under way, which therefore stands in two records
    scene.said[:] = [text for text in scene.said if text != scene.word]
    scene.said += [message, '"reply:local"']
    return Culprit("cli:run", "append", "write", process.pid, json.loads(line)["id"] if line else None)


def _pid(scene: Scene) -> int:
    assert scene.gateway.process is not None
    return scene.gateway.process.pid


KINDS = ("user", "custom", "model_change")

ROWS = [
    *(
        Row(
            f"{kind}, {when}",
            f"{kind} record by another process, {when} in the stream",
            _foreign("append", kind),
            hold=hold,
        )
        for kind in KINDS
        for when, hold in (("early", EARLY), ("late", LATE))
    ),
    *(
        Row(
            f"{kind}, locked",
            f"{kind} record by a process that honours the lock file",
            _foreign("append", kind, lock=True),
        )
        for kind in KINDS
    ),
    Row(
        "assistant",
        "assistant record by another process",
        _foreign("append", "assistant"),
        dies=False,
        forgets=True,
    ),
    *(Row(how, f"{how} by another process", _foreign(how)) for how in ("touch", "chmod", "link")),
    Row("replace", "replacement by temporary file and rename", _foreign("replace")),
    Row("new", "/new over the socket, then a message", _new),
    Row("compact", "sessions.compact {maxLines}", _compact),
    # Both processes write the registry whole, and lock it against themselves only: a session that the gateway names
    # between the other's reading and writing is forgotten, with the guard or without.
    Row("local agent", "openclaw agent --local on the same session", _local_agent, alone=True),
    Row("inject", "chat.inject before the transcript exists", _inject, fresh=True),
    Row("tool", "the turn's own exec tool appends", None, _by_the_tool),
    Row("user, racing", "user record at any moment of a stream", _foreign("append"), hold=None, dies=None),
]
