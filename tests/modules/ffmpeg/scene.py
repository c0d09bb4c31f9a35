"""Tasks of the `ffmpeg` module, for its tests."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modules.ffmpeg import Ffmpeg
from tests.modules import steps
from tests.support.films import ffmpeg
from tests.support.media import look

LEAD = ["ffmpeg", "-nostdin", "-y", "-progress", "pipe:1", "-stats_period", "1", "-nostats", "-hide_banner"]

LEAD += ["-loglevel", "level+info"]

FAST = {"codec": "libx264", "preset": "ultrafast"}


def task(source: object, target: object, **more: Any) -> dict[str, Any]:
    """A task that encodes the picture and copies the sound."""
    return {
        "sources": [str(source)],
        "source_maps": [{"source": 0, "specifier": "v"}, {"source": 0, "specifier": "a", "optional": True}],
        "output_maps": [
            {"specifier": "v", "stream": 0, "options": FAST},
            {"specifier": "a", "stream": 0, "options": {"codec": "copy"}},
        ],
        "output_file": str(target),
        **more,
    }


carry_out = partial(steps.carry_out, Ffmpeg)

refusal = partial(steps.refusal, Ffmpeg)


def duration(path: Path) -> float:
    return float(look(path)["format"]["duration"])


EXAMPLE: dict[str, Any] = {
    "input_options": {"ss": "0:10:00", "to": "0:20:00"},
    "sources": ["source_file_1.mkv", "source_file_2.ac3"],
    "source_maps": [
        {"source": 0, "specifier": "v", "stream": 0},
        {"source": 1, "specifier": "a", "stream": 0, "optional": True},
    ],
    "output_maps": [
        {
            "specifier": "v",
            "stream": 0,
            "options": {"codec": "libx265", "crf": 19, "x265-params": {"limit-sao": 1, "bframes": 8}},
        },
        {"specifier": "a", "stream": 0, "option_set": "opus-128k-stereo"},
    ],
    "output_file": "/shared/output_file.mkv",
    "overwrite": True,
}


def minimal(**more: Any) -> dict[str, Any]:
    return {"sources": ["a.mkv"], "source_maps": [], "output_maps": [], "output_file": "b.mkv", **more}


def output_map(**more: Any) -> dict[str, Any]:
    return minimal(output_maps=[{"stream": 0, **more}])


def told(data: dict[str, Any]) -> list[Mapping[str, Any]]:
    """All that the module tells its heartbeat of a task."""
    statuses: list[Mapping[str, Any]] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            statuses.append(self.sisyphus_context.status)

    steps.carry_out(Watched, data)
    return statuses


def made(path: Path, *arguments: str) -> Path:
    """A file that ffmpeg makes of a generated picture and tone of three seconds."""
    picture = ["-f", "lavfi", "-i", "testsrc=size=160x90:rate=25:duration=3"]
    ffmpeg(*picture, "-f", "lavfi", "-i", "sine=duration=3:sample_rate=48000", *arguments, path)
    return path


VFR = ["-map", "0:v", "-vf", "select='not(mod(n,7))+lt(n,30)'", "-fps_mode", "vfr", "-c:v", "libx264"]


def remade(source: Path, path: Path, *arguments: str, before: tuple[str, ...] = ()) -> Path:
    ffmpeg(*before, "-i", source, *arguments, path)
    return path


def mapped(source: Path, target: Path, specifier: str, options: dict[str, Any]) -> dict[str, Any]:
    """A task of one stream."""
    return {
        "sources": [str(source)],
        "source_maps": [{"source": 0, "specifier": specifier}],
        "output_maps": [{"specifier": specifier, "stream": 0, "options": options}],
        "output_file": str(target),
    }
