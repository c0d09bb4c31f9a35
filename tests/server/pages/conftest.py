"""A browser, and tabs in it that must not complain, nor ask anybody but the server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.server.pages.chromium import launch
from tests.support.api_server import Api, serving
from tests.support.processes import kept

Look = Callable[..., Page]

PATIENCE = 30_000
"""Milliseconds for what the page does: a busy machine may take them."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium. No longer than this package: its loop would be in the way of other tests' loops."""
    before = set(psutil.Process().children())

    def processes() -> set[int]:
        started = set(psutil.Process().children()) - before
        drivers = {process for process in started if "playwright" in _path(process) or "chrom" in process.name()}
        return {child.pid for driver in drivers for child in (driver, *driver.children(recursive=True))}

    with kept(processes), sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE)
        browser = launch(playwright)
        yield browser
        browser.close()


def _path(process: psutil.Process) -> str:
    try:
        return process.exe()
    except psutil.Error:
        return ""


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Opens a view in a tab of its own; at the end, no tab may have complained or asked another server.

    `failing`: calls of this tab may fail.
    """
    told: list[str] = []
    contexts = []

    def look(url: str, path: str = "/", failing: bool = False, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda request: request.url.startswith(url) or told.append(f"asked {request.url}"))
        page = context.new_page()
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning")
                and not (failing and message.text.startswith("Failed to load resource"))
                and told.append(message.text)
            ),
        )
        page.goto(url + path)
        return page

    yield look
    for context in contexts:
        context.close()
    assert not told


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """A server of the test's own."""
    with serving(tmp_path / "jobs.db") as api:
        yield api


def until_live(page: Page) -> None:
    """Wait until the page hears of changes."""
    page.wait_for_selector("#connection[data-state=live]")
