"""OpenClaw's gateway in a container, as examples/compose.yaml starts it: guardfs is its first process.

The tests go on from one another: the last ones end the container.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.reach import History
from tests.image.conftest import CLI, Site
from tests.image.engine import Container
from tests.image.gateway import HOME, NODE
from tests.support.guard import ROOT, Event
from tests.support.waiting import wait_for

pytestmark = pytest.mark.image

FOREIGN = (ROOT / "tests/gateway/foreign.py").read_text()
"""A program that changes a transcript; the standard library is all it needs."""


def inside(site: Site, path: Path) -> str:
    """A path of this machine as the containers have it."""
    return f"{HOME}/{path.relative_to(site.place / 'home')}"


def append(site: Site, transcript: Path, tag: str, where: Container | None = None) -> dict[str, Any]:
    """A user's message from another process in the container; what that process says it has done."""
    words = ["python3", "-", "append", inside(site, transcript), "--tag", tag]
    said = (where or site.container).exec(*words, user="node", text=FOREIGN).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def transcript_of(site: Site, key: str) -> Path:
    path = site.gateway.session_file(key)
    assert path is not None
    return path


def broken_into(site: Site, key: str, tag: str, where: Container | None = None) -> Path:
    """Two turns; while the second's reply streams, another process appends. The transcript; both replies came."""
    word = key.rpartition(":")[2]
    first = site.gateway.turn(key, f"first-{word}. [say=first]")
    assert first.ok, f"{first}\n{site.gateway.log_tail()}"
    site.gateway.wait_released(key)
    second = site.gateway.turn_async(key, f"second-{word}. [say=second] [chunks=9] [hold=4]")
    try:
        site.model.wait_held(f"second-{word}.")
        site.gateway.wait_released(key)
        path = transcript_of(site, key)
        before = path.read_bytes()
        append(site, path, tag, where)
        assert path.read_bytes() == before, "it waits on a branch"
    finally:
        site.model.release(f"second-{word}.")
    assert second.result().ok, f"{second.result()}\n{site.gateway.log_tail()}"
    return path


def staged(site: Site, path: Path) -> list[Event]:
    """The writes to *path* that went to a branch."""
    return [
        e for e in site.events() if e["op"] == "write" and e["verdict"] == "stage" and e["path"] == path.name
    ]


def remembered(path: Path, *texts: str) -> bool:
    """Whether each of *texts* is in one record, on the path that the agent remembers, and no line is broken."""
    history = History.of(path)
    assert history.unparsable == 0 and history.duplicates() == []
    return all(history.holds(text) == 1 for text in texts)


def test_guardfs_is_the_first_process_and_the_gateway_is_no_root(site: Site) -> None:
    first = site.container.exec("cat", "/proc/1/cmdline").stdout.split("\0")
    assert any(word.endswith("guardfs") for word in first) and "run" in first
    owners = site.container.exec(
        "sh", "-c", "for each in /proc/[0-9]*; do tr '\\0' ' ' <$each/cmdline; stat -c ' %u' $each; done"
    ).stdout.splitlines()
    gateways = [line for line in owners if "openclaw" in line and "guardfs" not in line]
    assert gateways and all(line.endswith(f" {NODE}") for line in gateways), owners


def test_it_is_healthy(site: Site) -> None:
    assert site.container.exec("guardfs", "status", "--check", check=False).stderr == ""
    assert site.engine.run("healthcheck", "run", site.container.name).returncode == 0


