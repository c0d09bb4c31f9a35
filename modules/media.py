"""Probe media files with ffprobe, and check that an encoder's output is whole.

An encoder's exit status does not tell: after a source that ends in the middle, ffmpeg exits with 0 and leaves a short
file. So the modules check that the output has the streams and durations that the sources promise. Where the sources
promise nothing certain, nothing is checked: a good encode must never fail.
"""

import contextlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.exceptions import RunError
from modules import tool
from modules.containers import find_shortage

_T = TypeVar("_T")

_PROTOCOL = re.compile(r"[A-Za-z0-9+.-]+:|subfile,")
"""Names that ffmpeg takes for a protocol's, as in its url_find_protocol()."""

CERTAIN_FORMATS = {"flac", "matroska", "mov", "mxf", "wav"}
"""Containers that state durations. For raw and transport streams, ffprobe estimates them from a part of the file."""

LIKELY_FORMATS = {"asf", "avi", "flv"}
"""Containers that state durations, which some writers get wrong."""

_MEASURED_FORMATS = CERTAIN_FORMATS | {"mpegts", "ogg"}
"""Containers whose duration ffprobe measures reliably. That of ADTS or MP3 is a guess."""


@dataclass(frozen=True)
class ExpectedOutput:
    """A prediction of an output. What the sources do not tell is `None` or left out."""

    duration: float | None = None
    """Seconds; perhaps not exact."""
    is_certain: bool = True
    """The output has at most that duration, so that a share of it is a percentage."""
    frame_rate: float | None = None
    """Frames a second of the first video stream."""
    frames: int | None = None
    """Frames of the first video stream, if the frame rate is unchanged."""
    lengths: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the longest stream of each type (video, audio) has at least. Only certain lengths are in here."""
    streams: Mapping[str, int] = field(default_factory=dict)
    """Number of streams that the output has at least, by type."""


def probe(name: str, options: Sequence[str] = ()) -> Mapping[str, Any]:
    """ffprobe's `format` and `streams` of a file.

    Raises:
        RunError: The file is missing, or no media.
    """
    with Probe(name, options) as command:
        return command.answer()


class Probe(tool.Capture):
    """An ffprobe under way. It spends nearly all of its time on being loaded: start it early."""

    def __init__(self, name: str, options: Sequence[str] = ()) -> None:
        super().__init__(
            ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", *options, "-i", name]
        )

    def answer(self) -> Mapping[str, Any]:
        """Wait for what `probe` returns or raises."""
        finished = self.result().check()
        try:
            found = json.loads(finished.stdout.decode(errors="replace"))
        except ValueError as error:
            raise finished.error(f"ffprobe does not answer with JSON: {error}") from error
        return found if isinstance(found, dict) else {}


def verify(name: str, expected: ExpectedOutput, goes_on: Callable[[str, float], bool] | None = None) -> None:
    """Check that an output is whole: `probe_output`, and then `compare`.

    Raises:
        RunError: The output is not whole; the message says why.
    """
    compare(probe_output(name), expected, goes_on)


def probe_output(name: str) -> Mapping[str, Any]:
    """ffprobe's answer for an output. The errors are those of `read_output`."""
    return read_output(name, lambda name: probe(file_argument(name)))


def read_output(name: str, read: Callable[[str], _T]) -> _T:
    """What `read` tells of an output.

    Raises:
        RunError: The output is empty, cannot be read, or has fewer bytes than its container states.
    """
    if os.path.getsize(name) == 0:
        raise RunError(message="the output is empty")
    try:
        found = read(name)
    except RunError as error:
        raise RunError(message=f"the output cannot be read: {error.message}", stderr=error.stderr) from error
    if shortage := find_shortage(name):
        raise RunError(message=f"the output {shortage}")
    return found


@contextlib.contextmanager
def quoting(said: Iterable[str]) -> Iterator[None]:
    """Add lines of a tool's log to an error about its output."""
    try:
        yield
    except RunError as error:
        problem, command, rest = error.message.partition("; the command was")
        raise RunError(message=": ".join([problem, *said]) + command + rest, stderr=error.stderr) from error


