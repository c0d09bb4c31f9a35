"""What the modules `mkvmerge` and `mkvextract` share: what is in a file, and how the programs of MKVToolNix talk.

What is said of the programs was seen with version 74.

Neither program says that a source ends in the middle: it exits with 0, without a warning, and the output is short. So
a source is asked first whether it has all the bytes that its container states. That is exact, whatever options do to
the timing. Durations come second: most formats state none that mkvmerge would tell, and some only guess. Nothing tells
that a stream without a container's sizes (MPEG-TS, AC-3) ends too early.
"""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from loguru import logger

from app.exceptions import CleanupError, RunError
from modules import tool
from modules.base import BaseModule
from modules.checks import is_settled
from modules.containers import find_shortage
from modules.output import Output, is_special

MAX_WARNINGS = 50
"""Warnings of a program that go on the record; a damaged source makes tens of thousands."""

_LOCALE = {"LC_ALL": "C.UTF-8"}
"""In the C locale a name that is not ASCII arrives empty; a locale that is not installed makes the programs abort."""

_WARNED = 1
"""Exit status of a program that has something to warn of, and has done its work all the same."""

_LAST_FRAME = 0.5
"""Seconds that a source's last frame may last, besides which it has been read to its end."""

_PATIENCE = 600.0
"""Seconds for a look into a file, on a disk that is busy with a mux of 50 GB, say."""


@dataclass(frozen=True)
class Track:
    """A track of a file. `languages` are its ISO 639-2 and its BCP 47 code; `codec` is Matroska's id, if it has one."""

    id: int
    type: str
    languages: frozenset[str] = frozenset()
    codec: str = ""
    span: float | None = None
    """Seconds from its first frame's beginning to its last one's end, if they are known and sure to be copied."""
    bytes: int | None = None
    """Bytes of all its frames, uncompressed, if the program that wrote the file has counted them."""


@dataclass(frozen=True)
class Media:
    """What is in a file. `attachments` are sizes in bytes, by mkvextract's own ids."""

    format: str
    tracks: tuple[Track, ...] = ()
    attachments: Mapping[int, int] = dataclasses.field(default_factory=dict)
    has_chapters: bool = False
    has_tags: bool = False
    duration: float | None = None
    """Seconds, if it states them: then its writer came to an end."""


class MkvModule(BaseModule):
    """A module whose work a program of MKVToolNix does: the first of its `tools`.

    Attributes:
        phase: What it does, for the status.
    """

    cleanup_on_failure = True
    phase: ClassVar[str]

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self.report()
        logger.debug("Data: {}", self.task)

    def run(self) -> None:
        self.set_start_time()
        try:
            self._work(self.task.to_dict())
        except OSError as error:  # a directory that vanished under the program, a full place for scratch files
            raise RunError(message=f"{error.filename or self.tools[0]}: {error.strerror}") from error
        self.report(done=True)

    def cleanup(self) -> None:
        """Remove the temporary files that a killed process of this job left; otherwise there are none."""
        for name in self._possible_outputs():
            try:
                output(name).discard()
            except OSError as error:
                raise CleanupError(message=f"temporary file of {name}: {error.strerror}") from error

    def _work(self, task: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _possible_outputs(self) -> list[str]:
        """The files that `run` may write, whatever is in the sources."""
        return self.outputs()

    def _execute(self, argv: Sequence[str], durations: Mapping[str, float | None]) -> bool:
        """Run the program to its end; whether it warned of something. Its warnings go on the record.

        `durations` are the seconds that the sources state, by their names on the command line.

        Raises:
            RunError: it failed; the message has its own words. Or the end of a source was lost, which is a mere warning
                to the program.
        """
        dialogue = _Dialogue(self.phase, self.report)
        logger.info("Running {}", shlex.join(argv))
        finished = tool.run(argv, on_line=dialogue.take, environment=_LOCALE)
        for warning in dialogue.warnings():
            self.warn(f"{self.tools[0]}: {warning}")
        if finished.returncode not in {0, _WARNED}:
            finished = dataclasses.replace(finished, stderr=dialogue.last_words(finished.stderr))
            raise finished.error(finished.described())
        if loss := dialogue.find_loss(durations):
            raise finished.error(loss)
        self.report(info={"phase": "checking"})
        return finished.returncode == _WARNED

    def _identify_settled(self, name: str) -> Media | None:
        """What is in a source; `None` if it is not there yet, will change, or is no media."""
        if is_settled(self, name):
            with contextlib.suppress(RunError):
                return identify(name)
        return None

    def _warn_of_loss(self, target: str) -> None:
        if os.path.lexists(target):
            self.warn(f"{target} was there already: it is replaced")


def output(name: str) -> Output:
    return Output(name, overwrite=True)


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
    finished = tool.capture(argv, timeout=_PATIENCE, environment=_LOCALE)
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
        _seconds_of(properties.get("duration")),
    )


