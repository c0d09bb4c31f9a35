"""Run HandBrakeCLI: follow its progress, and tell whether it has encoded, and why not.

Its exit status does not tell. It has succeeded if it reports `WORKDONE` without error and has written a file.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shlex
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from loguru import logger

from app.exceptions import RunError
from modules import media, tool
from modules.damage import DamageLog
from modules.handbrake.options import TOOL, handbrake_command, known_options
from modules.handbrake.tracks import TrackLog
from modules.media import ExpectedOutput

SCAN_TIMEOUT = 60.0
"""Seconds for a scan of the source. A longer one, as of all titles of a slow disc, is given up, which is no error."""

TRIAL_TIMEOUT = 60.0
"""Seconds for a trial of an encoder. The slowest takes 3 (HandBrakeCLI 1.6.1)."""

MAX_OBJECT = 64 << 10
"""Characters of one object in HandBrakeCLI's output that are kept."""

_TELLING = re.compile(
    r"(?:\[[\d:]+\] )?(?:ERROR: |\w+ ?\[error\]|Invalid |\w+: Invalid |unknown option |missing parameter "
    r"|Preset import failed|No title found|Passthru requested|\[Parsed_\w+ @ 0x[0-9a-f]+\] code )"
)
"""Log lines that explain a failure or a missing track. Other lines with "error" appear in every successful scan."""

_CLOSING = re.compile(r"HandBrake has exited\.|Failed to initialize job|Encode failed")

_IGNORED = re.compile(
    r"(?:\[[\d:]+\] )?(\w[\w ]*: (?:unknown (?:sub|avcodec )?option|bad argument) .*"
    r"|Dropping excess .*|Invalid sample rate .*|ERROR: Invalid .*|work: track \d+, .* not supported by codec"
    r"|Cannot open chapter marker file, .*)",
    re.IGNORECASE,
)
"""Log lines about settings that it or the encoder does not know, or that are for no track: it takes its defaults."""

_DAMAGED = re.compile(
    r"(?i)\[[\w,]+ @ 0x[0-9a-f]+\] .*(invalid|error|missing|corrupt|premature|partial|no frame|could not|failed|exceeds"
    r"|overread|mismatch)|ERROR: |(\[[\d:]+\] )?(stream: error |[\w-]+ done: \d+ frames, [1-9]\d* decoder errors)"
)
"""Log lines during the encode that tell of a damaged source. During the scan, a seek into the middle causes such lines,
too."""

_BEGIN = "Starting Task: Encoding Pass"
_FRAMES = re.compile(r"sync: got (\d+) frames")
_EXPECTED_FRAMES = re.compile(r"sync: expecting (\d+) video frames")