def compare(
    found: Mapping[str, Any], expected: ExpectedOutput, goes_on: Callable[[str, float], bool] | None = None
) -> None:
    """Check that an output has the expected streams and lengths.

    Containers may state wrong lengths: a tag may be left from a longer file, a last frame be shown for a minute. So if
    the output seems short, `goes_on(kind, seconds)` is asked whether the sources have anything of that type (video,
    audio) after so many seconds of the output.

    Raises:
        RunError: The output lacks a stream, or is cut short.
    """
    streams = [stream for stream in found.get("streams", []) if isinstance(stream, dict)]
    counts = count_streams(found)
    for kind in ("video", "audio", "subtitle"):
        if counts[kind] < expected.streams.get(kind, 0):
            raise RunError(message=f"the output has {counts[kind]} {kind} streams of {expected.streams[kind]}")
    if not any(counts[kind] for kind in ("video", "audio", "subtitle")):
        raise RunError(message="the output has no streams")
    if format_of(found) not in _MEASURED_FORMATS:
        return
    rates = [ratio(stream.get("avg_frame_rate")) for stream in streams if stream.get("codec_type") == "video"]
    slowest = min(filter(None, [expected.frame_rate or 10.0, *rates]))
    for kind, least in expected.lengths.items():
        # Ends are compared, not lengths: not every container states that a stream begins late.
        length = max((bounds(stream, found)[1] for stream in streams if stream.get("codec_type") == kind), default=0.0)
        # Headers round, encoders add or drop a frame, and rates such as 23.976 are written as 24: 7 s in two hours.
        allowed = tolerance(least, slowest)
        if length < least - allowed and (goes_on is None or goes_on(kind, length + allowed)):
            raise RunError(
                message=f"the output is cut short: {length:.1f} s of {kind} where {least:.1f} s were expected"
            )


def count_streams(found: Mapping[str, Any]) -> Counter[str]:
    """The number of streams of each type in ffprobe's answer."""
    streams = [stream for stream in found.get("streams", []) if isinstance(stream, dict)]
    return Counter(str(stream.get("codec_type")) for stream in streams)


def tolerance(length: float, rate: float = 10.0) -> float:
    """Seconds by which an output may be shorter than `length`. `rate` is its lowest frame rate."""
    return max(0.5, min(length / 100, 10.0)) + 2 / rate


def length_of(found: Mapping[str, Any]) -> float | None:
    """Seconds of the longest video or audio stream, if the file states them."""
    kinds = {"video", "audio"}
    ends = [bounds(stream, found) for stream in found.get("streams", []) if stream.get("codec_type") in kinds]
    length = max((end for _, end in ends), default=math.inf)
    return length - min((start for start, _ in ends), default=0.0) if math.isfinite(length) else None


