"""A headless Chromium for the length of some tests."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import (
    ElementNotInteractableException,
    MoveTargetOutOfBoundsException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 60.0
"""Which only bound a broken run."""

GONE = (
    ElementNotInteractableException,
    MoveTargetOutOfBoundsException,
    StaleElementReferenceException,
)
"""What is said of an element that was drawn anew, or has no size or place yet."""

OPTIONS = (
    "--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()


class Browser:
    """One window. Pages come from files, or from a server of this machine; no other is asked."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1200, height: int = 900) -> None:
        """Loads a page into a window of that size, light and for the screen, and waits until it is drawn."""
        self.visit(page.as_uri(), width, height)

    def visit(self, address: str, width: int = 1200, height: int = 900) -> None:
        """The same by its address."""
        self.media()
        self.size(width, height)
        self.driver.get("about:blank")
        self.said()
        self.driver.get(address)
        self.wait(
            lambda: self.run("return innerWidth") == width
        )  # another process may draw it, which is told later
        self.settle()

    def size(self, width: int, height: int = 900) -> None:
        """Pixels of the page that are seen."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.settle()

    def media(self, media: str = "screen", scheme: str = "light") -> None:
        """As a printer, or one who prefers dark, sees it."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def settle(self) -> None:
        """Waits until what was asked for is painted: two frames, since a change of size asks for another one."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))"
        )

    def run(self, code: str, *args: Any) -> Any:
        """What JavaScript ``return``s."""
        return self.driver.execute_script(code, *args)

    def said(self) -> list[str]:
        """What the page and the browser have put on the console since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The only one; it must be there."""
        (found,) = self.all(selector)
        return found

    def texts(self, selector: str) -> list[str]:
        return [
            str(text)
            for text in self.run(
                "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
            )
        ]

    def click(self, what: WebElement | str) -> None:
        """With a pointer, in its middle. A selector means the first such element, whichever it is by then: on a page
        that is drawn anew all the time, one that was found before may be gone."""

        self._point(what, lambda actions, element: actions.move_to_element(element).click())

    @contextmanager
    def pressed(self, what: WebElement | str) -> Iterator[None]:
        """The pointer is pressed there meanwhile, and released where it is."""
        self._point(what, lambda actions, element: actions.click_and_hold(element))
        try:
            yield
        finally:
            ActionChains(self.driver).release().perform()
            self.settle()

    def _point(self, what: WebElement | str, act: Callable[[ActionChains, WebElement], ActionChains]) -> None:
        def acted() -> bool:
            element = self.all(what)[0] if isinstance(what, str) else what
            act(ActionChains(self.driver), element).perform()
            return True

        if isinstance(what, str):
            WebDriverWait(self.driver, SECONDS, 0.02, (*GONE, IndexError)).until(lambda _: acted())
        else:
            acted()
        self.settle()

    def keys(self, *keys: str) -> None:
        """Into what has the focus."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
            self.settle()

    def wait(self, condition: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, SECONDS, 0.02).until(lambda _: condition())

    def style(self, element: WebElement, name: str) -> str:
        return str(self.run("return getComputedStyle(arguments[0])[arguments[1]]", element, name))

    def screenshot(self) -> bytes:
        return base64.b64decode(self.driver.get_screenshot_as_base64())


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile of its own, ended whatever happens."""
    profile = tempfile.mkdtemp(prefix="guardfs-browser-")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in (*OPTIONS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = None
    try:
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        driver.set_script_timeout(SECONDS)
        yield Browser(driver)
    finally:
        if driver is not None:
            driver.quit()
        shutil.rmtree(profile, ignore_errors=True)