Report = Callable[[float | None, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Title:
    """A title that HandBrakeCLI finds in a source."""

    path: str
    """The title's file, or the disc."""
    duration: float
    """Seconds."""
    audio: tuple[str, ...]
    """The language of each audio track, in ISO 639-2; `und` if it is not known."""
    subtitles: tuple[str, ...]
    """The language of each subtitle track."""
    chapters: tuple[float, ...]
    """Seconds of each chapter."""
    angles: int = 1


def encode(argv: Sequence[str], target: str, frame_rate: float | None, report: Report) -> "Messages":
    """Run HandBrakeCLI to its end, reporting progress, and return its messages. `frame_rate` is the source's.

    Raises:
        RunError: HandBrakeCLI failed or encoded nothing, whatever its exit status says.
    """
    messages = Messages(frame_rate, report)
    logger.info("Running {}", shlex.join(argv))
    finished = tool.run(argv, on_line=messages.take, on_stderr=messages.take_log, ask=signal.SIGINT)
    if not _has_encoded(finished, messages, target):
        raise _failure(finished, messages)
    return messages


def _has_encoded(finished: tool.Finished, messages: "Messages", target: str) -> bool:
    with contextlib.suppress(OSError):
        return finished.returncode == 0 and messages.error == 0 and os.path.getsize(target) > 0
    return False


def _failure(finished: tool.Finished, messages: "Messages") -> RunError:
    """The error for an encode that failed. Log lines that explain the failure come last."""
    telling = messages.telling
    rest = [line for line in finished.stderr if line not in telling and not _CLOSING.search(line)]
    ended = dataclasses.replace(_without_stdbuf(finished), stderr=(*rest, *telling))
    return ended.error(": ".join([_ending(ended, messages.error), *list(telling)[:-1]]))


def _without_stdbuf(finished: tool.Finished) -> tool.Finished:
    """The same end without `stdbuf` before the command: that is not the program that failed."""
    return dataclasses.replace(finished, argv=finished.argv[finished.argv.index(TOOL) :])


def _ending(finished: tool.Finished, error: int | None) -> str:
    if finished.returncode:
        return finished.described()
    return f"{finished.described()}, but {f'reports error {error}' if error else 'there is no output'}"


class Messages:
    """Reads HandBrakeCLI's output: JSON objects, whose progress is reported, and the log.

    Attributes:
        error: The error number of `WORKDONE`, 0 for success; `None` before.
        telling: The last log lines that explain why something is missing in the output.
        tracks: What the log says of the tracks.
        ignored: Log lines about settings that the encoder does not know.
        log: The log lines that tell of a damaged source.
        frames: Frames of the picture that were decoded.
    """

    def __init__(self, frame_rate: float | None, report: Report) -> None:
        self.error: int | None = None
        self.telling: deque[str] = deque(maxlen=3)
        self.tracks = TrackLog()
        self.ignored: list[str] = []
        self.log = DamageLog()
        self.frames = 0
        self._has_begun = False
        self._frame_rate = frame_rate
        self._report = report
        self._frames: int | None = None
        self._object = ""

    def take_log(self, line: str) -> None:
        if match := _EXPECTED_FRAMES.search(line):
            self._frames = int(match[1]) or None
        if _TELLING.match(line) and line not in self.telling:
            self.telling.append(line)
        if match := _FRAMES.search(line):
            self.frames = self.frames or int(match[1])
        self._has_begun = self._has_begun or _BEGIN in line
        if self._has_begun and _DAMAGED.match(line):
            self.log.add(line)
        if (match := _IGNORED.match(line)) and match[1] not in self.ignored:
            self.ignored.append(match[1])
        self.tracks.take(line)

    def take(self, line: str) -> None:
        """Collect the lines of an object, from `Progress: {` on, and read it when it is whole."""
        label, brace, rest = line.partition(": {")
        if brace and re.fullmatch(r"\w[\w ]*", label):  # libdvdread prints its own lines between the objects
            self._object = "{" + rest
        elif self._object:
            self._object = f"{self._object}\n{line}"
        if len(self._object) > MAX_OBJECT:
            self._object = ""
        if not line.endswith("}"):
            return
        try:
            found = json.loads(self._object)
        except ValueError:
            return  # the brace closed an inner object
        self._object = ""
        match found:
            case {"State": "WORKING", "Working": dict() as working}:
                self._report_work(working)
            case {"State": "SCANNING" | "SEARCHING" | "MUXING" as state}:
                self._report(None, {"phase": state.lower()})
            case {"State": "WORKDONE", "WorkDone": {"Error": int() as error}}:
                self.error = error

    def _report_work(self, working: Mapping[str, Any]) -> None:
        values = {key: media.number(value) for key, value in working.items()}
        number, passes = values.get("Pass") or 1, max(values.get("PassCount") or 1, 1)
        share = values.get("Progress") or 0.0
        # In the first seconds HandBrakeCLI 1.6.1 prints a rate of 0, or of a ten-millionth.
        rate = rate if (rate := values.get("Rate") or 0.0) >= 0.01 else None
        phase = "encoding" if passes == 1 else f"pass {number:.0f} of {passes:.0f}"
        info = {
            "phase": "scanning subtitles" if values.get("PassID") == -1 else phase,
            "current_frame": round(share * self._frames) if self._frames else None,
            "total_frames": self._frames,
            "fps": round(rate, 2) if rate else None,
            "speed": round(rate / self._frame_rate, 2) if rate and self._frame_rate else None,
            "eta_seconds": self._eta(values, passes - number),
        }
        self._report((number - 1 + share) / passes * 100, info)

    def _eta(self, values: Mapping[str, float | None], passes_left: float) -> float | None:
        """Seconds left. HandBrake's own figure is for the current pass; the others are taken to be as long."""
        eta, average = values.get("ETASeconds"), values.get("RateAvg") or 0.0
        if eta is None or average < 0.01 or (passes_left and not self._frames):
            return None
        return round(eta + passes_left * (self._frames or 0) / average, 1)


# --- sources ---


def read_title(text: str) -> Title | None:
    """The title that will be encoded, read from the output of a scan; `None` if the scan found none."""
    _, label, rest = text.partition("JSON Title Set: ")
    try:
        found = json.JSONDecoder().raw_decode(rest)[0] if label else {}
        titles = found.get("TitleList", [])
        title = next((title for title in titles if title["Index"] == found.get("MainFeature")), titles[0])
        return Title(
            title["Path"],
            _ticks_to_seconds(title["Duration"]),
            tuple(track["LanguageCode"] for track in title["AudioList"]),
            tuple(track["LanguageCode"] for track in title["SubtitleList"]),
            tuple(_ticks_to_seconds(chapter["Duration"]) for chapter in title["ChapterList"]),
            int(title.get("AngleCount", 1)),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        logger.debug("No title in what {} prints: {!r}", TOOL, error)
        return None


def _ticks_to_seconds(duration: Mapping[str, Any]) -> float:
    """HandBrake's ticks are of a 90 kHz clock."""
    return float(duration["Ticks"]) / 90_000


@contextlib.contextmanager
def given_names(*names: str) -> Iterator[list[str]]:
    """Names for HandBrakeCLI: a link in the place of each name that 1.6.1 could not write as JSON."""
    with tempfile.TemporaryDirectory() as directory:
        given = []
        for index, name in enumerate(names):
            if name.encode(errors="ignore") != os.fsencode(name):
                extension = os.path.splitext(name)[1].encode(errors="ignore").decode()
                link = os.path.join(directory, f"{index}{extension}")
                os.symlink(os.path.abspath(name), link)
                name = link
            given.append(file_argument(name))
        yield given


def file_argument(name: str) -> str:
    """A file's name as an argument, marked if HandBrakeCLI would take it for a protocol's, as `a:b.mkv`."""
    return f"./{name}" if ":" in name.split("/")[0] else name


# --- encoders ---


def try_encoders() -> Iterator[tuple[str, str]]:
    """Encode a second with each listed encoder. Yields its name, and why it does not work, or ''.

    Raises:
        RunError: There is no ffmpeg to make the clip, or HandBrakeCLI cannot list its encoders.
    """
    if problem := tool.missing("ffmpeg"):
        raise RunError(message=f"{problem}: the encoders are tried on a clip that it makes")
    known = known_options()
    trials = {name: {"encoder": name, "audio": "none"} for name in known["encoder"].choices}
    for name in known["aencoder"].choices:
        if not name.startswith("copy") and name != "none":
            trials[name] = {"encoder": "mpeg4", "audio": "1", "aencoder": name}
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        clip = os.path.join(directory, "clip.mkv")
        argv = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=352x288:rate=25:duration=1"]
        argv += ["-f", "lavfi", "-i", "sine=sample_rate=48000:duration=1", "-c:v", "mpeg4", "-c:a", "flac", clip]
        tool.capture(argv).check()
        yield from zip(trials, pool.map(functools.partial(_try, clip), trials, trials.values()), strict=True)


def _try(clip: str, name: str, options: Mapping[str, Any]) -> str:
    target = f"{clip}.{name}.mkv"
    messages = Messages(None, lambda *_: None)
    try:
        argv = handbrake_command({"options": options}, known_options(), clip, target)
        finished = tool.capture(argv, timeout=TRIAL_TIMEOUT, tail=1000)
        for line in finished.stdout.decode(errors="replace").splitlines():
            messages.take(line)
        for line in finished.stderr:
            messages.take_log(line)
        if not _has_encoded(finished, messages, target):
            return messages.telling[-1] if messages.telling else _ending(_without_stdbuf(finished), messages.error)
        media.verify(target, ExpectedOutput(streams={"video": 1, "audio": int("aencoder" in options)}))
    except RunError as error:
        return error.message
    return ""