def test_its_metrics_answer(site: Site) -> None:
    """From a process of its own, without rights; it begins once the directory is guarded."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/{}').read().decode())"

    def answer(path: str) -> str:
        return site.container.exec("python3", "-c", ask.format(path), check=False).stdout

    ready = json.loads(wait_for(lambda: answer("readyz"), "the metrics to answer"))
    assert ready["ready"], ready
    assert f'{{sessions="{inside(site, site.sessions)}"' in answer("metrics")


def test_a_turn_survives_another_process_of_the_container(site: Site) -> None:
    path = broken_into(site, "agent:main:beside", "TAG-BESIDE")
    wait_for(
        lambda: remembered(path, "first-beside.", "second-beside.", "TAG-BESIDE"), "the record to be rebased"
    )
    incident = wait_for(
        lambda: [e for e in site.events() if e["op"] == "incident" and e["path"] == path.name],
        "the incident to be told",
    )[0]
    assert incident["outcome"] == "saved"
    written = staged(site, path)
    assert [incident["culprit"]["by"]["tid"]] == [event["writer"]["tid"] for event in written]
    assert written[0]["writer"]["exe"].endswith("python3.11"), written
    assert path.stat().st_uid == NODE


def test_a_container_for_the_command_line_goes_through_the_same_guard(site: Site) -> None:
    options, words = site.service(CLI)
    cli = Container(
        site.engine,
        CLI,
        "openclaw-guarded",
        [*options, f"--network=ns:{site.network.path}", "--entrypoint=sleep"],
        ["infinity"],
    ).start()
    try:
        assert words[:2] == ["node", "openclaw.mjs"], "what compose.yaml starts instead of sleep"
        version = cli.exec(*words[:2], "--version", user="node").stdout
        assert site.gateway.install.version in version
        path = broken_into(site, "agent:main:cli", "TAG-CLI", cli)
        wait_for(lambda: remembered(path, "first-cli.", "second-cli.", "TAG-CLI"), "the record to be rebased")
        assert [event["writer"]["exe"] for event in staged(site, path)] == ["/usr/bin/python3.11"]
    finally:
        cli.remove()


def test_a_kill_loses_nothing_that_waited(site: Site) -> None:
    """SIGKILL to all processes while a record waits; the next start puts it into the transcript."""
    key, path = "agent:main:killed", None
    assert site.gateway.turn(key, "first-killed. [say=first]").ok
    site.gateway.wait_released(key)
    under_way = site.gateway.turn_async(key, "second-killed. [say=second] [chunks=9] [hold=4]")
    try:
        site.model.wait_held("second-killed.")
        site.gateway.wait_released(key)
        path = transcript_of(site, key)
        append(site, path, "TAG-KILLED")
        assert b"TAG-KILLED" not in path.read_bytes()
        site.container.kill("KILL")
        assert site.container.wait() == 128 + 9
    finally:
        site.model.release("second-killed.")
    assert under_way.result().status == 0
    site.container.start()
    site.gateway.attach(site.container)
    wait_for(lambda: remembered(path, "first-killed.", "TAG-KILLED"), "what waited to be in the transcript")
    assert site.container.exec("guardfs", "status", "--check", check=False).returncode == 0
    assert site.gateway.turn(key, "third-killed. [say=third]").ok


def test_sigterm_ends_the_gateway_and_plain_files_are_left(site: Site) -> None:
    """During a turn, with a record that waits. The exit status is the gateway's: 0."""
    key = "agent:main:ended"
    assert site.gateway.turn(key, "first-ended. [say=first]").ok
    site.gateway.wait_released(key)
    site.gateway.turn_async(key, "second-ended. [say=second] [chunks=9] [hold=4]")
    try:
        site.model.wait_held("second-ended.")
        site.gateway.wait_released(key)
        path = transcript_of(site, key)
        append(site, path, "TAG-ENDED")
        site.container.kill("TERM")
        assert site.container.wait() == 0, site.gateway.log_tail()
    finally:
        site.model.release("second-ended.")
    assert remembered(path, "first-ended.", "TAG-ENDED")
    names = sorted(os.listdir(site.sessions))
    assert [name for name in names if name.startswith(".guardfs") or ".conflict." in name] == []
    for name in names:
        if name.endswith(".jsonl") and ".trajectory" not in name:
            assert History.of(site.sessions / name).unparsable == 0, name
    assert list((site.place / "state").rglob("branches/*")) == []
