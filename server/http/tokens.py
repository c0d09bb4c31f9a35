"""Tokens: one for everything, and one for what workers call. Wrong ones are answered late."""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

Role = Literal["", "worker", "operator"]

WORKER_CALLS: frozenset[tuple[str, ...]] = frozenset(
    {
        ("GET", "queue"),
        ("POST", "queue"),  # the route takes only jobs that come back
        ("GET", "queue", "poll"),
        ("GET", "jobs", "*"),
        ("DELETE", "jobs", "*"),  # the old record of a job that came back
        ("PATCH", "jobs", "*", "completed"),
        ("PUT", "jobs", "*", "log"),
        ("GET", "workers", "*"),
        ("POST", "workers", "*"),
        ("DELETE", "workers", "*"),
        ("GET", "data", "*", "*"),
        ("POST", "data", "*", "*"),
        ("GET", "status", "config"),
    }
)
"""What a worker calls: `*` is any name."""

FIRST_DELAY, MAX_DELAY = 0.1, 3.0
"""Seconds; each wrong token of an address is answered twice as late as the one before."""

FORGOTTEN_AFTER = 60.0
"""Seconds without a wrong token."""

MAX_ADDRESSES = 1000


def is_worker_call(method: str, parts: Sequence[str]) -> bool:
    """Return whether workers make this call; `parts` are those of the path."""
    names = [*parts[1:3], *("*" if parts[1] == "data" else part for part in parts[3:])]
    if len(names) > 1 and names[0] != "status" and (names[0], names[1]) != ("queue", "poll"):
        names[1] = "*"
    return (method, *names) in WORKER_CALLS


class Tokens:
    """Knows the tokens, and who sends wrong ones."""

    def __init__(self, operator: str, worker: str) -> None:
        self._operator, self._worker = operator.encode(), worker.encode()
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()  # delays, and when, by address

    def role(self, token: bytes) -> Role:
        """Return whose token this is; empty if it is wrong."""
        if hmac.compare_digest(token, self._operator):
            return "operator"
        return "worker" if self._worker and hmac.compare_digest(token, self._worker) else ""

    async def slow_down(self, address: str) -> None:
        """Wait before a wrong token is refused. Who sends the right one never waits, from the same address either."""
        now = time.monotonic()
        delay, at = self._wrong.pop(address, (FIRST_DELAY / 2, now))
        delay = min(2 * delay, MAX_DELAY) if now - at < FORGOTTEN_AFTER else FIRST_DELAY
        self._wrong[address] = delay, now
        if len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)
        await asyncio.sleep(delay)
