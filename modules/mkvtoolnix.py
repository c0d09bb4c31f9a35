"""What the modules `mkvmerge` and `mkvextract` share: what is in a file, and how the programs of MKVToolNix talk.

What is said of the programs was seen with version 74.

Neither program says that a source ends in the middle: it exits with 0, without a warning, and the output is short. So
a source is asked first whether it has all the bytes that its container states. That is exact, whatever options do to
the timing. Durations come second: most formats state none that mkvmerge would tell, and some only guess.
"""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from box import Box
from loguru import logger

from app.exceptions import RunError
from modules import tool
from modules.base import BaseModule, location
from modules.output import is_special

MAX_WARNINGS = 50
"""Warnings of a program that go on the record; a damaged source makes tens of thousands."""

_LOCALE = {"LC_ALL": "C.UTF-8"}
"""In the C locale a name that is not ASCII arrives empty; a locale that is not installed makes the programs abort."""

_WARNED = 1
"""Exit status of a program that has something to warn of, and has done its work all the same."""

_SEGMENT = b"\x18\x53\x80\x67"
_BEFORE_SEGMENT = {b"\x1a\x45\xdf\xa3", b"\xec", b"\xbf"}  # EBML header, Void, CRC-32 (RFC 8794, RFC 9559)
_BOXES_WITH_MEDIA = {b"mdat", b"moof", b"moov"}
_RIFF_SLACK = 4096
"""Bytes that a whole RIFF file may lack: some writers count its header twice, or a pad byte that is not there."""

_RIFF_UNKNOWN = 0x7FFF0000
"""Sizes from here on mean that the writer could not go back to fill them in, or that 32 bits do not hold them."""


@dataclass(frozen=True)
class Track:
    """A track of a file. `languages` are its ISO 639-2 and its BCP 47 code; `codec` is Matroska's id, if it has one."""

    id: int
    type: str
    languages: frozenset[str] = frozenset()
    codec: str = ""
    start: float | None = None
    """Seconds from the file's beginning to its first frame, if that is near the file's beginning."""
    span: float | None = None
    """Seconds from its first frame's beginning to its last one's end, if the file states them."""
    is_exact: bool = False
    """Whether mkvmerge is sure to copy all of `span`: how long ffmpeg has a video's last frame shown may get lost."""


@dataclass(frozen=True)
class Media:
    """What is in a file. `attachments` are sizes in bytes, by mkvextract's own ids."""

    format: str
    tracks: tuple[Track, ...] = ()
    attachments: Mapping[int, int] = dataclasses.field(default_factory=dict)
    has_chapters: bool = False
    has_tags: bool = False
    duration: float | None = None
    """Seconds from its beginning, or its first frame, to the last one's end, if it states them and has counted."""


class MkvModule(BaseModule):
    """A module whose work a program of MKVToolNix does.

    Attributes:
        program: The program, whose name is the module's too.
        phase: What it does, for the status.
    """

    cleanup_on_failure = True
    program: ClassVar[str]
    phase: ClassVar[str]

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self.status = Box({"status": "in_progress", "task": self.program})
        self.heartbeat.set_data(self.status)
        logger.debug("Data: {}", self.task)

    def _execute(self, argv: Sequence[str]) -> bool:
        """Run the program to its end; whether it warned of something. Its warnings go on the record.

        Raises:
            RunError: it failed; the message has its own words.
        """
        dialogue = _Dialogue(self.phase, self._report)
        logger.info("Running {}", shlex.join(argv))
        finished = tool.run(argv, on_line=dialogue.take, environment=_LOCALE)
        for warning in dialogue.warnings():
            self.warn(f"{self.program}: {warning}")
        if finished.returncode not in {0, _WARNED}:
            finished = dataclasses.replace(finished, stderr=dialogue.last_words(finished.stderr))
            raise finished.error(finished.described())
        self._report(info={"phase": "checking"})
        return finished.returncode == _WARNED

    def _is_settled(self, name: str) -> bool:
        """Whether a source is there, and no earlier task of the job will change it."""
        return os.path.exists(name) and location(name) not in self.sisyphus_files

    def _identify_settled(self, name: str) -> Media | None:
        """What is in a source; `None` if it is not there yet, will change, or is no media."""
        if self._is_settled(name):
            with contextlib.suppress(RunError):
                return identify(name)
        return None

    def _warn_of_loss(self, target: str) -> None:
        if os.path.lexists(target):
            self.warn(f"{target} was there already: it is replaced")

    def _report(self, progress: float | None = None, info: Mapping[str, Any] | None = None) -> None:
        if progress is not None:
            self.status.progress = progress
        if info:
            self.status.info = info
        self.heartbeat.set_data(self.status)


