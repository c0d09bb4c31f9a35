"""Files for the tests of the `ffmpeg` module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disks import files_limited_to
from tests.support.media import make_clip


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first half of a clip's bytes."""
    whole = make_clip(tmp_path_factory.mktemp("clips") / "whole.mkv", seconds=3)
    data = whole.read_bytes()
    cut = whole.with_name("half.mkv")
    cut.write_bytes(data[: len(data) // 2])
    return cut


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow beyond 16 KiB."""
    with files_limited_to(16 << 10):
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of picture and sound, a key frame every two."""
    return make_clip(tmp_path_factory.mktemp("films") / "film.mkv", seconds=12, options=("-g", "50"))
