"""Debian's Chromium, driven by Playwright, with all that it does by itself turned off."""

import shutil

from playwright.sync_api import Browser, Playwright

ARGUMENTS = (
    "--no-sandbox",  # root has none, and neither do containers; it sees only our pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--no-proxy-server",
)


def launch(playwright: Playwright) -> Browser:
    """Start the browser."""
    path = shutil.which("chromium")
    assert path, "Chromium is missing: apt-get install chromium"
    return playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
