"""The `ffmpeg` module: encode with ffmpeg, and believe the result only after looking at it.

ffmpeg's exit status does not say whether the output is whole: a source that ends in the middle gives 0 and a short
file. So the output is written under a temporary name, and gets its own only when ffprobe finds the streams and the
duration in it that the sources promise. Where they promise nothing certain (a filter that changes timing, a source
whose duration is an estimate), the duration is not checked: a good encode must never fail.
"""

import json
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from box import Box
from loguru import logger

from app.exceptions import CleanupError, ClientError, RunError, ValidationError
from modules import schema as task_schema
from modules import tool
from modules.base import BaseModule, location
from modules.data import address, server_data
from modules.output import SPECIAL, Output, is_special

Options = Mapping[str, Any]

_TRUNCATED = re.compile(r"\[\S+ @ 0x[0-9a-f]+\] (File ended prematurely|stream \d+, offset \S+: partial file)")
"""What the Matroska and MP4 demuxers say of a source that ends in the middle."""

_PROTOCOL = re.compile(r"[A-Za-z0-9+.-]+:|subfile,")
"""A name that ffmpeg takes for a protocol's, as in its url_find_protocol()."""

_NOT_A_FILE = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://|(async|bluray|cache|concatf?|crypto|data|fd|file|pipe|subfile)[:,]|.*%\d*d", re.DOTALL
)
_DEVICES = {"alsa", "decklink", "fbdev", "jack", "kmsgrab", "lavfi", "openal", "oss", "pulse", "v4l2", "x11grab"}

_CERTAIN_FORMATS = {"flac", "matroska", "mov", "mxf", "wav"}
"""Containers that state durations. Those of raw streams and transport streams are estimated from a part of the file."""

_MEASURED_FORMATS = _CERTAIN_FORMATS | {"mpegts", "ogg"}
"""Containers of whose durations ffprobe can tell whether they are long enough. ADTS and MP3, say, are guesses."""

_MANY_FILES = {"dash", "hds", "hls", "segment", "smoothstreaming", "ssegment", "stream_segment", "tee"}
"""Muxers that write more than the file they are given."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_IMAGES = _names("""
    bmp dpx exr hdr im1 im24 im8 j2c j2k jls jp2 jpeg jpg jxl ljpg pam pbm pcx pfm pgm pgmyuv phm pix png ppm qoi ras rs
    sgi sun sunras tga tif tiff vbn wbmp xbm xface xwd y
""")
"""Extensions for which ffmpeg writes each frame to a file of its own, and counts in the name."""

_RETIMING = _names("""
    af aframes bsf copyts filter filter_complex filter_complex_script filter_script fps_mode framerate frames fs isync
    itsoffset itsscale lavfi loop output_ts_offset r seek_timestamp shortest skip_frame start_at_zero vf vframes vsync
""")
"""Options after which the duration is anybody's guess. Of filters and `r`, some are harmless: see `_is_retiming`."""

_DROPPING = _names("an vn sn dn filter_complex filter_complex_script lavfi")
"""Options that add streams to those that are mapped, or take some away."""

_HARMLESS_FILTERS = _names("""
    acompressor aformat alimiter anull aresample ass bwdif channelmap channelsplit colorspace crop cropdetect deband
    deblock delogo drawtext dynaudnorm eq equalizer format fps hflip highpass hqdn3d hwdownload hwupload loudnorm
    lowpass lut3d nlmeans noise null overlay pad pan rotate scale scale_cuda scale_qsv scale_vaapi setdar setparams
    setsar subtitles tonemap transpose unsharp vflip volume yadif zscale
""")


@dataclass(frozen=True)
class Expected:
    """What the output will be like, as far as the sources tell."""

    duration: float | None = None
    """Seconds, for the progress; perhaps not exact."""
    frame_rate: float | None = None
    """The first video stream's."""
    frames: int | None = None
    """As many the first video stream will have, if its rate stays."""
    lengths: Mapping[str, float] = field(default_factory=dict)
    """Least seconds of the longest video and audio stream, where that is certain."""
    streams: Mapping[str, int] = field(default_factory=dict)
    """Least number of streams of each type."""