def missing_frames(found: Mapping[str, Any], frames: int, length: float | None = None, *, is_damaged: bool) -> str:
    """A message for a person if a file states more video frames than `frames`, else ''.

    `length` are the seconds that were read, `None` for all. Only MP4 counts its frames. Where the rate is constant,
    the duration tells their number, too, which is believed only of a file that is known to be damaged.
    """
    videos = [each for each in found.get("streams", []) if each.get("codec_type") == "video" and not is_cover(each)]
    rate = ratio(videos[0].get("avg_frame_rate")) if videos else None
    if rate is None or format_of(found) not in CERTAIN_FORMATS:
        return ""
    start, end = bounds(videos[0], found)
    counted = number(videos[0].get("nb_frames"))
    is_constant = is_damaged and ratio(videos[0].get("r_frame_rate")) == rate
    if not math.isfinite(end) or not (counted or is_constant):
        return ""
    stated = round(min(end - start, math.inf if length is None else length) * rate)
    stated = min(stated, int(counted)) if counted else stated
    # An edit list may leave out some frames, and a decoder those before the first key frame.
    if stated - frames <= (0 if is_damaged else max(5, stated // 100)):
        return ""
    return f"{stated - frames} of {stated} frames are missing"


def is_cover(stream: Mapping[str, Any]) -> bool:
    """True for an attached picture, which is a video stream to ffmpeg."""
    return bool(stream.get("disposition", {}).get("attached_pic"))


def packet_times(name: str, options: Sequence[str], stream: int, interval: str) -> list[float]:
    """The timestamps (seconds) of a stream's packets in an interval in ffprobe's syntax: `5%`, `%+#1`.

    Raises:
        RunError: The packets cannot be read.
    """
    argv = ["ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "packet=pts_time", *options]
    finished = tool.capture(
        [*argv, "-select_streams", str(stream), "-read_intervals", interval, "-i", name], timeout=600.0
    )
    lines = finished.check().stdout.decode(errors="replace").splitlines()
    # The reader of the container gives up with an error in its log: there may be packets that it cannot find.
    if failed := [line for line in finished.stderr if re.match(r"\[(matroska|mov|flac|mxf|wav|avi|asf|flv)\b", line)]:
        raise finished.error(f"the packets cannot all be read: {failed[0]}")
    return [time for line in lines if (time := number(line.partition(",")[0])) is not None]


def has_packets(name: str, options: Sequence[str], stream: int, begin: float, end: float = math.inf) -> bool:
    """True if a stream has packets between two instants, in seconds by its own timestamps.

    Raises:
        RunError: The packets cannot be read.
    """
    return any(begin < time < end for time in packet_times(name, options, stream, f"{begin:.3f}%"))


def file_argument(name: str) -> str:
    """A file's name for ffmpeg and ffprobe, marked so that they take it for no option and no protocol."""
    return f"file:{name}" if name.startswith("-") or _PROTOCOL.match(name) else name


def bounds(stream: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[float, float]:
    """The seconds, from the beginning of the file, at which a stream begins and ends. An unknown end is infinite."""
    container = found.get("format", {})
    total = number(container.get("duration"))
    start = max((number(stream.get("start_time")) or 0.0) - (number(container.get("start_time")) or 0.0), 0.0)
    own = number(stream.get("duration"))
    if own is not None:
        return start, start + own
    # In Matroska the tag is the end, not the length. It may be left from a longer file that this one was made from.
    ends = [value for value in (tag(stream), total) if value is not None]
    begin = number(container.get("start_time")) or 0.0 if format_of(found) == "matroska" else 0.0
    return start, max(min(ends) - begin, start) if ends else math.inf


def format_of(found: Mapping[str, Any]) -> str:
    """The first of the names that ffprobe gives the container: `matroska` of `matroska,webm`."""
    return str(found.get("format", {}).get("format_name")).split(",")[0]


def tag(stream: Mapping[str, Any]) -> float | None:
    """Seconds of a stream's `DURATION` tag, which Matroska has."""
    tags = stream.get("tags", {})
    return seconds_of(tags.get("DURATION", tags.get("DURATION-eng", "")))


def seconds_of(value: object) -> float | None:
    """`clock`, but `None` if `value` is no time."""
    return None if math.isnan(seconds := clock(value)) else seconds


def clock(value: object) -> float:
    """Seconds of a time in ffmpeg's syntax: `90`, `1:30`, `0:01:30.5`, `90000ms`; NaN if `value` is no time."""
    match = re.fullmatch(r"(-?)(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)(s|ms|us)?", str(value).strip(), re.ASCII)
    if match is None:
        return math.nan
    sign, hours, minutes, seconds, unit = match.groups()
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)
    return total * {"ms": 1e-3, "us": 1e-6}.get(unit, 1.0) * (-1 if sign else 1)


def number(value: object) -> float | None:
    """`value` as a finite number; `None` if it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever it is, float says so
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def ratio(value: object) -> float | None:
    """The value of a fraction such as `24000/1001`; `None` if it is none, or 0."""
    above, _, below = str(value).partition("/")
    over, under = number(above), number(below or "1")
    return over / under if over and under else None
