"""HandBrakeCLI's options: those of a task's data as its arguments, and what is wrong with them.

The options are those that the installed HandBrakeCLI knows, by its `--help` or by taking them, so that a newer
version's work too. They are checked before anything runs because 1.6.1 exits with 0 after an option, an encoder or a
container that it does not know.
"""

import dataclasses
import difflib
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules import schema as task_schema
from modules import tool

TOOL = "HandBrakeCLI"

Options = Mapping[str, Any]

_RESERVED = frozenset(
    {
        "input", "json", "output",
        "encoder_level_list", "encoder_preset_list", "encoder_profile_list", "encoder_tune_list", "help",
        "preset_export", "preset_export_description", "preset_export_file", "preset_list", "queue_import_file", "scan",
        "version",
    }
)  # fmt: skip
"""Options that the module gives itself, and those with which HandBrakeCLI does something else than encode."""

_WORDS = {"audio": ("none",), "subtitle": ("scan", "none")}
"""What may stand among the numbers of tracks. 1.6.1 leaves out what else does, without a word."""

_UNITS = {"seconds": "seconds", "duration": "seconds", "frames": "frames", "pts": "pts"}

_OPTION_LINE = re.compile(r" {1,12}(?:-\S[,.] *)?(--[A-Za-z][\w-]*(?:, --[\w-]+)*)(\[=| *<)?(number>|float>)?")

_FORMS = frozenset({"custom", "preset", "presets"})

_OLD_ENCODERS = frozenset({"ffmpeg", "ffmpeg2", "ffmpeg4", "libtheora", "mpeg-2", "mpeg-4"})
"""Older versions' names of video encoders, which 1.6.1 takes though its help does not list them."""

_FILES = frozenset({"preset_import_file", "srt_file", "ssa_file"})


@dataclass(frozen=True)
class Option:
    """An option of HandBrakeCLI, as its help shows it."""

    flag: str
    value: str = ""
    """`required` or `optional` if the help shows a value, else empty."""
    is_number: bool = False
    """Whether the value is a number, or numbers in a list: 1.6.1 takes what is none for 0."""
    choices: tuple[str, ...] = ()


Known = Mapping[str, Option]
"""Options by their keys in a task's data: `max_height`."""


def known_options() -> Known:
    """The options that the help of the installed HandBrakeCLI lists.

    Raises:
        RunError: it cannot be asked.
    """
    return _known_options(_program())


def _program() -> str:
    return shutil.which(TOOL) or TOOL


@functools.cache
def _known_options(program: str) -> Known:
    finished = tool.capture([program, "--help"])
    known = read_help(finished.stdout.decode(errors="replace"))
    if "output" not in known:
        raise finished.error(f"{TOOL} --help lists no options")
    return known


def read_help(text: str) -> Known:
    """The options in the text of `HandBrakeCLI --help`.

    An option's line is indented by at most 8 spaces, what is said of it by 27, and the values to choose from, one a
    line, by 31 (1.6.1).
    """
    known: dict[str, Option] = {}
    keys: list[str] = []
    for line in text.splitlines():
        if match := _OPTION_LINE.match(line):
            value = {"[": "optional", "<": "required"}.get((match[2] or "").strip()[:1], "")
            options = {_key(flag): Option(flag, value, bool(match[3])) for flag in match[1].split(", ")}
            keys = list(options)
            known |= options
        elif match := re.match(r" {12,}<(number>|float>)?", line):  # the value, on a line of its own
            is_number = bool(match[1])
            known |= {key: dataclasses.replace(known[key], value="required", is_number=is_number) for key in keys}
        elif choice := re.match(r" {28,}([^\s=]+)$", line):
            known |= {key: dataclasses.replace(known[key], choices=(*known[key].choices, choice[1])) for key in keys}
    return known


def _key(flag: str) -> str:
    """`max_height` of `--maxHeight`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", flag.lstrip("-")).replace("-", "_").lower()


def options_of(task: Mapping[str, Any]) -> Options:
    """The options of all sections. Of one that stands in several, the last counts, as on the command line."""
    return {key: value for _, key, value in entries(task) if value is not False}


def entries(task: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each option's path in the task's data, its key and its value."""
    for section, options in task.items():
        if isinstance(options, Mapping):
            for key, value in options.items():
                yield f"{section}.{key}", key, value


# --- what is wrong with them ---


def option_problems(task: Mapping[str, Any], known: Known, warn: Callable[[str], None]) -> Iterator[str]:
    """What is wrong with the task's options; `warn` is told what is only odd."""
    sound: list[tuple[str, str, Any]] = []
    for where, key, value in entries(task):
        problems = [*_problems(key, value, known), *_unknown_names(where, key, value, known, warn)]
        yield from (f"{where}: {problem}" for problem in problems)
        if not problems:
            sound.append((where, key, value))
    files = [name for _, key, value in sound if key == "preset_import_file" for name in file_names(key, value)]
    if not all(map(os.path.exists, files)):  # an earlier task writes one, and a preset may be in it
        sound = [entry for entry in sound if entry[1] not in {"preset", "preset_import_file"}]
    yield from _refusals(sound, known)
    yield from _unlisted(sound)
    places = {key: (where, _text(key, value)) for where, key, value in sound if key in {"start_at", "stop_at"}}
    if len(units := {_UNITS.get(text.partition(":")[0], "") for _, text in places.values()}) > 1:
        yield f"{places['stop_at'][0]}: {' and '.join(sorted(units))}: expected the unit of start_at"