# --- what is in a file ---


def identify(name: str) -> Media:
    """What mkvmerge finds in a file, in that one only: VTS_01_1.VOB does not stand for VTS_01_2.VOB too.

    Raises:
        RunError: it cannot be read, or is no media; the message does not name it.
    """
    if is_special(name):  # mkvmerge would wait for the writer of a pipe
        raise RunError(message="is no regular file")
    # The equals sign also keeps a name that begins with "@", "-" or "+" from meaning something. Without the hack,
    # mkvmerge hides the statistics that it wrote itself.
    argv = ["mkvmerge", "--engage", "keep_track_statistics_tags", "-J", f"={name}"]
    finished = tool.capture(argv, environment=_LOCALE)
    try:
        answer = json.loads(finished.stdout.decode(errors="replace"))
    except ValueError as error:
        raise finished.error(f"{finished.described()}, and does not answer with JSON") from error
    if errors := answer.get("errors"):
        raise RunError(message=" ".join(" ".join(errors).split()), stderr=finished.stderr)
    container = answer.get("container", {})
    if not container.get("recognized") or not container.get("supported"):
        raise RunError(message=f"is no media that mkvmerge can read{_in_brackets(container.get('type'))}")
    properties = container.get("properties", {})
    return Media(
        container.get("type", ""),
        tuple(_track(track, properties) for track in answer.get("tracks", [])),
        {entry["id"]: entry["size"] for entry in answer.get("attachments", [])},
        bool(answer.get("chapters")),
        bool(answer.get("global_tags") or answer.get("track_tags")),
        _duration(properties),
    )


def examine(where: str, name: str) -> tuple[Media | None, list[str]]:
    """What is in a source, if it can be read, and what is wrong with it. `where` is its place in the task's data."""
    try:
        media = identify(name)
        shortage = find_shortage(name)
    except RunError as error:
        return None, [f"{where}: {name}: {error.message}"]
    except OSError as error:
        return None, [f"{where}: {name}: {error.strerror}"]
    return media, [f"{where}: {name}: {shortage}"] if shortage else []


def find_shortage(name: str) -> str | None:
    """What to tell a person of a file that has fewer bytes than its container states: Matroska, MP4, AVI, WAV.

    Raises:
        OSError: it cannot be read.
    """
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        stated = _stated_size(file, size)
    return f"is cut short: it has {size} bytes, and states {stated}" if size < stated else None


def argument(name: str) -> str:
    """`name` as written, unless the programs would take it for something else than a file's."""
    return f"./{name}" if name.startswith(("-", "@", "+", "=", "(", ")", "[", "]")) else name


def _in_brackets(text: str | None) -> str:
    return f" ({text})" if text else ""


def _track(track: Mapping[str, Any], container: Mapping[str, Any]) -> Track:
    properties = track.get("properties", {})
    start = _of_nanoseconds(properties.get("minimum_timestamp"))
    span, is_counted = _span(properties, container, start)
    return Track(
        track["id"],
        track["type"],
        frozenset(properties[key] for key in ("language", "language_ietf") if key in properties),
        properties.get("codec_id", ""),
        start,
        span,
        is_counted or track["type"] == "audio",
    )


def _span(
    properties: Mapping[str, Any], container: Mapping[str, Any], start: float | None
) -> tuple[float | None, bool]:
    """Seconds of a track, and whether mkvmerge would count them likewise.

    A tag counts only if it is from whoever wrote the file: copied along, it may be that of a longer one. mkvmerge's is
    the track's length; that of libavformat (ffmpeg, HandBrake) is its end, a last frame of whatever length included.
    """
    length, whole = _seconds(properties.get("tag_duration", "")), _duration(container)
    if _is_by_mkvmerge(container) and properties.get("tag__statistics_writing_app") == container["writing_application"]:
        return length, True
    if _is_by_libavformat(container) and length is not None and whole is not None and start is not None:
        return max(min(length, whole) - start, 0.0), False
    return None, False


