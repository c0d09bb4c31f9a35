"""Scratch directories: they go with their supervisor, or at the next start."""

import contextlib
from pathlib import Path

import pytest

from supervisor.isolation import scratch


def test_scratch_directories_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor's scratch directory goes with it; one that a killed supervisor left goes at the next start.

    So does one that it had not marked yet, which is empty. What is not marked and holds something is somebody else's.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stale = tmp_path / f"{scratch.PREFIX}stale"
    (stale / "task" / "deep").mkdir(parents=True)
    (stale / scratch.MARK).touch()
    other = tmp_path / f"{scratch.PREFIX}of-somebody-else"
    other.mkdir()
    (other / "file").touch()
    unmarked = tmp_path / f"{scratch.PREFIX}unmarked"
    unmarked.mkdir()
    (stale / "task" / "deep").chmod(0)

    with contextlib.closing(scratch.Scratch()) as first, contextlib.closing(scratch.Scratch()) as second:
        assert not stale.exists()
        assert not unmarked.exists()
        assert first.make(0).exists()
        assert second.make(0).exists()
    assert list(tmp_path.iterdir()) == [other]
