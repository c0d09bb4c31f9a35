"""Files for the tests of the `handbrake` module."""

import os
import shlex
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.modules.handbrake.scene import make_film, stand_in
from tests.support.disks import files_limited_to


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mkv")


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes a minute to encode with care."""
    clip = tmp_path_factory.mktemp("films") / "long.mkv"
    argv = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=20"]
    subprocess.run([*argv, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", str(clip)], check=True)
    return clip


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Bounds the bytes of each file for as long: what is over that, the kernel refuses as on a full disk."""
    path = shlex.quote(os.environ["PATH"])
    stand_in(tmp_path / "bin", f"trap '' XFSZ; PATH={path} exec HandBrakeCLI \"$@\"", monkeypatch)
    return files_limited_to
