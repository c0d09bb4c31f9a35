"""The `handbrake` module: encode with HandBrakeCLI, and believe the result only after looking at it.

The options are those that the installed HandBrakeCLI lists in its `--help`, so that a newer version's work too. What
it does with options it does not like is why they are checked here: 1.6.1 exits with 0 after an option, an encoder or a
container that it does not know, and leaves out without a word a subtitle track that the source lacks.

Success is a `WORKDONE` without error, and a file in which ffprobe finds what the source promises. As in the ffmpeg
module, that is checked only where it is certain: a good encode must never fail. What is merely odd is a warning.
"""

import contextlib
import dataclasses
import difflib
import functools
import json
import math
import os
import re
import shlex
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from box import Box
from loguru import logger

from app.exceptions import CleanupError, RunError, ValidationError
from modules import ffmpeg, tool
from modules import schema as task_schema
from modules.base import BaseModule, location
from modules.checks import same_file, source_problems, target_problems
from modules.output import Output, job_tag

TOOL = "HandBrakeCLI"

SCAN_TIMEOUT = 60.0
"""Seconds for a look into the source. One that takes longer, such as all titles of a slow disc, is left out."""

MAX_OBJECT = 64 << 10
"""Characters of one object in HandBrakeCLI's output that are kept."""

Options = Mapping[str, Any]

_OURS = frozenset({"input", "json", "output"})
_NO_ENCODE = frozenset(
    {
        "encoder_level_list", "encoder_preset_list", "encoder_profile_list", "encoder_tune_list", "help",
        "preset_export", "preset_export_description", "preset_export_file", "preset_list", "queue_import_file", "scan",
        "version",
    }
)  # fmt: skip
"""Options that have HandBrakeCLI do something else, or write somewhere else."""

_UNSHOWN_VALUE = frozenset({"arate", "min_duration"})
"""Options that take a value, though the help of 1.6.1 does not show it."""

_FILES = frozenset({"preset_import_file", "srt_file", "ssa_file"})

_OLD_NAMES = {
    "encoder": {"ffmpeg", "ffmpeg2", "ffmpeg4", "libtheora", "mpeg-2", "mpeg-4"},
    "aencoder": {"aac", "dts", "faac", "ffaac", "ffac3", "ffflac", "ffflac24", "lame", "libvorbis"},
    "format": {"m4v", "mkv", "mp4", "webm"},
}
"""Names from older versions, which 1.6.1 still takes though its help does not list them."""

_SUBSTITUTED = frozenset({"ca_aac", "ca_haac", "fdk_aac", "fdk_haac"})
"""Audio encoders in whose place a build without them (1.6.1) takes another."""

_TELLING = re.compile(
    r"(?:\[[\d:]+\] )?(?:ERROR: |\w+ ?\[error\]|Invalid |\w+: Invalid |unknown option |missing parameter "
    r"|Preset import failed|No title found)"
)
"""Lines of the log that tell why there is no output. Every scan of a file logs others with `error` in them."""

_CLOSING = re.compile(r"HandBrake has exited\.|Failed to initialize job|Encode failed")

_TRUNCATED = re.compile(r"\[\S+ @ 0x[0-9a-f]+\] (File ended prematurely|stream \d+, offset \S+: partial file)")
"""What libavformat's Matroska and MP4 demuxers say of a source that ends in the middle."""

_EXPECTED_FRAMES = re.compile(r"sync: expecting (\d+) video frames")

_LEAST_OF_DISC = 0.9
"""Share of a disc's title that an output must have for nobody to be warned: the discs' own tables err."""


@dataclass(frozen=True)
class Option:
    """An option of HandBrakeCLI, as its help shows it."""

    flag: str
    section: str
    """The key of the section in a task's data: `video_options`."""
    value: str = ""
    """`required` or `optional` if the help shows a value, else empty."""
    has_settings: bool = False
    """Whether `key=value` pairs are a value."""
    choices: tuple[str, ...] = ()


