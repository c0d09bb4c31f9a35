"""Look for packets in the sources of an ffmpeg task behind the end of its output.

A container may state too long a duration, so an output that seems short is an error only if its sources go on.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loguru import logger

from app.exceptions import RunError
from modules import media
from modules.command import Options
from modules.containers import is_whole
from modules.ffmpeg.expect import chosen_streams, earliest_start, windows_of
from modules.ffmpeg.options import output_window, probe_options, source_argument, sources


def goes_on(
    task: Mapping[str, Any],
    sets: Mapping[str, Options],
    probes: Sequence[Mapping[str, Any]],
    exists: Callable[[str], bool],
    kind: str,
    seconds: float,
) -> bool:
    """True if the sources have anything of type `kind` (video, audio) after so many seconds of the output.

    True, too, if a source cannot be read, or not with certainty to its end: the missing part may be there.
    """
    if not all(os.path.isfile(name) and is_whole(name) for name, _ in sources(task)):
        return True
    try:
        measured = [_measure_starts(task, index, probe, exists) for index, probe in enumerate(probes)]
        return _has_packets(task, sets, measured, exists, kind, seconds)
    except RunError as error:
        logger.debug("{}", error.message)
        return True


def _measure_starts(
    task: Mapping[str, Any], index: int, probe: Mapping[str, Any], exists: Callable[[str], bool]
) -> Mapping[str, Any]:
    """ffprobe's answer for a source with the timestamps of the streams' first packets as their starts.

    The headers do not always state the true ones.
    """
    name, options = sources(task)[index]
    argument, streams = source_argument(name, exists), []
    for stream in probe.get("streams", []):
        if stream.get("codec_type") in {"video", "audio"}:
            first = media.packet_times(argument, probe_options(options), stream["index"], "%+#1")
            stream = {**stream, "start_time": first[0]} if first else stream
        streams.append(stream)
    return {**probe, "streams": streams}


def _has_packets(
    task: Mapping[str, Any],
    sets: Mapping[str, Options],
    probes: Sequence[Mapping[str, Any]],
    exists: Callable[[str], bool],
    kind: str,
    seconds: float,
) -> bool:
    cut = output_window(task, sets)
    earliest = earliest_start(task, sets, probes)
    for index, stream in chosen_streams(task, sets, probes):
        if stream.get("codec_type") != kind:
            continue
        probe, (name, options) = probes[index], sources(task)[index]
        (first, last), (cut_first, cut_last) = windows_of(probe, options, cut)
        zero = (media.number(probe.get("format", {}).get("start_time")) or 0.0) + first + cut_first
        end = zero + min(last - first - cut_first, cut_last - cut_first)
        begin = zero + earliest + seconds
        argument = source_argument(name, exists)
        times = media.packet_times(argument, probe_options(options), stream["index"], f"{begin:.3f}%")
        if any(begin < time < end for time in times):
            return True
    return False
