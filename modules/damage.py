"""Damage of sources: log lines of the tools that tell of it, and a second reading that finds it.

The tools end with 0 after they skip what they cannot read. ffmpeg says so in its log; mkvmerge and mkvextract say
nothing of a read error, nor of damage inside of a frame. So what they have read is read by ffmpeg once more.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from app.exceptions import RunError
from modules import media, tool

MAX_LINES = 10
"""Log lines of one tool that go on the record."""

_LOST = re.compile(
    r"""(?x)
    Input/output\ error | Remote\ I/O\ error | Stale\ file\ handle | Structure\ needs\ cleaning | Bad\ message
    | Transport\ endpoint\ is\ not\ connected | Connection\ (timed\ out|reset\ by\ peer) | No\ such\ device
    | Software\ caused\ connection\ abort | Required\ key\ not\ available | Stream\ ends\ prematurely
    | Impossible\ to\ open\ ' | Failed\ to\ open\ (segment|fragment) | Error\ when\ loading\ first\ (segment|fragment)
    | Could\ not\ read\ chunk\ number | This\ usually\ indicates\ a\ damaged\ file\ structure
    """
)
"""Lines that say that a part of a source was not read: errors of the kernel and the network, and missing parts."""

_TRUNCATED = re.compile(r"^\[\S+\] (File ended prematurely|stream \d+, offset \S+: partial file)")
"""Lines of the Matroska and MP4 demuxers about a source that ends in the middle."""

_DAMAGED = re.compile(r"[Cc]orrupt (input packet|decoded frame)|Packet corrupt|PES packet size mismatch")
"""Warnings of ffmpeg about damage. All of its errors count, too."""

_LEVEL = re.compile(r"((?:\[[^\]]+ @ 0x[0-9a-f]+\] )*)\[(\w+)\] ")


class DamageLog:
    """Lines of a tool's log that tell of damage.

    Attributes:
        lost: The first line that says that a part of a source was not read, or ''.
        truncated: The first line that says that a source ends in the middle, or ''.
        lines: The first line of each kind, at most `MAX_LINES`.
    """

    def __init__(self) -> None:
        self.lost = ""
        self.truncated = ""
        self.lines: list[str] = []
        self._kinds: set[str] = set()
        self._count = 0

    def add(self, line: str) -> None:
        self._count += 1
        line = re.sub(r" @ 0x[0-9a-f]+\]", "]", line)
        kind = re.sub(r"\d+", "", line)
        if kind not in self._kinds and len(self.lines) < MAX_LINES:
            self._kinds.add(kind)
            self.lines.append(line)
        if _LOST.search(line):
            self.lost = self.lost or line
        if _TRUNCATED.search(line):
            self.truncated = self.truncated or line

    def add_ffmpeg(self, line: str) -> None:
        """Add a line of ffmpeg's log, with its level in it, if it is an error or tells of damage."""
        text, level = split_level(line)
        is_error = level in {"error", "fatal", "panic"} or _DAMAGED.search(text) or _LOST.search(text)
        if is_error and text.strip() and "Last message repeated" not in text:
            self.add(text)

    def warnings(self, name: str) -> list[str]:
        """The lines as warnings for the record. `name` is that of the tool, or of the file."""
        more = self._count - len(self.lines)
        return [*(f"{name}: {line}" for line in self.lines), *([f"{name}: {more} more errors"] if more else [])]


def split_level(line: str) -> tuple[str, str]:
    """A line of ffmpeg's log without its level, and the level: `error` of `[mov @ 0x55d0] [error] no moov`."""
    match = _LEVEL.match(line)
    return (match[1] + line[match.end() :], match[2]) if match else (line, "")


