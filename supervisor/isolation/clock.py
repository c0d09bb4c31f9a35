"""The clock that limits are held against."""

import time
from collections.abc import Callable


class Clock:
    """Seconds on the monotonic clock, standing still while paused. Steps of the wall clock do not matter."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._paused_at: float | None = None
        self._lost = 0.0

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return self._paused_at is not None

    def now(self) -> float:
        """Seconds since some instant, without the time spent paused."""
        return (self._now() if self._paused_at is None else self._paused_at) - self._lost

    def pause(self) -> None:
        """Stand still."""
        if self._paused_at is None:
            self._paused_at = self._now()

    def resume(self) -> None:
        """Go on."""
        if self._paused_at is not None:
            self._lost += self._now() - self._paused_at
            self._paused_at = None