def _unlisted(options: Sequence[tuple[str, str, Any]]) -> Iterator[str]:
    """Presets, tunes and profiles that the encoder does not have; 1.6.1 finds out only when it encodes."""
    encoder = next((value for _, key, value in options if key == "encoder"), None)
    for where, key, value in options:
        if key in {"encoder_preset", "encoder_tune", "encoder_profile"} and isinstance(value, str) and encoder:
            listed = _listed(_program(), f"{_flag(key)}-list", str(encoder))
            for name in value.split(",") if listed else ():
                if name.lower() not in listed:
                    yield f"{where}: {encoder} has no {name!r}{_meant(name, listed)}"


@functools.cache
def _listed(program: str, flag: str, encoder: str) -> tuple[str, ...]:
    """What HandBrakeCLI lists for an encoder; nothing if it takes no such option."""
    finished = tool.capture([program, flag, encoder], tail=1000)
    lines = [*finished.stderr, *finished.stdout.decode(errors="replace").splitlines()]
    return tuple(line.strip() for line in lines if re.fullmatch(r" {4}\S+", line))


def _problems(key: str, value: Any, known: Known) -> Iterator[str]:
    is_known = key in known or (value is False and f"no_{key}" in known) or _is_hidden(key, known)
    option = known.get(key, Option(_flag(key)))
    if not is_known:
        yield f"{TOOL} knows no such option{_meant(key, known)}"
    elif value is False:
        return
    elif key in _RESERVED:
        yield f"not allowed here: the module gives {option.flag} itself, or {TOOL} would not encode"
    elif value is True and option.value == "required":
        yield f"expected a value, got true: {option.flag} needs one"
    elif not option.value and _text(key, value).startswith("-"):
        yield f"{option.flag} takes no such value"  # it would be an option of its own
    elif isinstance(value, Mapping) and key != "encopts" and value.keys() & _FORMS and len(value) > 1:
        yield "expected either settings, or custom, or preset"
    elif value is not None and not isinstance(value, bool):
        for item in _items(value) if option.is_number or key in _WORDS else ():
            if item and not _is_number(item) and item not in _WORDS.get(key, ()):
                words = " or ".join(("a number", *_WORDS.get(key, ())))
                yield f"expected {words}, got {item!r}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+(\.\d*)?\s*", text, re.ASCII) is not None


def _is_hidden(key: str, known: Known) -> bool:
    """Whether HandBrakeCLI takes an option that its help does not list, as 1.6.1 does `--x264-preset`.

    It would take an abbreviation, too: `--outp`.
    """
    flag = _flag(key)
    if not re.fullmatch(r"[a-z0-9_]+", key) or any(option.flag.startswith(flag) for option in known.values()):
        return False
    return not any("unknown option" in line for line in _said_of((flag,)))


def _unknown_names(where: str, key: str, value: Any, known: Known, warn: Callable[[str], None]) -> Iterator[str]:
    """Encoders or containers that this HandBrakeCLI does not have. It takes their names in any case."""
    kind = "aencoder" if key == "audio_fallback" else key
    if kind not in {"encoder", "aencoder", "format"} or not isinstance(value, str | list) or not known[kind].choices:
        return
    choices = known[kind].choices
    for name in _items(value):
        if name.lower() in {choice.lower() for choice in choices} or (
            kind == "encoder" and name.lower() in _OLD_ENCODERS
        ):
            continue
        # Of video encoders it knows those of all builds, and starts without a word.
        if kind == "encoder" or any("ERROR: " in line for line in _said_of((known[kind].flag, name))):
            yield f"this {TOOL} has no {name!r}{_meant(name, choices)}"
        elif kind == "aencoder":
            warn(f"{where}: this {TOOL} does not list {name!r}, and may take another encoder in its place")


def _refusals(options: Sequence[tuple[str, str, Any]], known: Known) -> Iterator[str]:
    """What HandBrakeCLI itself has against presets and filters. It stops at the first, so each is asked about alone."""
    imports = [(key, value) for _, key, value in options if key in {"preset_import_file", "preset_import_gui"}]
    for where, key, value in options:
        if key == "preset" or (where.startswith("filters_options.") and value is not False):
            for line in _said_of(tuple(all_flags([*imports, (key, value)], known))):
                if line.startswith("Invalid "):
                    yield f"{where}: {TOOL} refuses it: {line}"


def _said_of(argv: tuple[str, ...]) -> tuple[str, ...]:
    """What HandBrakeCLI says of arguments, of which it is to make a preset. Takes a tenth of a second.

    Raises:
        RunError: it cannot be started.
    """
    return _asked(_program(), argv)


