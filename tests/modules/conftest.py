"""Films for the tests of the bundled modules."""

from pathlib import Path

import pytest

from tests.support import films
from tests.support.media import make_clip


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.make_film(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and tone, written by ffmpeg."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv")


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes a minute to encode with care."""
    clip = tmp_path_factory.mktemp("films") / "long.mkv"
    picture = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=20"]
    films.ffmpeg(*picture, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", clip)
    return clip


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file that takes some time to extract: 200 MB of silence, compressed."""
    directory = tmp_path_factory.mktemp("large")
    silence = films.make_silence(directory / "a.wav", 200 << 20)
    films.mkvmerge("-o", directory / "large.mkv", "--compression", "0:zlib", silence)
    return directory / "large.mkv"
