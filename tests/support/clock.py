"""A wall clock of its own for a command, which a test sets while the command runs."""

from pathlib import Path

import pytest


class WallClock:
    """`environment` gives a command this clock. It needs libfaketime; the test is skipped where that is missing."""

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
