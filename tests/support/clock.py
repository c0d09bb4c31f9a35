"""Clocks that a test sets."""

from pathlib import Path

import pytest


class HandClock:
    """A clock of this process."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class WallClock:
    """A wall clock of its own for a command, to be set while that runs.

    `environment` gives a command this clock. It needs libfaketime; the test is skipped where that is missing.
    """

    def __init__(self, file: Path) -> None:
        library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
        if library is None:
            pytest.skip("libfaketime is not installed")
        self._file = file
        self.step(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: float) -> None:
        """Set it so many seconds off the true time."""
        self._file.write_text(f"{seconds:+.0f}")
