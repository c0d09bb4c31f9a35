"""Check the HandBrakeCLI options of a task's data, and make a command line of them.

The known options are those that the installed HandBrakeCLI lists or accepts, so that a newer version's options work,
too. They are checked before anything runs because 1.6.1 exits with 0 after an option, encoder or container that it does
not know.
"""

import dataclasses
import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.exceptions import Unfit
from ipc.words import suggestion
from modules import tool
from modules.command import Options, to_argument
from modules.handbrake.presets import file_problems, known_presets, only_preset
from modules.handbrake.values import high_quality, value_problems
from modules.installed import help_of

TOOL = "HandBrakeCLI"

_RESERVED = frozenset(
    {
        "input", "json", "output",
        "encoder_level_list", "encoder_preset_list", "encoder_profile_list", "encoder_tune_list", "help",
        "preset_export", "preset_export_description", "preset_export_file", "preset_list", "queue_import_file", "scan",
        "version",
    }
)  # fmt: skip
"""Options that the module sets itself, and those with which HandBrakeCLI does something else than encode."""

_UNITS = {"seconds": "seconds", "duration": "seconds", "frames": "frames", "pts": "pts"}

_OPTION_LINE = re.compile(r" {1,12}(?:-\S[,.] *)?(--[A-Za-z][\w-]*(?:, --[\w-]+)*)(\[=| *<)?(number>|float>)?")

_FORMS = frozenset({"custom", "preset", "presets"})

_OLD_ENCODERS = frozenset({"ffmpeg", "ffmpeg2", "ffmpeg4", "libtheora", "mpeg-2", "mpeg-4"})
"""Older names of video encoders. HandBrakeCLI 1.6.1 accepts them though its help does not list them."""

_FILES = frozenset({"preset_import_file", "srt_file", "ssa_file"})


@dataclass(frozen=True)
class Option:
    """An option of HandBrakeCLI, as in its help."""

    flag: str
    value: str = ""
    """`required` or `optional` if the help shows a value, else empty."""
    is_number: bool = False
    """The value is a number, or a list of numbers: HandBrakeCLI 1.6.1 reads anything else as 0."""
    choices: tuple[str, ...] = ()


Known = Mapping[str, Option]
"""Options by their keys in a task's data: `max_height`."""


def known_options() -> Known:
    """The options that the help of the installed HandBrakeCLI lists.

    Raises:
        RunError: HandBrakeCLI cannot be started, or lists no options.
    """
    return _known_options(_program())


def _program() -> str:
    return shutil.which(TOOL) or TOOL


@functools.cache
def _known_options(program: str) -> Known:
    known = read_help(help_of(program, ("--help",)))
    if "output" not in known:
        raise tool.capture([program, "--help"]).error(f"{TOOL} --help lists no options")
    return known


def read_help(text: str) -> Known:
    """The options in the text of `HandBrakeCLI --help`.

    An option's line is indented by at most 8 spaces, its description by 27, and the values to choose from, one a line,
    by 31 (1.6.1).
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
        for choice in _choices(line):
            known |= {key: dataclasses.replace(known[key], choices=(*known[key].choices, choice)) for key in keys}
    return known


def _choices(line: str) -> list[str]:
    """The values to choose from in a line of the help: one, or `auto|none`, `Use 'nvdec'` or `(8/11.025/12 kHz)`."""
    if match := re.match(r" {28,}([^\s=(]+)(?: \([^)]*\))?$", line):
        return [match[1]]
    match = re.search(r"> (\w+(?:\|\w+)+)\s*$|\bUse '(\w+)'|\(([\d./]+) kHz\)", line)
    return re.split(r"[|/]", match[match.lastindex or 0]) if match else []


def _key(flag: str) -> str:
    """`max_height` of `--maxHeight`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", flag.lstrip("-")).replace("-", "_").lower()


def options_of(task: Mapping[str, Any]) -> Options:
    """The options of all sections. If one is in several sections, the last counts, as on the command line."""
    return {key: value for _, key, value in entries(task) if value is not False}


