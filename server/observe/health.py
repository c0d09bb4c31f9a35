"""Whether the database answers, from what the watch sees each second: to ask costs nothing, and never hangs."""

import time

SILENT = 5.0
"""Seconds without a look that succeeded after which the database counts as unreachable."""


class DatabaseHealth:
    """What the last looks at the database came to."""

    def __init__(self) -> None:
        self.is_doubted = False  # a call has failed since the last look that succeeded
        self._failure = ""
        self._succeeded_at = time.monotonic()

    def note_success(self) -> None:
        """The database has answered."""
        self._failure, self._succeeded_at, self.is_doubted = "", time.monotonic(), False

    def note_failure(self, why: str) -> None:
        """The database has failed."""
        self._failure = why

    def problem(self) -> str:
        """Say why the database cannot be used; empty if it can."""
        if self._failure:
            return f"The database failed: {self._failure}"
        silent = time.monotonic() - self._succeeded_at
        return f"The database has not answered for {silent:.0f} s." if silent > SILENT else ""
