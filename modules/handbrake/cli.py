"""Running HandBrakeCLI: what it says while it encodes, whether it has, and why not.

Its exit status does not tell: success is a `WORKDONE` without error, and a file.
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
from modules.handbrake.options import TOOL, arguments, known_options

SCAN_TIMEOUT = 60.0
"""Seconds for a look into the source. One that takes longer, such as all titles of a slow disc, is left out."""

TRIAL_TIMEOUT = 60.0
"""Seconds for a trial of an encoder, which takes the slowest 3 (1.6.1)."""

MAX_OBJECT = 64 << 10
"""Characters of one object in HandBrakeCLI's output that are kept."""

_TELLING = re.compile(
    r"(?:\[[\d:]+\] )?(?:ERROR: |\w+ ?\[error\]|Invalid |\w+: Invalid |unknown option |missing parameter "
    r"|Preset import failed|No title found|Passthru requested)"
)
"""Lines of the log that tell why there is no output, or no track. Every scan of a file logs others with `error`."""

_CLOSING = re.compile(r"HandBrake has exited\.|Failed to initialize job|Encode failed")

_EXPECTED_FRAMES = re.compile(r"sync: expecting (\d+) video frames")

Report = Callable[[float | None, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Title:
    """What HandBrakeCLI finds in a source."""

    path: str
    """The file that the title is in, or the disc."""
    duration: float
    """Seconds."""
    audio: int
    subtitles: int
    chapters: tuple[float, ...]
    """Seconds of each."""


def encode(argv: Sequence[str], target: str, frame_rate: float | None, report: Report) -> "Messages":
    """Run HandBrakeCLI to its end, reporting progress; what it said. `frame_rate` is the source's.

    Raises:
        RunError: it failed, or did not do what was asked, whatever its exit status says.
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
    """Why HandBrakeCLI did not encode: the lines that tell it are the last ones."""
    telling = messages.telling
    rest = [line for line in finished.stderr if line not in telling and not _CLOSING.search(line)]
    ended = dataclasses.replace(_without_stdbuf(finished), stderr=(*rest, *telling))
    return ended.error(": ".join([_ending(ended, messages.error), *list(telling)[:-1]]))


def _without_stdbuf(finished: tool.Finished) -> tool.Finished:
    """It is not the one that failed."""
    return dataclasses.replace(finished, argv=finished.argv[finished.argv.index(TOOL) :])


def _ending(finished: tool.Finished, error: int | None) -> str:
    if finished.returncode:
        return finished.described()
    return f"{finished.described()}, but {f'reports error {error}' if error else 'there is no output'}"


class Messages:
    """Reads what HandBrakeCLI writes: objects of JSON, of which each is reported, and its log.

    Attributes:
        error: What `WORKDONE` says; `None` before.
        telling: The last lines of the log that tell why something is not in the output.
        truncated: The line that tells that the source ends in the middle, or nothing.
    """

    def __init__(self, frame_rate: float | None, report: Report) -> None:
        self.error: int | None = None
        self.telling: deque[str] = deque(maxlen=3)
        self.truncated = ""
        self._frame_rate = frame_rate
        self._report = report
        self._frames: int | None = None
        self._object = ""

    def take_log(self, line: str) -> None:
        if match := _EXPECTED_FRAMES.search(line):
            self._frames = int(match[1]) or None
        if _TELLING.match(line) and line not in self.telling:
            self.telling.append(line)
        if media.TRUNCATED.match(line):
            self.truncated = line

    def take(self, line: str) -> None:
        """Collect an object (`Progress: {` and many lines more), and read it when it is whole."""
        label, brace, rest = line.partition(": {")
        if brace and re.fullmatch(r"\w[\w ]*", label):  # libdvdread writes its own lines between the objects
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
            return  # the brace was not the last
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
        # For the first seconds 1.6.1 says 0 frames a second, or a ten-millionth.
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
        """HandBrake's own is that of the pass; of those that follow, nobody knows more than that they are alike."""
        eta, average = values.get("ETASeconds"), values.get("RateAvg") or 0.0
        if eta is None or average < 0.01 or (passes_left and not self._frames):
            return None
        return round(eta + passes_left * (self._frames or 0) / average, 1)


# --- sources ---


def read_title(text: str) -> Title | None:
    """The title that an encode takes, of what HandBrakeCLI prints for a scan; `None` if it found none."""
    _, label, rest = text.partition("JSON Title Set: ")
    try:
        found = json.JSONDecoder().raw_decode(rest)[0] if label else {}
        titles = found.get("TitleList", [])
        title = next((title for title in titles if title["Index"] == found.get("MainFeature")), titles[0])
        return Title(
            title["Path"],
            _seconds(title["Duration"]),
            len(title["AudioList"]),
            len(title["SubtitleList"]),
            tuple(_seconds(chapter["Duration"]) for chapter in title["ChapterList"]),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        logger.debug("No title in what {} prints: {!r}", TOOL, error)
        return None


def _seconds(duration: Mapping[str, Any]) -> float:
    """HandBrake's ticks are of a 90 kHz clock."""
    return float(duration["Ticks"]) / 90_000


@contextlib.contextmanager
def given_names(*names: str) -> Iterator[list[str]]:
    """Names by which HandBrakeCLI can be given files: links where 1.6.1 could not write the name as JSON."""
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
    """`name`, so that HandBrakeCLI does not take it for a protocol's, as it would `a:b.mkv`."""
    return f"./{name}" if ":" in name.split("/")[0] else name


# --- encoders ---


def probe_encoders() -> Iterator[tuple[str, str]]:
    """Encode a second with each encoder that is listed: its name, and why it does not work, or nothing.

    Raises:
        RunError: there is no ffmpeg to make the second, or HandBrakeCLI cannot be asked.
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
        argv = arguments({"options": options}, known_options(), clip, target)
        finished = tool.capture(argv, timeout=TRIAL_TIMEOUT, tail=1000)
        for line in finished.stdout.decode(errors="replace").splitlines():
            messages.take(line)
        for line in finished.stderr:
            messages.take_log(line)
        if not _has_encoded(finished, messages, target):
            return messages.telling[-1] if messages.telling else _ending(_without_stdbuf(finished), messages.error)
        media.verify(target, media.Expected(streams={"video": 1, "audio": int("aencoder" in options)}))
    except RunError as error:
        return error.message
    return ""
