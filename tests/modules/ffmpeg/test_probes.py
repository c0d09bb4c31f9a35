"""ffprobe's answers for sources."""

import os
from pathlib import Path

import psutil
import pytest

from modules.ffmpeg.probes import Probes


def test_answers(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come in the sources' order, empty for what is no media, and stay while the source does."""
    text, source = tmp_path / "text", tmp_path / "source.mkv"
    text.write_text("no media")
    source.write_bytes(clip.read_bytes())
    probes = Probes(os.path.exists)
    sources = [(str(text), {}), (str(source), {}), (os.devnull, {}), (str(source), {"f": "matroska"}), (str(clip), {})]

    found = list(probes.answers(sources))
    monkeypatch.setenv("PATH", "")
    again = list(probes.answers(sources))
    os.utime(source)
    changed = list(probes.answers(sources))

    assert [len(each.get("streams", [])) for each in found] == [0, 2, 0, 2, 2]
    assert again == found
    assert changed == [{}, {}, {}, {}, found[4]]


def test_stop(clip: Path) -> None:
    """Nothing that was begun ahead is left, whether or not it was for something."""
    probes = Probes(os.path.exists)
    probes.begin([(str(clip), {})])
    begun = psutil.Process().children()

    probes.stop()

    assert len(begun) == 1
    assert psutil.Process().children() == []
