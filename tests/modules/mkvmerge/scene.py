"""Tasks of the `mkvmerge` module, for its tests."""

import json
from functools import partial
from typing import Any

from modules.mkvmerge import Mkvmerge
from modules.mkvtoolnix import Media, Track
from tests.modules import steps
from tests.support.films import mkvmerge


def task(source: object, target: object, **more: Any) -> dict[str, Any]:
    """A task that copies all pictures, sounds and subtitles."""
    options = {f"_copy-{name}-tracks": None for name in ("video", "audio", "subtitles")}
    return {
        "sources": [{"filename": str(source), "options": options}],
        "tracks": [],
        "output_file": str(target),
        **more,
    }


carry_out = partial(steps.carry_out, Mkvmerge)

problems = partial(steps.problems, Mkvmerge)

refusal = partial(steps.refusal, Mkvmerge)

failure = partial(steps.failure, Mkvmerge)


def look(path: object) -> dict[str, Any]:
    """What mkvmerge says of a file."""
    found: dict[str, Any] = json.loads(mkvmerge("-J", f"={path}"))
    return found


def tracks(path: object) -> list[tuple[str, str]]:
    """Types and languages of a file's tracks."""
    return [(track["type"], track["properties"]["language"]) for track in look(path)["tracks"]]


EXAMPLE: dict[str, Any] = {
    "sources": [
        {"filename": "video.mkv", "options": {"no-chapters": None, "_copy-audio-tracks": None}},
        {"filename": "audio.ac3"},
    ],
    "tracks": [
        {"source": 0, "track": 0, "options": {"language": "und", "default-track": "yes", "track-name": "Video"}},
        {"source": 1, "track": 0, "options": {"language": "jpn"}},
    ],
    "options": {"no-global-tags": None, "title": "A Title"},
    "attachments": [{"name": "Font", "filename": "font.otf", "mime_type": "application/vnd.ms-opentype"}],
    "attachment_directories": ["/mnt/server/fonts"],
    "output_file": "/mnt/server/muxed.mkv",
}

VIDEO = Media("Matroska", (Track(0, "video"), Track(1, "audio"), Track(2, "audio"), Track(3, "subtitles")))

AUDIO = Media("AC-3", (Track(0, "audio"),))

MENUS = Media("Matroska", (Track(0, "video"), Track(1, "buttons")))

NONE = "--no-video --no-audio --no-subtitles --no-buttons"


def listed(*numbers: int, **more: Any) -> dict[str, Any]:
    return {
        "sources": [{"filename": "a.mkv"}],
        "tracks": [{"source": 0, "track": number} for number in numbers],
        "output_file": "b.mkv",
        **more,
    }


def with_source(**options: Any) -> dict[str, Any]:
    return {"sources": [{"filename": "a.mkv", "options": options}], "output_file": "b.mkv"}


def with_track(number: int, **options: Any) -> dict[str, Any]:
    return listed(tracks=[{"source": 0, "track": number, "options": options}])
