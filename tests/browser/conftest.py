"""One browser for all tests here, and pages made of logs that the real fence machine has filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardfs.audit.event import Notice
from guardfs.report.page import Origin, page
from tests.support.browser import Browser, browser
from tests.unit.fenced_log import CRON, RUN, START, TOUCH, FencedLog, record
from tests.unit.report_tools import read


@pytest.fixture(scope="session")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_complained_of(window: Browser) -> Iterator[None]:
    """No page here makes the browser say anything: no error, no refused resource."""
    yield
    assert window.said() == []


def stories(log: FencedLog) -> None:
    """Five turns: an append by cron, silence, a touch, a change below the mount, /new, one that lives; and a note."""
    kills: list[Callable[[], None]] = [
        lambda: log.append(CRON, record("bf09c3d4", log.leaf)),
        lambda: log.touch(TOUCH),
        lambda: log.below(record("0badcafe", log.leaf)),
    ]
    log.append(RUN, b'{"type":"session","id":"s"}\n')
    for kill in kills:
        log.turn()
        log.wait(300)
        log.cycle("LL")
        log.wait(250)
        kill()
        log.wait(200)
        log.check()
        log.wait(9000)
    log.turn()
    log.wait(500)
    log.append(CRON, record("c", log.leaf, "assistant"))
    log.check(survives=True)
    log.wait(100)
    log.cycle("LwL")
    log.wait(300)
    log.check()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with three deaths in one session and a second session without any."""
    place = tmp_path_factory.mktemp("report")
    with FencedLog(place) as log:
        stories(log)
        log.append(RUN, record("b", None), name="other.jsonl")
        log._log.emit(Notice("stop", START + 1, {}))
    found = read(log.path)
    target = place / "report.html"
    target.write_bytes(page(found, Origin(["audit.jsonl"], "0.0.0", "2026-05-23 04:00:00")))
    return target


@pytest.fixture
def opened(window: Browser, report: Path) -> Browser:
    """The browser with that page in it."""
    window.open(report)
    return window
