"""Predict the output of an ffmpeg task from what ffprobe says of its sources.

The prediction is checked against the output afterwards. It leaves out whatever the sources do not state for certain (a
filter may change the timing, a duration may be an estimate): a good encode must never fail. And a container may state
too long a duration, so an output that seems short is an error only if its sources go on behind its end.
"""

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from app.exceptions import RunError
from modules import media
from modules.command import Options, to_argument
from modules.containers import is_whole
from modules.ffmpeg.options import EncodeTask, names, probe_options, source_argument
from modules.ffmpeg.specifiers import Stream, specifier
from modules.media import ExpectedOutput, is_cover

_RETIMING = names("""
    af aframes bsf copyts filter filter_complex filter_complex_script filter_script fps_mode framerate frames fs isync
    itsoffset itsscale lavfi loop output_ts_offset r seek_timestamp shortest skip_frame start_at_zero vf vframes vsync
""")
"""Options after which the duration cannot be predicted. Some filters and `r` are harmless: see `_is_retiming`."""

_SHORTENING = names("aframes frames fs shortest stream_loop vframes")
"""Those of them that the prediction knows, or that only make the output shorter."""

_TELLING = names("aiff asf avi caf flv mpeg mpegts ogg w64")
"""Containers beside the certain ones whose duration ffprobe does not estimate from the bit rate."""

_DROPPED = {"an": "audio", "vn": "video"}

_DROPPING = names("an vn sn dn filter_complex filter_complex_script lavfi")
"""Options that add streams to the mapped ones, or take some away."""

_FILTERS = names("filter vf filter:v filter:v:0")
_HARMLESS_FILTERS = names("""
    acompressor aformat alimiter anull aresample ass bwdif channelmap channelsplit colorspace crop cropdetect deband
    deblock delogo drawtext dynaudnorm eq equalizer format fps hflip highpass hqdn3d hwdownload hwupload loudnorm
    lowpass lut3d nlmeans noise null overlay pad pan rotate scale scale_cuda scale_qsv scale_vaapi setdar setparams
    setsar subtitles tonemap transpose unsharp vflip volume yadif zscale
""")


@dataclass(frozen=True)
class _OutputStream:
    """A stream of a source, as it will stand in the output."""

    kind: str
    length: float = 0.0
    """Seconds until its end, infinite if unknown; 0 for all but video and audio."""
    is_certain: bool = True
    """Its source states that length."""
    frame_rate: float | None = None


def expect_output(task: EncodeTask) -> ExpectedOutput:
    """Predict the task's output. ffprobe's answers for all sources must be known."""
    inputs, outputs = task.inputs, task.outputs
    used = task.given | {key.split(":")[0] for each in inputs for key, value in each.items() if value is not False}
    is_retimed = _changes_timing(inputs, outputs)
    streams = list(_output_streams(task))
    lengths = _longest(streams, without={kind for name, kind in _DROPPED.items() if name in used})
    uncertain = {stream.kind for stream in streams if is_retimed or not stream.is_certain}
    video = next((stream for stream in streams if stream.frame_rate), None)
    rate = video.frame_rate if video else None
    duration = (min if "shortest" in used else max)(lengths.values(), default=0.0)
    frames = None if video is None or is_retimed or "r" in used else _frame_count(video)
    if used & {"frames", "vframes"}:
        frames = frame_limit(outputs)
        duration = min(duration, frames / rate) if frames and rate else math.inf
    return ExpectedOutput(
        duration=duration if 0 < duration < math.inf else None,
        is_certain=_is_bound(inputs, outputs)
        and all(media.format_of(task.probes[index]) in media.CERTAIN_FORMATS | _TELLING for index, _ in _timed(task)),
        frame_rate=rate,
        frames=frames,
        lengths={kind: length for kind, length in lengths.items() if kind not in uncertain and length < math.inf},
        streams={} if used & _DROPPING else Counter(stream.kind for stream in streams),
    )


def missing_frames(task: EncodeTask, frames: int, *, is_damaged: bool) -> str:
    """A message for a person if the output has fewer frames than its source states, else ''.

    `frames` are those of the output, and `is_damaged` tells that the source is known to be.
    """
    videos = [(index, each) for index, each in task.chosen if each.get("codec_type") == "video"]
    expected = expect_output(task)
    keys = {key.split(":")[0] for options in task.outputs for key in options}
    filters = {
        name for options in task.outputs for each in _FILTERS & options.keys() for name in _filter_names(options[each])
    }
    is_changed = keys & {"frames", "vframes", "shortest"} or filters & {"fps"} or expected.frames is None
    if len(videos) != 1 or is_changed or is_cover(videos[0][1]):
        return ""
    index, stream = videos[0]
    found = {**task.probes[index], "streams": [stream]}
    return media.missing_frames(found, frames, expected.lengths.get("video"), is_damaged=is_damaged)


