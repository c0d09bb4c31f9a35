"""Films for the tests of the bundled modules."""

from pathlib import Path

import pytest

from tests.support import films
from tests.support.media import made_once, make_clip


@pytest.fixture(scope="session")
def film(shared: Path) -> Path:
    return made_once(shared / "film", films.make_film) / "film.mkv"


@pytest.fixture(scope="session")
def clip(shared: Path) -> Path:
    """Two seconds of picture and tone, written by ffmpeg."""
    return made_once(shared / "clip", lambda place: make_clip(place / "clip.mkv")) / "clip.mkv"


@pytest.fixture(scope="session")
def long(shared: Path) -> Path:
    """A clip that takes a minute to encode with care."""

    def make(place: Path) -> None:
        picture = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=20"]
        films.ffmpeg(*picture, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", place / "long.mkv")

    return made_once(shared / "long", make) / "long.mkv"


@pytest.fixture(scope="session")
def large(shared: Path) -> Path:
    """A small file that takes some time to extract: 200 MB of silence, compressed."""

    def make(place: Path) -> None:
        silence = films.make_silence(place / "a.wav", 200 << 20)
        films.mkvmerge("-o", place / "large.mkv", "--compression", "0:zlib", silence)

    return made_once(shared / "large", make) / "large.mkv"
