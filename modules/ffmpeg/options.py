"""ffmpeg's command line, made from a task's data and the option sets on the server."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from app.exceptions import ClientError, ValidationError
from modules import media
from modules import schema as task_schema
from modules.command import Options, flags, to_argument
from modules.data import address, server_data


def names(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


_NOT_A_FILE = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://|(async|bluray|cache|concatf?|crypto|data|fd|file|pipe|subfile)[:,]", re.DOTALL
)

_DEVICES = {"alsa", "decklink", "fbdev", "jack", "kmsgrab", "lavfi", "openal", "oss", "pulse", "v4l2", "x11grab"}

IMAGES = names("""
    bmp dpx exr hdr im1 im24 im8 j2c j2k jls jp2 jpeg jpg jxl ljpg pam pbm pcx pfm pgm pgmyuv phm pix png ppm qoi ras rs
    sgi sun sunras tga tif tiff vbn wbmp xbm xface xwd y
""")
"""Extensions for which ffmpeg writes each frame to a file of its own, with a number in the name."""

MANY_FILES = {"dash", "hds", "hls", "segment", "smoothstreaming", "ssegment", "stream_segment", "tee"}
"""Muxers that write more files than the named one."""


def sources(task: Mapping[str, Any]) -> list[tuple[str, Options]]:
    """Each source's name and options. The first source also has the task's `input_options`; its own take precedence."""
    if not isinstance(task["sources"], list):
        raise TypeError("sources: expected a list")
    entries = [
        (entry, {}) if isinstance(entry, str) else (entry["filename"], entry.get("options", {}))
        for entry in task["sources"]
    ]
    name, own = entries[0]
    entries[0] = (name, {**task.get("input_options", {}), **own})
    return entries


def ffmpeg_command(
    task: Mapping[str, Any], sets: Mapping[str, Options], temporary: str, exists: Callable[[str], bool]
) -> list[str]:
    """The command line that writes the task's output to `temporary`. `sets` are the option sets by name."""
    argv = ["ffmpeg", "-nostdin", "-y", "-progress", "pipe:1", "-stats_period", "1", "-nostats", "-hide_banner"]
    argv += ["-loglevel", "level+info"]  # the level tells errors from the summary that an encoder writes at its end
    for name, options in sources(task):
        argv += [*flags(options, "-"), "-i", source_argument(name, exists)]
    for entry in task["source_maps"]:
        argv += ["-map", source_map(entry)]
    for entry in task["output_maps"]:
        argv += flags(output_options(entry, sets), "-", _specifier(entry))
    return [*argv, media.file_argument(temporary)]


def output_options(entry: Mapping[str, Any], sets: Mapping[str, Options]) -> Options:
    """An output map's options. Those of its option set take precedence."""
    return {**entry.get("options", {}), **(sets[entry["option_set"]] if "option_set" in entry else {})}


def output_window(task: Mapping[str, Any], sets: Mapping[str, Options]) -> Options:
    """The options `ss`, `t` and `to` of the output, from all output maps."""
    outputs = [output_options(entry, sets) for entry in task["output_maps"]]
    return {key: value for options in outputs for key, value in options.items() if key in {"ss", "t", "to"}}


def source_argument(name: str, exists: Callable[[str], bool]) -> str:
    """`name` for `-i`. A file's name that ffmpeg would take for an option or a protocol is marked as a file's."""
    return media.file_argument(name) if exists(name) else name


def source_map(entry: Mapping[str, Any]) -> str:
    """An entry of `source_maps` as the value of `-map`: `0:v:1?`."""
    stream = f":{int(entry['stream'])}" if "stream" in entry else ""
    letter = f":{entry['specifier'][0].lower()}" if "specifier" in entry else ""
    return f"{int(entry['source'])}{letter}{stream}{'?' if entry.get('optional') else ''}"


def _specifier(entry: Mapping[str, Any]) -> str:
    letter = f":{entry['specifier'][0].lower()}" if "specifier" in entry else ""
    return f"{letter}:{int(entry['stream'])}"


def probe_options(options: Options) -> list[str]:
    """The arguments for those input options that change what ffprobe finds."""
    kept = {key: options[key] for key in ("f", "probesize", "analyzeduration") if options.get(key)}
    return list(flags(kept, "-"))


def is_file(name: str, options: Options) -> bool:
    """True if a source must be a file: it is no address, no device and no pattern of numbered pictures."""
    is_sequence = (
        "pattern_type" in options
        or options.get("f") == "image2"
        or (os.path.splitext(name)[1][1:].lower() in IMAGES and re.search(r"%\d*d", name, re.ASCII))
    )
    return not (_NOT_A_FILE.match(name) or str(options.get("f")) in _DEVICES or is_sequence)


def fetch_option_set(name: str) -> Options:
    """The options that the API server keeps under `name`.

    Raises:
        ValidationError: The server has no such set, does not answer, or the set is malformed.
    """
    what = f"option set {name!r}"
    try:
        record = server_data.get("ffmpeg", name)
    except ClientError as error:
        raise ValidationError(problems=[f"{what}: {error.message}"]) from error
    if record is None:
        raise ValidationError(problems=[f"{what}: there is none at {address('ffmpeg', name)}"])
    form = {
        "type": "object",
        "properties": {"options": {"$ref": "#/$defs/options"}},
        "required": ["options"],
        "$defs": task_schema.load("ffmpeg")["$defs"],
    }
    if problems := task_schema.problems(record, form):
        raise ValidationError(problems=[f"{what}: {problem}" for problem in problems])
    options: Options = record["options"]
    return options


def phase(task: Mapping[str, Any], sets: Mapping[str, Options]) -> str:
    """The phase for the status: `pass 1` or the like if the options name a pass, else `encoding`."""
    for entry in task["output_maps"]:
        for key, value in output_options(entry, sets).items():
            inner = value.get("pass") if isinstance(value, Mapping) else re.search(r"(?:^|:)pass=(\d)", str(value))
            number = value if key.split(":")[0] == "pass" else inner[1] if isinstance(inner, re.Match) else inner
            if number:
                return f"pass {to_argument(number)}"
    return "encoding"
