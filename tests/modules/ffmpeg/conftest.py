"""Files for the tests of the `ffmpeg` module."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.media import make_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and tone."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv")


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first half of a clip's bytes."""
    whole = make_clip(tmp_path_factory.mktemp("clips") / "whole.mkv", seconds=3)
    data = whole.read_bytes()
    cut = whole.with_name("half.mkv")
    cut.write_bytes(data[: len(data) // 2])
    return cut


# --- failures ---


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow beyond 16 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of picture and sound, a key frame every two."""
    return make_clip(tmp_path_factory.mktemp("films") / "film.mkv", seconds=12, options=("-g", "50"))
