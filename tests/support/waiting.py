"""Waiting for a condition, up to a deadline."""

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return value


def pass_time(seconds: float) -> None:
    """Let time pass in which nothing is to happen, or nothing that is seen: that cannot be waited for."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, "time to pass")
