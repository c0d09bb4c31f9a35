"""The options of the installed ffmpeg, and the problems of a task's options that it would tell only at the encode.

ffmpeg takes the value of a flag for the name of another output, which it overwrites. So no option runs before ffmpeg's
own help has said what it is.
"""

import functools
import re
from collections.abc import Iterator, Mapping

from loguru import logger

from app.exceptions import RunError
from ipc.words import suggestion
from modules import tool
from modules.command import Options, to_argument
from modules.installed import LOCALE, help_of
from modules.media import number
from modules.schema import MAX_VALUE

FLAG, VALUE, PRINTING, ENCODER, DECODER, MUXER, DEMUXER, SCALER, DICTIONARY = "fvqcdmisD"
"""Kinds of options: flags of ffmpeg itself, its options with a value, those that print something and end; and options
of the libraries, which all have a value. An option may be of several kinds."""

PLACES = {"source", "stream", "file"}
"""Where an option stands: before a source, in an output map, or in `output_options`."""

MAX_CRF = 51
"""The last quality of x264 (x264_param_t), to which it clips all beyond."""

_OF_MODULE = "the module says that itself"
_REFUSED = {
    "h": "it prints a help and ends",
    "i": "a source belongs into sources",
    "loglevel": "the module reads ffmpeg's messages",
    "v": "the module reads ffmpeg's messages",
    "n": "overwrite says that",
    "y": "overwrite says that",
    "progress": _OF_MODULE,
    "report": "it writes a file into the working directory",
    "stats": _OF_MODULE,
    "stdin": "a task has no standard input",
    "vstats": "it writes a file into the working directory: vstats_file names one",
}

_OF_FILE = {"metadata", "map_metadata"}
"""Options that take `g`, `s`, `c` or `p` in the place of a stream: without one of these, they are the file's."""

_MISLABELED = {"hide_banner", "re", "xerror"}
"""Flags for which the help of ffmpeg 5 or 7 shows a value."""

_OWN_LINE = re.compile(r"--?([^\s\[]+)(?:\[\S+)?( \S.*?)?  ")
_LIBRARIES = {
    "AVCodecContext": (ENCODER, DECODER),
    "AVFormatContext": (MUXER, DEMUXER),
    "SWScaler": (SCALER, SCALER),
}
"""Where the options of a library begin in the help, and their kinds: as an output's, and as an input's."""

_LIBRARY_LINE = re.compile(r"  -(\S+) +<(\w+)> +([E.])([D.])")


def condense(text: str) -> str:
    """The options of `ffmpeg -h full`, one a line: the name and the kinds."""
    kinds: dict[str, str] = {}
    section, library = "", ("", "")
    for line in text.splitlines():
        if line.startswith("AVFilter AVOptions"):
            break  # options of filters stand within filters
        if line.endswith(" AVOptions:"):
            library = _LIBRARIES.get(line.split()[0], library)
        elif match := _LIBRARY_LINE.match(line):
            name, kind, of_output, of_input = match.groups()
            found = [letter for letter, flag in zip(library, (of_output, of_input), strict=True) if flag != "."]
            kinds[name] = kinds.get(name, "") + "".join(found or library[:1]) + DICTIONARY * (kind == "dictionary")
        elif match := _OWN_LINE.match(line):
            has_value = match[2] and match[1] not in _MISLABELED
            kinds[match[1]] = PRINTING if "capabilities" in section else VALUE if has_value else FLAG
        elif line.endswith(":"):
            section = line
    return "\n".join(f"{name} {''.join(sorted(set(letters)))}" for name, letters in kinds.items())


@functools.cache
def table(*, anew: bool = False) -> Mapping[str, str]:
    """The kinds of all options in ffmpeg's help, by their names; empty if ffmpeg cannot tell them. See `help_of`."""
    try:
        lines = help_of("ffmpeg", ("-hide_banner", "-h", "full"), condense, anew=anew).splitlines()
    except RunError as error:  # the encode will fail, too, and say why
        logger.debug("The options are not known: {}", error.message)
        return {}
    return {name: kinds for name, _, kinds in (line.partition(" ") for line in lines)}


