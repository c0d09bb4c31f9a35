"""The common part of the modules `mkvmerge` and `mkvextract`: identify a file's contents, and run the programs.

All statements about the programs were tested with MKVToolNix 74.

Both programs exit with 0 and without a warning after a source that ends in the middle, and leave a short output. So
first a source is checked for the bytes that its container states, which is exact whatever options do to the timing.
Durations come second: for most formats mkvmerge prints none, and for some it guesses. Streams without a container's
sizes (MPEG-TS, AC-3) cannot be checked.
"""

import contextlib
import dataclasses
import json
import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from loguru import logger

from app.exceptions import RunError
from modules import tool
from modules.checks import is_settled
from modules.containers import find_shortage
from modules.damage import require_read
from modules.installed import LOCALE
from modules.media import seconds_of
from modules.output import WritingModule, is_special
from modules.selection import is_in
from modules.sources import Watch

MAX_WARNINGS = 50
"""Warnings of a program that go on the record. A damaged source causes tens of thousands."""

_WARNED = 1
"""Exit status of a program that did its work, with warnings."""

_LAST_FRAME = 0.5
"""Longest duration of a source's last frame, in seconds: reading may end so much before the stated end."""

_PATIENCE = 600.0
"""Seconds for identifying a file. The disk may be busy with a mux of 50 GB."""


_FOREIGN = {b"\x06\x0e\x2b\x34": "MXF", b"nut/multimedia": "NUT"}
"""Beginnings of containers that mkvmerge takes for the bare stream of pictures that it finds in them: it would leave
out the sound, and write what stands between the pictures as pictures."""

_FLAGS = {
    "default_track": "default",
    "forced_track": "forced",
    "flag_commentary": "comment",
    "flag_hearing_impaired": "hearing_impaired",
    "flag_original": "original",
    "flag_text_descriptions": "descriptions",
    "flag_visual_impaired": "visual_impaired",
}
"""mkvmerge's names of a track's flags, and ffmpeg's."""


@dataclass(frozen=True)
class Track:
    """A track of a file. `languages` are its ISO 639-2 and its BCP 47 code; `codec` is Matroska's id or empty.

    `codecs` are all names of its codec, mkvmerge's own first. `dispositions` has ffmpeg's words for its flags.
    """

    id: int
    type: str
    languages: frozenset[str] = frozenset()
    codec: str = ""
    codecs: tuple[str, ...] = ()
    title: str = ""
    dispositions: frozenset[str] = frozenset()
    span: float | None = None
    """Seconds from the first frame's beginning to the last one's end, if a copy is certain to have them, too."""
    bytes: int | None = None
    """Bytes of all frames, uncompressed, if the program that wrote the file has counted them."""
    frames: int | None = None
    """Their number, likewise."""

    def has_language(self, language: str) -> bool:
        """True if `language` is a code of the track's language."""
        return is_in(language, self.languages)


@dataclass(frozen=True)
class Media:
    """The contents of a file. `attachments` are sizes in bytes, by mkvextract's ids."""

    format: str
    tracks: tuple[Track, ...] = ()
    attachments: Mapping[int, int] = dataclasses.field(default_factory=dict)
    has_chapters: bool = False
    has_tags: bool = False
    duration: float | None = None
    """Seconds, if the file states them. A recording that was broken off states none."""


