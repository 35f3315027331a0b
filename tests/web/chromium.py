"""A headless Chromium, as Debian packages it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
WAIT_S = 30.0


class Page:
    """One browser window with an open page."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, url: str, *, width: int = 1440, height: int = 1000, dark: bool = False) -> None:
        self.look(width=width, height=height, dark=dark)
        self._driver.get(url)

    def look(self, *, width: int = 1440, height: int = 1000, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})

    def run(self, script: str, *arguments: Any) -> Any:
        return self._driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        """As a person sees it, with plain spaces."""
        found: str = self.run("return document.querySelector(arguments[0]).innerText", selector)
        return found.replace("\u00a0", " ")

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        until_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < until_s, f"{what}; the page says: {self.text()[:2000]}"
            time.sleep(0.05)

    def wait_for_text(self, text: str, selector: str = "body") -> None:
        self.wait(lambda: text in self.text(selector), f"no {text!r} in {selector}")

    def errors(self) -> list[str]:
        """What the console complains of, refused content too; since the last call."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def screenshot(self, name: str, *, width: int, dark: bool = False) -> Path:
        """Of the whole page."""
        self.look(width=width, dark=dark)
        time.sleep(0.4)  # charts follow the width when the browser finds time
        height = self.run("return document.documentElement.scrollHeight")
        self.look(width=width, height=height, dark=dark)
        time.sleep(0.4)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}.png"
        assert self._driver.save_screenshot(str(file))
        return file


@contextmanager
def chromium() -> Iterator[Page]:
    binary, driver_binary = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver_binary is None:
        pytest.skip("no chromium and chromedriver here: make setup installs them on Debian")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-proxy-server",
    ):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # it refuses to be root otherwise; only our own pages are opened
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_binary))
    try:
        yield Page(driver)
    finally:
        driver.quit()
