"""How smoothly the live page is drawn: frames of a headless Chromium while a log of many sessions grows.

    python -m tests.browser.frames [SESSIONS] [EVENTS A SECOND] [SECONDS]

Prints one JSON object: frames; ms between two frames (p50, p95, p99, longest); longtasks: those above 50 ms, in ms, as
the browser's own observer counts them; the same while a reader scrolls through the list and leads the selection down.
What a screen needs is 16.7 ms a frame.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.browser import Browser, browser
from tests.support.guard import environment
from tests.support.machine import cannot_browse

MEASURE = """
const [seconds, act, done] = arguments, deltas = [], tasks = [], begin = performance.now();
const seen = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)));
seen.observe({ type: "longtask" });
const list = document.getElementById("list");
let last = null, acted = begin;
function frame(now) {
  if (last !== null) deltas.push(now - last);
  last = now;
  if (act && now - acted > 150) {
    acted = now;
    list.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
    list.scrollTop += 40;
  }
  if (now - begin < seconds * 1000) return requestAnimationFrame(frame);
  seen.disconnect();
  deltas.sort((one, other) => one - other);
  const at = (part) => Math.round(deltas[Math.floor((deltas.length - 1) * part)] * 10) / 10;
  done({ frames: deltas.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), longest: at(1), longtasks: tasks });
}
requestAnimationFrame(frame);
"""


def measure(window: Browser, seconds: float, act: bool) -> dict[str, Any]:
    """Frames of the page that is open."""
    window.driver.set_script_timeout(seconds + 60)
    found: dict[str, Any] = window.driver.execute_async_script(MEASURE, seconds, act)
    return found


def main(sessions: str = "1000", rate: str = "200", seconds: str = "30") -> None:
    with tempfile.TemporaryDirectory(prefix="guardfs-frames-") as name:
        log, lasts = Path(name) / "audit.jsonl", str(float(seconds) * 2 + 60)
        words = [sys.executable, "-m", "tests.support.live_log", str(log), sessions, rate, lasts]
        writer = subprocess.Popen(words, env=environment())
        words = [sys.executable, "-m", "tests.support.page_server", name, str(log)]
        server = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            page = server.stdout.readline().split()[-1]
            with browser() as window:
                window.visit(page, 1440, 900)
                window.wait(lambda: window.texts("#sessions-count") == [f"{int(sessions):,}"])
                window.wait(
                    lambda: (
                        int(window.texts("#tiles [data-tile=rate] dd")[0].replace(",", ""))
                        > float(rate) * 0.9
                    )
                )
                found = {"watched": measure(window, float(seconds), act=False)}
                found["scrolled"] = measure(window, float(seconds), act=True)
        finally:
            for process in (writer, server):
                process.kill()
                process.wait()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    if reason := cannot_browse():
        sys.exit(reason)
    main(*sys.argv[1:])
