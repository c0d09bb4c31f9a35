"""Files that options of ffmpeg write beside the output: where options name them, and other names in their place.

They count as outputs of the task. ffmpeg overwrites them without a question, whatever its option `-n` says.
"""

import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.exceptions import RunError
from modules.command import Options, to_argument
from modules.output import job_tag

Rename = Callable[[str], str]
"""Gets the name of a file that will be written. Returns the name to write it under, which may be the same."""

_OPTIONS = frozenset(
    {
        "dump_attachment", "print_graphs_file", "sdp_file", "stats_enc_post", "stats_enc_pre", "stats_mux_pre",
        "vstats_file",
    }
)  # fmt: skip
"""Options whose value is a file that ffmpeg writes."""

_GRAPHS = frozenset({"af", "filter", "filter_complex", "lavfi", "vf"})
_SCRIPTS = frozenset({"filter_script", "filter_complex_script", *(f"/{name}" for name in _GRAPHS)})

_FILTERS = {
    "ametadata": (5, "file"),
    "curves": (7, "plot"),
    "deshake": (10, "filename"),
    "firequalizer": (9, "dumpfile"),
    "libvmaf": (1, "log_path"),
    "metadata": (5, "file"),
    "paletteuse": (6, "debug_kdtree"),
    "psnr": (0, "stats_file", "f"),
    "signature": (2, "filename"),
    "ssim": (0, "stats_file", "f"),
    "ssim360": (0, "stats_file", "f"),
    "vidstabdetect": (0, "result"),
    "vmafmotion": (0, "stats_file"),
    "xpsnr": (0, "stats_file", "f"),
}
"""Filters that write a file: its place among the values without a name, and its option's names."""

_STABILIZING = {"vidstabdetect": "result", "vidstabtransform": "input"}
"""The filters of the two passes that make a picture steady, and their options for the file between these."""

_PARAMETERS = frozenset({"x264-params", "x264opts", "x265-params"})
_PARAMETER_FILES = frozenset({"analysis-save", "csv", "dump-yuv", "recon"})
"""Settings of x264 and x265 that write a file. `stats` is one, too, in the passes that write it."""

_LOG_ENDINGS = ("", ".mbtree", ".cutree")
"""Endings of the files that x264 and x265 write for a second pass: the statistics, and what goes with them."""


def log_directory() -> str:
    """The directory for what the job's passes tell one another. It need not exist; the client removes it."""
    return os.environ.get("SISYPHUS_JOB_DIR") or os.path.join(tempfile.gettempdir(), f"sisyphus-{job_tag()}")


def make_log_directory(argv: Sequence[str]) -> None:
    """Make the directory for the passes' files if a command line names it.

    Raises:
        RunError: It cannot be made.
    """
    if any(log_directory() in text for text in argv):
        try:
            os.makedirs(log_directory(), mode=0o700, exist_ok=True)
        except OSError as error:
            raise RunError(message=f"{log_directory()}: no place for the log of a pass: {error.strerror}") from error


def with_own_logs(options: Options, *, has_log: bool) -> Options:
    """The options with files of the job's own for the passes that name none. `has_log`: there is a `passlogfile`.

    The programs' defaults are names in the working directory, which two jobs at once would share.
    """
    changed: dict[str, Any] = {}
    for key, value in options.items():
        name, colon, suffix = key.partition(":")
        changed[key] = value
        if name == "pass" and value is not False and not has_log:
            changed[f"passlogfile{colon}{suffix}"] = os.path.join(log_directory(), "ffmpeg2pass")
        elif name in _PARAMETERS and "pass" in (held := _parameters(value)) and "stats" not in held:
            log = os.path.join(log_directory(), f"{name[:4]}_2pass.log")
            changed[key] = {**value, "stats": log} if isinstance(value, Mapping) else f"{value}:stats={escape(log)}"
        elif name in _GRAPHS and isinstance(value, str):
            changed[key] = _with_own_file(value)
    return changed


def written_names(options: Options) -> list[str]:
    """The files that options write, without the logs of passes."""
    names: list[str] = []

    def note(name: str) -> str:
        names.append(name)
        return name

    renamed(options, note)
    return names


def written_by_graph(graph: str) -> list[str]:
    """The files that the filters of a graph write."""
    return written_names({"filter": graph})


def renamed(options: Options, rename: Rename) -> Options:
    """The options with other names for the files that they write. The logs of passes keep theirs: see `log_names`."""

    def change(name: str, value: Any) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, list):
            return [change(name, item) for item in value]
        if name in _OPTIONS:
            return _renamed(to_argument(value), rename)
        if name in _GRAPHS:
            return renamed_in_graph(to_argument(value), rename)
        return _renamed_in_parameters(value, rename) if name in _PARAMETERS else value

    return {key: change(key.split(":")[0], value) for key, value in options.items()}


def log_names(options: Options) -> list[str]:
    """The files that the options' passes write for a later pass. ffmpeg puts a stream's number into a name."""
    names: list[str] = []
    prefixes = [value for key, value in options.items() if key.split(":")[0] == "passlogfile"]
    if any(key.split(":")[0] == "pass" and to_argument(value) in {"1", "3"} for key, value in options.items()):
        for prefix in map(to_argument, prefixes):
            names += sorted({f"{prefix}-0.log", *glob.glob(f"{glob.escape(prefix)}-[0-9]*.log*")})
    for key, value in options.items():
        held = _parameters(value) if key.split(":")[0] in _PARAMETERS else {}
        if held.get("pass") in {"1", "3"} and "stats" in held:
            names += [held["stats"] + ending for ending in _LOG_ENDINGS]
    own = log_directory() + os.sep
    return [name for name in names if not name.startswith(own)]