Known = Mapping[str, Option]
"""Options by their keys in a task's data: `max_height`."""


@dataclass(frozen=True)
class Title:
    """What HandBrakeCLI finds in a source."""

    path: str
    """The file that the title is in, or the disc."""
    duration: float
    """Seconds."""
    audio: int
    subtitles: int
    chapters: tuple[float, ...]
    """Seconds of each."""


class Handbrake(BaseModule):
    """Encodes the task's source into one output file."""

    schema = task_schema.load("handbrake")
    cleanup_on_failure = True

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self._title: Title | None = None
        self._is_scanned = False
        self.status = Box({"status": "in_progress", "task": "handbrake"})
        self.heartbeat.set_data(self.status)
        logger.debug("Data: {}", self.task)

    def outputs(self) -> list[str]:
        return [self.task["output_file"]]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows.

        Raises:
            ValidationError: HandBrakeCLI cannot be asked for its options.
        """
        tool.require(TOOL)
        output = self._output()
        links = [["ln", "-s", "--", os.path.abspath(path), link] for link, path in self._links(output).items()]
        lines = [*links, self._argv(output), ["mv", "--", output.temporary, output.target]]
        return [shlex.join(line) for line in lines]

    def validate(self) -> None:
        super().validate()
        task = self.task.to_dict()
        found = [problem for name in (TOOL, "ffprobe") if (problem := tool.missing(name))]
        found += self._file_problems(task)
        if tool.missing(TOOL) is None:
            try:
                found += option_problems(task, known_options(), self.warn)
                if not self._will_change(task["source"]) and os.access(task["source"], os.R_OK):
                    found += self._scan_problems(task)
            except ValidationError as error:
                found.append(error.message)
        if found:
            raise ValidationError(message="; ".join(found))

    def run(self) -> None:
        self.set_start_time()
        task = self.task.to_dict()
        for name in (TOOL, "ffprobe"):
            tool.require(name, RunError)
        if not self._is_scanned and (found := list(self._scan_problems(task))):
            raise RunError(message="; ".join(found))
        strict, hoped = expect(options_of(task), self._title, self._probe_source())
        with self._output() as output:
            with _linked(self._links(output)):
                said, is_truncated = self._encode(self._argv(output), output.temporary, strict.frame_rate)
            if is_truncated:  # then a part that is shorter than was asked for is short of what the source lacks
                strict = dataclasses.replace(strict, lengths=_of_video(hoped.lengths))
            _verify(output.temporary, strict, said)
            try:
                _verify(output.temporary, hoped, said)
            except RunError as error:
                self.warn(error.message)
            if os.path.lexists(output.target):
                self.warn(f"{output.target} was there already: it is replaced")
            output.commit()
        logger.info("Wrote {}", output.target)
        self._report(progress=100.0)

    def cleanup(self) -> None:
        """Remove the temporary file that a killed process of this job left; otherwise there is none."""
        try:
            self._output().discard()
        except OSError as error:
            raise CleanupError(message=f"temporary file of {self.task['output_file']}: {error}") from error

    def _output(self) -> Output:
        return Output(self.task["output_file"], overwrite=True)

    def _links(self, output: Output) -> dict[str, str]:
        """Links to make, and what they lead to: HandBrakeCLI 1.6.1 cannot write names that are no UTF-8 as JSON."""
        names = {"source": self.task["source"], "output": output.temporary}
        return {_link(role, name): name for role, name in names.items() if not _is_text(name)}

    def _argv(self, output: Output) -> list[str]:
        source = _argument("source", self.task["source"])
        return arguments(self.task.to_dict(), known_options(), source, _argument("output", output.temporary))

    def _will_change(self, name: str) -> bool:
        """Whether an earlier task of the job writes a file, or into a directory."""
        path = location(name)
        return any(changed == path or changed.startswith(f"{path}/") for changed in self.sisyphus_files)

    def _file_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        source, target = task["source"], task["output_file"]
        if not os.path.isdir(source):
            yield from source_problems(self, "source", source)
        elif not os.access(source, os.R_OK | os.X_OK):
            yield f"source: {source}: cannot be read: permission denied"
        yield from target_problems(self, "output_file", target, overwrite=True)
        sources = [("source", source)]
        for where, key, value in _entries(task):
            if key in _FILES and isinstance(value, str | list):
                sources += [(where, name) for name in _file_names(key, value)]
        for where, name in sources:
            if where != "source":
                yield from source_problems(self, where, name)
            if same_file(name, target):
                yield f"output_file: {target} is also {where}"

    def _scan_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        """Look into the source; what the task asks for and the source lacks."""
        self._is_scanned = True
        source = task["source"]
        argv = [TOOL, "--json", "--scan", "--input", _argument("source", source)]
        argv += _scan_flags(options_of(task), known_options())
        with _linked({_link("source", source): source} if not _is_text(source) else {}):
            try:
                finished = tool.capture(argv, timeout=SCAN_TIMEOUT)
            except RunError as error:
                logger.debug("{}", error.message)
                return
        self._title = read_title(finished.stdout.decode(errors="replace"))
        if self._title is not None:
            yield from title_problems(task, self._title)
        elif finished.returncode and any("No title found" in line for line in finished.stderr):
            yield f"source: {source}: {TOOL} finds no title in it"

    def _probe_source(self) -> Mapping[str, Any]:
        """What ffprobe says of the source; nothing if it cannot tell, as of a disc."""
        name = self.task["source"]
        if os.path.isdir(name) and self._title is not None:  # of the files in it, each is a title
            name = self._title.path
        try:
            return {} if os.path.isdir(name) else ffmpeg.probe(ffmpeg.source_argument(name, os.path.exists))
        except RunError as error:
            logger.debug("{}", error.message)
            return {}

    def _encode(self, argv: Sequence[str], target: str, frame_rate: float | None) -> tuple[Sequence[str], bool]:
        """Run HandBrakeCLI; what it says of errors all the same, and whether it came to where the source is cut short.

        Raises:
            RunError: it failed, or did not do what was asked, whatever its exit status says.
        """
        telling: deque[str] = deque(maxlen=3)
        truncated: list[str] = []
        progress = _Progress(frame_rate, self._report)

        def on_stderr(line: str) -> None:
            progress.take_log(line)
            if _TELLING.match(line) and line not in telling:
                telling.append(line)
            if _TRUNCATED.match(line) and not truncated:
                truncated.append(line)

        logger.info("Running {}", shlex.join(argv))
        finished = tool.run(argv, on_line=progress.take, on_stderr=on_stderr, ask=signal.SIGINT)
        if finished.returncode or progress.error != 0 or not _has_content(target):
            raise _failure(finished, telling, progress.error)
        # Where the end is not asked for, it may have come there and yet need nothing of it.
        if truncated and not options_of(self.task.to_dict()).keys() & {"stop_at", "chapters"}:
            raise RunError(message=f"the source is cut short: {truncated[0]}", stderr=finished.stderr)
        return telling, bool(truncated)

    def _report(self, progress: float | None = None, info: Mapping[str, Any] | None = None) -> None:
        if progress is not None:
            self.status.progress = progress
        if info:
            self.status.info = info
        self.heartbeat.set_data(self.status)


# --- the options ---


def known_options() -> Known:
    """The options of the installed HandBrakeCLI, which is asked once.

    Raises:
        ValidationError: it cannot be asked.
    """
    try:
        return _known_options(shutil.which(TOOL) or TOOL)
    except RunError as error:
        raise ValidationError(message=f"{TOOL} cannot be asked for its options: {error.message}") from error


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
    section = ""
    keys: list[str] = []
    for line in text.splitlines():
        if header := re.match(r"(\w[\w ]*) Options -+$", line):
            section, keys = f"{header[1].lower().replace(' ', '_')}_options", []
        elif match := re.match(r" {1,12}(?:-\S[,.] *)?(--[A-Za-z][\w-]*(?:, --[\w-]+)*)(\[=| *<)?", line):
            value = {"[": "optional", "<": "required"}.get((match[2] or "").strip()[:1], "")
            flags = match[1].split(", ")
            keys = [_key(flag) for flag in flags]
            known |= {key: Option(flag, section, value) for key, flag in zip(keys, flags, strict=True)}
        elif re.match(r" {12,}<", line):  # the value, on a line of its own
            known |= {key: dataclasses.replace(known[key], value="required") for key in keys}
        elif "Custom Format:" in line or "option1=value1" in line:
            known |= {key: dataclasses.replace(known[key], has_settings=True) for key in keys}
        elif choice := re.match(r" {28,}([^\s=]+)$", line):
            known |= {key: dataclasses.replace(known[key], choices=(*known[key].choices, choice[1])) for key in keys}
    return known


def _key(flag: str) -> str:
    """`max_height` of `--maxHeight`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", flag.lstrip("-")).replace("-", "_").lower()