@dataclass
class Reading:
    """What a second reading of a file finds."""

    name: str
    found: Mapping[str, Any]
    """ffprobe's answer."""
    log: DamageLog = field(default_factory=DamageLog)
    seconds: float = 0.0
    frames: int = 0
    """Frames of the first video stream."""

    def loss(self) -> str | None:
        """A message for a person if a part of the file cannot be read, else `None`."""
        if lost := self.log.lost or (self.log.truncated if media.length_of(self.found) is not None else ""):
            return f"{self.name}: cannot be read whole: {lost}"
        if self.log.lines and media.format_of(self.found) in media.CERTAIN_FORMATS and self._is_short():
            whole = media.length_of(self.found)
            return f"{self.name}: is damaged: nothing can be read after {self.seconds:.1f} s of {whole:.1f} s"
        return None

    def warnings(self) -> list[str]:
        """Damage that the file can be used with."""
        found = self.log.warnings(self.name)
        if missing := media.missing_frames(self.found, self.frames, is_damaged=bool(self.log.lines)):
            found.append(f"{self.name}: {missing}")
        return [*found, *filter(None, [self.doubt()])]

    def doubt(self) -> str | None:
        """A message for a person if the file seems too short, and its container is one that may be wrong."""
        if media.format_of(self.found) in media.LIKELY_FORMATS and self._is_short():
            whole = media.length_of(self.found)
            return f"{self.name}: only {self.seconds:.1f} s of {whole:.1f} s can be read: it may be damaged"
        return None

    def missing(self, frames: int) -> str | None:
        """A message for a person if the file has more frames than a copy of its picture, which has `frames`."""
        # Of a stream of two fields a frame, some tools count these. A copy of it begins with the first key frame.
        is_exact = media.format_of(self.found) not in {"mpeg", "mpegts"}
        if self.frames - frames > max(5, self.frames // (100 if is_exact else 2)):
            return f"{self.name}: the output has {frames} of its {self.frames} frames: it may be damaged"
        return None

    def overlooked(self, known: Mapping[str, int]) -> Iterator[str]:
        """Messages for a person about types of streams of which the file has more than `known` (video, subtitles)."""
        streams = [each for each in self.found.get("streams", []) if not media.is_cover(each)]
        for kind, count in known.items():
            # A stream that is announced and never comes has no size, and no channels.
            size = {"video": "width", "audio": "channels"}.get(kind, "index")
            there = [each for each in streams if each.get("codec_type") == kind.removesuffix("s") and size in each]
            if (lost := sum(each[size] > 0 or size == "index" for each in there) - count) > 0:
                of = f"{count} of its {count + lost} {kind} streams"
                yield f"{self.name}: mkvmerge reads {of}: the output lacks the rest"

    def _is_short(self) -> bool:
        whole = media.length_of(self.found)
        return whole is not None and self.seconds < whole - media.tolerance(whole)

    def _take(self, line: str) -> None:
        key, _, value = line.partition("=")
        if key == "frame":
            self.frames = int(media.number(value) or 0)
        elif key == "out_time_us":
            self.seconds = (media.number(value) or 0.0) / 1e6


def read_through(name: str) -> Reading | None:
    """Read a file to its end with ffmpeg, without decoding. `None` if ffmpeg is not there.

    Raises:
        RunError: ffmpeg cannot be started.
    """
    if not os.path.isfile(name) or tool.missing("ffmpeg") or tool.missing("ffprobe"):
        return None
    try:
        reading = Reading(name, media.probe(media.file_argument(name)))
    except RunError as error:
        reading = Reading(name, {})
        reading.log.add(error.message.partition("; the command was")[0])
        return reading
    kinds = {"video", "audio", "subtitle"}
    if all(each.get("codec_type") not in kinds or media.is_cover(each) for each in reading.found.get("streams", [])):
        return reading
    argv = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "level+warning", "-progress", "pipe:1", "-nostats"]
    argv += ["-i", media.file_argument(name), "-map", "0:V?", "-map", "0:a?", "-map", "0:s?", "-c", "copy"]
    argv += ["-f", "null", "-"]
    finished = tool.run(argv, on_line=reading._take, on_stderr=reading.log.add_ffmpeg)
    if finished.returncode:
        reading.found = {}  # a good file may have a stream that cannot be copied: how far that came tells nothing
        reading.log.add(finished.described().partition("; the command was")[0])
    return reading


def require_read(
    names: Iterable[str],
    held: Mapping[str, int] = MappingProxyType({}),
    known: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> list[str]:
    """Read files once more. Returns warnings about damage that they can be used with.

    `held` are the frames of copies of the files' pictures, `known` the numbers of their streams by type, as far as all
    of that type are wanted; both by the files' names.

    Raises:
        RunError: A part of a file cannot be read.
    """
    found: list[str] = []
    for name in names:
        if reading := read_through(name):
            if loss := reading.loss():
                raise RunError(message=loss)
            found += reading.warnings()
            found += filter(None, [reading.missing(held[name]) if name in held else None])
            found += reading.overlooked(known.get(name, {}))
    return found
