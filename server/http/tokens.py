"""Tokens: one for everything, and one for what workers call. Wrong ones are answered late, one at a time.

While a wrong token of an address waits for its answer, no other one from there is looked at: else a thousand guesses at
once would be tried in no time. An address that has sent a right one lately is an exception, for it may be a proxy's, or
that of many workers: its right tokens are taken at any time.
"""

import asyncio
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

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

GOOD_FOR = 3600.0
"""Seconds after a right token in which an address may send more of them at any time."""

MAX_ADDRESSES = 10_000


class TooManyGuessesError(Exception):
    """A wrong token of the same address still waits for its answer.

    Attributes:
        seconds: When to try again.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"A wrong token has just come from your address: try again in {seconds} s.")
        self.seconds = seconds


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
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()  # last delay and end of it, by address
        self._right: OrderedDict[str, float] = OrderedDict()  # when, by address

    async def check(self, token: bytes, address: str) -> Role:
        """Return whose token this is; empty if it is wrong, after a while.

        Raises:
            TooManyGuessesError: it is wrong, or was not looked at.
        """
        now = time.monotonic()
        delay, end = self._wrong.get(address, (0.0, 0.0))
        is_good = now - self._right.get(address, -GOOD_FOR) < GOOD_FOR
        if now < end and not is_good:
            raise TooManyGuessesError(math.ceil(end - now))
        if role := self._role(token):
            _note(self._right, address, now)
            return role
        if now < end:
            raise TooManyGuessesError(math.ceil(end - now))
        delay = min(2 * delay, MAX_DELAY) if delay and now - end < FORGOTTEN_AFTER else FIRST_DELAY
        _note(self._wrong, address, (delay, now + delay))
        await asyncio.sleep(delay)
        return ""

    def _role(self, token: bytes) -> Role:
        if hmac.compare_digest(token, self._operator):
            return "operator"
        return "worker" if self._worker and hmac.compare_digest(token, self._worker) else ""


def _note(known: "OrderedDict[str, Any]", address: str, value: Any) -> None:
    known[address] = value
    known.move_to_end(address)
    if len(known) > MAX_ADDRESSES:
        known.popitem(last=False)
