"""The worker's own trouble: no scratch directory, no process or descriptor to be had, a journal that cannot be written.

Any job would fail of it, so no job is blamed for it. The worker says once what is wrong, polls no more, shows it in its
heartbeats, and looks again and again. Jobs in hand wait for the end of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from loguru import logger

from supervisor.isolation.zygote import SpawnError
from supervisor.worker.journal import JournalError

FIRST_LOOK = 1.0
"""Seconds until the first look. The time between two looks doubles, up to `interval`."""

QUIET = 60.0
"""Seconds in which trouble that is over and comes back is not logged again: a shortage comes and goes."""

Look = Callable[[], Awaitable[None]]


class Trouble:
    """What is wrong with this worker itself, if something is.

    `glance` finds what is found cheaply, `examine` tries all that a job needs. Both raise `JournalError`, `SpawnError`
    or `OSError`. `interval` is the longest time between two looks, in seconds.

    Attributes:
        why: One line for a person; empty while nothing is known to be wrong.
        well: Set while `why` is empty.
        noted: Set while it is not.
    """

    def __init__(self, glance: Look, examine: Look, interval: float) -> None:
        self.why = ""
        self.well = asyncio.Event()
        self.well.set()
        self._glance = glance
        self._examine = examine
        self._interval = interval
        self._since = 0.0
        self._over_at = float("-inf")
        self._level = "ERROR"
        self.noted = asyncio.Event()

    def note(self, why: str) -> None:
        """Something is wrong. It is logged, unless there is trouble already."""
        if self.why:
            return
        self._since = time.monotonic()
        self._level = "DEBUG" if self._since - self._over_at < QUIET else "ERROR"
        logger.log(self._level, "This worker is in trouble, and takes no job until it is over: {}", why)
        self.why = why
        self.well.clear()
        self.noted.set()

    async def is_well(self) -> bool:
        """Return whether a job may be taken, as far as that is known and can be found out cheaply."""
        if not self.why and (why := await _find(self._glance)):
            self.note(why)
        return not self.why

    async def keep_looking(self) -> None:
        """Look again while there is trouble, until cancelled."""
        while True:
            await self.noted.wait()
            wait = min(FIRST_LOOK, self._interval)
            await asyncio.sleep(wait)
            while why := await _find(self._examine):
                self.why = why  # for the heartbeat: one thing may be mended, and another not
                wait = min(2 * wait, self._interval)
                await asyncio.sleep(wait)
            self._over_at = time.monotonic()
            level = "INFO" if self._level == "ERROR" else self._level
            logger.log(level, "This worker is well again, after {:.0f} s of trouble", self._over_at - self._since)
            self.why = ""
            self.noted.clear()
            self.well.set()


async def _find(look: Look) -> str:
    try:
        await look()
    except (JournalError, SpawnError, OSError) as error:
        return str(error)
    return ""
