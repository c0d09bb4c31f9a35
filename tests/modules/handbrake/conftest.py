"""Files for the tests of the `handbrake` module."""

from pathlib import Path

import pytest

from tests.modules.handbrake.scene import make_film


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mkv")
