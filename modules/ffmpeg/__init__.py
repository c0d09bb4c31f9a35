"""The `ffmpeg` module: encode with ffmpeg, and believe the result only after looking at it.

ffmpeg's exit status does not say whether the output is whole: a source that ends in the middle gives 0 and a short
file. So the output is written under a temporary name, and gets its own only when ffprobe finds in it the streams and
the duration that `expect` predicts.
"""

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from loguru import logger

from app.exceptions import CleanupError, RunError, ValidationError
from modules import media, tool
from modules import schema as task_schema
from modules.base import BaseModule
from modules.checks import (
    chain_checks,
    is_settled,
    require_space,
    same_file,
    size_of,
    source_problems,
    target_problems,
)
from modules.command import Options, to_argument
from modules.containers import find_shortage
from modules.ffmpeg import encoders, packets
from modules.ffmpeg.encode import encode
from modules.ffmpeg.expect import (
    KINDS,
    certain_length,
    expect_output,
    is_empty_text,
    mapped,
    used_shares,
)
from modules.ffmpeg.options import (
    IMAGES,
    MANY_FILES,
    fetch_option_set,
    ffmpeg_command,
    is_file,
    names,
    phase,
    probe_options,
    source_argument,
    source_map,
    sources,
)
from modules.media import ExpectedOutput
from modules.output import Output, is_special

_CODECS = names("c codec vcodec acodec scodec")

_TIMES = names("ss t to sseof stream_loop accurate_seek")
"""Input options without which ffprobe reads the source just as well."""

_ENDS = names("t to f fs frames vframes aframes dframes shortest isync")
"""Options with which ffmpeg may not read a source to its end, or not as the container that it is."""


