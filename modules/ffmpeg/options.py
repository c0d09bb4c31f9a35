"""ffmpeg's command line, made from a task's data and the option sets on the server."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from app.exceptions import ClientError, ValidationError
from modules import media
from modules import schema as task_schema
from modules.command import Options, to_argument
from modules.data import address, server_data
from modules.ffmpeg import files, known
from modules.ffmpeg.specifiers import Stream, selected, settled_maps, source_map, with_suffix


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


@dataclass(frozen=True)
class EncodeTask:
    """A task's data, the option sets that are fetched, by name, and ffprobe's answers for those of its sources that
    are known, by number."""

    data: Mapping[str, Any]
    sets: Mapping[str, Options] = field(default_factory=dict)
    probes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def sources(self) -> list[tuple[str, Options]]:
        """Each source's name and options. The first also has the task's `input_options`; its own take precedence."""
        if not isinstance(self.data["sources"], list):
            raise TypeError("sources: expected a list")
        entries = [
            (entry, {}) if isinstance(entry, str) else (entry["filename"], entry.get("options", {}))
            for entry in self.data["sources"]
        ]
        name, own = entries[0]
        entries[0] = (name, {**self.data.get("input_options", {}), **own})
        return entries

    @cached_property
    def inputs(self) -> list[Options]:
        """The options of each source."""
        return [options for _, options in self.sources]

    @cached_property
    def outputs(self) -> list[Options]:
        """The options of the file, and of each output map. Those of sets that are not fetched are left out."""
        maps = self.data["output_maps"]
        own = [{**each.get("options", {}), **self.sets.get(each.get("option_set", ""), {})} for each in maps]
        found = [self.data.get("output_options", {}), *own]
        has_log = any(key.split(":")[0] == "passlogfile" for options in found for key in options)
        return [files.with_own_logs(options, has_log=has_log) for options in found]

    @cached_property
    def given(self) -> set[str]:
        """The names of the output's options, without specifiers, but for those that are false."""
        return {key.split(":")[0] for each in self.outputs for key, value in each.items() if value is not False}

    @cached_property
    def formats(self) -> set[str]:
        """The output's containers, by their names to ffmpeg, as far as options say so."""
        options = (item for each in self.outputs for item in each.items())
        return {to_argument(value) for key, value in options if key.split(":")[0] == "f"}

    @cached_property
    def window(self) -> Options:
        """The options `ss`, `t` and `to` of the output."""
        return {key: value for each in self.outputs for key, value in each.items() if key in {"ss", "t", "to"}}

    @cached_property
    def mapped(self) -> set[int]:
        """The sources that the task takes streams from."""
        return {int(entry["source"]) for entry in self.data["source_maps"]}

    @cached_property
    def streams(self) -> list[list[Stream]]:
        """The streams of each source; none of a source that is not known."""
        found = [self.probes.get(index, {}).get("streams", []) for index in range(len(self.sources))]
        return [[each for each in streams if isinstance(each, dict)] for streams in found]

    @cached_property
    def chosen(self) -> list[tuple[int, Stream]]:
        """The streams that the task maps, each with the number of its source."""
        return selected(self.data["source_maps"], self.outputs, self.streams)

    def settled(self) -> "EncodeTask":
        """The task with maps as ffmpeg understands them: see `settled_maps`."""
        return replace(self, data={**self.data, "source_maps": settled_maps(self.data["source_maps"], self.streams)})


def ffmpeg_command(
    task: EncodeTask, temporary: str, exists: Callable[[str], bool], rename: files.Rename = str
) -> list[str]:
    """The command line that writes the task's output to `temporary`, and the files of its options as `rename` says."""
    argv = ["ffmpeg", "-nostdin", "-y", "-progress", "pipe:1", "-stats_period", "1", "-nostats", "-hide_banner"]
    argv += ["-loglevel", "level+info"]  # the level tells errors from the summary that an encoder writes at its end
    for name, options in task.sources:
        if options.get("f") == "lavfi":
            name = files.renamed_in_graph(name, rename)
        argv += [*_flags(files.renamed(options, rename)), "-i", source_argument(name, exists)]
    for entry in task.data["source_maps"]:
        argv += ["-map", source_map(entry)]
    own, *outputs = task.outputs
    argv += _flags(files.renamed(own, rename))  # before those of the streams: the last one counts
    for entry, options in zip(task.data["output_maps"], outputs, strict=True):
        argv += _flags({with_suffix(key, entry): value for key, value in files.renamed(options, rename).items()})
    return [*argv, media.file_argument(temporary)]


def _flags(options: Options) -> Iterator[str]:
    """The arguments that set options. A list repeats its option, false leaves it out, true is a bare flag."""
    for key, value in options.items():
        if key.split(":")[0] == "metadata" and isinstance(value, Mapping):
            value = [f"{name}={to_argument(held)}" for name, held in value.items()]
        for item in value if isinstance(value, list) else [value]:
            if item is not False:
                yield f"-{key}"
            if item is not None and not isinstance(item, bool):
                yield _dictionary(item) if _is_dictionary(key, item) else to_argument(item)


