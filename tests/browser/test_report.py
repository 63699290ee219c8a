"""The report in a browser: what is drawn, what keys and pointer do, light and dark, wide and narrow, on paper."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from guardfs.report.page import Origin, page
from tests.support.browser import Browser
from tests.unit.report_tools import at, fed, operation
from tests.unit.test_report_page import HOSTILE, hostile_events

pytestmark = pytest.mark.browser

PICTURE = "details.session[open] .picture"
DETAILS = f"{PICTURE} .lanes-details"


def rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = map(float, re.findall(r"[\d.]+", colour)[:3])
    return red, green, blue


def is_red(colour: str) -> bool:
    red, green, blue = rgb(colour)
    return red > 180 and red > 1.7 * green and red > 1.7 * blue


def luminance(colour: str) -> float:
    """Relative, as WCAG defines it."""
    parts = [part / 255 for part in rgb(colour)]
    red, green, blue = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def boxes(window: Browser, selector: str) -> list[dict[str, Any]]:
    """Where elements are, px: x, y, right, bottom; and their text."""
    found: list[dict[str, Any]] = window.run(
        """return [...document.querySelectorAll(arguments[0])].map((element) => {
          const box = element.getBoundingClientRect();
          return {x: box.x, y: box.y, right: box.right, bottom: box.bottom, text: element.textContent};
        })""",
        selector,
    )
    return found


def focus(window: Browser) -> None:
    window.run("document.querySelector(arguments[0]).focus()", f"{PICTURE} svg.lanes")


def overlapping(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of boxes that share more than a pixel."""
    return [
        (one["text"], other["text"])
        for one, other in itertools.combinations(found, 2)
        if min(one["right"], other["right"]) - max(one["x"], other["x"]) > 1
        and min(one["bottom"], other["bottom"]) - max(one["y"], other["y"]) > 1
    ]


# ---- what is drawn


def test_the_page_opens_without_a_word_on_the_console_and_without_asking_for_anything(
    opened: Browser,
) -> None:
    assert opened.said() == []
    assert opened.run("return performance.getEntriesByType('resource').length") == 0
    assert opened.driver.title == "guardfs report: 3 turns lost"


def test_lanes_fences_and_incidents_are_drawn(opened: Browser) -> None:
    lanes = [element.get_attribute("data-lane") or "" for element in opened.all(f"{PICTURE} .label")]
    assert lanes[0] == "gateway" and lanes[-3:] == ["cron", "touch", "unseen"]
    assert len(lanes) > 4 and all(lane.startswith("gateway:") for lane in lanes[1:-3])
    fences = opened.all(f"{PICTURE} .fence")
    assert [fence.get_attribute("data-reason") for fence in fences] == ["died", "died", "died", "closed"]
    assert opened.texts(f"{PICTURE} .tag") == ["1 lost · cron", "2 lost · touch", "3 lost · unseen"]
    assert [element.get_attribute("data-lane") for element in opened.all(f"{PICTURE} .culprit")] == [
        "cron",
        "touch",
        "unseen",
    ]
    assert len(opened.all(f"{PICTURE} .check.lost")) == 3
    assert len(opened.all(f"{PICTURE} .note")) == 1
    label = opened.one(f"{PICTURE} svg.lanes").get_attribute("aria-label")
    assert label is not None and label.endswith(f"in {len(lanes)} lanes, 3 turns lost, 0 saved")


