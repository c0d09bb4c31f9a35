"""Films for the tests of the bundled modules."""

from pathlib import Path

import pytest

from tests.support.films import make_film
from tests.support.media import make_clip


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and tone, written by ffmpeg."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv")
