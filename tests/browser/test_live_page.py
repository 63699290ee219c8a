"""The live page in a browser: a real guard that enforces, writers through it, and what is seen, clicked and typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.test_report import boxes, contrast, is_red, luminance
from tests.support.agent import NAME, Agent
from tests.support.browser import Browser
from tests.support.guard import environment
from tests.support.live_log import Log
from tests.support.live_scene import Scene
from tests.support.mortal import APPEND
from tests.unit.test_report_page import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.mount]

KEY = "agent:main:feishu:direct:ou_demo"
OTHER = "agent:main:telegram:direct:4242"
PICTURE = "#picture svg.lanes"
ROWS = "#list [role=option]:not([hidden])"
EVENTS = "#events .event"


@pytest.fixture(scope="module")
def scene(module_place: Path) -> Iterator[Scene]:
    """Turns into which a script, a chmod and a sync tool came, all saved; and one that died."""
    found = Scene(module_place)
    try:
        assert found.play("cron", "chmod", "replace") == []
        found.lose()
        yield found
    finally:
        found.end()


@pytest.fixture
def opened(window: Browser, scene: Scene) -> Browser:
    """The browser with the page, the first session chosen, and what has happened drawn."""
    visit(window, f"{scene.page}/#session={KEY}")
    window.click("#spans button:last-child")
    window.wait(lambda: window.all(f"{PICTURE} .check"))
    window.run("document.activeElement.blur()")
    return window


def visit(window: Browser, address: str, width: int = 1400, height: int = 900) -> None:
    window.visit(address, width, height)
    window.wait(lambda: window.texts("#connection") == ["live"] and window.all(ROWS))


def chosen(window: Browser) -> list[str]:
    return window.texts(f"{ROWS}[aria-selected=true] .name")


def rows_of_tail(window: Browser) -> list[str]:
    return window.texts(EVENTS)


# ---- what is seen


def test_lanes_fences_staged_writes_and_incidents_are_drawn(opened: Browser) -> None:
    lanes = [element.get_attribute("data-lane") for element in opened.all(f"{PICTURE} .label")]
    assert lanes[0] == "gateway" and {"cron", "permissions", "sync-tool", "unseen"} <= set(lanes)
    reasons = [element.get_attribute("data-reason") for element in opened.all(f"{PICTURE} .fence")]
    assert len(reasons) >= 4 and reasons.count("died") == 1
    staged = opened.all(f"{PICTURE} .mark.held[data-lane=cron], {PICTURE} .culprit[data-lane=cron]")
    assert staged, "what cron staged"
    assert opened.all(f'{PICTURE} .mark[data-op^="rebased"]')
    assert opened.all(f"{PICTURE} .check.saved")
    (lost,) = opened.all(f"{PICTURE} .check.lost circle")
    assert is_red(opened.style(lost, "fill"))


def test_sessions_counts_policy_and_events_are_told(opened: Browser, scene: Scene) -> None:
    assert {KEY, OTHER} <= set(opened.texts(f"{ROWS} .name")) and chosen(opened) == [KEY]
    assert opened.texts(f"{ROWS} .badge.lost") == ["1 lost"]
    assert is_red(opened.style(opened.all(f"{ROWS} .badge.lost")[0], "backgroundColor"))
    assert opened.texts("#mode") == ["enforce"]
    assert opened.texts("#guard option") == [str(scene.guard.directory)]
    tiles = dict(zip(opened.texts("#tiles dt"), opened.texts("#tiles dd"), strict=True))
    assert tiles["turns lost"] == "1" and int(tiles["turns saved"]) >= 3
    rules = dict(zip(opened.texts(".rules .rule"), opened.texts(".rules .hits"), strict=True))
    hits = scene.guard.status()["policy"]["hits"]
    assert {name: int(text.replace(",", "")) for name, text in rules.items()} == hits
    assert all(hits.values())
    assert rows_of_tail(opened) and opened.all(f"{EVENTS}.held")


def test_what_happens_is_seen_while_it_happens(opened: Browser, scene: Scene) -> None:
    """One turn, step by step, and a script that appends meanwhile."""

    def told(part: str) -> str:
        return "".join(opened.texts(f"{ROWS}[aria-selected=true] .{part}"))

    agent = Agent(scene.guard.directory)
    agent.append_raw(b'{"type":"session","id":"s"}\n')
    agent.begin()
    name = NAME.removesuffix(".jsonl")
    opened.wait(lambda: opened.all(f"#list [data-name='{name}']"))
    opened.click(f"#list [data-name='{name}']")
    opened.wait(lambda: opened.all(f"{PICTURE} .fence.open"))
    opened.wait(lambda: " · " in told("owner") and not told("branch"))
    subprocess.run(["/bin/sh", "-c", APPEND, "cron-note", str(agent.path), "a note", "1"], check=True)
    opened.wait(lambda: "staged cron" in told("branch"))
    opened.wait(lambda: opened.all(f"{PICTURE} .mark.held[data-lane=cron]"))
    agent.end()
    opened.wait(lambda: told("branch") == "" and told("owner") == "no owner")
    opened.wait(lambda: opened.all(f"{PICTURE} .fence[data-reason=closed]"))
    opened.wait(lambda: opened.all(f'{PICTURE} .mark[data-op^="rebased"][data-lane=cron]'))
    assert opened.texts("#tiles [data-tile=waiting] dd") == ["0"]


# ---- what is clicked


def test_a_mark_that_was_clicked_stays_told_while_more_happens(opened: Browser, scene: Scene) -> None:
    opened.click(f"{PICTURE} .tag.lost")
    opened.wait(lambda: "turn lost" in "".join(opened.texts("#picture .lanes-details b")))
    told = opened.texts("#picture .lanes-details dd")
    assert "unseen" in " ".join(told) or "below the mount" in " ".join(told)
    opened.click(f"{PICTURE} .mark")
    opened.wait(lambda: opened.texts("#picture .lanes-details dd") != told)
    told = opened.texts("#picture .lanes-details dd")
    count = opened.texts("#session-facts")
    assert scene.play("quiet") == []
    opened.wait(lambda: opened.texts("#session-facts") != count)
    opened.settle()
    assert opened.texts("#picture .lanes-details dd") == told


def test_a_click_on_a_session_draws_it_and_on_an_event_its_session(opened: Browser) -> None:
    opened.click(f"#list [data-name='{OTHER}']")
    opened.wait(lambda: opened.texts("#session-name") == [OTHER] and opened.all(f"{PICTURE} .fence"))
    opened.wait(lambda: OTHER.replace(":", "%3A") in opened.driver.current_url)
    opened.keys("x")
    opened.wait(lambda: set(opened.texts(f"{EVENTS} .op")) == {"incident"})
    opened.click(f"{EVENTS}[data-session='{KEY}'] .where")
    opened.wait(lambda: opened.texts("#session-name") == [KEY] and chosen(opened) == [KEY])


def test_an_event_that_is_pressed_stays_under_the_pointer(opened: Browser, scene: Scene) -> None:
    events, saved = rows_of_tail(opened), opened.texts("#tiles [data-tile=saved] dd")
    with opened.pressed(f"{EVENTS}[data-session='{OTHER}']"):
        assert scene.play("cron") == []
        opened.wait(lambda: opened.texts("#tiles [data-tile=saved] dd") != saved)
        assert rows_of_tail(opened) == events
    opened.wait(lambda: chosen(opened) == [OTHER] and rows_of_tail(opened) != events)


def test_events_are_filtered(opened: Browser) -> None:
    opened.click("#filter [name=incidents]")
    opened.wait(lambda: set(opened.texts(f"{EVENTS} .op")) == {"incident"})
    assert len(opened.all(f"{EVENTS}.bad")) == 1 and len(opened.all(f"{EVENTS}.saved")) >= 3
    opened.click("#filter [name=incidents]")
    opened.keys("f", *"cron")
    opened.wait(lambda: set(opened.texts(f"{EVENTS} .lane")) == {"cron"})
    opened.keys(Keys.ESCAPE)
    opened.wait(lambda: len(set(opened.texts(f"{EVENTS} .lane"))) > 3)
    opened.run(
        """const verdict = document.querySelector("#filter [name=verdict]"); verdict.value = "stage";
        verdict.dispatchEvent(new Event("input", {bubbles: true}));"""
    )
    opened.wait(lambda: len(opened.all(EVENTS)) == len(opened.all(f"{EVENTS}.held")) > 0)
    assert "verdict=stage" in opened.driver.current_url
    opened.click("#filter [name=here]")
    opened.wait(lambda: set(opened.texts(f"{EVENTS} .where")) == {KEY})


# ---- what is typed


def test_keys_lead_through_the_sessions(opened: Browser) -> None:
    names = opened.texts(f"{ROWS} .name")
    at = names.index(KEY)
    for key, steps in (
        ("k", len(names)),
        ("j", 1),
        (Keys.ARROW_DOWN, 1),
        (Keys.ARROW_UP, 1),
        ("j", len(names)),
    ):
        opened.keys(*[key] * steps)
        at = min(max(at + (steps if key in ("j", Keys.ARROW_DOWN) else -steps), 0), len(names) - 1)
        assert chosen(opened) == [names[at]]
    opened.keys("/", *"telegram")
    opened.wait(lambda: opened.texts(f"{ROWS} .name") == [OTHER])
    opened.wait(lambda: opened.texts("#sessions-count") == [f"1 of {len(names)}"])
    opened.keys(Keys.ESCAPE)
    opened.wait(lambda: len(opened.all(ROWS)) == len(names))
    opened.click(f"#list [data-name='{OTHER}']")
    active = opened.one("#list").get_attribute("aria-activedescendant")
    assert opened.run("return document.getElementById(arguments[0]).dataset.name", active) == OTHER


def test_space_holds_what_is_shown_and_lets_it_go_on(opened: Browser, scene: Scene) -> None:
    opened.keys(" ")
    assert opened.texts("#connection") == ["paused"]
    events, facts = rows_of_tail(opened), opened.texts("#tiles [data-tile=saved] dd")
    assert scene.play("cron") == []
    opened.wait(lambda: opened.texts("#tiles [data-tile=saved] dd") != facts)
    assert rows_of_tail(opened) == events
    opened.keys(" ")
    opened.wait(lambda: rows_of_tail(opened) != events)
    assert opened.texts("#connection") == ["live"]


def test_a_session_that_is_chosen_is_drawn_though_nothing_else_goes_on(opened: Browser) -> None:
    opened.keys(" ")
    opened.click(f"#list [data-name='{OTHER}']")
    opened.wait(lambda: f"Session {OTHER}:" in str(opened.one(PICTURE).get_attribute("aria-label")))
    assert opened.all(f"{PICTURE} .fence") and opened.texts("#connection") == ["paused"]


def test_a_page_that_is_left_lets_go_of_its_stream_and_goes_on_when_it_is_gone_back_to(
    opened: Browser, scene: Scene
) -> None:
    """A browser may keep it to go back to, and has no more than six connections to a server."""
    opened.run(
        """const close = EventSource.prototype.close;
        EventSource.prototype.close = function () {
          sessionStorage.setItem("closed", this.url);
          close.call(this);
        };"""
    )
    opened.driver.get(f"{scene.page}/?other")
    assert "/stream?" in str(opened.run("return sessionStorage.getItem('closed')"))
    opened.driver.back()
    opened.wait(lambda: opened.texts("#connection") == ["live"] and opened.all(ROWS))
    events = rows_of_tail(opened)
    assert scene.play("cron") == []
    opened.wait(lambda: rows_of_tail(opened) != events)


def test_help_opens_and_closes_and_the_picture_takes_keys(opened: Browser) -> None:
    opened.keys("?")
    assert opened.run("return document.getElementById('keys').open")
    opened.keys(Keys.ESCAPE)
    assert not opened.run("return document.getElementById('keys').open")
    opened.run("document.getElementById('list').focus()")
    opened.keys(Keys.ENTER)
    assert opened.run("return document.activeElement.matches('svg.lanes')")
    assert opened.all("#spans [aria-pressed=true]")
    opened.keys("+")
    assert not opened.all("#spans [aria-pressed=true]"), "what comes is not followed any more"
    opened.keys("i")
    assert opened.one("#picture .lanes-details").is_displayed()
    opened.keys("l")
    assert opened.all("#spans [aria-pressed=true]")


# ---- how it looks


def test_dark_is_as_the_system_has_it_until_the_reader_chooses(opened: Browser) -> None:
    def ground() -> float:
        return luminance(opened.style(opened.one("body"), "backgroundColor"))

    assert ground() > 0.8
    opened.media(scheme="dark")
    assert ground() < 0.1
    for selector, name in (("h2", "color"), (".facts", "color"), (".event", "color"), (".row .owner", "color"),
                           (".tiles dt", "color"), (".rules .rule", "color")):  # fmt: skip
        for scheme in ("dark", "light"):
            opened.media(scheme=scheme)
            paper = opened.style(opened.one("section.session"), "backgroundColor")
            assert contrast(opened.style(opened.all(selector)[0], name), paper) >= 4.5, (selector, scheme)
    opened.keys("d")
    assert ground() < 0.1, "dark by choice"
    opened.keys("d")
    opened.media(scheme="dark")
    assert ground() > 0.8, "light by choice"
    opened.keys("d")
    assert ground() < 0.1, "as the system has it"


@pytest.mark.parametrize("width", [360, 760, 1100, 1900])
def test_nothing_is_cut_off_at_any_width(opened: Browser, width: int) -> None:
    opened.size(width, 800)
    opened.settle()
    assert opened.run("return document.documentElement.scrollWidth <= innerWidth")
    for box in boxes(opened, "main > section, header.bar > *:not(.room):not(.guard)"):
        assert box["x"] >= 0 and box["right"] <= width + 0.5, box


def test_who_wants_no_motion_gets_none(opened: Browser) -> None:
    def motion(value: str) -> str:
        features = [{"name": "prefers-reduced-motion", "value": value}]
        opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return str(
            opened.run(
                "return getComputedStyle(arguments[0], '::before').animationName", opened.one("#connection")
            )
        )

    assert motion("no-preference") == "beat"
    assert motion("reduce") == "none"


# ---- a log that no guard writes: hostile names, many sessions, a server that goes away


@contextmanager
def page_over(place: Path, port: int = 0, leave: Browser | None = None) -> Iterator[str]:
    """The address of the page over ``audit.jsonl`` in *place*. leave: the browser that leaves the page before its
    server ends, which it would complain of."""
    command = [
        sys.executable,
        "-m",
        "tests.support.page_server",
        str(place),
        str(place / "audit.jsonl"),
        str(port),
    ]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1].rstrip("/")
    finally:
        if leave is not None:
            leave.driver.get("about:blank")
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def write(place: Path, log: Log, events: int) -> None:
    now = time.time_ns() // 1000
    with (place / "audit.jsonl").open("a") as file:
        for number in range(events):
            file.write(json.dumps(log.next(now + number)) + "\n")


def test_names_are_text_whatever_they_hold(window: Browser, tmp_path: Path) -> None:
    write(tmp_path, Log(4, "agent:" + " ".join(HOSTILE[:6]) + "{:d}"), 200)
    lines = (tmp_path / "audit.jsonl").read_text().replace('"cron"', json.dumps(HOSTILE[1])).splitlines()
    lines += [json.dumps({**json.loads(lines[0]), "op": HOSTILE[0], "path": HOSTILE[3], "rule": HOSTILE[2]})]
    (tmp_path / "audit.jsonl").write_text("\n".join(lines) + "\n")
    with page_over(tmp_path, leave=window) as address:
        visit(window, address)
        window.wait(lambda: len(window.all(ROWS)) == 4 and window.all(f"{PICTURE} .label"))
        assert all("<img src=x onerror=alert(1)>" in name for name in window.texts(f"{ROWS} .name"))
        window.click(f"{ROWS}[aria-selected=false]")
        window.wait(lambda: "<img" in window.texts("#session-name")[0] and window.all(f"{PICTURE} .mark"))
        window.click("#spans button:last-child")
        for number in range(1, min(3, len(window.all(f"{PICTURE} .mark"))) + 1):
            window.click(f"{PICTURE} .mark:nth-child({number})")
            assert window.one("#picture .lanes-details").is_displayed()
        assert not window.all("main img, main script, main [onerror], main [onload]")
        assert window.run("return document.querySelectorAll('main svg:not(.lanes)').length") == 0


def test_a_server_that_goes_away_is_missed_and_found_again(window: Browser, tmp_path: Path) -> None:
    log = Log(3)
    write(tmp_path, log, 60)
    with page_over(tmp_path) as address:
        visit(window, address)
        port = int(address.rpartition(":")[2])
        window.wait(lambda: len(window.all(ROWS)) == 3)
    window.wait(lambda: window.texts("#connection") == ["connection lost"])
    assert window.one("#banner").is_displayed() and len(window.all(ROWS)) == 3
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit.jsonl.1")
    write(tmp_path, Log(5, "agent:new:{:d}"), 60)
    with page_over(tmp_path, port, leave=window):
        window.wait(lambda: window.texts("#connection") == ["live"] and len(window.all(ROWS)) == 5)
        assert not any("connection" in text for text in window.texts("#banner p"))
    said = window.said()
    assert all("ERR_CONNECTION_REFUSED" in line or "ERR_INCOMPLETE" in line for line in said), said


def test_of_a_thousand_sessions_only_those_that_are_seen_are_elements(
    window: Browser, tmp_path: Path
) -> None:
    log = Log(1000)
    now = time.time_ns() // 1000
    with (tmp_path / "audit.jsonl").open("w") as file:
        for number in range(1000):
            for _ in range(5):
                file.write(json.dumps(log.next(now + number, number)) + "\n")
    with page_over(tmp_path, leave=window) as address:
        visit(window, address)
        window.wait(lambda: window.texts("#sessions-count") == ["1,000"])
        assert len(window.all("#list [role=option]")) < 40
        window.run("document.getElementById('sort').value = 'name'")
        window.run("document.getElementById('sort').dispatchEvent(new Event('change'))")
        window.run("document.getElementById('list').scrollTop = 1e9")
        window.wait(lambda: "agent:main:telegram:direct:0999" in window.texts(f"{ROWS} .name"))
        last = window.all(ROWS)[-1]
        assert (last.get_attribute("aria-posinset"), last.get_attribute("aria-setsize")) == ("1000", "1000")
        window.click(last)
        window.wait(lambda: window.texts("#session-name") == ["agent:main:telegram:direct:0999"])
        window.run("document.getElementById('list').focus()")
        window.keys("k", Keys.ARROW_UP)
        assert chosen(window) == ["agent:main:telegram:direct:0997"]
        busy = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.live_log",
                str(tmp_path / "audit.jsonl"),
                "1000",
                "200",
                "4",
            ],
            env=environment(),
        )
        window.wait(lambda: int(window.texts("#tiles [data-tile=rate] dd")[0].replace(",", "")) > 100)
        assert busy.wait(60) == 0
        assert len(window.all("#list [role=option]")) < 40 and len(window.all(EVENTS)) <= 200


def test_the_picture_of_a_session_that_is_named_later_goes_on(window: Browser, tmp_path: Path) -> None:
    """At first the registry does not know the transcript."""
    log = Log(1, "00000000-0000-4000-8000-000000000000")
    write(tmp_path, log, 40)
    with page_over(tmp_path, leave=window) as address:
        visit(window, address)
        window.wait(lambda: window.all(f"{PICTURE} .fence"))
        write(tmp_path, Log(1, "agent:main:named"), 40)
        window.wait(lambda: window.texts("#session-name") == ["agent:main:named"])
        window.wait(lambda: chosen(window) == ["agent:main:named"] and window.all(f"{PICTURE} .fence"))