class Ffmpeg(BaseModule):
    """Encodes the task's sources into one output file."""

    schema = task_schema.load("ffmpeg")
    cleanup_on_failure = True

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self._sets: dict[str, Options] = {}
        self.status = Box({"status": "in_progress", "task": "ffmpeg"})
        self.heartbeat.set_data(self.status)
        logger.debug("Data: {}", self.task)

    def outputs(self) -> list[str]:
        return [] if self._is_discarded() else [self.task["output_file"]]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows. Fetches the option sets.

        Raises:
            ValidationError: an option set cannot be had.
        """
        self._need_sets(ValidationError)
        if self._is_discarded():
            return [shlex.join(self._argv(os.devnull))]
        output = self._output()
        return [shlex.join(self._argv(output.temporary)), shlex.join(["mv", "--", output.temporary, output.target])]

    def validate(self) -> None:
        super().validate()
        task = self.task.to_dict()
        found = [problem for name in ("ffmpeg", "ffprobe") if (problem := tool.missing(name))]
        found += self._source_problems(task)
        found += self._fetch_sets()
        found += self._output_problems(task)
        if found:
            raise ValidationError(message="; ".join(found))

    def run(self) -> None:
        self.set_start_time()
        for name in ("ffmpeg", "ffprobe"):
            tool.require(name, RunError)
        self._need_sets(RunError)
        expected = expect(self.task.to_dict(), self._sets, [self._probe_source(s) for s in self._sources()])
        if self._is_discarded():
            self._encode(self._argv(os.devnull), expected)
        elif not self._was_written(expected):
            with self._output() as output:
                self._encode(self._argv(output.temporary), expected)
                verify(output.temporary, expected)
                output.commit()
            logger.info("Wrote {}", output.target)
        self._report(progress=100.0)

    def cleanup(self) -> None:
        """Remove the temporary file that a killed process of this job left; otherwise there is none."""
        try:
            if not self._is_discarded():
                self._output().discard()
        except OSError as error:
            raise CleanupError(message=f"temporary file of {self.task['output_file']}: {error}") from error

    def _was_written(self, expected: Expected) -> bool:
        """Whether an earlier attempt has written the output. It got its name only when it was whole, as it is now.

        Raises:
            RunError: there is a file of that name, and it is something else.
        """
        output = self._output()
        if not self.resumed or self.task.to_dict().get("overwrite", False) or not os.path.lexists(output.target):
            return False
        try:
            verify(output.target, expected)
        except RunError as error:
            raise RunError(message=f"{output.target}: exists, and is not to be overwritten: {error.message}") from error
        self.warn(f"{output.target} is there and whole: taken for written by an earlier attempt")
        return True

    def _is_discarded(self) -> bool:
        """Whether nobody wants the output: the first of two passes only takes notes."""
        return bool(os.path.realpath(self.task["output_file"]) == os.devnull)

    def _output(self) -> Output:
        return Output(self.task["output_file"], overwrite=self.task.to_dict().get("overwrite", False))

    def _sources(self) -> list[tuple[str, Options]]:
        return sources(self.task.to_dict())

    def _argv(self, target: str) -> list[str]:
        return arguments(self.task.to_dict(), self._sets, target, self.will_exist)

    def _source_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        for index, (name, options) in enumerate(self._sources()):
            if not self.will_exist(name):
                if (
                    not _NOT_A_FILE.match(name)
                    and str(options.get("f")) not in _DEVICES
                    and "pattern_type" not in options
                ):
                    yield f"sources[{index}]: {name}: no such file"
            elif os.path.isdir(name):
                yield f"sources[{index}]: {name}: is a directory"
            if _same_file(name, task["output_file"]):
                yield f"output_file: {name} is also sources[{index}]"
        count = len(task["sources"])
        for index, entry in enumerate(task["source_maps"]):
            if entry["source"] >= count:
                yield f"source_maps[{index}].source: {entry['source']}, but there are only sources 0 to {count - 1}"

    def _output_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        name = task["output_file"]
        directory = os.path.dirname(name) or "."
        if self._is_discarded():
            return
        if os.path.isdir(name) or name.endswith("/"):
            yield f"output_file: {name}: is a directory"
        elif is_special(name):
            yield f"output_file: {name}: {SPECIAL}"
        elif self.will_exist(name) and not task.get("overwrite", False) and not self.resumed:
            yield f"output_file: {name}: exists, and overwrite is not true"
        if not os.path.isdir(directory):
            if not self._will_be_made(directory):
                yield f"output_file: {name}: there is no directory {directory}"
        elif not os.access(directory, os.W_OK | os.X_OK):
            yield f"output_file: {name}: the directory {directory} cannot be written"
        if self._writes_several(task):
            yield f"output_file: {name}: ffmpeg writes several files, which the ffmpeg module does not support"

    def _writes_several(self, task: Mapping[str, Any]) -> bool:
        name = task["output_file"]
        extension = os.path.splitext(name)[1][1:].lower()
        formats = {
            _text(value)
            for entry in task["output_maps"]
            if entry.get("option_set") is None or entry["option_set"] in self._sets
            for key, value in output_options(entry, self._sets).items()
            if key.split(":")[0] == "f"
        }
        is_image = "image2" in formats if formats else extension in _IMAGES
        return bool(
            extension in {"m3u8", "mpd"} or formats & _MANY_FILES or (is_image and re.search(r"%\d*d", name, re.ASCII))
        )

    def _will_be_made(self, directory: str) -> bool:
        """Whether an earlier task of the job writes a file there, and makes the directory with it."""
        inside = location(directory) + "/"
        return any(stands and path.startswith(inside) for path, stands in self.sisyphus_files.items())

    def _need_sets(self, error: type[ValidationError | RunError]) -> None:
        if problems := list(self._fetch_sets()):
            raise error(message="; ".join(problems))

    def _fetch_sets(self) -> Iterator[str]:
        """Fetch the option sets that are not here yet; yields what is wrong with them."""
        for index, entry in enumerate(self.task.to_dict()["output_maps"]):
            name = entry.get("option_set")
            if name is None or name in self._sets:
                continue
            try:
                self._sets[name] = fetch_option_set(name)
            except ValidationError as error:
                yield f"output_maps[{index}].option_set: {error.message}"

    def _probe_source(self, source: tuple[str, Options]) -> Mapping[str, Any]:
        """What ffprobe says of a source; nothing if it cannot tell. ffmpeg itself will say what is wrong with it."""
        name, options = source
        forced = ["-f", _text(options["f"])] if options.get("f") else []
        try:
            return probe(source_argument(name, self.will_exist), forced)
        except RunError as error:
            logger.debug("{}", error.message)
            return {}

    def _encode(self, argv: Sequence[str], expected: Expected) -> None:
        truncated: list[str] = []
        progress = _Progress(expected, self._report)

        def on_stderr(line: str) -> None:
            if _TRUNCATED.match(line) and not truncated:
                truncated.append(line)

        logger.info("Running {}", shlex.join(argv))
        finished = tool.run(argv, on_line=progress.take, on_stderr=on_stderr).check()
        if truncated:
            raise RunError(message=f"a source is cut short: {truncated[0]}", stderr=finished.stderr)

    def _report(self, progress: float | None = None, info: Mapping[str, Any] | None = None) -> None:
        if progress is not None:
            self.status.progress = progress
        if info:
            self.status.info = info
        self.heartbeat.set_data(self.status)


# --- the command line ---


def sources(task: Mapping[str, Any]) -> list[tuple[str, Options]]:
    """Each source's name and options. The task's `input_options` are the first one's, under its own."""
    entries = [
        (entry, {}) if isinstance(entry, str) else (entry["filename"], entry.get("options", {}))
        for entry in task["sources"]
    ]
    name, own = entries[0]
    entries[0] = (name, {**task.get("input_options", {}), **own})
    return entries


