"""Predict HandBrakeCLI's output from the task's options and from what ffprobe and a scan find in the source."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from modules import media
from modules.command import Options
from modules.handbrake.cli import Title
from modules.handbrake.options import audio_encoders, numbers, position
from modules.media import ExpectedOutput

WHOLE = (0.0, math.inf)
"""The window that is the whole source."""

_LEAST_OF_DISC = 0.9
"""Share of a disc's title that an output must have for no warning: the tables of discs are not exact."""

_COPIES = ("copy", "dts", "none")
"""Audio encoders with which HandBrakeCLI leaves out a track that it cannot copy."""

_LATE = 1.0
"""Seconds of start time from which a file begins late: Matroska then states ends as durations (ffprobe 5.1)."""


def expect_encode(
    options: Options, title: Title | None, found: Mapping[str, Any]
) -> tuple[ExpectedOutput, ExpectedOutput]:
    """Predict the output twice: what is certain, and what is likely. `found` is ffprobe's answer for the source.

    Only the length of the whole picture is certain: HandBrakeCLI 1.6.1 ignores a minute's gap in the sound, starts too
    late in a part of an MP4 file whose edit list begins late, and may end a part within a long frame. It leaves out
    tracks that it cannot copy, and subtitles that the container does not take.
    """
    videos = [stream for stream in found.get("streams", []) if stream.get("codec_type") == "video"]
    videos = [stream for stream in videos if not stream.get("disposition", {}).get("attached_pic")]
    video = videos[0] if len(videos) == 1 else {}
    rate = media.ratio(video.get("avg_frame_rate"))
    part = window(options, title, rate)
    length = _length(part, video, found, title) if part else None
    lengths = {}
    if length is not None and not found:
        lengths["video"] = length * _LEAST_OF_DISC
    elif length is not None and _states_length(video, found):
        lengths["video"] = length
    tracks = numbers(options["audio"]) if options.get("audio") is not None else []
    is_own = not options.keys() & {"preset", "preset_import_gui"}  # else the encoders may be the preset's
    encoded = [name for name in audio_encoders(options, len(tracks)) if is_own and not name.startswith(_COPIES)]
    likely = ExpectedOutput(
        duration=length,
        frame_rate=rate,
        lengths=lengths,
        streams={"video": 1},
    )
    certain = dataclasses.replace(
        likely,
        lengths=lengths if found and part == WHOLE else {},
        streams={"video": 1, "audio": len(encoded)},
    )
    return certain, likely


def _length(
    part: tuple[float, float], video: Mapping[str, Any], found: Mapping[str, Any], title: Title | None
) -> float | None:
    """Seconds of the picture in a part of the source, if they are known."""
    begin, end = media.bounds(video, found) if video else (0.0, title.duration if title is not None else math.inf)
    length = max(min(end, sum(part)) - max(begin, part[0]), 0.0)
    return length if math.isfinite(length) else None


def _states_length(video: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """True if the container states the end of its video, and not only that of its longest stream."""
    container = found.get("format", {})
    own = "duration" in video or media.tag(video) is not None or len(found.get("streams", [])) == 1
    is_measured = media.format_of(found) in media.CERTAIN_FORMATS
    return bool(video) and own and is_measured and (media.number(container.get("start_time")) or 0.0) <= _LATE


def window(options: Options, title: Title | None, rate: float | None) -> tuple[float, float] | None:
    """The part of the source that is encoded: its first second, and its length (infinite: to the end).

    `rate` is the source's frames a second. `None` if the part is not known.
    """
    start = position(options["start_at"], rate) if "start_at" in options else 0.0
    length = position(options["stop_at"], rate) if "stop_at" in options else math.inf
    if start is None or length is None or "start_at_preview" in options:
        return None
    if "chapters" not in options:
        return start, length
    first, last = (re.findall(r"\d+", str(options["chapters"]), re.ASCII) * 2)[:2] or (0, 0)
    chapters = title.chapters if title is not None else ()
    if start or not math.isinf(length) or not 1 <= int(first) <= min(int(last), len(chapters)):
        return None
    return sum(chapters[: int(first) - 1]), sum(chapters[int(first) - 1 : int(last)])
