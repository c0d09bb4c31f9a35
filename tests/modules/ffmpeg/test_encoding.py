"""The `ffmpeg` module encodes, with the real ffmpeg and tiny clips."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modules.ffmpeg import Ffmpeg
from tests.modules.ffmpeg.scene import carry_out, duration, made, task
from tests.support.media import look, make_clip

pytestmark = pytest.mark.tools


def test_encode(clip: Path, tmp_path: Path) -> None:
    """An encode leaves the whole file under its name, and nothing else; the progress ends at 100."""
    watched: list[Mapping[str, Any]] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            watched.append(self.sisyphus_context.status)

    Watched(task(clip, tmp_path / "out.mkv")).run()
    begun, *encoding, checking, done = watched

    assert os.listdir(tmp_path) == ["out.mkv"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(2, abs=0.2)
    assert [stream["codec_type"] for stream in look(tmp_path / "out.mkv")["streams"]] == ["video", "audio"]
    assert begun == {"status": "in_progress", "task": "watched"}
    assert checking["info"] == {"phase": "checking"}
    assert done["progress"] == 100
    info = encoding[-1]["info"]
    assert info.pop("phase") == "encoding"
    # The total is an estimate from the duration; versions of ffmpeg write a frame more or less.
    assert info["total_frames"] == pytest.approx(50, abs=1)
    assert info["current_frame"] == pytest.approx(50, abs=1)
    assert all(math.isfinite(value) for value in info.values())


def test_progress(clip: Path, tmp_path: Path) -> None:
    """The progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append((self.sisyphus_context.status.get("progress", 0.0), (tmp_path / "out.mkv").exists()))

    Watched(task(clip, tmp_path / "out.mkv", input_options={"re": True})).run()

    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)


def test_rich_source(tmp_path: Path) -> None:
    """Several sounds and subtitles, chapters, an attachment, tags and HDR's marks all come through a whole encode."""
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n")
    (tmp_path / "b.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nHallo\n")
    (tmp_path / "font.ttf").write_bytes(bytes(1000))
    marks = ";FFMETADATA1\ntitle=A film\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\ntitle=One\n"
    (tmp_path / "marks").write_text(marks + "[CHAPTER]\nTIMEBASE=1/1\nSTART=1\nEND=3\ntitle=Two\n")
    colours = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    source = made(
        tmp_path / "rich.mkv",
        *("-i", str(tmp_path / "a.srt"), "-i", str(tmp_path / "b.srt"), "-i", str(tmp_path / "marks")),
        *("-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "2", "-map", "3", "-map_metadata", "4"),
        *("-attach", str(tmp_path / "font.ttf"), "-metadata:s:t", "mimetype=font/ttf"),
        *("-metadata:s:a:1", "language=jpn", "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
        *("-x265-params", f"log-level=none:{colours}", "-c:a", "flac", "-c:s", "srt"),
    )
    copies = [("a", 1), ("s", 0), ("s", 1), ("t", 0)]
    data = {
        "sources": [str(source)],
        "source_maps": [{"source": 0}],
        "output_maps": [
            {
                "specifier": "v",
                "stream": 0,
                "options": {"codec": "libx265", "preset": "ultrafast", "x265-params": f"log-level=none:{colours}"},
            },
            {"specifier": "a", "stream": 0, "options": {"codec": "aac", "b": "64k"}},
            *({"specifier": kind, "stream": index, "options": {"codec": "copy"}} for kind, index in copies),
        ],
        "output_file": str(tmp_path / "out.mkv"),
    }

    carry_out(data)

    found = look(tmp_path / "out.mkv", "-show_chapters")
    video, *others = found["streams"]
    assert [stream.get("codec_name") for stream in others[:4]] == ["aac", "flac", "subrip", "subrip"]
    assert [stream["tags"]["filename"] for stream in others[4:]] == ["font.ttf"]
    assert (video["color_primaries"], video["color_transfer"]) == ("bt2020", "smpte2084")
    assert others[1]["tags"]["language"] == "jpn"
    assert found["format"]["tags"]["title"] == "A film"
    assert [chapter["tags"]["title"] for chapter in found["chapters"]] == ["One", "Two"]


@pytest.mark.parametrize(
    "name", ["with space.mkv", "quote'\".mkv", "new\nline.mkv", "-dash.mkv", "co:lon.mkv", "\udcff.mkv", "%d$(x).mkv"]
)
def test_odd_names(name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and outputs of odd names work, in the working directory too."""
    monkeypatch.chdir(tmp_path)
    os.link(clip, name)

    carry_out(task(name, "out " + name))
    carry_out(task("out " + name, name, overwrite=True))

    assert sorted(os.listdir()) == sorted([name, "out " + name])


def test_two_sources(clip: Path, tmp_path: Path) -> None:
    """Streams of several sources, one of them absent and optional, make one file."""
    sound = make_clip(tmp_path / "sound.mkv", seconds=1)
    data = task(clip, tmp_path / "out.mkv")
    data["sources"].append({"filename": str(sound), "options": {"t": "0.5"}})
    data["source_maps"] = [
        {"source": 0, "specifier": "v"},
        {"source": 1, "specifier": "a"},
        {"source": 1, "specifier": "s", "optional": True},
    ]

    carry_out(data)

    video, audio = look(tmp_path / "out.mkv")["streams"]
    assert (video["codec_name"], audio["codec_name"]) == ("h264", "aac")