class Ffmpeg(BaseModule):
    """Encodes the task's sources into one output file."""

    schema = task_schema.load("ffmpeg")
    tools = ("ffmpeg", "ffprobe")
    cleanup_on_failure = True

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self._sets: dict[str, Options] = {}
        self._probed: dict[str, tuple[tuple[int, int], Mapping[str, Any]]] = {}
        self.report()
        logger.debug("Data: {}", self.task)

    def outputs(self) -> list[str]:
        return [] if self._is_discarded() else [self.task["output_file"]]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows. Fetches the option sets.

        Raises:
            ValidationError: An option set cannot be fetched.
        """
        self._need_sets(ValidationError)
        if self._is_discarded():
            return [shlex.join(self._argv(os.devnull))]
        output = self._output()
        return [shlex.join(self._argv(output.temporary)), output.commit_command()]

    def find_problems(self) -> Iterator[str]:
        """Check files first, then ask the server, then ffmpeg and ffprobe."""
        task = self.task.to_dict()
        are_here = not any(map(tool.missing, self.tools))
        yield from chain_checks(
            self._source_problems(task),
            self._map_problems(task),
            self._fetch_sets(),
            self._output_problems(task),
            self._shortages(task, self._can_look),
            self._encoder_problems(task) if are_here else (),
            self._stream_problems(task) if are_here else (),
        )

    @classmethod
    def probe_encoders(cls) -> Iterator[tuple[str, str]]:
        return encoders.try_all()

    def run(self) -> None:
        self.set_start_time()
        for name in self.tools:
            tool.require(name, RunError)
        self._need_sets(RunError)
        task = self.task.to_dict()
        if problems := list(self._shortages(task, os.path.isfile)):
            raise RunError(problems=problems)
        probes = [self._probe_source(source) for source in self._sources()]
        expected = expect_output(task, self._sets, probes)
        if self._is_discarded():
            self._encode(os.devnull, expected)
        elif not self._was_written(expected):
            require_space(self, {task["output_file"]: size_of(used_shares(task, probes, expected.duration))})
            self._write(task, probes, expected)
        self.report(done=True)

    def _write(self, task: Mapping[str, Any], probes: Sequence[Mapping[str, Any]], expected: ExpectedOutput) -> None:
        with self._output() as output:
            self._encode(output.temporary, expected)
            self.report(info={"phase": "checking"})
            if problem := output.find_no_space():  # ffmpeg 5.1 exits with 0 if only the last bytes have no room
                raise RunError(message=problem)
            if is_empty_text(task, output.temporary):
                self.warn(f"{output.target} is empty: there are no subtitles in what was asked for")
            else:
                goes_on = partial(packets.goes_on, task, self._sets, probes, self.will_exist)
                media.verify(output.temporary, expected, goes_on)
            output.commit()
        logger.info("Wrote {}", output.target)

    def _encode(self, target: str, expected: ExpectedOutput) -> None:
        encode(self._argv(target), expected, phase(self.task.to_dict(), self._sets), self.report)

    def cleanup(self) -> None:
        """Remove the temporary file that a killed process of this job may have left."""
        try:
            if not self._is_discarded():
                self._output().discard()
        except OSError as error:
            raise CleanupError(message=f"temporary file of {self.task['output_file']}: {error}") from error

    def _was_written(self, expected: ExpectedOutput) -> bool:
        """True if an earlier attempt has written the output: it got its name only when it was whole.

        Raises:
            RunError: The file of that name is not the output.
        """
        output = self._output()
        if not self.resumed or self.task.to_dict().get("overwrite", False) or not os.path.lexists(output.target):
            return False
        try:
            media.verify(output.target, expected)
        except RunError as error:
            raise RunError(message=f"{output.target}: exists, and is not to be overwritten: {error.message}") from error
        self.warn(f"{output.target} is there and whole: taken for written by an earlier attempt")
        return True

    def _is_discarded(self) -> bool:
        """True if the output is /dev/null: the first of two passes only writes a log for the second."""
        return bool(os.path.realpath(self.task["output_file"]) == os.devnull)

    def _output(self) -> Output:
        return Output(self.task["output_file"], overwrite=self.task.to_dict().get("overwrite", False), warn=self.warn)

    def _sources(self) -> list[tuple[str, Options]]:
        return sources(self.task.to_dict())

    def _argv(self, target: str) -> list[str]:
        return ffmpeg_command(self.task.to_dict(), self._sets, target, self.will_exist)

    def _source_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        for index, (name, options) in enumerate(self._sources()):
            if is_file(name, options) or self.will_exist(name):
                yield from source_problems(self, f"sources[{index}]", name)
            if same_file(name, task["output_file"]):
                yield f"output_file: {name} is also sources[{index}]"

    def _map_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        count = len(sources(task))
        for index, entry in enumerate(task["source_maps"]):
            if entry["source"] >= count:
                yield f"source_maps[{index}].source: {entry['source']}, but there are only sources 0 to {count - 1}"

    def _shortages(self, task: Mapping[str, Any], can_look: Callable[[str], bool]) -> Iterator[str]:
        """Sources that have fewer bytes than their containers state, if the task needs them to their ends."""
        ends = {key.split(":")[0] for entry in task["output_maps"] for key in self._known_options(entry)}
        mapped = {int(entry["source"]) for entry in task["source_maps"]}
        for index, (name, options) in enumerate(self._sources()):
            if index not in mapped or _ENDS & (ends | set(options)) or not can_look(name):
                continue
            if shortage := find_shortage(name):
                yield f"sources[{index}]: {name}: {shortage}"

    def _can_look(self, name: str) -> bool:
        """True if a source is there by now, and stays as it is until the task runs."""
        return is_settled(self, name) and os.path.isfile(name) and os.access(name, os.R_OK)

    def _known_options(self, entry: Mapping[str, Any]) -> Options:
        """An output map's options, without those of an option set that could not be fetched."""
        return {**entry.get("options", {}), **self._sets.get(entry.get("option_set", ""), {})}

    def _output_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        name = task["output_file"]
        if self._is_discarded():
            return
        yield from target_problems(self, "output_file", name, overwrite=task.get("overwrite", False) or self.resumed)
        if self._writes_several(task):
            yield f"output_file: {name}: ffmpeg writes several files, which the ffmpeg module does not support"

    def _writes_several(self, task: Mapping[str, Any]) -> bool:
        name = task["output_file"]
        extension = os.path.splitext(name)[1][1:].lower()
        formats = {
            to_argument(value)
            for entry in task["output_maps"]
            for key, value in self._known_options(entry).items()
            if key.split(":")[0] == "f"
        }
        is_image = "image2" in formats if formats else extension in IMAGES
        return bool(
            extension in {"m3u8", "mpd"} or formats & MANY_FILES or (is_image and re.search(r"%\d*d", name, re.ASCII))
        )

    def _encoder_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        for index, entry in enumerate(task["output_maps"]):
            name = entry.get("option_set")
            for key, value in self._known_options(entry).items():
                if key.split(":")[0] in _CODECS and isinstance(value, str) and (why := encoders.find_problem(value)):
                    is_of_set = key in self._sets.get(name, {})
                    place = f"option_set: option set {name!r}: options" if is_of_set else "options"
                    yield f"output_maps[{index}].{place}.{key}: {why}"

    def _stream_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        """Mapped streams that their source lacks, and sources that cannot be read or end before the encode starts."""
        probes: dict[int, Mapping[str, Any]] = {}
        for index, (name, options) in enumerate(self._sources()):
            if self._can_look(name):
                probes[index] = self._probe_source((name, options))
                if not probes[index] and not set(options) - _TIMES:
                    yield f"sources[{index}]: {name}: is no media that ffprobe can read"
                length = certain_length(probes[index])
                if length is not None and "stream_loop" not in options and media.clock(options.get("ss")) >= length:
                    yield f"sources[{index}]: {name}: ss {options['ss']} is after its end ({length:.1f} s)"
        for index, entry in enumerate(task["source_maps"]):
            streams = probes.get(entry["source"], {}).get("streams")
            if streams and not entry.get("optional") and not mapped(streams, entry):
                kind = KINDS.get(entry.get("specifier", "")[:1].lower(), "")
                count = len(mapped(streams, {key: entry[key] for key in entry if key != "stream"}))
                has = f"{count} {kind} stream{'s' if count != 1 else ''}".replace("  ", " ")
                yield f"source_maps[{index}]: {source_map(entry)}, but sources[{entry['source']}] has {has}"

    def _need_sets(self, error: type[ValidationError | RunError]) -> None:
        if problems := list(self._fetch_sets()):
            raise error(problems=problems)

    def _fetch_sets(self) -> Iterator[str]:
        """Fetch the option sets that have not been fetched yet. Yields a problem for each that cannot be."""
        for index, entry in enumerate(self.task.to_dict()["output_maps"]):
            name = entry.get("option_set")
            if name is None or name in self._sets:
                continue
            try:
                self._sets[name] = fetch_option_set(name)
            except ValidationError as error:
                yield from (f"output_maps[{index}].option_set: {problem}" for problem in error.problems)

    def _probe_source(self, source: tuple[str, Options]) -> Mapping[str, Any]:
        """ffprobe's answer for a source, empty if it has none: ffmpeg itself will say what is wrong with the source."""
        name, options = source
        if is_special(name):
            return {}  # ffprobe would take away what it reads of a pipe
        forced = probe_options(options)
        key = shlex.join([name, *forced])
        stamp = _stamp(name)
        if stamp and key in self._probed and self._probed[key][0] == stamp:
            return self._probed[key][1]  # of the validation: a probe takes as long as a short task's whole start
        try:
            found = media.probe(source_argument(name, self.will_exist), forced)
        except RunError as error:
            logger.debug("{}", error.message)
            found = {}
        if stamp:
            self._probed[key] = stamp, found
        return found


def _stamp(name: str) -> tuple[int, int] | None:
    """A file's size and time of modification, by which a change is noticed; `None` if `name` is no file."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
