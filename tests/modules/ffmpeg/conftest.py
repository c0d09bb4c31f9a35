"""Files for the tests of the `ffmpeg` module."""

from pathlib import Path

import pytest

from tests.support.films import halve
from tests.support.media import make_clip


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first half of a clip's bytes."""
    return halve(make_clip(tmp_path_factory.mktemp("clips") / "whole.mkv", seconds=3), "half.mkv")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of picture and sound, a key frame every two."""
    return make_clip(tmp_path_factory.mktemp("films") / "film.mkv", seconds=12, options=("-g", "50"))
