"""What the output of an ffmpeg task will be like, given what ffprobe says of its sources.

What is certain is checked afterwards; where the sources promise nothing certain (a filter that changes timing, a source
whose duration is an estimate), nothing is: a good encode must never fail.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from modules import media
from modules.ffmpeg.options import Options, names, output_options, output_window, sources, text_of

KINDS = {"v": "video", "a": "audio", "s": "subtitle", "d": "data", "t": "attachment"}

_RETIMING = names("""
    af aframes bsf copyts filter filter_complex filter_complex_script filter_script fps_mode framerate frames fs isync
    itsoffset itsscale lavfi loop output_ts_offset r seek_timestamp shortest skip_frame start_at_zero vf vframes vsync
""")
"""Options after which the duration is anybody's guess. Of filters and `r`, some are harmless: see `_is_retiming`."""

_DROPPED = {"an": "audio", "vn": "video"}

_DROPPING = names("an vn sn dn filter_complex filter_complex_script lavfi")
"""Options that add streams to those that are mapped, or take some away."""

_HARMLESS_FILTERS = names("""
    acompressor aformat alimiter anull aresample ass bwdif channelmap channelsplit colorspace crop cropdetect deband
    deblock delogo drawtext dynaudnorm eq equalizer format fps hflip highpass hqdn3d hwdownload hwupload loudnorm
    lowpass lut3d nlmeans noise null overlay pad pan rotate scale scale_cuda scale_qsv scale_vaapi setdar setparams
    setsar subtitles tonemap transpose unsharp vflip volume yadif zscale
""")


def expect(task: Mapping[str, Any], sets: Mapping[str, Options], probes: Sequence[Mapping[str, Any]]) -> media.Expected:
    """What the task's output will be like, given what ffprobe says of each source."""
    inputs = [options for _, options in sources(task)]
    outputs = [output_options(entry, sets) for entry in task["output_maps"]]
    used = {
        key.split(":")[0] for options in (*inputs, *outputs) for key, value in options.items() if value is not False
    }
    retimed = any(_is_retiming(options, is_input) for options, is_input in _marked(inputs, outputs))
    cut = output_window(task, sets)
    if "ss" in cut and any(value == "copy" for options in outputs for value in options.values()):
        retimed = True  # a copy begins at the next key frame
    earliest = earliest_start(task, sets, probes)
    longest: dict[str, float] = {}
    uncertain: set[str] = set()
    streams: Counter[str] = Counter()
    frame_rate: float | None = None
    frames: int | None = None
    for entry in task["source_maps"]:
        found = probes[entry["source"]]
        streams_of = [stream for stream in found.get("streams", []) if isinstance(stream, dict)]
        for stream in mapped(streams_of, entry):
            if stream.get("disposition", {}).get("attached_pic"):
                continue  # not every container has those
            kind = stream.get("codec_type", "")
            streams[kind] += 1
            if kind not in {"video", "audio"}:
                continue
            start, end, certain = _window(stream, found, inputs[entry["source"]], cut)
            length = max(end - earliest, 0.0) if end > start else 0.0
            if kind == "video" and frame_rate is None and (frame_rate := media.ratio(stream.get("avg_frame_rate"))):
                frames = round(length * frame_rate) if 0 < length < math.inf else None
            longest[kind] = max(longest.get(kind, 0.0), length)
            if not certain or retimed:
                uncertain.add(kind)
    dropped = {kind for name, kind in _DROPPED.items() if name in used}
    kept = {kind: value for kind, value in longest.items() if kind not in dropped}
    duration = (min if "shortest" in used else max)(kept.values(), default=0.0)
    if "frames" in used or "vframes" in used:
        frames = _frame_limit(outputs)
        duration = min(duration, frames / frame_rate) if frames and frame_rate else math.inf
    elif retimed or "r" in used:
        frames = None
    return media.Expected(
        duration if 0 < duration < math.inf else None,
        frame_rate,
        frames,
        {kind: value for kind, value in kept.items() if kind not in uncertain and value < math.inf},
        {} if used & _DROPPING else streams,
    )


def _frame_limit(outputs: Sequence[Options]) -> int | None:
    """How many frames of video are asked for."""
    for options in outputs:
        for key, value in options.items():
            if (key == "vframes" or key in {"frames", "frames:v", "frames:v:0"}) and media.number(value):
                return int(float(value))
    return None