def arguments(
    task: Mapping[str, Any], sets: Mapping[str, Options], temporary: str, exists: Callable[[str], bool]
) -> list[str]:
    """The command line that writes the task's output to `temporary`. `sets` are the option sets by name."""
    argv = ["ffmpeg", "-nostdin", "-y", "-progress", "pipe:1", "-stats_period", "1", "-nostats", "-hide_banner"]
    for name, options in sources(task):
        argv += [*_flags(options), "-i", source_argument(name, exists)]
    for entry in task["source_maps"]:
        argv += ["-map", _source_map(entry)]
    for entry in task["output_maps"]:
        argv += _flags(output_options(entry, sets), _specifier(entry))
    return [*argv, _file_argument(temporary)]


def output_options(entry: Mapping[str, Any], sets: Mapping[str, Options]) -> Options:
    """An output map's options, under those of its option set."""
    return {**entry.get("options", {}), **(sets[entry["option_set"]] if "option_set" in entry else {})}


def source_argument(name: str, exists: Callable[[str], bool]) -> str:
    """`name` as written, unless it is a file's and ffmpeg would take it for something else."""
    return _file_argument(name) if exists(name) else name


def _file_argument(name: str) -> str:
    return f"file:{name}" if name.startswith("-") or _PROTOCOL.match(name) else name


