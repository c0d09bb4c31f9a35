"""Files for the tests of the `handbrake` module."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.modules.handbrake.scene import make_film, stand_in
from tests.support.disks import files_limited_to


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mkv")


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Bounds the bytes of each file for as long: what is over that, the kernel refuses as on a full disk."""
    stand_in(tmp_path / "bin", "trap '' XFSZ; exec HandBrakeCLI \"$@\"", monkeypatch)
    return files_limited_to