def dropped_frames(task: EncodeTask, frames: int, dropped: int) -> str:
    """A message for a person if the output lacks many frames of its source, though nobody asked for a rate, else ''."""
    is_asked = task.given & {"fps_mode", "vsync", "fpsmax"} or expect_output(task).frames is None
    if is_asked or dropped <= max(5, frames // 10):
        return ""
    return (
        f"ffmpeg left out {dropped} of {frames} frames, because others have the same times:"
        " a source may be several files in one"
    )


def _output_streams(task: EncodeTask) -> Iterator[_OutputStream]:
    """The streams that the task maps, without cover pictures: not every container can hold those."""
    earliest, timed = earliest_start(task), _timed(task)
    for index, stream in task.chosen:
        kind = stream.get("codec_type", "")
        if (index, stream) in timed:
            start, end, is_certain = _window(task, index, stream)
            length = max(end - earliest, 0.0) if end > start else 0.0
            rate = media.ratio(stream.get("avg_frame_rate")) if kind == "video" else None
            yield _OutputStream(kind, length, is_certain, rate)
        elif not is_cover(stream):
            yield _OutputStream(kind)


def _timed(task: EncodeTask) -> list[tuple[int, Stream]]:
    """The mapped streams that have a length: video, but no covers, and audio."""
    return [each for each in task.chosen if each[1].get("codec_type") in {"video", "audio"} and not is_cover(each[1])]


def _longest(streams: Iterable[_OutputStream], without: Collection[str]) -> dict[str, float]:
    """Seconds of the longest video and the longest audio stream."""
    longest: dict[str, float] = {}
    for stream in streams:
        if stream.kind in {"video", "audio"} and stream.kind not in without:
            longest[stream.kind] = max(longest.get(stream.kind, 0.0), stream.length)
    return longest


def _frame_count(video: _OutputStream) -> int | None:
    return round(video.length * video.frame_rate) if video.frame_rate and 0 < video.length < math.inf else None


def frame_limit(outputs: Sequence[Options]) -> int | None:
    """The number of video frames that the options ask for."""
    for options in outputs:
        for key, value in options.items():
            if (key == "vframes" or key in {"frames", "frames:v", "frames:v:0"}) and media.number(value):
                return int(float(value))
    return None


def _changes_timing(inputs: Sequence[Options], outputs: Sequence[Options]) -> bool:
    """True if options change durations in a way that is not predicted here."""
    if any(_is_retiming(options, is_input=True) for options in inputs):
        return True
    if any(_is_retiming(options, is_input=False) for options in outputs):
        return True
    # A copy begins at the next key frame.
    return any("ss" in options for options in outputs) and any(
        value == "copy" for options in outputs for value in options.values()
    )


def _is_bound(inputs: Sequence[Options], outputs: Sequence[Options]) -> bool:
    """True if no option can make the output longer than predicted, so that a share of that is a percentage."""
    used = {key.split(":")[0] for options in outputs for key in options}
    if used & {"frames", "vframes"} and used & {"filter", "r", "vf"}:
        return False  # the frames may be of another rate
    inputs, outputs = (
        [{key: value for key, value in each.items() if key.split(":")[0] not in _SHORTENING} for each in options]
        for options in (inputs, outputs)
    )
    return not _changes_timing(inputs, outputs)


def _is_retiming(options: Options, *, is_input: bool) -> bool:
    for key, value in options.items():
        name = key.split(":")[0]
        if value is False or name not in _RETIMING:
            continue
        if name == "r" and not is_input:
            continue  # for an output, frames are repeated or dropped to keep the time
        if name in {"vf", "af", "filter"} and _filter_names(value) <= _HARMLESS_FILTERS:
            continue
        return True
    # Where a loop begins, and whether a stream's late start counts in each, depends on container and version.
    return bool(options.get("stream_loop"))


def _filter_names(graph: object) -> set[str]:
    return set(re.findall(r"(?:^|[,;\]])\s*(\w+)", to_argument(graph)))


def is_empty_text(task: EncodeTask, name: str) -> bool:
    """True if the output is empty because the task maps text subtitles only, and none are in the part it asks for."""
    kinds = {specifier(entry)[:1] for entry in task.data["source_maps"]}
    return kinds == {"s"} and os.path.getsize(name) == 0


def earliest_start(task: EncodeTask) -> float:
    """Seconds at which the first stream of the output begins. ffmpeg moves that instant to 0."""
    return min((_window(task, index, stream)[0] for index, stream in _timed(task)), default=0.0)


def used_shares(task: EncodeTask, duration: float | None) -> dict[str, float]:
    """The share of each mapped source, by its name, that goes into an output of `duration` seconds: 1 is all of it."""
    shares: dict[str, float] = {}
    for index in task.mapped:
        name, options = task.sources[index]
        total = media.number(task.probes[index].get("format", {}).get("duration"))
        share = duration / total if duration and total else 1.0
        shares[name] = max(shares.get(name, 0.0), share if options.get("stream_loop") else min(share, 1.0))
    return shares


def _windows(task: EncodeTask, index: int) -> list[tuple[float, float]]:
    """The first and last second of a source that ffmpeg reads, and of these the first and last that it writes.

    A time that cannot be read is NaN, and an end that is not given is infinite.
    """
    options = task.inputs[index]
    total = media.number(task.probes[index].get("format", {}).get("duration"))
    if "sseof" in options and total is not None:
        options = {**options, "ss": total + media.clock(options["sseof"])}
    windows = []
    for window in (options, task.window):
        first = media.clock(window["ss"]) if "ss" in window else 0.0
        if "t" in window:
            last = first + media.clock(window["t"])
        else:
            last = media.clock(window["to"]) if "to" in window else math.inf
        windows.append((first, last))
    return windows


def _window(task: EncodeTask, index: int, stream: Stream) -> tuple[float, float, bool]:
    """The seconds at which a stream begins and ends in the output (infinite if unknown), and whether it is certain."""
    found, options = task.probes[index], task.inputs[index]
    total = media.number(found.get("format", {}).get("duration"))
    certain = media.format_of(found) in media.CERTAIN_FORMATS
    # Without durations of its streams, a container's is that of the longest, which need not be this one.
    certain = certain and ("duration" in stream or bool(media.tag(stream)) or len(found.get("streams", [])) == 1)
    start, end = media.bounds(stream, found)
    loops = media.number(options.get("stream_loop"))
    if loops or options.get("f") == "concat":  # ffprobe gives the duration of the first file alone
        end = math.inf if not loops or loops < 0 or total is None else end + loops * total
    for first, last in _windows(task, index):
        if math.isnan(first) or math.isnan(last):
            return 0.0, math.inf, False
        start, end = max(start, first) - first, min(end, last) - first
    return start, end, certain


def certain_length(found: Mapping[str, Any]) -> float | None:
    """Seconds of a source, if its container states them."""
    is_certain = media.format_of(found) in media.CERTAIN_FORMATS
    return media.number(found.get("format", {}).get("duration")) if is_certain else None


# --- what comes behind the end of an output ---


def goes_on(task: EncodeTask, exists: Callable[[str], bool], kind: str, seconds: float) -> bool:
    """True if the sources have anything of type `kind` (video, audio) after so many seconds of the output.

    True, too, if a source cannot be read, or not with certainty to its end: the missing part may be there.
    """
    if not all(os.path.isfile(name) and is_whole(name) for name, _ in task.sources):
        return True
    try:
        measured = {index: _measure_starts(task, index, exists) for index in task.probes}
        return _has_packets(dataclasses.replace(task, probes=measured), exists, kind, seconds)
    except RunError as error:
        logger.debug("{}", error.message)
        return True


def _measure_starts(task: EncodeTask, index: int, exists: Callable[[str], bool]) -> Mapping[str, Any]:
    """ffprobe's answer for a source with the timestamps of the streams' first packets as their starts.

    The headers do not always state the true ones.
    """
    name, options = task.sources[index]
    argument, streams = source_argument(name, exists), []
    for stream in task.probes[index].get("streams", []):
        if stream.get("codec_type") in {"video", "audio"}:
            first = media.packet_times(argument, probe_options(options), stream["index"], "%+#1")
            stream = {**stream, "start_time": first[0]} if first else stream
        streams.append(stream)
    return {**task.probes[index], "streams": streams}


def _has_packets(task: EncodeTask, exists: Callable[[str], bool], kind: str, seconds: float) -> bool:
    earliest = earliest_start(task)
    for index, stream in task.chosen:
        if stream.get("codec_type") != kind:
            continue
        name, options = task.sources[index]
        (first, last), (cut_first, cut_last) = _windows(task, index)
        container = task.probes[index].get("format", {})
        zero = (media.number(container.get("start_time")) or 0.0) + first + cut_first
        end = zero + min(last - first - cut_first, cut_last - cut_first)
        begin = zero + earliest + seconds
        if media.has_packets(source_argument(name, exists), probe_options(options), stream["index"], begin, end):
            return True
    return False
