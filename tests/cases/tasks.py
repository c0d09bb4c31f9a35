"""Tasks of the bundled modules, each with the least that makes one, and the field's cases."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

JOBS = Path(__file__).with_name("jobs")
ENCODE = {"codec": "libx264", "preset": "ultrafast"}
COPY = {"codec": "copy"}
AAC = {"codec": "aac"}

Task = dict[str, Any]


def source_map(text: str) -> dict[str, Any]:
    """The map of `1:v:0`: source, specifier, stream; without the source of source 0."""
    source, specifier = (int(text[0]), text[2:]) if text[:1].isdigit() and text[1:2] == ":" else (0, text)
    name, _, stream = specifier.rpartition(":")
    numbered = {"specifier": name, "stream": int(stream)} if name and stream.isdigit() else {"specifier": specifier}
    return {"source": source, **numbered}


def ffmpeg(
    source: Any = "clip.mkv", target: str = "out.mkv", video: Any = ENCODE, audio: Any = None, **data: Any
) -> Task:
    """Encode the first video stream, and the first audio stream if it has options; `maps` names others."""
    outputs = [("v", video), ("a", audio)]
    made = {
        "sources": source if isinstance(source, list) else [source],
        "source_maps": [source_map(text) for text in data.pop("maps", [f"{kind}:0" for kind, each in outputs if each])],
        "output_maps": [{"specifier": kind, "stream": 0, "options": each} for kind, each in outputs if each],
        "output_file": target,
    }
    return {"module": "ffmpeg", "data": made | data}


def handbrake(source: str = "clip.mkv", target: str = "out.mkv", **sections: Any) -> Task:
    video = {"encoder": "x264", "encoder_preset": "ultrafast", "quality": 40} | sections.pop("video_options", {})
    data = {"source": source, "output_file": target, "video_options": video} | sections
    return {"module": "handbrake", "data": {key: value for key, value in data.items() if value}}


def mkvmerge(*sources: Any, target: str = "out.mkv", track: Any = None, **data: Any) -> Task:
    """Mux the first track of each source; `track` are options of the first."""
    entries = [{"filename": each} if isinstance(each, str) else each for each in sources or ("clip.mkv",)]
    tracks = [{"source": number, "track": 0, "options": track or {}} for number in range(len(entries))]
    return {"module": "mkvmerge", "data": {"sources": entries, "tracks": tracks, "output_file": target} | data}


def mkvextract(source: str = "clip.mkv", target: str = "out.h264", **data: Any) -> Task:
    """Take out track 0, unless `data` says what else."""
    return {"module": "mkvextract", "data": {"source": source} | (data or {"tracks": [{"id": 0, "filename": target}]})}


def cleanup(**data: Any) -> Task:
    """`copy` and `move` are pairs."""
    for verb in data.keys() & {"copy", "move"}:
        data[verb] = [{"source": source, "destination": destination} for source, destination in data[verb]]
    return {"module": "cleanup", "data": data}


def job(*tasks: Task, **more: Any) -> dict[str, Any]:
    return {"job_title": "case", "tasks": list(tasks)} | more


def load(name: str) -> dict[str, Any]:
    """One of the field's cases."""
    document: dict[str, Any] = json.loads((JOBS / f"{name}.json").read_text())
    return document


def strings(value: Any) -> Iterator[str]:
    """All texts in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | Sequence):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from strings(each)
