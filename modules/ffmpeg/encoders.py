"""List the encoders of this build of ffmpeg, and try which of them work on this machine.

A build lists its hardware encoders on every machine, so only a trial tells whether one works.
"""

import base64
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from loguru import logger

from app.exceptions import RunError
from ipc.words import suggestion
from modules import tool
from modules.installed import help_of

TIMEOUT = 60.0
"""Seconds for a trial. The slowest encoder takes 5 (ffmpeg 5.1)."""

_LINE = re.compile(r" ([VAS])[A-Z.]{5} ([\w-]+) +(?:.*\(codec ([\w-]+)\))?")

_SUBTITLE = base64.b64encode(b"1\n00:00:00,000 --> 00:00:01,000\nHello\n").decode()

_SOURCES = {
    "V": ["-f", "lavfi", "-i", "testsrc2=size=352x288:rate=25:duration=1"],
    "A": ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1"],
    "S": ["-f", "srt", "-i", f"data:text/plain;base64,{_SUBTITLE}"],
}
"""A clip of a second for each type of encoder."""

_NEEDS = {
    "adpcm_ima_amv": ["-ar", "22050"],
    "adpcm_swf": ["-ar", "22050"],
    "avui": ["-s", "720x576"],
    "dnxhd": ["-s", "1920x1080", "-pix_fmt", "yuv422p", "-b:v", "120M"],
    "dvvideo": ["-s", "720x576", "-pix_fmt", "yuv420p"],
    "g723_1": ["-ar", "8000"],
    "libaom-av1": ["-cpu-used", "8"],  # 30 s without
    "roq_dpcm": ["-ar", "22050"],
    "s302m": ["-ac", "2"],
    "vbn": ["-pix_fmt", "rgba"],
    "vorbis": ["-ac", "2"],
    "xface": ["-s", "48x48"],
}
"""Options without which an encoder refuses the clip, or is slow."""


_BITMAPS = {"dvbsub", "dvdsub", "xsub"}
"""Encoders of subtitles that are pictures. ffmpeg cannot make a clip for them."""


@dataclass(frozen=True)
class ListedEncoder:
    """A line of `ffmpeg -encoders`. `kind` is V, A or S; `codec` is the name of the format."""

    name: str
    kind: str
    codec: str


@functools.cache
def listed(*, anew: bool = False) -> tuple[ListedEncoder, ...]:
    """All encoders of this ffmpeg. `anew`: see `help_of`.

    Raises:
        RunError: ffmpeg cannot list them.
    """
    lines = help_of("ffmpeg", ("-hide_banner", "-encoders"), anew=anew).splitlines()
    return tuple(ListedEncoder(found[2], found[1], found[3] or found[2]) for found in map(_LINE.match, lines) if found)


def find_problem(name: str) -> str | None:
    """A message for a person if this ffmpeg has no such encoder, else `None`. A codec's name means its encoder."""
    if name == "copy":
        return None
    names: set[str] = set()
    for anew in (False, True):
        try:
            names = {text for encoder in listed(anew=anew) for text in (encoder.name, encoder.codec)}
        except RunError as error:  # the encode will fail, too, and say why
            logger.debug("The encoders are not known: {}", error.message)
            return None
        if name in names:
            return None
    return f"this ffmpeg has no encoder {name!r}{suggestion(name, sorted(names))}"


def try_all() -> Iterator[tuple[str, str]]:
    """Encode a second with each encoder. Yields its name, and why it does not work, or ''. Takes half a minute."""
    from concurrent.futures import ThreadPoolExecutor  # which no task needs

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        yield from zip((encoder.name for encoder in listed()), pool.map(_try, listed()), strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _try(encoder: ListedEncoder) -> str:
    if encoder.name in _BITMAPS:
        return "not tried: it takes subtitles that are pictures"
    argv = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error"]
    needs = _NEEDS.get(encoder.name, [])
    if encoder.name.endswith("_vaapi"):
        argv += ["-init_hw_device", "vaapi=device", "-filter_hw_device", "device"]
        needs = ["-vf", "format=nv12,hwupload"]
    argv += [*_SOURCES[encoder.kind], "-map", "0", *needs, "-c", encoder.name, "-strict", "-2", "-f", "null", "-"]
    try:
        finished = tool.capture(argv, timeout=TIMEOUT)
    except RunError as error:
        return error.message
    if not finished.returncode:
        return ""
    if finished.returncode < 0 or not finished.stderr:
        return finished.described()
    return re.sub(r"^\[.*?\] ", "", finished.stderr[0])
