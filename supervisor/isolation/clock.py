"""The clock of timeouts and of the guard."""

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