@functools.cache
def _asked(program: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    return tool.capture([program, *argv, "--preset-export", "x"], tail=1000).stderr


def _meant(name: str, known: Iterable[str]) -> str:
    names = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name[: task_schema.MAX_VALUE].lower(), names, n=1)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""


# --- the command line ---


def arguments(task: Mapping[str, Any], known: Known, source: str, target: str) -> list[str]:
    """The command line that encodes `source` to `target` with the task's options, in their order."""
    # On a pipe, 1.6.1 keeps its progress back until it has 4 KiB of it.
    argv = ["stdbuf", "-oL"] if shutil.which("stdbuf") else []
    argv += [TOOL, "--json", "--input", source, "--output", target]
    return argv + all_flags(((key, value) for _, key, value in entries(task)), known)


def scan_arguments(task: Mapping[str, Any], known: Known, source: str) -> list[str]:
    """The command line that looks into `source`, with those of the task's options that decide which titles it has."""
    deciding = {"angle", "dvdnav", "main_feature", "min_duration", "no_dvdnav", "title"}
    pairs = [
        (key, value) for _, key, value in entries(task) if key in deciding and not list(_problems(key, value, known))
    ]
    return [TOOL, "--json", "--scan", "--input", source, *all_flags(pairs, known)]


def all_flags(options: Iterable[tuple[str, Any]], known: Known) -> list[str]:
    return [argument for key, value in options for argument in _flags(key, value, known)]


def _flags(key: str, value: Any, known: Known) -> Iterator[str]:
    option = known.get(key) or Option(_flag(key))
    if value is False:
        negative = f"no_{key}"
        if negative in known or _is_hidden(negative, known):  # as `--no-align-av` is
            yield known[negative].flag if negative in known else _flag(negative)
    elif value is True:
        yield option.flag
    elif value == {}:
        return
    elif key == "preset_import_file":  # 1.6.1 takes what follows up to the next dash, and nothing after a `=`
        yield option.flag
        yield from (f"./{name}" if name.startswith("-") else name for name in file_names(key, value))
    elif option.value == "optional":  # as an argument of its own it would be ignored
        yield f"{option.flag}={_text(key, value)}"
    else:
        yield from (option.flag, _text(key, value))


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _text(key: str, value: Any) -> str:
    """An option's value as HandBrakeCLI reads it."""
    match value:
        case None:
            return "none"
        case list():
            return ",".join(_item(item) for item in value)
        case Mapping() if key in {"start_at", "stop_at"}:
            return ":".join(f"{unit}:{_scalar(amount)}" for unit, amount in value.items())
        case Mapping() if key == "crop":
            return ":".join(_scalar(value.get(side, 0)) for side in ("top", "bottom", "left", "right"))
        case {"preset": name} | {"presets": name} if key != "encopts":
            return _scalar(name)
        case Mapping():
            settings = value["custom"] if isinstance(value.get("custom"), Mapping) else value
            return ":".join(_setting(name, setting) for name, setting in settings.items())
        case _:
            return _scalar(value)


def _setting(name: str, value: Any) -> str:
    name = name.replace("_", "-")
    return name if value is None else f"{name}={_scalar(value)}"


def _item(value: Any) -> str:
    """One of a list. Within double quotes, HandBrakeCLI takes a comma for what it is; a quote it always takes away."""
    text = _scalar(value)
    bare = text.replace('"', "")
    return f'"{bare}"' if "," in text or bare != text else text


def _scalar(value: Any) -> str:
    """`true` and `false` are 1 and 0 here, in lists and settings."""
    if isinstance(value, bool | float) and value == int(value):
        return str(int(value))
    return str(value)


def _items(value: Any) -> list[str]:
    """The parts of a value that lists, as a list or as text."""
    return [_scalar(item) for item in value] if isinstance(value, list) else _scalar(value).split(",")


def file_names(key: str, value: Any) -> list[str]:
    """The files that an option names; none unless it is one that does."""
    if key not in _FILES or not isinstance(value, str | list):
        return []
    return [value] if key == "preset_import_file" and isinstance(value, str) else _items(value)


def numbers(value: Any) -> list[int]:
    """The numbers among the parts of a value that lists tracks."""
    return [int(item) for item in _items(value) if re.fullmatch(r"\s*-?\d{1,9}\s*", item, re.ASCII)]


def audio_encoders(options: Options, count: int) -> list[str]:
    """The encoder of each of `count` audio tracks: for those after its last, HandBrakeCLI takes that again."""
    named = _items(options["aencoder"]) if "aencoder" in options else [""]
    return [named[min(index, len(named) - 1)].lower() for index in range(count)]


def position(value: Any, rate: float | None) -> float | None:
    """Seconds of `{"frames": 50}` or `frames:50`, if that can be told; `rate` is that of the frames."""
    unit, _, amount = _text("start_at", value).partition(":")
    per_second = {"seconds": 1.0, "duration": 1.0, "pts": 90_000.0, "frames": rate}.get(unit)
    try:
        return float(amount) / per_second if per_second else None
    except ValueError:
        return None