def _source_map(entry: Mapping[str, Any]) -> str:
    stream = f":{int(entry['stream'])}" if "stream" in entry else ""
    letter = f":{entry['specifier'][0].lower()}" if "specifier" in entry else ""
    return f"{int(entry['source'])}{letter}{stream}{'?' if entry.get('optional') else ''}"


def _specifier(entry: Mapping[str, Any]) -> str:
    letter = f":{entry['specifier'][0].lower()}" if "specifier" in entry else ""
    return f"{letter}:{int(entry['stream'])}"


def _flags(options: Options, specifier: str = "") -> Iterator[str]:
    for key, value in options.items():
        if value is not False:
            yield f"-{key}{specifier}"
            if value is not True:
                yield _text(value)


def _text(value: object) -> str:
    """An option's value. In a mapping `true` and `false` are 1 and 0: encoders know no bare keys there."""
    if isinstance(value, Mapping):
        return ":".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, bool | float) and value == int(value):
        return str(int(value))
    return str(value)


def fetch_option_set(name: str) -> Options:
    """The options that the API server keeps under `name`.

    Raises:
        ValidationError: they cannot be had, and why.
    """
    what = f"option set {name!r}"
    try:
        record = server_data.get("ffmpeg", name)
    except ClientError as error:
        raise ValidationError(message=f"{what}: {error.message}") from error
    if record is None:
        raise ValidationError(message=f"{what}: there is none at {address('ffmpeg', name)}")
    form = {
        "type": "object",
        "properties": {"options": {"$ref": "#/$defs/options"}},
        "required": ["options"],
        "$defs": Ffmpeg.schema["$defs"],
    }
    if problems := task_schema.problems(record, form):
        raise ValidationError(message="; ".join(f"{what}: {problem}" for problem in problems))
    options: Options = record["options"]
    return options


# --- what comes out ---


def probe(name: str, options: Sequence[str] = ()) -> Mapping[str, Any]:
    """ffprobe's `format` and `streams` of a file.

    Raises:
        RunError: it is missing, or no media.
    """
    finished = tool.capture(
        ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", *options, "-i", name]
    ).check()
    try:
        answer = json.loads(finished.stdout.decode(errors="replace"))
    except ValueError as error:
        raise finished.error(f"ffprobe does not answer with JSON: {error}") from error
    return answer if isinstance(answer, dict) else {}


def expect(task: Mapping[str, Any], sets: Mapping[str, Options], probes: Sequence[Mapping[str, Any]]) -> Expected:
    """What the task's output will be like, given what ffprobe says of each source."""
    inputs = [options for _, options in sources(task)]
    outputs = [output_options(entry, sets) for entry in task["output_maps"]]
    names = {
        key.split(":")[0] for options in (*inputs, *outputs) for key, value in options.items() if value is not False
    }
    retimed = any(_is_retiming(options, is_input) for options, is_input in _marked(inputs, outputs))
    cut = {key: value for options in outputs for key, value in options.items() if key in {"ss", "t", "to"}}
    longest: dict[str, float] = {}
    uncertain: set[str] = set()
    streams: Counter[str] = Counter()
    frame_rate: float | None = None
    frames: int | None = None
    for entry in task["source_maps"]:
        found = probes[entry["source"]]
        chosen = _chosen(found, entry)
        for stream in chosen:
            kind = stream.get("codec_type", "")
            streams[kind] += 1
            if kind not in {"video", "audio"}:
                continue
            length, certain = _length(stream, found, inputs[entry["source"]], cut)
            if kind == "video" and frame_rate is None and (frame_rate := _ratio(stream.get("avg_frame_rate"))):
                frames = round(length * frame_rate) if 0 < length < math.inf else None
            longest[kind] = max(longest.get(kind, 0.0), length)
            if not certain or retimed:
                uncertain.add(kind)
    duration = max(longest.values(), default=0.0)
    return Expected(
        duration if 0 < duration < math.inf else None,
        frame_rate,
        frames,
        {kind: value for kind, value in longest.items() if kind not in uncertain and value < math.inf},
        {} if names & _DROPPING else streams,
    )