def unnamed_problems(options: Options) -> Iterator[tuple[str, str]]:
    """Files that would be written without a name in the options that one could check. Yields the key and a problem."""
    for key, value in options.items():
        name = key.split(":")[0]
        if name in _SCRIPTS and isinstance(value, str) and os.path.isfile(value):
            with open(value, errors="replace") as file:
                names = written_by_graph(file.read(1 << 20))
            if names:
                yield key, f"{value}: its filters write {', '.join(names)}: write them in filter or filter_complex"
        elif name == "dump_attachment" and value == "":
            yield key, "expected a name: without one, the source would say which file is written"
        elif name.startswith("/") and name[1:] in _OPTIONS | _PARAMETERS:
            yield key, f"the file would say which files are written: give the value as {name[1:]}"


def _renamed(name: str, rename: Rename) -> str:
    bare = name.removeprefix("file:")
    if bare in {"", "-"} or bare.startswith("/dev/") or re.match(r"[a-z][a-z0-9+.-]+:", bare):
        return name  # no file, but a stream or an address
    return rename(bare)


# --- parameters of x264 and x265 ---


def _parameters(value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {name: to_argument(held) for name, held in value.items()}
    parts = [part.partition("=") for part in split(value, ":")] if isinstance(value, str) else []
    return {unescape(name): unescape(held) for name, _, held in parts}


def _renamed_in_parameters(value: Any, rename: Rename) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _renamed(to_argument(held), rename) if name in _PARAMETER_FILES else held
            for name, held in value.items()
        }
    parts = split(to_argument(value), ":")
    for index, part in enumerate(parts):
        name, equals, held = part.partition("=")
        if unescape(name) in _PARAMETER_FILES and equals:
            parts[index] = f"{name}={escape(_renamed(unescape(held), rename))}"
    return ":".join(parts)


# --- filters ---

_FILTER = re.compile(r"(\s*(?:\[[^\]]*\]\s*)*)(\w+)(@\w+)?(?:\s*=(.*))?", re.DOTALL)


def renamed_in_graph(graph: str, rename: Rename) -> str:
    """A filter graph with other names for the files that its filters write."""

    def change(name: str, arguments: list[str]) -> list[str]:
        place, *keys = _FILTERS.get(name, (0,))
        for index, argument in enumerate(arguments if keys else ()):
            match = re.fullmatch(r"\s*(\w+)\s*=(.*)", argument, re.DOTALL)
            key, value = match.groups() if match else (keys[0] if index == place else "", argument)
            if key in keys and (new := _renamed(old := unescape(value), rename)) != old:
                arguments[index] = f"{key}={escape(new)}"
        return arguments

    return _changed_graph(graph, change)


def _with_own_file(graph: str) -> str:
    def change(name: str, arguments: list[str]) -> list[str]:
        key = _STABILIZING.get(name)
        if key is None or any(re.match(rf"\s*{key}\s*=", each) for each in arguments):
            return arguments
        if arguments and arguments[0] and not re.match(r"\s*\w+\s*=", arguments[0]):
            return arguments  # the first value without a name is the file's
        return [*filter(None, arguments), f"{key}={escape(os.path.join(log_directory(), 'transforms.trf'))}"]

    return _changed_graph(graph, change)


def _changed_graph(graph: str, change: Callable[[str, list[str]], list[str]]) -> str:
    """A filter graph after `change(name, arguments)` of each filter. What is not changed stays to the letter."""
    pieces = split(graph, ",;", keep=True)
    for index, piece in enumerate(pieces):
        if match := _FILTER.fullmatch(piece):
            labels, name, instance, rest = match.groups()
            raw, *outputs = split(rest or "", "[", keep=True)
            before = split(unescape(raw), ":") if raw else []
            after = change(name, list(before))
            if after != before:
                arguments = re.sub(r"([\\',;\[\]])", r"\\\1", ":".join(after))
                pieces[index] = f"{labels}{name}{instance or ''}={arguments}{''.join(outputs)}"
    return "".join(pieces)


# --- ffmpeg's quoting ---


def split(text: str, separators: str, *, keep: bool = False) -> list[str]:
    r"""The parts of a text between separators that stand neither in '' nor behind a \. `keep` the separators, too."""
    parts = [""]
    for token in re.findall(r"\\.?|'[^']*'?|[^\\']", text, re.DOTALL):
        if token in separators:
            parts += [token, ""] if keep else [""]
        else:
            parts[-1] += token
    return parts


def unescape(text: str) -> str:
    r"""A text without the quotes '' and the \ that protect its characters, and without spaces around it."""
    tokens = re.findall(r"\\.?|'[^']*'?|[^\\']", text.lstrip(" \n\t\r"), re.DOTALL)
    while tokens and tokens[-1] in " \n\t\r":
        tokens.pop()
    return "".join(token.strip("'") if token[0] == "'" else token.removeprefix("\\") for token in tokens)


def escape(text: str) -> str:
    r"""A text in which ffmpeg's quoting means nothing: a \ before each character that would end or quote a value."""
    return re.sub(r"[\\':]|^\s|\s$", r"\\\g<0>", text)
