"""Waiting for a condition, up to a deadline."""

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait until `condition` gives something true, and return it."""
    began = now = time.monotonic()
    while not (value := condition()):
        asked, now = now, time.monotonic()
        assert now < began + seconds, f"waited {seconds} s for {what}"
        # What is asked shall not be kept busy by being asked, nor the machine; and what is short shall be seen.
        time.sleep(min(max(0.005, 3 * (now - asked)), 0.5))
        now = time.monotonic()
    return value


def pass_time(seconds: float) -> None:
    """Let time pass in which nothing is to happen, or nothing that is seen: that cannot be waited for."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, "time to pass")
