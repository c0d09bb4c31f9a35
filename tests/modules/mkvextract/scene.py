"""Tasks of the `mkvextract` module, for its tests."""

from functools import partial
from typing import Any

from modules.mkvextract import Mkvextract
from tests.modules import steps

EVERYTHING: dict[str, Any] = {
    "tracks": [
        {"id": 0, "filename": "video.h264"},
        {"id": 0, "track_type": "audio", "language": "jpn", "filename": "sound.aac"},
        {"id": 1, "track_type": "subtitles", "language": "ja", "filename": "subs.srt"},
        {"id": 1, "language": "eng", "filename": "english.srt"},
    ],
    "attachments": [{"id": 2, "filename": "note.txt"}, {"id": 1, "filename": "font.ttf"}],
    "chapters": "chapters.xml",
    "tags": "tags.xml",
    "timestamps": [{"id": 0, "filename": "times.txt"}, {"id": 3, "filename": "times3.txt"}],
    "cues": [{"id": 0, "filename": "cues.txt"}],
}
"""Task data that extracts something of each kind."""

FILES = [
    "video.h264", "sound.aac", "subs.srt", "english.srt", "note.txt", "font.ttf", "chapters.xml", "tags.xml",
    "times.txt", "times3.txt", "cues.txt",
]  # fmt: skip

carry_out = partial(steps.carry_out, Mkvextract)

problems = partial(steps.problems, Mkvextract)

refusal = partial(steps.refusal, Mkvextract)

failure = partial(steps.failure, Mkvextract)


def sound(source: object, target: object, **more: Any) -> dict[str, Any]:
    """A task that extracts one track."""
    return {"source": str(source), "tracks": [{"id": 0, "filename": str(target)}], **more}