def verify(name: str, expected: Expected) -> None:
    """Check that the file is whole.

    Raises:
        RunError: it is not.
    """
    if os.path.getsize(name) == 0:
        raise RunError(message="ffmpeg wrote nothing")
    try:
        found = probe(_file_argument(name))
    except RunError as error:
        raise RunError(message=f"the output cannot be read: {error.message}", stderr=error.stderr) from error
    streams = [stream for stream in found.get("streams", []) if isinstance(stream, dict)]
    counts = Counter(stream.get("codec_type") for stream in streams)
    for kind in ("video", "audio", "subtitle"):
        if counts[kind] < expected.streams.get(kind, 0):
            raise RunError(message=f"the output has {counts[kind]} {kind} streams of {expected.streams[kind]}")
    if not any(counts[kind] for kind in ("video", "audio", "subtitle")):
        raise RunError(message="the output has no streams")
    if str(found.get("format", {}).get("format_name")).split(",")[0] not in _MEASURED_FORMATS:
        return
    for kind, least in expected.lengths.items():
        # Where they end, not how long they are: not every container tells that a stream begins late.
        length = max((_bounds(stream, found)[1] for stream in streams if stream.get("codec_type") == kind), default=0.0)
        # Headers round, encoders add or drop a frame, and rates such as 23.976 are written as 24: 7 s in two hours.
        tolerance = max(0.5, min(least / 100, 10.0)) + 2 / (expected.frame_rate or 10.0)
        if length < least - tolerance:
            raise RunError(
                message=f"the output is cut short: {length:.1f} s of {kind} where {least:.1f} s were expected"
            )


def _marked(inputs: Sequence[Options], outputs: Sequence[Options]) -> list[tuple[Options, bool]]:
    return [(options, True) for options in inputs] + [(options, False) for options in outputs]


def _is_retiming(options: Options, is_input: bool) -> bool:
    """Whether the options change durations in ways that are not followed here."""
    for key, value in options.items():
        name = key.split(":")[0]
        if value is False or name not in _RETIMING:
            continue
        if name == "r" and not is_input:
            continue  # for an output, frames are repeated or dropped to keep the time
        if (
            name in {"vf", "af", "filter"}
            and set(re.findall(r"(?:^|[,;\]])\s*(\w+)", _text(value))) <= _HARMLESS_FILTERS
        ):
            continue
        return True
    # Where a loop begins, and whether a stream's late start counts in each, depends on container and version.
    return bool(options.get("stream_loop"))


