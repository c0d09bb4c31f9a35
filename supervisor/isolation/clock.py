"""The clock of timeouts and of the guard, and an alarm that ends a wait."""

import asyncio
import time
from collections.abc import Callable


class Clock:
    """The monotonic clock, in seconds. It stands still while paused."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._paused_at: float | None = None
        self._lost = 0.0

    @property
    def paused(self) -> bool:
        """True while it stands still."""
        return self._paused_at is not None

    def now(self) -> float:
        """Seconds since an arbitrary instant, without the time spent paused."""
        return (self._now() if self._paused_at is None else self._paused_at) - self._lost

    def pause(self) -> None:
        """Stop the clock."""
        if self._paused_at is None:
            self._paused_at = self._now()

    def resume(self) -> None:
        """Let the clock run again."""
        if self._paused_at is not None:
            self._lost += self._now() - self._paused_at
            self._paused_at = None


class Alarm:
    """Wakes the one coroutine that waits for it. `asyncio.wait` would take the loop a turn more each time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, at most `seconds`."""
        self._woken = self._loop.create_future()
        timer = self._loop.call_later(seconds, self.ring)
        try:
            await self._woken
        finally:
            timer.cancel()

    def ring(self) -> None:
        """Wake who waits, if anyone does."""
        if self._woken and not self._woken.done():
            self._woken.set_result(None)