class MkvModule(WritingModule):
    """A module that runs a program of MKVToolNix, the first of its `tools`.

    Attributes:
        phase_name: The phase for the status, such as `muxing`.
    """

    phase_name: ClassVar[str]

    def run(self) -> None:
        self.set_start_time()
        try:
            with Watch(self, self._read_files) as watch:
                watch.warn_of_joined()
                self._work(self.task.to_dict(), watch)
        except OSError as error:  # a directory that vanished under the program, a full place for scratch files
            raise RunError(message=f"{error.filename or self.tools[0]}: {error.strerror}") from error
        self.report(done=True)

    def _read_files(self) -> list[str]:
        """The files that the program reads."""
        raise NotImplementedError

    def _work(self, task: Mapping[str, Any], watch: Watch) -> None:
        raise NotImplementedError

    def _execute(self, argv: Sequence[str], durations: Mapping[str, float | None]) -> bool:
        """Run the program to its end, and return whether it warned. Its warnings go on the record.

        `durations` are the seconds that the sources state, by their names on the command line.

        Raises:
            RunError: The program failed, or could not read a source to its end, of which the program itself only warns.
        """
        output_reader = _GuiOutput(self.phase_name, self.report)
        logger.info("Running {}", shlex.join(argv))
        finished = tool.run(argv, on_line=output_reader.take, environment=LOCALE)
        for warning in output_reader.warnings():
            self.warn(f"{self.tools[0]}: {warning}")
        if finished.returncode not in {0, _WARNED}:
            finished = dataclasses.replace(finished, stderr=output_reader.last_words(finished.stderr))
            raise finished.error(finished.described())
        if loss := output_reader.find_loss(durations):
            raise finished.error(loss)
        self.report(info={"phase": "checking"})
        return finished.returncode == _WARNED

    def _require_read(
        self, sources: Sequence[str], watch: Watch, held: Mapping[str, int], known: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Check that the sources can be read to their ends and have not changed. Damage in them becomes warnings.

        `held` and `known` are those of `modules.damage.require_read`.
        """
        for warning in require_read(sources, held, known):
            self.warn(warning)
        watch.require_unchanged()

    def _identify_settled(self, name: str) -> Media | None:
        """The contents of a source; `None` if it does not exist yet, will change, or is no media."""
        if is_settled(self, name):
            with contextlib.suppress(RunError):
                return identify(name)
        return None


# --- contents of a file ---


def identify(name: str) -> Media:
    """The contents of one file: VTS_01_1.VOB does not stand for VTS_01_2.VOB, too, as it may for mkvmerge.

    Raises:
        RunError: The file cannot be read, or is no media. The message does not name the file.
    """
    if is_special(name):  # mkvmerge would wait for the writer of a pipe
        raise RunError(message="is no regular file")
    # The equals sign reads this file alone, and also protects a name that begins with "@", "-" or "+". Without the
    # hack, mkvmerge hides the statistics that it wrote itself.
    argv = ["mkvmerge", "--engage", "keep_track_statistics_tags", "-J", f"={name}"]
    finished = tool.capture(argv, timeout=_PATIENCE, environment=LOCALE)
    try:
        answer = json.loads(finished.stdout.decode(errors="replace"))
    except ValueError as error:
        raise finished.error(f"{finished.described()}, and does not answer with JSON") from error
    if errors := answer.get("errors"):
        raise RunError(message=" ".join(" ".join(errors).split()), stderr=finished.stderr)
    container = answer.get("container", {})
    if not container.get("recognized") or not container.get("supported"):
        kind = f" ({container['type']})" if container.get("type") else ""
        raise RunError(message=f"is no media that mkvmerge can read{kind}")
    with open(name, "rb") as file:
        head = file.read(16)
    if kinds := [kind for beginning, kind in _FOREIGN.items() if head.startswith(beginning)]:
        raise RunError(message=f"is no media that mkvmerge can read ({kinds[0]})")
    properties = container.get("properties", {})
    return Media(
        container.get("type", ""),
        tuple(_track(track, properties) for track in answer.get("tracks", [])),
        {entry["id"]: entry["size"] for entry in answer.get("attachments", [])},
        bool(answer.get("chapters")),
        bool(answer.get("global_tags") or answer.get("track_tags")),
        _of_nanoseconds(properties.get("duration")),
    )


def examine(where: str, name: str) -> tuple[Media | None, list[str]]:
    """The contents of a source, if it can be read, and its problems. `where` is its place in the task's data.

    Raises:
        RunError: mkvmerge is not installed: no problem of the source.
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
    """A file's name as an argument, protected if the programs would take it for an option or the like."""
    return f"./{name}" if name.startswith(("-", "@", "+", "=", "(", ")", "[", "]")) else name


def _track(track: Mapping[str, Any], container: Mapping[str, Any]) -> Track:
    properties = track.get("properties", {})
    # A tag counts only if the program that wrote the file also wrote the tag: a copied one may be a longer file's.
    writer = properties.get("tag__statistics_writing_app")
    is_own = writer is not None and writer == container.get("writing_application")
    counts = [properties.get(f"tag_number_of_{what}", "") for what in ("bytes", "frames")]
    return Track(
        track["id"],
        track["type"],
        frozenset(properties[key] for key in ("language", "language_ietf") if key in properties),
        properties.get("codec_id", ""),
        tuple(_codec_names(track.get("codec", ""), properties.get("codec_id", ""))),
        properties.get("track_name", ""),
        frozenset(word for flag, word in _FLAGS.items() if properties.get(flag)),
        _span(track["type"], properties, container, is_own=is_own),
        *(int(count) if is_own and re.fullmatch("[0-9]{1,18}", count) else None for count in counts),
    )


def _codec_names(name: str, codec_id: str) -> Iterator[str]:
    """All names of a codec: of `AVC/H.264/MPEG-4p10` and `V_MPEG4/ISO/AVC`, each part, too."""
    yield from dict.fromkeys([name, *name.split("/"), codec_id, *re.sub("^[A-Z]_", "", codec_id).split("/")])


def _span(kind: str, properties: Mapping[str, Any], container: Mapping[str, Any], *, is_own: bool) -> float | None:
    length = seconds_of(properties.get("tag_duration", ""))
    if is_own and str(container["writing_application"]).startswith("mkvmerge "):
        return length
    # The tags of libavformat (ffmpeg, HandBrake) hold a track's end. A video's end includes the duration of its last
    # frame, which a copy may lose. A tag that exceeds the file's duration is stale.
    whole, start = _of_nanoseconds(container.get("duration")), _of_nanoseconds(properties.get("minimum_timestamp"))
    is_by_libavformat = str(container.get("muxing_application")).startswith("Lavf")
    if not is_by_libavformat or kind != "audio" or length is None or whole is None or start is None:
        return None
    return max(min(length, whole) - start, 0.0)


def _of_nanoseconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


# --- output of the programs ---


class _GuiOutput:
    """Reads the lines that a program prints in GUI mode."""

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
        """The program's warnings, each text once."""
        more = [f"{self._unheard} more warnings"] if self._unheard else []
        return [*dict.fromkeys(self._warnings), *more]

    def find_loss(self, durations: Mapping[str, float | None]) -> str | None:
        """A message for a person if a source could not be read to the end that it states, else `None`.

        A recording that was broken off states no end, and so lacks nothing.
        """
        for name in self._lost:
            whole, reached = durations.get(name), self._reached.get(name, 0.0)
            if whole is not None and reached < whole - _LAST_FRAME:
                return f"{name}: is damaged: nothing can be read after {reached:.1f} s of {whole:.1f} s"
        return None

    def last_words(self, stderr: Sequence[str]) -> tuple[str, ...]:
        """The last lines of stdout and stderr, and at the end the errors for which the program gave up."""
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
            self._reached[self._damaged] = seconds_of(match[1]) or 0.0
        elif text.startswith("Resync failed"):
            self._lost.add(self._damaged)

    def _advance(self, text: str) -> None:
        match = re.fullmatch(r"(\d{1,3})%", text, re.ASCII)
        if match and (percent := int(match[1])) <= 100:  # mkvmerge prints 669 % for some sources
            passed = time.monotonic() - self._begin
            eta = round(passed * (100 / percent - 1), 1) if percent else None
            self._report(percent, {"phase": self._phase, "eta_seconds": eta})
