"""Outputs, as ffprobe sees them."""

from pathlib import Path

import pytest

from app.exceptions import RunError
from modules.media import ExpectedOutput, verify
from tests.support.films import ffmpeg


def test_guessed_length(clip: Path, tmp_path: Path) -> None:
    """An output whose container states no duration is not judged by the guess at one."""
    ffmpeg("-i", clip, "-map", "0:a", tmp_path / "out.aac")
    expected = ExpectedOutput(lengths={"audio": 1000.0})

    verify(str(tmp_path / "out.aac"), expected)
    with pytest.raises(RunError, match="cut short"):
        verify(str(clip), expected)