def _is_dictionary(key: str, value: object) -> bool:
    """True for an object with quotes or the like, if ffmpeg reads the option as settings, as it does `x264-params`."""
    if not isinstance(value, Mapping) or all(files.escape(text) == text for text in map(to_argument, value.values())):
        return False
    return known.DICTIONARY in known.table().get(key.split(":")[0], "")


def _dictionary(value: Mapping[str, Any]) -> str:
    texts = {name: to_argument(held) for name, held in value.items()}
    # Jobs of the field have escaped such a text themselves.
    is_escaped = {name: bool(re.search(r"\\[\\':]", text)) for name, text in texts.items()}
    return to_argument({name: text if is_escaped[name] else files.escape(text) for name, text in texts.items()})


def source_argument(name: str, exists: Callable[[str], bool]) -> str:
    """`name` for `-i`. A file's name that ffmpeg would take for an option or a protocol is marked as a file's."""
    return media.file_argument(name) if exists(name) else name


def probe_options(options: Options) -> list[str]:
    """The arguments for those input options that change what ffprobe finds."""
    kept = {key: options[key] for key in ("f", "probesize", "analyzeduration") if options.get(key)}
    return list(_flags(kept))


def is_file(name: str, options: Options) -> bool:
    """True if a source must be a file: it is no address, no device and no pattern of numbered pictures."""
    return not (_NOT_A_FILE.match(name) or is_device(options) or is_sequence(name, options))


def is_device(options: Options) -> bool:
    """True if a source is no file, but what a device or a filter gives."""
    return str(options.get("f")) in _DEVICES


def is_sequence(name: str, options: Options) -> bool:
    """True if a source is a pattern of numbered pictures."""
    is_numbered = os.path.splitext(name)[1][1:].lower() in IMAGES and re.search(r"%\d*d", name, re.ASCII)
    return "pattern_type" in options or options.get("f") == "image2" or bool(is_numbered)


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


def phase(task: EncodeTask) -> str:
    """The phase for the status: `pass 1` or the like if the options name a pass, else `encoding`."""
    for options in task.outputs:
        for key, value in options.items():
            inner = value.get("pass") if isinstance(value, Mapping) else re.search(r"(?:^|:)pass=(\d)", str(value))
            number = value if key.split(":")[0] == "pass" else inner[1] if isinstance(inner, re.Match) else inner
            if number:
                return f"pass {to_argument(number)}"
    return "encoding"


# --- checks ---


def places(task: EncodeTask) -> Iterator[tuple[str, str, Options]]:
    """All options of a task: their path in its data, their place (see `known.PLACES`), and the options."""
    yield "input_options", "source", task.data.get("input_options", {})
    for index, entry in enumerate(task.data["sources"]):
        if isinstance(entry, Mapping):
            yield f"sources[{index}].options", "source", entry.get("options", {})
    yield "output_options", "file", task.data.get("output_options", {})
    for index, entry in enumerate(task.data["output_maps"]):
        yield f"output_maps[{index}].options", "stream", entry.get("options", {})
        if (name := entry.get("option_set")) in task.sets:
            yield f"output_maps[{index}].option_set: option set {name!r}: options", "stream", task.sets[name]


def written(task: EncodeTask) -> Iterator[tuple[str, str, bool]]:
    """The files that options write: the path of the options, the name, and whether it is a log of passes."""
    for index, (name, options) in enumerate(task.sources):
        graph = files.written_by_graph(name) if options.get("f") == "lavfi" else []
        yield from ((f"sources[{index}]", each, False) for each in graph)
    for where, _, options in places(task):
        yield from ((where, name, False) for name in files.written_names(options))
    for index, options in enumerate(task.outputs, -1):
        where = f"output_maps[{index}].options" if index >= 0 else "output_options"
        yield from ((where, name, True) for name in files.log_names(options))


def unquoted(task: Mapping[str, Any], warn: Callable[[str], None]) -> Mapping[str, Any]:
    """The task's data without the quotes around option values that are quoted as a whole. `warn` is told of each.

    The client that jobs in the field were written for splits a command line, as a shell does.
    """
    changed = dict(task)
    for key in ("input_options", "output_options"):
        if key in task:
            changed[key] = unquoted_options(task[key], key, warn)
    for key in ("sources", "output_maps"):
        if isinstance(task.get(key), list):
            changed[key] = [
                {**entry, "options": unquoted_options(entry["options"], f"{key}[{index}].options", warn)}
                if isinstance(entry, Mapping) and "options" in entry
                else entry
                for index, entry in enumerate(task[key])
            ]
    return changed


def unquoted_options(value: Any, where: str, warn: Callable[[str], None]) -> Any:
    """`unquoted` for options, or for one value of any kind. `where` is its path in the task's data."""
    if isinstance(value, Mapping):
        return {name: unquoted_options(held, f"{where}.{name}", warn) for name, held in value.items()}
    if isinstance(value, list):
        return [unquoted_options(item, f"{where}[{index}]", warn) for index, item in enumerate(value)]
    if isinstance(value, str) and re.fullmatch(r"'[^']*'|\"[^\"]*\"", value, re.DOTALL) and len(value) > 2:
        warn(f"{where}: {value} stands in quotes, which are left out: a value needs none")
        return value[1:-1]
    return value