def is_empty_text(task: Mapping[str, Any], name: str) -> bool:
    """Whether an output has nothing because it is of text subtitles, and there are none in what was asked for."""
    kinds = {entry.get("specifier", "")[:1].lower() for entry in task["source_maps"]}
    return kinds == {"s"} and os.path.getsize(name) == 0


def earliest_start(task: Mapping[str, Any], sets: Mapping[str, Options], probes: Sequence[Mapping[str, Any]]) -> float:
    """When the first of the streams that go into the output begins: there the output has its beginning."""
    cut = output_window(task, sets)
    inputs = [options for _, options in sources(task)]
    starts = [
        _window(stream, probes[entry["source"]], inputs[entry["source"]], cut)[0]
        for entry in task["source_maps"]
        for stream in mapped(probes[entry["source"]].get("streams", []), entry)
        if stream.get("codec_type") in {"video", "audio"} and not stream.get("disposition", {}).get("attached_pic")
    ]
    return min(starts, default=0.0)


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
            and set(re.findall(r"(?:^|[,;\]])\s*(\w+)", text_of(value))) <= _HARMLESS_FILTERS
        ):
            continue
        return True
    # Where a loop begins, and whether a stream's late start counts in each, depends on container and version.
    return bool(options.get("stream_loop"))


def mapped(streams: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The streams of a source that a source map selects."""
    if "specifier" in entry:
        kind = KINDS[entry["specifier"][0].lower()]
        streams = [stream for stream in streams if stream.get("codec_type") == kind]
    return list(streams[int(entry["stream"]) :][:1] if "stream" in entry else streams)


def used_shares(
    task: Mapping[str, Any], probes: Sequence[Mapping[str, Any]], duration: float | None
) -> dict[str, float]:
    """How much of each source that is mapped goes into an output of `duration` seconds: 1 is all of it."""
    shares: dict[str, float] = {}
    mapped = {int(entry["source"]) for entry in task["source_maps"]}
    for index, (name, options) in enumerate(sources(task)):
        total = media.number(probes[index].get("format", {}).get("duration"))
        share = duration / total if duration and total else 1.0
        if index in mapped:
            shares[name] = max(shares.get(name, 0.0), share if options.get("stream_loop") else min(share, 1.0))
    return shares


def windows_of(found: Mapping[str, Any], options: Options, cut: Options) -> list[tuple[float, float]]:
    """From when to when a source is read, in its own seconds, and then what of that is written; NaN if unsure."""
    total = media.number(found.get("format", {}).get("duration"))
    if "sseof" in options and total is not None:
        options = {**options, "ss": total + media.clock(options["sseof"])}
    windows = []
    for window in (options, cut):
        first = media.clock(window["ss"]) if "ss" in window else 0.0
        if "t" in window:
            last = first + media.clock(window["t"])
        else:
            last = media.clock(window["to"]) if "to" in window else math.inf
        windows.append((first, last))
    return windows


def _window(
    stream: Mapping[str, Any], found: Mapping[str, Any], options: Options, cut: Options
) -> tuple[float, float, bool]:
    """From when to when a source's stream stands in the output (infinite if unknown), and whether that is certain."""
    container = found.get("format", {})
    total = media.number(container.get("duration"))
    certain = media.format_of(found) in media.CERTAIN_FORMATS
    # Without durations of its streams, a container's is that of the longest, which need not be this one.
    certain = certain and ("duration" in stream or bool(media.tag(stream)) or len(found.get("streams", [])) == 1)
    start, end = media.bounds(stream, found)
    loops = media.number(options.get("stream_loop"))
    if loops or options.get("f") == "concat":  # of which ffprobe tells the first file's
        end = math.inf if not loops or loops < 0 or total is None else end + loops * total
    for first, last in windows_of(found, options, cut):
        if math.isnan(first) or math.isnan(last):
            return 0.0, math.inf, False
        start, end = max(start, first) - first, min(end, last) - first
    return start, end, certain


def certain_length(found: Mapping[str, Any]) -> float | None:
    container = found.get("format", {})
    is_certain = media.format_of(found) in media.CERTAIN_FORMATS
    return media.number(container.get("duration")) if is_certain else None
