"""Minimal tasks of the bundled modules, and the jobs of the field's cases."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

JOBS = {path.stem: path for path in sorted(Path(__file__).with_name("jobs").rglob("*.json"))}
"""The files of the field's cases by name; the folders say which guarantee was broken."""

ENCODE = {"codec": "libx264", "preset": "ultrafast"}
COPY = {"codec": "copy"}
AAC = {"codec": "aac"}
CLIP, OUT = "clip.mkv", "out.mkv"

Task = dict[str, Any]


def stream(text: str) -> dict[str, Any]:
    """Specifier and stream of `v:0`, `a:m:language:eng` or `0`; an empty text has neither."""
    specifier, _, number = text.rpartition(":")
    if number.isdigit():
        return {"stream": int(number)} | ({"specifier": specifier} if specifier else {})
    return {"specifier": text} if text else {}


def source_map(text: str) -> dict[str, Any]:
    """The source map that `1:a:0?` stands for; source 0 need not be named."""
    optional = {"optional": True} if text.endswith("?") else {}
    source, text = (int(text[0]), text[2:]) if text[1:2] == ":" and text[0].isdigit() else (0, text)
    return {"source": source} | stream(text.removesuffix("?")) | optional


def ffmpeg(source: Any = CLIP, target: str = OUT, video: Any = ENCODE, audio: Any = None, **data: Any) -> Task:
    """Encode the first video stream, and the first audio stream if it has options; or what `maps` and `outs` name."""
    outs = data.pop("outs", {f"{kind}:0": each for kind, each in (("v", video), ("a", audio)) if each})
    made = {
        "sources": source if isinstance(source, list) else [source],
        "source_maps": [source_map(text) for text in data.pop("maps", outs)],
        "output_maps": [stream(text) | {"options": options} for text, options in outs.items()],
        "output_file": target,
    }
    return {"module": "ffmpeg", "data": made | data}


def encode(**options: Any) -> Task:
    """Encode the first video stream with additional options."""
    return ffmpeg(video=ENCODE | options)


def handbrake(source: str = CLIP, target: str = OUT, **sections: Any) -> Task:
    """Encode quickly. `video_options=None` leaves out all options of the picture."""
    if (video_options := sections.pop("video_options", {})) is not None:
        sections["video_options"] = {"encoder": "x264", "encoder_preset": "ultrafast", "quality": 40} | video_options
    return {"module": "handbrake", "data": {"source": source, "output_file": target} | sections}


def mkvmerge(*sources: Any, target: str = OUT, track: Any = None, **data: Any) -> Task:
    """Mux the first track of each source with the options `track`."""
    entries = [{"filename": each} if isinstance(each, str) else each for each in sources or (CLIP,)]
    tracks = [{"source": number, "track": 0, "options": track or {}} for number in range(len(entries))]
    return {"module": "mkvmerge", "data": {"sources": entries, "tracks": tracks, "output_file": target} | data}


def mkvextract(source: str = CLIP, target: str = "out.h264", **data: Any) -> Task:
    """Extract track 0, or what `data` names."""
    return {"module": "mkvextract", "data": {"source": source} | (data or {"tracks": [{"id": 0, "filename": target}]})}


def cleanup(**data: Any) -> Task:
    """`copy` and `move` are lists of source and destination."""
    for verb in data.keys() & {"copy", "move"}:
        data[verb] = [{"source": source, "destination": destination} for source, destination in data[verb]]
    return {"module": "cleanup", "data": data}


def job(*tasks: Task, **more: Any) -> dict[str, Any]:
    return {"job_title": "case", "tasks": list(tasks)} | more


def load(name: str) -> dict[str, Any]:
    """One of the field's cases."""
    document: dict[str, Any] = json.loads(JOBS[name].read_text())
    return document


def strings(value: Any) -> Iterator[str]:
    """All texts in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | Sequence):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from strings(each)
