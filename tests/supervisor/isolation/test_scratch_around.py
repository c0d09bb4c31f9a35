"""Scratch directories where the directory above them goes away."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from supervisor.isolation.scratch import Scratch, ScratchError


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    parent = tmp_path / "scratch"
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    return parent


@pytest.fixture
def scratch(parent: Path) -> Iterator[Scratch]:
    with contextlib.closing(Scratch()) as scratch:
        yield scratch


def test_descriptors_of_others_stay_open(scratch: Scratch, parent: Path) -> None:
    """However often no directory can be made anew, no descriptor is closed that is another file's by now."""
    shutil.rmtree(parent)
    parent.touch()
    others = []
    for _ in range(3):
        with pytest.raises(ScratchError, match="File exists"):
            scratch.check()
        others.append(os.open(parent, os.O_RDONLY))
    parent.unlink()
    made = scratch.make(0)

    assert made.is_dir()
    for other in others:
        os.close(other)


def test_one_is_made_anew_for_all(scratch: Scratch, parent: Path) -> None:
    """Tasks that find the directory gone at the same time get theirs in one that is made anew once."""
    with ThreadPoolExecutor(8) as threads:
        for _ in range(50):
            shutil.rmtree(parent)
            made = list(threads.map(scratch.make, range(8)))

            assert all(map(Path.is_dir, made))
            assert len(os.listdir(parent)) == 1