def examine(where: str, name: str) -> tuple[Media | None, list[str]]:
    """What is in a source, if it can be read, and what is wrong with it. `where` is its place in the task's data.

    Raises:
        RunError: mkvmerge is not installed, which is wrong with no source.
    """
    tool.require("mkvmerge", RunError)
    try:
        media = identify(name)
        shortage = find_shortage(name)
    except RunError as error:
        return None, [f"{where}: {name}: {error.message}"]
    except OSError as error:
        return None, [f"{where}: {name}: {error.strerror}"]
    return media, [f"{where}: {name}: {shortage}"] if shortage else []


def argument(name: str) -> str:
    """`name` as written, unless the programs would take it for something else than a file's."""
    return f"./{name}" if name.startswith(("-", "@", "+", "=", "(", ")", "[", "]")) else name


def _in_brackets(text: str | None) -> str:
    return f" ({text})" if text else ""


def _track(track: Mapping[str, Any], container: Mapping[str, Any]) -> Track:
    properties = track.get("properties", {})
    # A tag counts only if it is from whoever wrote the file: copied along, it may be that of a longer one.
    writer = properties.get("tag__statistics_writing_app")
    is_own = writer is not None and writer == container.get("writing_application")
    size = properties.get("tag_number_of_bytes", "")
    return Track(
        track["id"],
        track["type"],
        frozenset(properties[key] for key in ("language", "language_ietf") if key in properties),
        properties.get("codec_id", ""),
        _span(track["type"], properties, container, is_own=is_own),
        int(size) if is_own and re.fullmatch("[0-9]{1,18}", size) else None,
    )


def _span(kind: str, properties: Mapping[str, Any], container: Mapping[str, Any], *, is_own: bool) -> float | None:
    length = _seconds(properties.get("tag_duration", ""))
    if is_own and str(container["writing_application"]).startswith("mkvmerge "):
        return length
    # The tags of libavformat (ffmpeg, HandBrake) tell a track's end, and that of a video includes how long its last
    # frame is shown, which may get lost. They are stale if they exceed the file.
    whole, start = _seconds_of(container.get("duration")), _seconds_of(properties.get("minimum_timestamp"))
    is_by_libavformat = str(container.get("muxing_application")).startswith("Lavf")
    if not is_by_libavformat or kind != "audio" or length is None or whole is None or start is None:
        return None
    return max(min(length, whole) - start, 0.0)


def _seconds_of(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _seconds(text: str) -> float | None:
    """Seconds of a time such as `00:01:30.5`."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text, re.ASCII)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


# --- how the programs talk ---


class _Dialogue:
    """Reads what a program prints in GUI mode."""

    def __init__(self, phase: str, report: Callable[[float, Mapping[str, Any]], None]) -> None:
        self._phase = phase
        self._report = report
        self._begin = time.monotonic()
        self._lines: deque[str] = deque(maxlen=20)
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._unheard = 0
        self._damaged = ""
        self._reached: dict[str, float] = {}
        self._lost: set[str] = set()

    def take(self, line: str) -> None:
        message, _, text = line.partition(" ")
        match message:
            case "#GUI#progress":
                self._advance(text)
            case "#GUI#warning":
                self._warn(text)
            case "#GUI#error":
                self._errors.append(text)
            case _:
                logger.debug("{}", line)
                self._lines.append(line)

    def warnings(self) -> list[str]:
        """What the program warned of, each sentence once."""
        more = [f"{self._unheard} more warnings"] if self._unheard else []
        return [*dict.fromkeys(self._warnings), *more]

    def find_loss(self, durations: Mapping[str, float | None]) -> str | None:
        """What to tell a person of a source that could be read up to somewhere, and not to the end that it states.

        A recording that was broken off states none: there is no more of it to be had.
        """
        for name in self._lost:
            whole, reached = durations.get(name), self._reached.get(name, 0.0)
            if whole is not None and reached < whole - _LAST_FRAME:
                return f"{name}: is damaged: nothing can be read after {reached:.1f} s of {whole:.1f} s"
        return None

    def last_words(self, stderr: Sequence[str]) -> tuple[str, ...]:
        """The last lines, with those on stderr, and then why it gave up."""
        return (*self._lines, *stderr, *self._errors)

    def _warn(self, text: str) -> None:
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(text)
        else:
            self._unheard += 1
        if match := re.match("(.*): Error in the Matroska file structure", text):
            self._damaged = match[1]
        elif match := re.match(
            "The last timestamp processed before the error was encountered was ([0-9:.]+[0-9])", text
        ):
            self._reached[self._damaged] = _seconds(match[1]) or 0.0
        elif text.startswith("Resync failed"):
            self._lost.add(self._damaged)

    def _advance(self, text: str) -> None:
        match = re.fullmatch(r"(\d{1,3})%", text, re.ASCII)
        if match and (percent := int(match[1])) <= 100:  # mkvmerge says 669 % of some sources
            passed = time.monotonic() - self._begin
            eta = round(passed * (100 / percent - 1), 1) if percent else None
            self._report(percent, {"phase": self._phase, "eta_seconds": eta})
