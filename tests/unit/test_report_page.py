"""The report's page: nothing gets out of it or into it, whatever a log holds, and no text of a message is in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from guardfs.audit.event import Notice
from guardfs.lanes.writer import Process, Writer
from guardfs.report.markup import Markup, join, tag
from guardfs.report.page import MARK
from tests.unit.fenced_log import CRON, KEY, RUN, FencedLog, record
from tests.unit.report_tools import TRANSCRIPT, at, fed, html, operation, read

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"onmouseover="alert(1)',
    "'><svg/onload=alert(1)>",
    "<!--<script>",
    "]]>&lt;b&amp;",
    "\u202etxt.exe\u2028\u0000\x1b[31m",
    "javascript:alert(1)",
]


class Page(HTMLParser):
    """What a page is made of, as a browser takes it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._raw = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts.append(data)
        elif not self._raw:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    @property
    def model(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def died(path: Path, **options: Any) -> str:
    """The page of a log with one death, by cron."""
    with FencedLog(path, **options) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        log.turn()
        log.wait(300)
        log.append(CRON, record("bf09c3d4", log.leaf))
        log.wait(100)
        log.check()
    return html(read(log.path))


def hostile_events(name: str) -> list[dict[str, Any]]:
    """A death in which every name is *name*."""
    by = {"lane": name, "tid": 7, "tgid": 7, "start": 5, "main": True}
    about = {"path": f"{name}.jsonl", "session": f"a:{name}"}
    change = {
        "time": at(2),
        "change": name,
        "by": by,
        "to": name,
        "records": [{"type": name, "role": name, "id": name}],
    }
    fence = {**about, "token": 1, "owner": name, "process": {"tgid": 7, "start": 5}, "opened": at(1)}
    policy, options = {"source": name, "digest": name}, {"mode": name}
    process = {"time": at(0), "op": "process", "tgid": 7, "start": 5, "exe": name, "args": [name, name]}
    write = operation(
        ms=2, lane=name, rule=name, verdict=name, would=name, to=name, fence={"relation": name, "owner": name},
        record={"type": name, "role": name, "id": name, "parent": name}, **about,
    )  # fmt: skip
    write["writer"] = {**write["writer"], "comm": name, "exe": name, "known": name}
    return [
        {"time": at(0), "op": "start", "version": name, "mountpoint": name, "policy": policy, "options": options},
        {**process, "parents": [{"pid": 1, "comm": name}], "container": name},
        write,
        {"time": at(1), "op": "fence", "change": "opened", **fence},
        {"time": at(3), "op": "incident", "outcome": "lost", "kind": name, "seq": 3, "culprit": change,
         "changes": [change], "count": 2, "expected": None, "seen": None, "baseline_time": name, **fence},
        {"time": at(3), "op": "lock", "change": name, "holder": by, "by": by, **about},
        {"time": at(4), "op": "fence", "change": "closed", "reason": name, **fence},
        {"time": at(5), "op": "unseen", "change": name, "kind": "transcript", **about},
    ]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_wherever_they_stand(name: str, tmp_path: Path) -> None:
    plain, page = Page(html(fed(hostile_events("plain")))), Page(html(fed(hostile_events(name))))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert [list(attributes) for _, attributes in page.tags] == [
        list(attributes) for _, attributes in plain.tags
    ]
    assert page.scripts[1] == plain.scripts[1] and len(page.scripts) == 2
    assert len(page.model["sessions"]) == 1


@pytest.mark.parametrize("name", HOSTILE[:6])
def test_names_are_shown_as_they_are(name: str) -> None:
    page = Page(html(fed(hostile_events(name))))
    assert name in page.text
    assert name in page.model["strings"]
    assert name in [lane["name"] for lane in page.model["sessions"][0]["lanes"]]


def test_characters_that_change_what_is_read_are_escaped() -> None:
    page = html(fed(hostile_events(HOSTILE[6])))
    assert not re.search("[\u0000-\u0008\u000b-\u001f\u007f\u2028\u202e]", page)
    assert "\\u202etxt.exe" in page


def test_the_data_cannot_end_its_element() -> None:
    page = html(fed(hostile_events("</SCRIPT <!-- ")))
    start = page.index('id="model">')
    data = page[start : page.index("</script>", start)].removeprefix('id="model">')
    assert not set("<>&") & set(data)


def test_the_page_allows_itself_its_own_script_and_style_and_nothing_else(tmp_path: Path) -> None:
    text = died(tmp_path)
    page = Page(text)
    (policy,) = [attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv")]
    assert policy is not None
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    for name, content in (("script-src", page.scripts[1]), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[name] == f"'sha256-{digest}'"


def test_the_page_names_nothing_outside_of_itself(tmp_path: Path) -> None:
    page = Page(died(tmp_path))
    for name, attributes in page.tags:
        assert name not in ("link", "img", "iframe", "object", "embed", "form", "base")
        assert not {"src", "srcset", "action", "data", "style"} & set(attributes)
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    code = page.scripts[1].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(
        r"https?:|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML|insertAdjacentHTML|document\.write", code
    )


def test_a_death_is_told_with_its_culprit_and_both_fingerprints(tmp_path: Path) -> None:
    page = Page(died(tmp_path))
    assert "1 turn died: cron appended to the transcript." in page.text
    assert "cron appended to the transcript 302 ms after gateway had looked; 102 ms later" in page.text
    for shown in (KEY, "cron/cron.sh[7001]", "/bin/dash cron.sh", "append message/user bf09c3d4, 142 bytes"):
        assert shown in page.text
    size = re.search(r"expected found change device 1 1 same inode 100 100 same size (.*?) mtime", page.text)
    before = len(b'{"type":"session","id":"s"}\n' + record("00000001", None))
    assert size is not None and size[1] == f"{before} bytes {before + 142} bytes +142 bytes"
    assert "OpenClaw versions that die of it: 2026.5.17-5.19" in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and "incident-1" in ids
    (button,) = [attributes for _, attributes in page.tags if "data-show" in attributes]
    assert (button["data-show"], button["data-session"]) == ("1", "0")


def test_arguments_in_which_a_text_may_stand_are_left_out(tmp_path: Path) -> None:
    shell = Process(
        7003, 60003, "/bin/dash", ("sh", "-c", "echo the secret words >>x"), ((1, "systemd"),), None, None, None, None
    )  # fmt: skip
    agent = Process(
        7004,
        60004,
        "/usr/bin/openclaw-cli",
        ("openclaw-cli", "--message", "the secret words"),
        (),
        None,
        None,
        None,
        None,
    )
    for number, process in enumerate((shell, agent)):
        place = tmp_path / str(number)
        place.mkdir()
        with FencedLog(place) as log:
            log.append(RUN, b'{"type":"session","id":"s"}\n')
            log.turn()
            log.append(Writer(process.tgid, process.tgid, True, "x", 0, 0, "ok", process), record("a", None))
            log.check()
        assert any("secret words" in str(event.get("args")) for event in log.events())
        page = html(read(log.path))
        assert "1 turn died" in page and str(process.exe) in page
        assert "secret words" not in page and "the text of a message" not in page


def test_a_log_without_a_transcript_says_so() -> None:
    page = Page(html(fed([{"time": at(0), "op": "start", "mountpoint": "/srv/x", "version": "1"}])))
    assert "No turn died of a changed transcript." in page.text
    assert "The log tells of no transcript." in page.text and "/srv/x" in page.text


def test_nothing_at_all_makes_a_page() -> None:
    page = Page(html(fed([])))
    assert "no event" in page.text and page.model["sessions"] == []


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with FencedLog(tmp_path) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        log._log.emit(Notice("error", 0, {"message": "x"}))
        log.below(b"x\n")
    events = [*log.events(), {"time": at(900), "op": "gap", "count": 3}, {"op": "write"}]
    page = Page(html(fed(events), skipped=4))
    for said in (
        "3 events could not be written",
        "1 error within the guard",
        "1 change below the mount",
        "5 lines of the log",
    ):
        assert said in page.text


def test_only_pictures_with_incidents_are_open_at_first(tmp_path: Path) -> None:
    with FencedLog(tmp_path) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        log.turn()
        log.append(CRON, record("a", None))
        log.check()
        log.append(RUN, record("b", None), name="other.jsonl")
    page = Page(html(read(log.path)))
    shown = [(attributes["data-session"], "open" in attributes) for tag, attributes in page.tags if tag == "details"
             and attributes.get("class") == "session"]  # fmt: skip
    assert shown == [("0", True), ("1", False)]


def test_every_report_begins_with_the_bytes_by_which_one_is_known() -> None:
    assert html(fed([operation()])).encode().startswith(MARK)


def test_the_same_log_makes_the_same_page(tmp_path: Path) -> None:
    assert died(tmp_path) == html(read(str(tmp_path / "audit.jsonl")))


def test_elements_escape_texts_and_attributes_but_not_elements() -> None:
    made = tag(
        "p",
        '<b>&"',
        tag("br"),
        None,
        Markup("<i>x</i>"),
        class_='a"b',
        data_x=3,
        open=True,
        id=None,
        hidden=False,
    )
    assert made == '<p class="a&quot;b" data-x="3" open>&lt;b&gt;&amp;&quot;<br><i>x</i></p>'
    assert join("<", made) == f"&lt;{made}"


def test_the_transcripts_name_is_in_the_page_once_for_each_use_only(tmp_path: Path) -> None:
    page = html(fed(operation(ms=number) for number in range(2000)))
    assert page.count(TRANSCRIPT) < 10
