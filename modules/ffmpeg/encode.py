"""Run ffmpeg, follow its progress, and tell from its log whether it did all of the work."""

import dataclasses
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loguru import logger

from app.exceptions import Unfit
from modules import media, tool
from modules.damage import DamageLog, split_level
from modules.ffmpeg.reasons import Reasons, explain
from modules.media import ExpectedOutput

_UNWRITTEN = re.compile(r"Error writing trailer|Error closing file|No space left on device")
"""Error lines about an output whose end could not be written. ffmpeg 5.1 exits with 0 after them."""

_IGNORED = re.compile(
    r"(?:\[\S+ @ 0x[0-9a-f]+\] )?((?:Error parsing option|Unknown option: |Invalid value for ).*"
    r"|Codec AVOption .* has not been used for any stream|x265 \[warning\]: unable to parse .*"
    r"|Incompatible \w+ format .*|Too many bits .* clamping to max|VBV maxrate specified, but no bufsize, ignored"
    r"|-t and -to cannot be used together.*)"
)
"""Warnings about a setting that was not taken, or not as it was given: ffmpeg's and those of its encoders."""

_NO_DEVICE = re.compile(
    r"Cannot load \S+\.so|(initializing|creating) an? (internal )?MFX session|Could not find a valid device"
    r"|Device creation failed|No VA display found|No capable devices found"
)
"""Error lines about an encoder's device or its driver that this machine lacks: NVENC, Quick Sync, V4L2, VA-API."""

Report = Callable[..., None]
"""`BaseModule.report`."""


@dataclass(frozen=True)
class Encoded:
    """What ffmpeg told of an encode that succeeded by its exit status. `frames` are those of the first video stream
    that it took from the source, without those that it repeated; `dropped` of them are not in the output. `is_empty`
    is true if it counted no time at all."""

    frames: int
    dropped: int
    log: DamageLog
    is_empty: bool


def encode(
    argv: Sequence[str], expected: ExpectedOutput, phase: str, report: Report, warn: Callable[[str], None]
) -> Encoded:
    """Run ffmpeg to its end. `warn` is told of settings that it ignores.

    Raises:
        RunError: ffmpeg failed, or the end of the output could not be written.
    """
    unwritten: list[str] = []
    ignored: dict[str, None] = {}
    reasons, log = Reasons(), DamageLog()
    progress = _ProgressReader(expected, phase, report)

    def on_stderr(line: str) -> None:
        reasons.add(line)
        log.add_ffmpeg(line)
        line, level = split_level(line)
        if level == "error" and _UNWRITTEN.search(line):
            unwritten.append(line)
        if level in {"warning", ""} and (match := _IGNORED.match(line)):
            ignored[match[1]] = None

    logger.info("Running {}", shlex.join(argv))
    finished = tool.run(argv, on_line=progress.take, on_stderr=on_stderr)
    errors = explain(reasons.chosen(), argv)
    rest = [line for line, _ in map(split_level, finished.stderr) if line.strip()]
    finished = dataclasses.replace(finished, stderr=(*rest, *errors))  # why it failed comes last
    if finished.returncode:
        error = finished.error(": ".join([finished.described(), *errors[:-1]]))
        if any(map(_NO_DEVICE.search, errors)):
            error.message = Unfit(error.message)
        raise error
    if unwritten:
        raise finished.error(f"ffmpeg could not write all of it: {unwritten[0]}")
    for line in ignored:
        warn(f"a setting is ignored: {line}")
    return Encoded(progress.frames, progress.dropped, log, progress.is_empty)


class _ProgressReader:
    """Reads the lines that ffmpeg writes for `-progress`, and reports each block of them.

    Attributes:
        frames, dropped, is_empty: See `Encoded`.
    """

    def __init__(self, expected: ExpectedOutput, phase: str, report: Report) -> None:
        self._expected = expected
        self._phase = phase
        self._report = report
        self._block: dict[str, str] = {}
        self.frames, self.dropped, self.is_empty = 0, 0, True

    def take(self, line: str) -> None:
        key, _, value = line.partition("=")
        if key != "progress":
            self._block[key.strip()] = value.strip()
            return
        block, self._block = self._block, {}
        duration = self._expected.duration if self._expected.is_certain else None
        time = media.number(block.get("out_time_us"))  # none before the first frame, which may take long
        seconds = max((time or 0.0) / 1e6, 0.0)
        frame, speed = media.number(block.get("frame")), media.number(block.get("speed", "").rstrip("x"))
        added, self.dropped = (int(media.number(block.get(key)) or 0) for key in ("dup_frames", "drop_frames"))
        self.frames = int(frame or 0) - added + self.dropped
        self.is_empty = not frame and not seconds
        info = {
            "phase": self._phase,
            "current_frame": None if frame is None else int(frame),
            "total_frames": None if frame is None else self._expected.frames,
            "fps": media.number(block.get("fps")),
            "speed": speed,
            "eta_seconds": round(max(duration - seconds, 0) / speed, 1) if duration and speed and seconds else None,
        }
        self._report(None if duration is None or time is None else seconds / duration * 100, info)