def kinds_of(name: str, *, anew: bool = False) -> str:
    """The kinds of an option; empty if this ffmpeg does not know it."""
    known = table(anew=anew)
    if name not in known and name[:1] in "vas" and set(known.get(name[1:], "")) & {ENCODER, DECODER}:
        return known[name[1:]]  # as vprofile
    return known.get(name) or {True: VALUE, False: FLAG, None: ""}[_takes_value(name)]


@functools.cache
def _takes_value(name: str) -> bool | None:
    """Ask ffmpeg about one of its own options; `None` if it knows no such option.

    Its help shows no value for many that take one, as `filter_threads` does.
    """
    finished = tool.capture(["ffmpeg", "-hide_banner", "-nostdin", f"-{name}"], environment=LOCALE)
    said = "\n".join(finished.stderr)
    return True if "Missing argument for option" in said else None if "Unrecognized option" in said else False


def option_problems(where: str, options: Options, place: str) -> Iterator[str]:
    """The problems of options at one of `PLACES`. `where` is their path in the task's data."""
    for key, value in options.items():
        for problem in _problems(key, value, place):
            yield f"{where}.{key}: {problem}"


def _problems(key: str, value: object, place: str) -> Iterator[str]:
    name, _, specifier = key.partition(":")
    bare = name.lstrip("/")  # `/vf` reads the value of `vf` from a file
    if reason := _REFUSED.get(bare):
        yield f"not allowed here: {reason}"
        return
    if not table():
        return
    kinds = set(kinds_of(name) or kinds_of(name, anew=True))
    if not kinds:
        yield f"this ffmpeg knows no such option{suggestion(name, table())}"
    elif PRINTING in kinds:
        yield "not allowed here: it prints something and ends"
    elif problem := _misplaced(name, specifier, kinds, place):
        yield problem
    elif value is not False:
        yield from _wrong_value(name, value, kinds)


def ignored_by_copy(options: Options) -> Iterator[str]:
    """The names of settings of encoders among options that copy a stream."""
    if any(key.split(":")[0] in {"c", "codec"} and value == "copy" for key, value in options.items()):
        yield from (
            key
            for key in options
            if ENCODER in (kinds := table().get(key.split(":")[0], "")) and set(kinds) <= {ENCODER, DICTIONARY}
        )


def clipped(options: Options) -> Iterator[str]:
    """The names of qualities beyond x264's last. ffmpeg's help states no limit, and other encoders refuse theirs."""
    if any(
        key.split(":")[0] in {"c", "codec"} and str(value) in ("libx264", "libx264rgb")
        for key, value in options.items()
    ):
        yield from (
            key for key, value in options.items() if key.split(":")[0] == "crf" and (number(value) or 0.0) > MAX_CRF
        )


def _misplaced(name: str, specifier: str, kinds: set[str], place: str) -> str | None:
    if place == "stream" and name in _OF_FILE and not specifier:
        return f"is an option of the file: write it in output_options, or for the stream as {name}:s"
    if kinds & {FLAG, VALUE}:
        return None
    if place == "source":
        is_fitting = kinds & {DECODER, DEMUXER, SCALER}
        return None if is_fitting else "is an option of outputs: write it in output_options or output_maps"
    if not kinds & {ENCODER, MUXER, SCALER}:
        return "is an option of sources: write it in the options of the source"
    if place == "stream" and ENCODER not in kinds:
        return "is an option of the file, which ffmpeg knows for no stream: write it in output_options"
    return None


def _wrong_value(name: str, value: object, kinds: set[str]) -> Iterator[str]:
    values = value if isinstance(value, list) else [value]
    has_value = any(each is not None and not isinstance(each, bool) for each in values)
    is_bare = any(each is None or each is True for each in values)
    takes = FLAG not in kinds
    if FLAG in kinds or (is_bare and VALUE in kinds):
        takes = _takes_value(name) is not False
    if takes and is_bare:
        yield f"expected a value: -{name} needs one"
    elif not takes and has_value:
        shown = to_argument(next(each for each in values if not isinstance(each, bool)))[:MAX_VALUE]
        yield f"-{name} is a flag, which takes no value: ffmpeg would write a file {shown}"