def _chosen(found: Mapping[str, Any], entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The streams of a source that a source map selects, attached pictures left out: not every container has them."""
    streams = [stream for stream in found.get("streams", []) if isinstance(stream, dict)]
    if "specifier" in entry:
        letter = entry["specifier"][0].lower()
        kinds = {"v": "video", "a": "audio", "s": "subtitle", "d": "data", "t": "attachment"}
        streams = [stream for stream in streams if stream.get("codec_type") == kinds[letter]]
    if "stream" in entry:
        streams = streams[int(entry["stream"]) :][:1]
    return [stream for stream in streams if not stream.get("disposition", {}).get("attached_pic")]


def _length(stream: Mapping[str, Any], found: Mapping[str, Any], options: Options, cut: Options) -> tuple[float, bool]:
    """Seconds of a source's stream that go into the output (infinite if unknown), and whether that is certain."""
    container = found.get("format", {})
    total = _number(container.get("duration"))
    certain = str(container.get("format_name")).split(",")[0] in _CERTAIN_FORMATS
    # Without durations of its streams, a container's is that of the longest, which need not be this one.
    certain = certain and ("duration" in stream or bool(_tag(stream)) or len(found.get("streams", [])) == 1)
    start, end = _bounds(stream, found)
    loops = _number(options.get("stream_loop"))
    if loops:
        end = math.inf if loops < 0 or total is None else end + loops * total
    if "sseof" in options and total is not None:
        options = {**options, "ss": total + _clock(options["sseof"])}
    for window in (options, cut):
        first = _clock(window["ss"]) if "ss" in window else 0.0
        last = first + _clock(window["t"]) if "t" in window else _clock(window["to"]) if "to" in window else math.inf
        if math.isnan(first) or math.isnan(last):
            return math.inf, False
        start, end = max(start, first) - first, min(end, last) - first
    return max(end - start, 0.0), certain


def _bounds(stream: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[float, float]:
    """When a stream begins and ends, in seconds from the beginning of the file; the end is infinite if unknown."""
    container = found.get("format", {})
    total = _number(container.get("duration"))
    start = max((_number(stream.get("start_time")) or 0.0) - (_number(container.get("start_time")) or 0.0), 0.0)
    own = _number(stream.get("duration"))
    if own is not None:
        return start, start + own
    # Matroska writes the end there, not the length. The tag may be left from a longer file it was made from.
    ends = [value for value in (_tag(stream), total) if value is not None]
    return start, max(min(ends), start) if ends else math.inf


def _tag(stream: Mapping[str, Any]) -> float | None:
    tags = stream.get("tags", {})
    value = _clock(tags.get("DURATION", tags.get("DURATION-eng", "")))
    return None if math.isnan(value) else value


def _clock(value: object) -> float:
    """Seconds of a time as ffmpeg writes it: `90`, `1:30`, `0:01:30.5`, `90000ms`; NaN if it is none."""
    match = re.fullmatch(r"(-?)(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)(s|ms|us)?", str(value).strip(), re.ASCII)
    if match is None:
        return math.nan
    sign, hours, minutes, seconds, unit = match.groups()
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)
    return total * {"ms": 1e-3, "us": 1e-6}.get(unit, 1.0) * (-1 if sign else 1)


def _number(value: object) -> float | None:
    """`value` as a finite number, if it is one."""
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever it is, float says so
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _ratio(value: object) -> float | None:
    above, _, below = str(value).partition("/")
    over, under = _number(above), _number(below or "1")
    return over / under if over and under else None


class _Progress:
    """Reads ffmpeg's `-progress` lines, and reports each block of them."""

    def __init__(self, expected: Expected, report: Callable[[float | None, Mapping[str, Any]], None]) -> None:
        self._expected = expected
        self._report = report
        self._block: dict[str, str] = {}
        self._reached = 0.0

    def take(self, line: str) -> None:
        key, _, value = line.partition("=")
        if key != "progress":
            self._block[key.strip()] = value.strip()
            return
        block, self._block = self._block, {}
        self._report(self._percent(block), self._info(block))

    def _percent(self, block: Mapping[str, str]) -> float | None:
        if self._expected.duration is None:
            return None
        now = (_number(block.get("out_time_us")) or 0.0) / 1e6
        # Less than 100 until the file has been verified; and an encoder that reorders may report an earlier time.
        self._reached = max(self._reached, min(now / self._expected.duration * 100, 99.9))
        return round(self._reached, 2)

    def _info(self, block: Mapping[str, str]) -> Mapping[str, Any]:
        duration = self._expected.duration
        frame, speed = _number(block.get("frame")), _number(block.get("speed", "").rstrip("x"))
        now = _number(block.get("out_time_us"))
        info = {
            "current_frame": None if frame is None else int(frame),
            "total_frames": None if frame is None else self._expected.frames,
            "fps": _number(block.get("fps")),
            "speed": speed,
            "eta_seconds": round(max(duration - now / 1e6, 0) / speed, 1) if duration and speed and now else None,
        }
        return {key: value for key, value in info.items() if value is not None}


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there yet
        return location(one) == location(other)