def entries(task: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each option's path in the task's data, its key and its value."""
    for section, options in task.items():
        if isinstance(options, Mapping):
            for key, value in options.items():
                yield f"{section}.{key}", key, value


# --- checks ---


def option_problems(task: Mapping[str, Any], known: Known, warn: Callable[[str], None]) -> Iterator[str]:
    """Problems of the task's options. `warn` is called with what is odd, but no problem."""
    sound: list[tuple[str, str, Any]] = []
    for where, key, value in entries(task):
        problems = [*_problems(key, value, known), *_unknown_names(where, key, value, known, warn)]
        yield from (type(problem)(f"{where}: {problem}") for problem in problems)
        if not problems:
            sound.append((where, key, value))
    files = preset_files(sound)
    if not all(map(os.path.exists, files)):  # an earlier task will write it, and it may define the preset
        sound = [entry for entry in sound if entry[1] not in {"preset", "preset_import_file"}]
    elif files:
        where = next(where for where, key, _ in sound if key == "preset_import_file")
        yield from (f"{where}: {problem}" for problem in file_problems(files, _named_preset(sound)))
    yield from _refusals(sound, known)
    yield from _unlisted(sound)
    given = {key: (where, value) for where, key, value in sound}
    if "encoder" in given and "quality" in given and given["quality"][1] not in (True, False):
        where, value = given["quality"]
        if line := high_quality(str(given["encoder"][1]), items(value)):
            warn(f"{where}: {line}")
    places = {key: (where, _text(key, value)) for where, key, value in sound if key in {"start_at", "stop_at"}}
    if len(units := {_UNITS.get(text.partition(":")[0], "") for _, text in places.values()}) > 1:
        yield f"{places['stop_at'][0]}: {' and '.join(sorted(units))}: expected the unit of start_at"


def _unlisted(options: Sequence[tuple[str, str, Any]]) -> Iterator[str]:
    """Presets, tunes and profiles that the encoder does not have. HandBrakeCLI 1.6.1 itself notices at the encode."""
    encoder = next((value for _, key, value in options if key == "encoder"), None)
    for where, key, value in options:
        if key in {"encoder_preset", "encoder_tune", "encoder_profile"} and isinstance(value, str) and encoder:
            listed = _listed(_program(), f"{_flag(key)}-list", str(encoder))
            for name in value.split(",") if listed else ():
                if name.lower() not in listed:
                    yield f"{where}: {encoder} has no {name!r}{suggestion(name, listed)}"


@functools.cache
def _listed(program: str, flag: str, encoder: str) -> tuple[str, ...]:
    """The values that HandBrakeCLI lists for an encoder; none if the encoder has no such option."""
    finished = tool.capture([program, flag, encoder], tail=1000)
    lines = [*finished.stderr, *finished.stdout.decode(errors="replace").splitlines()]
    return tuple(line.strip() for line in lines if re.fullmatch(r" {4}\S+", line))


def _problems(key: str, value: Any, known: Known) -> Iterator[str]:
    is_known = key in known or (value is False and f"no_{key}" in known) or _is_hidden(key, known)
    option = known.get(key, Option(_flag(key)))
    if not is_known:
        yield f"{TOOL} knows no such option{suggestion(key, known)}"
    elif value is False:
        return
    elif key in _RESERVED:
        yield f"not allowed here: the module gives {option.flag} itself, or {TOOL} would not encode"
    elif value is True and option.value == "required":
        yield f"expected a value, got true: {option.flag} needs one"
    elif not option.value and _text(key, value).startswith("-"):
        yield f"{option.flag} takes no such value"  # it would be an option of its own
    elif not option.value and not isinstance(value, bool) and _is_flag(option):
        yield f"{option.flag} is a flag, which takes no value: {TOOL} would ignore it"
    elif isinstance(value, Mapping) and key != "encopts" and value.keys() & _FORMS and len(value) > 1:
        yield "expected either settings, or custom, or preset"
    elif value is not None and not isinstance(value, bool):
        whole = value if isinstance(value, list) else _text(key, value)
        yield from value_problems(key, _text(key, value), items(whole), option.choices, option.is_number)


def _is_flag(option: Option) -> bool:
    """Ask HandBrakeCLI whether an option takes no value. Its help shows none for some that do (`--arate`)."""
    return any("unknown option" in line for line in _preset_log(_program(), (option.flag, "--no-such-option")))


def _is_hidden(key: str, known: Known) -> bool:
    """True if HandBrakeCLI accepts an option that its help does not list, as 1.6.1 does `--x264-preset`.

    Abbreviations such as `--outp` do not count, though HandBrakeCLI accepts them, too.
    """
    flag = _flag(key)
    if not re.fullmatch(r"[a-z0-9_]+", key) or any(option.flag.startswith(flag) for option in known.values()):
        return False
    return not any("unknown option" in line for line in _preset_log(_program(), (flag,)))


def _unknown_names(where: str, key: str, value: Any, known: Known, warn: Callable[[str], None]) -> Iterator[str]:
    """Encoders or containers that this HandBrakeCLI does not have. Upper and lower case in names are alike."""
    kind = "aencoder" if key == "audio_fallback" else key
    if kind not in {"encoder", "aencoder", "format"} or not isinstance(value, str | list) or not known[kind].choices:
        return
    choices = known[kind].choices
    for name in items(value):
        if name.lower() in {choice.lower() for choice in choices} or (
            kind == "encoder" and name.lower() in _OLD_ENCODERS
        ):
            continue
        # It accepts the video encoders of all builds, and fails only later if this build lacks one.
        if kind == "encoder" or any("ERROR: " in line for line in _preset_log(_program(), (known[kind].flag, name))):
            yield Unfit(f"this {TOOL} has no {name!r}{suggestion(name, choices)}")
        elif kind == "aencoder":
            warn(f"{where}: this {TOOL} does not list {name!r}, and may take another encoder in its place")


def _refusals(options: Sequence[tuple[str, str, Any]], known: Known) -> Iterator[str]:
    """Presets and filters that HandBrakeCLI itself refuses. It stops at the first, so each is tried alone."""
    imports = [(key, value) for _, key, value in options if key in {"preset_import_file", "preset_import_gui"}]
    for where, key, value in options:
        if key in {"preset", "rate", "colorspace"} or (where.startswith("filters_options.") and value is not False):
            for line in _preset_log(_program(), tuple(all_flags([*imports, (key, value)], known))):
                if re.match(r"(ERROR: (Preset x: )?)?Invalid ", line):
                    names = known_presets(preset_files(options)) if key == "preset" else []
                    held = f" (the files have {', '.join(names)})" if names else ""
                    yield f"{where}: {TOOL} refuses it: {line}{held}"


@functools.cache
def _preset_log(program: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """HandBrakeCLI's log when it makes a preset of some arguments, which checks them. Takes a tenth of a second."""
    return tool.capture([program, *argv, "--preset-export", "x"], tail=1000).stderr


# --- the command line ---


def handbrake_command(task: Mapping[str, Any], known: Known, source: str, target: str) -> list[str]:
    """The command line that encodes `source` to `target` with the task's options, in their order."""
    # Without stdbuf, 1.6.1 buffers 4 KiB of progress before it writes to a pipe.
    argv = ["stdbuf", "-oL"] if shutil.which("stdbuf") else []
    return [*argv, TOOL, "--json", "--input", source, "--output", target, *_task_flags(task, known)]


def _task_flags(task: Mapping[str, Any], known: Known) -> list[str]:
    """The arguments for all options of a task, and for the only preset of its preset files."""
    given = list(entries(task))
    preset = only_preset(preset_files(given)) if _named_preset(given) is None else None
    named = [] if preset is None else ["--preset", preset]
    return named + all_flags(((key, value) for _, key, value in given), known)


def preset_query(task: Mapping[str, Any], known: Known) -> tool.Capture:
    """HandBrakeCLI, asked for the preset that it makes of a task's preset and options. It takes a tenth of a second."""
    return tool.Capture([_program(), *_task_flags(task, known), "--preset-export", "x"])


def read_preset(query: tool.Capture) -> Mapping[str, Any]:
    """Wait for the answer of a `preset_query` under way; empty if HandBrakeCLI does not tell."""
    try:
        preset = json.loads(query.result().stdout)["PresetList"][0]
    except (ValueError, LookupError, TypeError):
        return {}
    return preset if isinstance(preset, dict) else {}


def scan_command(task: Mapping[str, Any], known: Known, source: str) -> list[str]:
    """The command line that scans `source`, with those of the task's options that decide which titles it has."""
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
    elif key == "preset_import_file":  # 1.6.1 reads all arguments up to the next dash, and no value after a `=`
        yield option.flag
        yield from (f"./{name}" if name.startswith("-") else name for name in file_names(key, value))
    elif option.value == "optional":  # HandBrakeCLI ignores such a value in an argument of its own
        yield f"{option.flag}={_text(key, value)}"
    else:
        yield from (option.flag, _text(key, value))


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _text(key: str, value: Any) -> str:
    """An option's value in HandBrakeCLI's syntax."""
    match value:
        case None:
            return "none"
        case list():
            return ",".join(_item(item) for item in value)
        case Mapping() if key in {"start_at", "stop_at"}:
            return ":".join(f"{unit}:{to_argument(amount)}" for unit, amount in value.items())
        case Mapping() if key == "crop":
            return ":".join(to_argument(value.get(side, 0)) for side in ("top", "bottom", "left", "right"))
        case {"preset": name} | {"presets": name} if key != "encopts":
            return to_argument(name)
        case Mapping():
            settings = value["custom"] if isinstance(value.get("custom"), Mapping) else value
            return to_argument({name.replace("_", "-"): setting for name, setting in settings.items()})
        case _:
            return to_argument(value)


def _item(value: Any) -> str:
    """An item of a list. Double quotes protect a comma. A quote in the text is left out, as HandBrakeCLI would."""
    text = to_argument(value)
    bare = text.replace('"', "")
    return f'"{bare}"' if "," in text or bare != text else text


def items(value: Any) -> list[str]:
    """The items of a value that is a list or text with commas."""
    return [to_argument(item) for item in value] if isinstance(value, list) else to_argument(value).split(",")


def file_names(key: str, value: Any) -> list[str]:
    """The files that an option's value names; none if the option is not for files."""
    if key not in _FILES or not isinstance(value, str | list):
        return []
    return [value] if key == "preset_import_file" and isinstance(value, str) else items(value)


def preset_files(options: Iterable[tuple[str, str, Any]]) -> list[str]:
    """The preset files that a task's entries import."""
    return [name for _, key, value in options if key == "preset_import_file" for name in file_names(key, value)]


def _named_preset(options: Iterable[tuple[str, str, Any]]) -> str | None:
    return next((_text(key, value) for _, key, value in options if key == "preset" and value is not False), None)


def numbers(value: Any) -> list[int]:
    """The numbers among the items of a value that lists tracks."""
    return [int(item) for item in items(value) if re.fullmatch(r"\s*-?\d{1,9}\s*", item, re.ASCII)]


def audio_encoders(options: Options, count: int) -> list[str]:
    """The encoder of each of `count` audio tracks. HandBrakeCLI repeats the last one for further tracks."""
    named = items(options["aencoder"]) if "aencoder" in options else [""]
    return [named[min(index, len(named) - 1)].lower() for index in range(count)]


def position(value: Any, rate: float | None) -> float | None:
    """Seconds of `{"frames": 50}` or `frames:50`, `None` if they are not known. `rate` is in frames a second."""
    unit, _, amount = _text("start_at", value).partition(":")
    per_second = {"seconds": 1.0, "duration": 1.0, "pts": 90_000.0, "frames": rate}.get(unit)
    try:
        return float(amount) / per_second if per_second else None
    except ValueError:
        return None