def test_a_culprit_stands_in_its_lane_within_the_fence_that_it_broke(opened: Browser) -> None:
    (band, *_), (fence, *_) = boxes(opened, f"{PICTURE} .band.died"), boxes(opened, f"{PICTURE} .fence.died")
    (culprit, *_), (check, *_) = boxes(opened, f"{PICTURE} .culprit"), boxes(opened, f"{PICTURE} .check")
    lane = boxes(opened, f'{PICTURE} .label[data-lane="cron"]')[0]
    middle = (culprit["x"] + culprit["right"]) / 2
    assert fence["x"] < middle < (check["x"] + check["right"]) / 2 <= fence["right"] + 1
    assert abs(band["x"] - fence["x"]) < 2 and abs(band["right"] - fence["right"]) < 2
    assert abs((culprit["y"] + culprit["bottom"]) / 2 - (lane["y"] + lane["bottom"]) / 2) < 4
    assert check["bottom"] <= fence["bottom"] and check["y"] >= fence["y"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_culprit_is_red_and_all_else_is_not(opened: Browser, scheme: str) -> None:
    opened.media(scheme=scheme)
    for element in opened.all(f"{PICTURE} .culprit .ring"):
        assert is_red(opened.style(element, "stroke"))
    for element in opened.all(
        f"{PICTURE} .culprit .symbol, {PICTURE} .check.lost circle, {PICTURE} .tag.lost rect"
    ):
        assert is_red(opened.style(element, "fill"))
    others = opened.all(f"{PICTURE} .mark .symbol, {PICTURE} .fence rect, {PICTURE} .label .swatch")
    assert len(others) > 10
    for element in others:
        assert not is_red(opened.style(element, "fill"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(opened: Browser, scheme: str) -> None:
    opened.media(scheme=scheme)
    paper = opened.style(opened.one("body"), "backgroundColor")
    assert (luminance(paper) > 0.8) == (scheme == "light")
    for selector, name in (("h1", "color"), (".verdict", "color"), (".lead", "color"), (".counts .lane th", "color"),
                           (".lanes .label text", "fill"), (".layer-axis text", "fill"), (".incident dt", "color"),
                           ("tr.differs td:last-child", "color"), (".lanes-help", "color")):  # fmt: skip
        assert contrast(opened.style(opened.all(selector)[0], name), paper) >= 4.5, selector
    for selector, name, ground in (
        (".badge.lost", "color", "backgroundColor"),
        (".tag.lost text", "fill", ""),
    ):
        element = opened.all(selector)[0]
        red = (
            opened.style(element, ground) if ground else opened.style(opened.all(".tag.lost rect")[0], "fill")
        )
        assert contrast(opened.style(element, name), red) >= 4.5, selector


def test_time_runs_evenly_but_for_silences_which_say_how_long_they_are(opened: Browser) -> None:
    assert [text[-5:] for text in opened.texts(f"{PICTURE} .silence title")] == ["9.0 s"] * 3
    focus(opened)
    opened.keys("i")  # the view is within one stretch without a silence
    for _ in range(5):
        at = [(box["x"] + box["right"]) / 2 for box in boxes(opened, f"{PICTURE} .grid")]
        when = [
            sum(float(part) * unit for part, unit in zip(text.split(":"), (3600, 60, 1), strict=True))
            for text in ticks(opened)
        ]
        assert len(at) == len(when) >= 3
        pace = (at[-1] - at[0]) / (when[-1] - when[0])
        assert [at[0] + (each - when[0]) * pace for each in when] == pytest.approx(at, abs=1)
        opened.keys("+")


@pytest.mark.parametrize("width", [1500, 900, 640, 600, 360])
def test_labels_do_not_lie_on_each_other(opened: Browser, width: int) -> None:
    opened.size(width)
    focus(opened)
    seen = 0
    for key in ["0", "+", "+", "+", "i", "+", "+", Keys.ARROW_LEFT, "i", "-"]:
        opened.keys(key)
        for selector in (".layer-axis text, .zone", ".tag rect", ".label text", ".silence text"):
            found = boxes(opened, ", ".join(f"{PICTURE} {part}" for part in selector.split(", ")))
            seen += len(found)
            assert overlapping(found) == [], (key, selector)
    assert seen > 50


# ---- pointer and keys


def test_a_click_on_the_culprit_tells_who_it_was_and_leads_to_the_story(opened: Browser) -> None:
    assert not opened.one(DETAILS).is_displayed()
    opened.click(f"{PICTURE} .culprit")
    said = opened.one(DETAILS).text
    assert said.startswith("Incident 1: turn lost")
    for part in ("cron: appended to the transcript", "202 ms later", "cron.sh · /bin/dash", "7001, main thread",
                 "message/user, id bf09c3d4, after 00000001", "other fence 1"):  # fmt: skip
        assert part in said
    opened.click(opened.one(f"{DETAILS} a"))
    assert opened.driver.current_url.endswith("#incident-1")
    story = boxes(opened, "#incident-1")[0]
    assert 0 <= story["y"] < 200


def test_the_pointer_over_a_mark_a_fence_or_a_look_shows_what_it_is(opened: Browser) -> None:
    tip = opened.one(f"{PICTURE} .lanes-tip")
    point = """
      const [element, part] = arguments, box = element.getBoundingClientRect();
      const at = {clientX: box.x + box.width * part, clientY: box.y + box.height / 2};
      element.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, pointerType: "mouse", ...at}));
    """
    opened.run(point, opened.all(f"{PICTURE} .mark[data-op=create]")[0], 0.5)
    assert tip.is_displayed() and "2 changes" in tip.text and "gateway:" in tip.text
    opened.run(point, opened.all(f"{PICTURE} .fence rect")[0], 0.9)
    assert tip.text.startswith("Fence, token 1") and "a check failed: the turn died" in tip.text
    box = boxes(opened, f"{PICTURE} .lanes-tip")[0]
    assert box["x"] >= 0 and box["right"] <= 1200
    opened.run(
        "arguments[0].dispatchEvent(new PointerEvent('pointerleave'))", opened.one(f"{PICTURE} svg.lanes")
    )
    assert not tip.is_displayed()


def test_all_of_it_can_be_done_with_keys(opened: Browser) -> None:
    seen = []
    for _ in range(12):
        opened.keys(Keys.TAB)
        seen.append(
            opened.run(
                "const e = document.activeElement; return e.getAttribute('aria-label') || e.textContent"
            )
        )
        if opened.run("return document.activeElement.matches('svg.lanes')"):
            break
    assert seen[0] == "Skip to the pictures" and "Next incident" in seen and seen[-1].startswith("Session ")
    assert opened.style(opened.one(f"{PICTURE} svg.lanes"), "outlineStyle") == "solid"
    for number in (1, 2, 3, 1):
        opened.keys("i")
        assert opened.one(DETAILS).text.startswith(f"Incident {number}: turn lost")
    opened.keys("I")
    assert opened.one(DETAILS).text.startswith("Incident 3")
    opened.keys(Keys.ESCAPE)
    assert not opened.one(DETAILS).is_displayed()


def ticks(window: Browser) -> list[str]:
    return window.texts(f"{PICTURE} .layer-axis text:not(.day)")


def test_keys_zoom_pan_and_show_all_again(opened: Browser) -> None:
    focus(opened)
    whole = ticks(opened)
    opened.keys("+", "+", "+")
    near = ticks(opened)
    assert near != whole
    opened.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert ticks(opened) > near
    opened.keys("0")
    assert ticks(opened) == whole


def test_n_and_p_go_from_change_to_change_culprits_too(opened: Browser) -> None:
    focus(opened)
    titles: list[str] = []
    while not titles or not titles[-1].startswith("Incident"):
        opened.keys("n")
        titles.append(opened.one(DETAILS).text.split("\n")[0])
    assert titles[-1] == "Incident 1: turn lost" and titles[0] == "2 changes" and 2 < len(titles) < 12
    opened.keys("p")
    assert opened.one(DETAILS).text.split("\n")[0] == titles[-2]
    assert len(opened.all(f"{PICTURE} .chosen")) == 1


def test_buttons_do_what_keys_do(opened: Browser) -> None:
    buttons = {
        button.get_attribute("aria-label"): button
        for button in opened.all(f"{PICTURE} .lanes-buttons button")
    }
    whole = ticks(opened)
    opened.click(buttons["Zoom in"])
    assert ticks(opened) != whole
    opened.click(buttons["Show all"])
    assert ticks(opened) == whole
    opened.click(buttons["Next incident"])
    opened.click(buttons["Next incident"])
    assert opened.one(DETAILS).text.startswith("Incident 2")
    assert opened.one(f"{PICTURE} .lanes-where").text == "2 of 3 incidents"
    opened.click(buttons["Previous incident"])
    assert opened.one(DETAILS).text.startswith("Incident 1")


def test_the_picture_is_dragged_and_the_wheel_zooms_with_ctrl_only(opened: Browser) -> None:
    focus(opened)
    opened.keys("i")
    before = ticks(opened)
    opened.run(
        """const [rows] = arguments, at = rows.getBoundingClientRect();
        for (const [type, x] of [["pointerdown", 600], ["pointermove", 500], ["pointerup", 500]]) {
          const where = {clientX: at.x + x, clientY: at.y + 60, pointerId: 1, isPrimary: true, bubbles: true};
          rows.dispatchEvent(new PointerEvent(type, where));
        }""",
        opened.one(f"{PICTURE} .layer-rows"),
    )
    opened.settle()
    assert ticks(opened) > before and opened.one(DETAILS).text.startswith("Incident 1")
    wheel = """
      const turn = {cancelable: true, bubbles: true, deltaY: -100, ctrlKey: arguments[1]};
      return !arguments[0].dispatchEvent(new WheelEvent("wheel", turn));
    """
    picture = opened.one(f"{PICTURE} svg.lanes")
    before = ticks(opened)
    assert opened.run(wheel, picture, False) is False
    opened.settle()
    assert ticks(opened) == before
    assert opened.run(wheel, picture, True) is True
    opened.settle()
    assert ticks(opened) != before


def test_a_story_leads_to_its_incident_in_the_picture(opened: Browser) -> None:
    opened.run("document.querySelector('details.session').open = false")
    opened.click(opened.one('button[data-show="3"]'))
    assert opened.one(DETAILS).text.startswith("Incident 3: turn lost")
    assert opened.run("return document.activeElement.matches('svg.lanes')")
    assert 0 <= boxes(opened, f"{PICTURE} .culprit")[0]["y"] < 900
    assert opened.texts(f"{PICTURE} .tag") == ["3 lost · unseen"]


def test_a_picture_that_was_closed_is_drawn_when_it_is_opened(opened: Browser) -> None:
    second = "details.session[data-session='1']"
    assert opened.all(f"{second} svg") == []
    opened.click(opened.one(f"{second} summary"))
    opened.wait(lambda: opened.all(f"{second} .mark"))
    lanes = [element.get_attribute("data-lane") or "" for element in opened.all(f"{second} .label")]
    assert lanes and all(lane.startswith("gateway") for lane in lanes)


def test_times_are_utc_until_the_readers_own_are_asked_for(opened: Browser) -> None:
    zone = opened.one("#tools button")
    assert opened.texts(f"{PICTURE} .zone") == ["UTC"]
    assert ticks(opened)[0].startswith("03:37:4")
    opened.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kolkata"})
    try:
        opened.click(zone)
        assert opened.texts(f"{PICTURE} .zone") == ["+05:30"]
        assert ticks(opened)[0].startswith("09:07:4")
        assert zone.get_attribute("aria-pressed") == "true"
        opened.click(zone)
        assert ticks(opened)[0].startswith("03:37:4")
    finally:
        opened.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


# ---- sizes and paper


@pytest.mark.parametrize("width", [320, 390, 768, 1200, 2400])
def test_the_page_is_as_wide_as_the_window_and_no_wider(opened: Browser, width: int) -> None:
    opened.size(width)
    opened.run("document.querySelectorAll('details').forEach((each) => each.open = true)")
    opened.settle()
    assert opened.run("return document.documentElement.scrollWidth") <= width
    for box in boxes(opened, "svg.lanes[tabindex]"):
        assert box["x"] >= 0 and box["right"] <= width


def test_on_a_narrow_screen_names_stand_above_their_lanes(opened: Browser) -> None:
    opened.size(390)
    for label, row in zip(
        boxes(opened, f"{PICTURE} .label text"), boxes(opened, f"{PICTURE} .row"), strict=True
    ):
        assert row["y"] <= label["y"] and label["bottom"] <= row["y"] + 22
    marks = boxes(opened, f"{PICTURE} .mark")
    assert min(box["x"] for box in marks) < 80


def test_on_paper_there_are_no_buttons_and_the_picture_fits(opened: Browser) -> None:
    opened.media("print")
    opened.size(700)
    for selector in (".lanes-buttons", ".tools", ".lanes-help", ".skip"):
        assert not any(element.is_displayed() for element in opened.all(selector)), selector
    assert boxes(opened, f"{PICTURE} svg.lanes")[0]["right"] <= 700
    assert luminance(opened.style(opened.one("body"), "backgroundColor")) > 0.8


def test_it_prints_as_white_even_for_who_prefers_dark(opened: Browser) -> None:
    opened.media("print", "dark")
    assert luminance(opened.style(opened.one("body"), "backgroundColor")) > 0.8


# ---- hostile names, many marks, a log that grows


def test_hostile_names_are_shown_and_do_nothing(window: Browser, tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        target = tmp_path / f"{number}.html"
        target.write_bytes(page(fed(hostile_events(name)), Origin([name], name, name, name)))
        window.run("window.alert = null")
        window.open(target)
        window.click(f"{PICTURE} .culprit")
        assert window.one(DETAILS).text.startswith("Incident 1")
        assert (
            window.run(
                "return document.querySelectorAll('img, iframe, [onerror], [onload], [onmouseover]').length"
            )
            == 0
        )
        if number < 6:
            assert name in window.texts(f"{PICTURE} .label title")[0]
            assert name in window.one(".verdict").text


def many(turns: int) -> list[dict[str, Any]]:
    """Turns, each of which dies, and a hundred looks in each."""
    found: list[dict[str, Any]] = []
    for turn in range(turns):
        ms = turn * 30_000
        fence = {
            "path": operation()["path"],
            "session": operation()["session"],
            "owner": "gateway",
            "token": turn,
            "opened": at(ms),
        }
        found.append({"time": at(ms), "op": "fence", "change": "opened", **fence})
        found += [operation("look", ms + look * 10) for look in range(100)]
        found.append(operation(ms=ms + 1005, lane="cron") | {"class": "append"})
        by = {"lane": "cron", "tid": 7, "tgid": 7, "start": 5, "main": True}
        culprit = {"time": at(ms + 1005), "change": "append", "by": by}
        found.append(
            {
                "time": at(ms + 1100),
                "op": "incident",
                "kind": "lane",
                "outcome": "lost",
                "culprit": culprit,
                **fence,
            }
        )
        found.append({"time": at(ms + 1101), "op": "fence", "change": "closed", "reason": "died", **fence})
    return found


def test_what_would_lie_on_each_other_is_one_mark_with_a_number(window: Browser, tmp_path: Path) -> None:
    target = tmp_path / "many.html"
    target.write_bytes(page(fed(many(300)), Origin([], "0", "")))
    window.open(target)
    window.wait(lambda: window.all(f"{PICTURE} .culprit"))
    culprits = boxes(window, f"{PICTURE} .culprit")
    assert 5 < len(culprits) < 60 and overlapping(culprits) == []
    assert sum(int(box["text"] or 1) for box in culprits) == 300
    window.click(f"{PICTURE} .culprit")
    window.wait(lambda: re.match(r"\d+ incidents, \d+ turns lost", window.one(DETAILS).text))
    focus(window)
    window.keys("i")
    window.wait(lambda: window.one(DETAILS).text.startswith("Incident 1:"))
    window.wait(lambda: window.texts(f"{PICTURE} .tag") == ["1 lost · cron"])


def test_as_many_marks_as_a_page_may_have_are_drawn(window: Browser, tmp_path: Path) -> None:
    found = fed(
        operation("write" if number % 9 else "look", number * 7, lane=f"l{number % 12}")
        for number in range(59_000)
    )
    target = tmp_path / "most.html"
    target.write_bytes(page(found, Origin([], "0", "")))
    window.open(target)
    assert len(window.all(f"{PICTURE} .mark")) > 100
    focus(window)
    window.keys(*"+++", Keys.ARROW_RIGHT, *"+++++++")
    assert len(window.all(f"{PICTURE} .mark")) > 1


GROW = """
  const model = JSON.parse(document.getElementById("model").textContent), [session] = model.sessions;
  const half = {...session, marks: session.marks.slice(0, 6 * Math.floor(session.marks.length / 12)), until: {},
    incidents: session.incidents.slice(0, 1), fences: session.fences.slice(0, 2), notes: []};
  const root = document.createElement("div");
  document.querySelector("main").prepend(root);
  const picture = new guardfs.Swimlanes(root);
  picture.utc(true);
  picture.set(model, half);
  window.live = {root, picture, grow: () => picture.set(model, session)};
"""


def live(window: Browser, selector: str) -> list[str]:
    found: list[str] = window.run(
        "return [...live.root.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
    )
    return found


def test_a_picture_whose_log_grows_keeps_what_is_looked_at(opened: Browser) -> None:
    opened.run(GROW)
    opened.run("live.picture.show(1)")
    opened.settle()
    before = opened.run("return live.picture.window()")
    opened.run("live.grow()")
    opened.settle()
    assert opened.run("return live.picture.window()") == pytest.approx(before, abs=1)
    assert 0 < before[1] - before[0] < 15e6
    assert opened.run("return live.root.querySelector('.lanes-details').textContent").startswith("Incident 1")
    opened.run("live.picture.fit()")
    opened.settle()
    assert len(live(opened, ".tag")) == 3


def test_what_was_pressed_is_told_though_the_picture_moves_on_before_it_is_released(opened: Browser) -> None:
    opened.run(GROW)
    opened.settle()
    mark, told = opened.run("return [...live.root.querySelectorAll('.mark')].at(-1)"), ".lanes-details"
    opened.click(mark)
    (wanted,) = live(opened, told)
    opened.click(opened.run("return live.root.querySelector('[aria-label=\"Close the details\"]')"))
    mark = opened.run("return [...live.root.querySelectorAll('.mark')].at(-1)")
    with opened.pressed(mark):
        opened.run("live.grow()")
        opened.settle()
    assert wanted and live(opened, told) == [wanted]


def test_several_incidents_that_are_told_stay_told_when_the_log_grows(
    window: Browser, tmp_path: Path
) -> None:
    target = tmp_path / "several.html"
    target.write_bytes(page(fed(many(200)), Origin([], "0", "")))
    window.open(target)
    window.run(GROW.replace("incidents.slice(0, 1)", "incidents.slice(0, 150)"))
    window.settle()
    window.click(window.run("return live.root.querySelector('.culprit.many')"))
    told = live(window, ".lanes-details")
    assert re.match(r"\d+ incidents, \d+ turns lost", told[0])
    window.run("live.grow()")
    window.settle()
    assert live(window, ".lanes-details") == told


def test_a_picture_that_shows_all_still_does_when_its_log_grows(opened: Browser) -> None:
    opened.run(GROW)
    opened.settle()
    assert len(live(opened, ".tag")) == 1
    opened.run("live.grow()")
    opened.settle()
    assert len(live(opened, ".tag")) == 3


def test_times_and_places_go_over_into_each_other_and_never_back(window: Browser, report: Path) -> None:
    window.open(report)
    assert (
        window.run("""
      let seed = 7;
      const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647, wrong = [];
      for (let round = 0; round < 200; round++) {
        const times = Array.from({length: 1 + Math.floor(random() * 40)}, () => Math.floor(10 ** (random() * 12)));
        const scale = new guardfs.Scale(times);
        let last = -1;
        for (const time of Float64Array.from(times).sort()) {
          const place = scale.place(time);
          if (!(place >= last && place >= 0 && place <= scale.end)) wrong.push(["order", time, place, last]);
          const again = scale.time(place);
          if (Math.abs(again - time) > 1e-6 * Math.max(1e6, time)) wrong.push(["back", time, again]);
          last = place;
        }
        const silent = scale.silences.reduce((sum, each) => sum + each.end - each.begin, 0);
        if (scale.silences.length > 1 && silent > 0.6 * scale.end) wrong.push(["silent", silent, scale.end]);
      }
      return wrong;
    """)
        == []
    )