@functools.cache
def _is_taken(program: str, flag: str) -> bool:
    """Whether HandBrakeCLI knows a flag. Some that it does are not in its help: `--no-align-av`, `--no-pad` (1.6.1)."""
    return b"HandBrake" in tool.capture([program, flag, "--version"]).stdout


def options_of(task: Mapping[str, Any]) -> Options:
    """The options of all sections. Of one that stands in several, the last counts, as on the command line."""
    return {key: value for _, key, value in _entries(task) if value is not False}


def _entries(task: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each option's path in the task's data, its key and its value."""
    for section, options in task.items():
        if isinstance(options, Mapping):
            for key, value in options.items():
                yield f"{section}.{key}", key, value


def option_problems(task: Mapping[str, Any], known: Known, warn: Callable[[str], None]) -> Iterator[str]:
    """What is wrong with the task's options; `warn` is told what is only odd."""
    sections = {option.section for option in known.values()}
    for section in task:
        if section not in sections | {"source", "output_file"}:
            yield f"{section}: {TOOL} has no such options{_meant(section, sections)}"
    for where, key, value in _entries(task):
        section = where.partition(".")[0]
        if section not in sections:
            continue
        option = known.get(key) or (known.get(f"no_{key}") if value is False else None)
        if option is None:
            yield f"{where}: {TOOL} knows no such option{_meant(key, known)}"
            continue
        if option.section != section:
            warn(f"{where} belongs in {option.section}")
        yield from (f"{where}: {problem}" for problem in _value_problems(key, value, option))
        if key in {"encoder", "aencoder", "audio_fallback", "format"}:
            yield from _unknown_names(where, "aencoder" if key == "audio_fallback" else key, value, known, warn)
        if _is_stray(key, value, option):
            warn(f"{where}: {TOOL} shows no value for {option.flag}, and may ignore {_text(key, value)!r}")
        if isinstance(value, list) and any(isinstance(item, str) and '"' in item for item in value):
            warn(f"{where}: {TOOL} takes no double quotes in a list: they are left out")
    yield from _preset_problems(task, known)


def _value_problems(key: str, value: Any, option: Option) -> Iterator[str]:
    if value is False:
        return
    if key in _OURS:
        yield f"not allowed here: the module gives {option.flag} itself"
    elif key in _NO_ENCODE or (key == "title" and str(value) == "0"):
        yield f"not allowed here: {TOOL} would not encode"
    elif value is True and option.value == "required":
        yield f"expected a value, got true: {option.flag} needs one"
    elif isinstance(value, Mapping) and key not in {"crop", "start_at", "stop_at"}:
        if not option.has_settings and option.value != "optional":
            yield f"expected a value, got an object: {option.flag} has no settings"
        elif key != "encopts" and value.keys() & {"custom", "preset", "presets"} and len(value) > 1:
            yield "expected either settings, or custom, or preset"


def _is_stray(key: str, value: Any, option: Option) -> bool:
    """Whether HandBrakeCLI may take an option's value for an argument of its own, which it ignores (1.6.1)."""
    return not isinstance(value, bool) and not option.value and key not in _UNSHOWN_VALUE


def _unknown_names(where: str, kind: str, value: Any, known: Known, warn: Callable[[str], None]) -> Iterator[str]:
    """Encoders or containers that this HandBrakeCLI does not have. It takes their names in any case."""
    choices = known[kind].choices if kind in known else ()
    allowed = {choice.lower() for choice in choices} | _OLD_NAMES[kind]
    for name in _items(value):
        if not choices or name.lower() in allowed or isinstance(value, bool):
            continue
        if kind == "aencoder" and name.lower() in _SUBSTITUTED:
            warn(f"{where}: this {TOOL} has no {name}, and takes another encoder in its place")
        else:
            yield f"{where}: this {TOOL} has no {name!r}{_meant(name, choices)}"


def _preset_problems(task: Mapping[str, Any], known: Known) -> Iterator[str]:
    """A preset that HandBrakeCLI does not have, if it can tell already."""
    options = options_of(task)
    name = options.get("preset")
    files = _file_names("preset_import_file", options.get("preset_import_file", []))
    if not isinstance(name, str) or not all(map(os.path.exists, files)):
        return
    imports = {key: options[key] for key in ("preset_import_file", "preset_import_gui") if key in options}
    try:
        finished = tool.capture([TOOL, *_all_flags(imports, known), "--preset-list"], tail=100_000)
    except RunError as error:
        logger.debug("{}", error.message)
        return
    # Names are indented like what is said of others in the folder above. A few too many do no harm here.
    printed = finished.stdout.decode(errors="replace").splitlines()
    listed = {line.strip().rstrip("/") for line in (*finished.stderr, *printed)}
    if name.rpartition("/")[2] not in listed:
        where = next(where for where, key, _ in _entries(task) if key == "preset")
        yield f"{where}: {TOOL} has no preset {name!r}{_meant(name, listed)}"


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
    for options in task.values():
        if isinstance(options, Mapping):
            argv += _all_flags(options, known)
    return argv


def _all_flags(options: Options, known: Known) -> list[str]:
    return [argument for key, value in options.items() for argument in _flags(key, value, known)]


def _scan_flags(options: Options, known: Known) -> list[str]:
    """Those of the options that decide which titles a scan finds."""
    return [
        argument
        for key, value in options.items()
        if key in known and (known[key].section == "source_options" or key == "no_dvdnav")
        if not list(_value_problems(key, value, known[key]))
        for argument in _flags(key, value, known)
    ]


def _flags(key: str, value: Any, known: Known) -> Iterator[str]:
    option = known.get(key) or Option(f"--{key.replace('_', '-')}", "")  # which HandBrakeCLI itself will refuse
    if value is False:
        negative = known[f"no_{key}"].flag if f"no_{key}" in known else f"--no-{option.flag[2:]}"
        if f"no_{key}" in known or (key in known and _is_taken(shutil.which(TOOL) or TOOL, negative)):
            yield negative
    elif value is True:
        yield option.flag
    elif value == {}:
        return
    elif key == "preset_import_file":  # 1.6.1 takes what follows up to the next dash, and nothing after a `=`
        yield option.flag
        yield from (f"./{name}" if name.startswith("-") else name for name in _file_names(key, value))
    elif option.value == "optional":  # as an argument of its own it would be ignored
        yield f"{option.flag}={_text(key, value)}"
    else:
        yield from (option.flag, _text(key, value))


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


def _file_names(key: str, value: Any) -> list[str]:
    return [_scalar(value)] if key == "preset_import_file" and not isinstance(value, list) else _items(value)


def _argument(role: str, name: str) -> str:
    """How HandBrakeCLI is given a file: by a link if it could not write the name, and never so that it takes a name
    for a protocol's, as it would `a:b.mkv`."""
    if not _is_text(name):
        return _link(role, name)
    return f"./{name}" if ":" in name.split("/")[0] else name


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _link(role: str, name: str) -> str:
    extension = os.path.splitext(name)[1]
    return os.path.join(tempfile.gettempdir(), f"{job_tag()}.{role}{extension if _is_text(extension) else ''}")


@contextlib.contextmanager
def _linked(links: Mapping[str, str]) -> Iterator[None]:
    """Have symbolic links for as long as it takes."""
    with contextlib.ExitStack() as stack:
        for link, path in links.items():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)  # a killed process's
            os.symlink(os.path.abspath(path), link)
            stack.callback(os.unlink, link)
        yield


