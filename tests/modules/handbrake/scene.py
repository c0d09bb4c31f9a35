"""Tasks of the `handbrake` module, for its tests."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modules.base import location
from modules.handbrake import Handbrake
from tests.modules import steps
from tests.support.films import ffmpeg
from tests.support.media import look

LEAD = ["stdbuf", "-oL", "HandBrakeCLI", "--json", "--input", "in.mkv", "--output", "./.out.part.mkv"]

FAST = {"encoder": "x264", "encoder_preset": "ultrafast"}

DONE = 'Progress: {"State": "WORKDONE", "WorkDone": {"Error": 0}}'

SLOW = pytest.mark.slow

CHAPTERS = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1
START=0
END=1
[CHAPTER]
TIMEBASE=1/1
START=1
END=3
[CHAPTER]
TIMEBASE=1/1
START=3
END=4
"""


def stand_in(directory: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script before HandBrakeCLI that runs lines of shell where that would encode to `$output`."""
    head = """case " $* " in
*" --help "* | *" --scan "* | *" --preset-export "*) exec HandBrakeCLI "$@" ;;
esac
for argument; do
    [ "$previous" = --output ] && output=$argument
    previous=$argument
done
"""
    steps.put_program(directory, "HandBrakeCLI", head + lines, monkeypatch)


def make_film(path: Path) -> Path:
    """Four seconds of picture, two audio and two subtitle tracks, and three chapters of 1, 2 and 1 seconds."""
    subtitles, chapters = path.with_suffix(".srt"), path.with_suffix(".txt")
    subtitles.write_text("1\n00:00:00,500 --> 00:00:03,500\nHello\n")
    chapters.write_text(CHAPTERS)
    generated = ("testsrc=size=160x120:rate=25:duration=4", "sine=duration=4", "sine=frequency=300:duration=4")
    inputs = [word for each in generated for word in ("-f", "lavfi", "-i", each)]
    inputs += ["-i", subtitles, "-i", subtitles, "-i", chapters, "-map_metadata", "5"]
    maps = [word for number in range(5) for word in ("-map", str(number))]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    ffmpeg(*inputs, *maps, *codecs, path)
    subtitles.unlink()
    chapters.unlink()
    return path


def task(source: object, target: object, /, **sections: Any) -> dict[str, Any]:
    """A task's data; sections by what stands before their `_options`."""
    sections["video"] = FAST | sections.get("video", {})
    return {"source": str(source), "output_file": str(target)} | {f"{key}_options": sections[key] for key in sections}


carry_out = partial(steps.carry_out, Handbrake)

refusal = partial(steps.refusal, Handbrake)


def later(**sections: Any) -> Handbrake:
    """A task whose source an earlier one will have written: there is nothing to look into yet."""
    module = Handbrake(task("soon.mkv", "out.mkv", **sections))
    module.sisyphus_context.files = {location("soon.mkv"): True}
    return module


def duration(path: Path) -> float:
    return float(look(path)["format"]["duration"])


def kinds(path: Path) -> list[str]:
    return [stream["codec_type"] for stream in look(path)["streams"]]


NEWER = """echo "$1" >>{log}
case $1 in
--help)
    HandBrakeCLI --help | sed 's/-2, --two-pass/    --multi-pass/; s/two-pass/multi-pass/g'
    echo "   --upscaleFactor <number>"
    echo "                           Make it larger"
    echo "       --no-upscaleFactor  Leave it"
    ;;
*) exec HandBrakeCLI "$@" ;;
esac
"""


SECTIONS: dict[str, Any] = {
    "source": {"start_at": {"seconds": 10}},
    "destination": {"format": "av_mkv"},
    "video": {"encoder": "x265_10bit", "encoder_preset": "slow", "encopts": {"bframes": 8}},
    "audio": {"audio": [3, 1], "aencoder": ["opus", "opus"], "aname": ["Stereo 2.0", "Surround 5.1"], "ab": [128, 192]},
    "picture": {"max_height": 1080, "crop": {"top": 0, "bottom": 0, "left": 8, "right": 8}},
    "filters": {"comb_detect": {"mode": 3, "spatial_metric": 2}, "detelecine": False},
    "subtitles": {"subtitle": [2, 1], "subtitle_default": 1},
}


NOT_HERE = "not allowed here: the module gives {} itself, or HandBrakeCLI would not encode"
