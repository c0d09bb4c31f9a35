"""Streams of a source that mkvmerge does not see, and containers that it takes for something else."""

from pathlib import Path

import pytest

from tests.modules.mkvmerge.scene import carry_out, look, problems, task
from tests.support.films import ffmpeg

pytestmark = pytest.mark.tools

BOTH = ["-map", "0:v", "-map", "0:a", "-map", "0:a", "-c:v", "mpeg2video"]


@pytest.mark.parametrize("way", ["copied", "in words", "by number"])
def test_overlooked_sound(way: str, clip: Path, tmp_path: Path) -> None:
    """Sound that mkvmerge cannot read is missed where all sound is wanted, and not where tracks have numbers."""
    source = tmp_path / "film.ts"
    ffmpeg("-i", clip, *BOTH, "-c:a:0", "mp2", "-c:a:1", "libopus", "-ar:a:1", "48000", source)
    data = task(source, tmp_path / "out.mkv")
    if way != "copied":
        number = {"track": 0} if way == "by number" else {}
        data["sources"][0]["options"] = {}
        data["tracks"] = [{"source": 0, "track_type": "audio", **number}]
    seen = [each["type"] for each in look(source)["tracks"]].count("audio")

    warnings = carry_out(data).sisyphus_context.warnings

    lost = f"{source}: mkvmerge reads {seen} of its 2 audio streams: the output lacks the rest"
    assert list(warnings) == ([lost] if seen == 1 and way != "by number" else [])


@pytest.mark.parametrize("name", ["film.mxf", "film.nut"])
def test_foreign_container(name: str, clip: Path, tmp_path: Path) -> None:
    """A container whose picture mkvmerge would take for a bare stream is none that it can read."""
    ffmpeg("-i", clip, *BOTH[:4], *BOTH[-2:], "-c:a", "pcm_s16le", "-ar", "48000", "-r", "25", tmp_path / name)
    said = problems(task(tmp_path / name, tmp_path / "out.mkv"))

    assert said == [f"sources[0].filename: {tmp_path / name}: is no media that mkvmerge can read ({name[-3:].upper()})"]