# --- what comes in, and out ---


def read_title(text: str) -> Title | None:
    """The title that an encode takes, of what HandBrakeCLI prints for a scan; `None` if it found none."""
    _, label, rest = text.partition("JSON Title Set: ")
    try:
        found = json.JSONDecoder().raw_decode(rest)[0] if label else {}
        titles = found.get("TitleList", [])
        title = next((title for title in titles if title["Index"] == found.get("MainFeature")), titles[0])
        return Title(
            title["Path"],
            _seconds(title["Duration"]),
            len(title["AudioList"]),
            len(title["SubtitleList"]),
            tuple(_seconds(chapter["Duration"]) for chapter in title["ChapterList"]),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        logger.debug("No title in what {} prints: {!r}", TOOL, error)
        return None


def _seconds(duration: Mapping[str, Any]) -> float:
    """HandBrake's ticks are of a 90 kHz clock."""
    return float(duration["Ticks"]) / 90_000


def title_problems(task: Mapping[str, Any], title: Title) -> Iterator[str]:
    """Tracks that the source lacks, and an output that would change the titles' numbers."""
    source, target = task["source"], task["output_file"]
    for where, key, value in _entries(task):
        if key in {"audio", "subtitle"} and not isinstance(value, bool):
            count = title.audio if key == "audio" else title.subtitles
            for number in _numbers(value):
                if not 1 <= number <= count:
                    has = f"only {key} tracks 1 to {count}" if count else f"no {key} tracks"
                    yield f"{where}: {number}, but {source} has {has}"
    # The temporary file would be one of the titles, and the first.
    if os.path.isdir(source) and os.path.isfile(title.path) and same_file(os.path.dirname(target) or ".", source):
        yield f"output_file: {target}: is in the directory {source}, whose files {TOOL} numbers as titles"


def _numbers(value: Any) -> list[int]:
    return [int(item) for item in _items(value) if re.fullmatch(r"\s*-?\d{1,9}\s*", item, re.ASCII)]


def expect(options: Options, title: Title | None, found: Mapping[str, Any]) -> tuple[ffmpeg.Expected, ffmpeg.Expected]:
    """What the output will have for certain, and what it should have, given what ffprobe says of the source.

    Only the picture is certain, and only of the whole: 1.6.1 makes nothing of a minute's gap in the sound, leaves out
    what it cannot copy, starts too late in an MP4 whose edit list begins late, and a part may end within a long frame.
    """
    streams = [stream for stream in found.get("streams", []) if isinstance(stream, Mapping)]
    streams = [stream for stream in streams if not stream.get("disposition", {}).get("attached_pic")]
    kinds = [stream.get("codec_type") for stream in streams]
    tracks = _numbers(options["audio"]) if options.get("audio") is not None else []
    maps = [{"source": 0, "specifier": "v", "stream": 0}] if kinds.count("video") == 1 else []
    if title is not None and title.audio == kinds.count("audio"):  # else HandBrake has no number for one of them
        maps += [{"source": 0, "specifier": "a", "stream": track - 1} for track in tracks]
    part = window(options, title, _constant_rate(streams))
    start, length = part or (0.0, math.inf)
    cut = {"ss": f"{start:.6f}"} | ({} if math.isinf(length) else {"t": f"{length:.6f}"})
    task = {"sources": [{"filename": "", "options": cut}], "source_maps": maps, "output_maps": []}
    likely = ffmpeg.expect(task, {}, [{**found, "streams": streams}])
    lengths = dict(likely.lengths) if part and not _begins_late(found) else {}
    certain = _of_video(lengths) if part == (0.0, math.inf) else {}
    if part and title is not None and not streams:
        lengths["video"] = max(min(length, title.duration - start), 0.0) * _LEAST_OF_DISC
    return (
        dataclasses.replace(likely, lengths=certain, streams={"video": 1, "audio": _certain_audio(options, tracks)}),
        dataclasses.replace(likely, lengths=lengths, streams={"video": 1, "audio": len(tracks)}),
    )


def _begins_late(found: Mapping[str, Any]) -> bool:
    """Whether timestamps begin late: the durations that Matroska states are then the ends (ffprobe 5.1)."""
    try:
        return float(found["format"]["start_time"]) > 1.0
    except (KeyError, TypeError, ValueError):
        return False


def _of_video(lengths: Mapping[str, float]) -> Mapping[str, float]:
    return {kind: seconds for kind, seconds in lengths.items() if kind == "video"}


def window(options: Options, title: Title | None, rate: float | None) -> tuple[float, float] | None:
    """From which second of the source on the output will be, and how many (infinite: to the end); `None` if unsure.

    `rate` is that of the frames, if it is constant.
    """
    start = _position(options["start_at"], rate) if "start_at" in options else 0.0
    length = _position(options["stop_at"], rate) if "stop_at" in options else math.inf
    if start is None or length is None or "start_at_preview" in options:
        return None
    if "chapters" not in options:
        return start, length
    first, last = (re.findall(r"\d+", str(options["chapters"]), re.ASCII) * 2)[:2] or (0, 0)
    chapters = title.chapters if title is not None else ()
    if start or not math.isinf(length) or not 1 <= int(first) <= min(int(last), len(chapters)):
        return None
    return sum(chapters[: int(first) - 1]), sum(chapters[int(first) - 1 : int(last)])


def _position(value: Any, rate: float | None) -> float | None:
    """Seconds of `{"frames": 50}` or `frames:50`."""
    unit, _, amount = _text("start_at", value).partition(":")
    per_second = {"seconds": 1.0, "duration": 1.0, "pts": 90_000.0, "frames": rate}.get(unit)
    try:
        return float(amount) / per_second if per_second else None
    except ValueError:
        return None


def _constant_rate(streams: Sequence[Mapping[str, Any]]) -> float | None:
    """Frames a second of the video, if they are evenly spaced."""
    video = [stream for stream in streams if stream.get("codec_type") == "video"]
    rates = {stream.get(key) for stream in video for key in ("r_frame_rate", "avg_frame_rate")}
    try:
        return float(Fraction(str(rates.pop()))) if len(rates) == 1 else None
    except (ValueError, ZeroDivisionError):  # ffprobe says 0/0 where it does not know
        return None


def _certain_audio(options: Options, tracks: Sequence[int]) -> int:
    """How many audio streams there will be at least: HandBrakeCLI leaves out those that it cannot copy."""
    encoders = _items(options["aencoder"]) if "aencoder" in options else []
    if options.keys() & {"preset", "preset_import_gui"}:
        return 0
    used = [encoders[min(index, len(encoders) - 1)] if encoders else "" for index in range(len(tracks))]
    return sum(not encoder.lower().startswith(("copy", "dts", "none")) for encoder in used)


def _verify(name: str, expected: ffmpeg.Expected, said: Sequence[str]) -> None:
    try:
        ffmpeg.verify(name, expected)
    except RunError as error:
        raise RunError(message=": ".join([error.message, *said]), stderr=error.stderr) from error


def _has_content(name: str) -> bool:
    try:
        return os.path.getsize(name) > 0
    except OSError:
        return False


def _failure(finished: tool.Finished, telling: Sequence[str], error: int | None) -> RunError:
    """Why HandBrakeCLI did not encode: the lines that tell it are the last ones."""
    rest = [line for line in finished.stderr if line not in telling and not _CLOSING.search(line)]
    argv = finished.argv[finished.argv.index(TOOL) :]  # it is not stdbuf that failed
    ended = dataclasses.replace(finished, argv=argv, stderr=(*rest, *telling))
    message = ended.described()
    if not finished.returncode:
        message += f", but reports error {error}" if error else ", but has encoded nothing"
    return ended.error(": ".join([message, *list(telling)[:-1]]))


class _Progress:
    """Reads HandBrakeCLI's `--json` output, and reports each object of it.

    Attributes:
        error: What `WORKDONE` says; `None` before.
    """

    def __init__(self, frame_rate: float | None, report: Callable[[float | None, Mapping[str, Any]], None]) -> None:
        self.error: int | None = None
        self._frame_rate = frame_rate
        self._report = report
        self._frames: int | None = None
        self._reached = 0.0
        self._object = ""

    def take_log(self, line: str) -> None:
        if match := _EXPECTED_FRAMES.search(line):
            self._frames = int(match[1]) or None

    def take(self, line: str) -> None:
        """Collect an object (`Progress: {` and many lines more), and read it when it is whole."""
        label, brace, rest = line.partition(": {")
        if brace and re.fullmatch(r"\w[\w ]*", label):  # libdvdread writes its own lines between the objects
            self._object = "{" + rest
        elif self._object:
            self._object = f"{self._object}\n{line}"[: MAX_OBJECT + 1]
        if len(self._object) > MAX_OBJECT:
            self._object = ""
        if not line.endswith("}"):
            return
        try:
            found = json.loads(self._object)
        except ValueError:
            return  # the brace was not the last
        self._object = ""
        if isinstance(found, dict):
            self._read(found)

    def _read(self, found: Mapping[str, Any]) -> None:
        match found:
            case {"State": "WORKING", "Working": dict() as working}:
                self._report(self._percent(working), self._info(working))
            case {"State": "SCANNING" | "SEARCHING" | "MUXING" as state}:
                self._report(None, {"phase": state.lower()})
            case {"State": "WORKDONE", "WorkDone": {"Error": int() as error}}:
                self.error = error

    def _percent(self, working: Mapping[str, Any]) -> float:
        passes = max(_number(working, "PassCount") or 1.0, 1.0)
        done = (_number(working, "Pass") or 1.0) - 1 + (_number(working, "Progress") or 0.0)
        # Less than 100 until the file has been verified.
        self._reached = max(self._reached, min(done / passes * 100, 99.9))
        return round(self._reached, 2)

    def _info(self, working: Mapping[str, Any]) -> Mapping[str, Any]:
        number, passes = int(_number(working, "Pass") or 1), int(_number(working, "PassCount") or 1)
        share = _number(working, "Progress")
        rate, average = _rate(working, "Rate"), _rate(working, "RateAvg")
        phase = "encoding" if passes == 1 else f"pass {number} of {passes}"
        info = {
            "phase": "scanning subtitles" if _number(working, "PassID") == -1 else phase,
            "current_frame": round(share * self._frames) if self._frames and share is not None else None,
            "total_frames": self._frames,
            "fps": rate,
            "speed": round(rate / self._frame_rate, 2) if rate and self._frame_rate else None,
            "eta_seconds": self._eta(working, passes - number, average),
        }
        return {key: value for key, value in info.items() if value is not None}

    def _eta(self, working: Mapping[str, Any], passes_left: int, average: float | None) -> float | None:
        """HandBrake's own is that of the pass; of those that follow, nobody knows more than that they are alike."""
        eta = _number(working, "ETASeconds")
        if eta is None or average is None or (passes_left and not self._frames):
            return None
        return round(eta + passes_left * (self._frames or 0) / average, 1)


def _number(found: Mapping[str, Any], key: str) -> float | None:
    """A value that is a finite number, if it is one."""
    value = found.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _rate(working: Mapping[str, Any], key: str) -> float | None:
    """Frames a second; for the first seconds 1.6.1 says 0, or a ten-millionth."""
    value = _number(working, key)
    return round(value, 2) if value is not None and value >= 0.01 else None