def _duration(container: Mapping[str, Any]) -> float | None:
    """Seconds that the file states, if they are by a program that has counted them."""
    if _is_by_mkvmerge(container) or _is_by_libavformat(container):
        return _of_nanoseconds(container.get("duration"))
    return None


def _is_by_mkvmerge(container: Mapping[str, Any]) -> bool:
    return str(container.get("writing_application")).startswith("mkvmerge ")


def _is_by_libavformat(container: Mapping[str, Any]) -> bool:
    return str(container.get("muxing_application")).startswith("Lavf")


def _of_nanoseconds(value: int | None) -> float | None:
    return None if value is None else value / 1e9


def _seconds(text: str) -> float | None:
    """Seconds of a time such as `00:01:30.5`."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text, re.ASCII)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _stated_size(file: BinaryIO, size: int) -> int:
    """Bytes that the file has at least if it is whole, as far as its container tells; 0 if it does not."""
    head = file.read(12)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _end_of_segment(file)
    if head.startswith(b"RIFF") and head[8:] in {b"AVI ", b"WAVE"}:
        length = int.from_bytes(head[4:8], "little")
        return length + 8 - _RIFF_SLACK if length < _RIFF_UNKNOWN else 0
    return _end_of_boxes(file, size) if head[4:8] == b"ftyp" else 0


def _end_of_segment(file: BinaryIO) -> int:
    """Where the first segment of a Matroska file ends; 0 if it does not say, as in a live recording."""
    file.seek(0)
    while True:
        element, length = _variable_width(file), _variable_width(file)
        mask = (1 << 7 * len(length)) - 1
        value = int.from_bytes(length, "big") & mask
        if element == _SEGMENT:
            return 0 if value == mask else file.tell() + value
        if element not in _BEFORE_SEGMENT or not length:
            return 0
        file.seek(value, os.SEEK_CUR)


def _variable_width(file: BinaryIO) -> bytes:
    """An EBML id or size with its marker: as many bytes as its first one has zeros in front, and one."""
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first and first[0] else b""


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last box of an MP4 file with media in it ends."""
    position = end = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or not kind.isalnum():  # up to the file's end, or something else from here on
            break
        position += length
        if kind in _BOXES_WITH_MEDIA:
            end = position
    return end


# --- how the programs talk ---


class _Dialogue:
    """Reads what a program prints in GUI mode."""

    def __init__(self, phase: str, report: Callable[[float | None, Mapping[str, Any]], None]) -> None:
        self._phase = phase
        self._report = report
        self._begin = time.monotonic()
        self._reached = 0.0
        self._lines: deque[str] = deque(maxlen=20)
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._unheard = 0

    def take(self, line: str) -> None:
        message, _, text = line.partition(" ")
        match message:
            case "#GUI#progress":
                self._advance(text)
            case "#GUI#warning" if len(self._warnings) < MAX_WARNINGS:
                self._warnings.append(text)
            case "#GUI#warning":
                self._unheard += 1
            case "#GUI#error":
                self._errors.append(text)
            case _:
                logger.debug("{}", line)
                self._lines.append(line)

    def warnings(self) -> list[str]:
        """What the program warned of, each sentence once."""
        more = [f"{self._unheard} more warnings"] if self._unheard else []
        return [*dict.fromkeys(self._warnings), *more]

    def last_words(self, stderr: Sequence[str]) -> tuple[str, ...]:
        """The last lines, with those on stderr, and then why it gave up."""
        return (*self._lines, *stderr, *self._errors)

    def _advance(self, text: str) -> None:
        match = re.fullmatch(r"(\d+)%", text, re.ASCII)
        if match is None:
            return
        # mkvmerge says 669 % of some sources; and less than 100 until the output has been verified.
        self._reached = max(self._reached, min(float(match[1]), 99.9))
        info: dict[str, Any] = {"phase": self._phase}
        if self._reached:
            passed = time.monotonic() - self._begin
            info["eta_seconds"] = round(passed * (100 / self._reached - 1), 1)
        self._report(self._reached, info)
