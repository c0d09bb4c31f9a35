"""The `ffmpeg` module: encode with ffmpeg, and believe the result only after looking at it.

ffmpeg's exit status does not say whether the output is whole: a source that ends in the middle gives 0 and a short
file. So the output is written under a temporary name, and gets its own only when ffprobe finds the streams and the
duration in it that the sources promise. Where they promise nothing certain (a filter that changes timing, a source
whose duration is an estimate), the duration is not checked: a good encode must never fail.
"""

import dataclasses
import os
import re
import shlex
import stat
from collections import deque
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
from modules.containers import find_shortage, is_whole
from modules.ffmpeg import encoders
from modules.ffmpeg.expect import (
    KINDS,
    certain_length,
    earliest_start,
    expect,
    is_empty_text,
    mapped,
    used_shares,
    windows_of,
)
from modules.ffmpeg.options import (
    IMAGES,
    MANY_FILES,
    Options,
    arguments,
    fetch_option_set,
    is_file,
    names,
    output_window,
    phase,
    probe_options,
    source_argument,
    source_map,
    sources,
    text_of,
)
from modules.output import Output, is_special

_VAGUE = re.compile(
    r"Conversion failed!|Last message repeated|Error splitting the argument list|Error opening (in|out)put file"
    r"|Error initializing output stream|Error reinitializing filters|Failed to inject frame|Error while "
)
"""Errors that only say that there was one."""

_UNWRITTEN = re.compile(r"Error writing trailer|Error closing file|No space left on device")
"""What ffmpeg 5.1 says of an output whose end it could not write, and exits with 0."""

_CODECS = names("c codec vcodec acodec scodec")

_TIMES = names("ss t to sseof stream_loop accurate_seek")
"""Input options that decide nothing about whether ffprobe can read the source."""

_ENDS = names("t to f fs frames vframes aframes dframes shortest isync")
"""Options after which a source need not be read to its end, or not as the container that it is."""


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
            ValidationError: an option set cannot be had.
        """
        self._need_sets(ValidationError)
        if self._is_discarded():
            return [shlex.join(self._argv(os.devnull))]
        output = self._output()
        return [shlex.join(self._argv(output.temporary)), shlex.join(["mv", "--", output.temporary, output.target])]

    def find_problems(self) -> Iterator[str]:
        """Files first, then the server, then what takes asking ffmpeg and ffprobe."""
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
        return encoders.probe()

    def run(self) -> None:
        self.set_start_time()
        for name in self.tools:
            tool.require(name, RunError)
        self._need_sets(RunError)
        task = self.task.to_dict()
        if problems := list(self._shortages(task, os.path.isfile)):
            raise RunError(problems=problems)
        probes = [self._probe_source(source) for source in self._sources()]
        expected = expect(task, self._sets, probes)
        if self._is_discarded():
            self._encode(self._argv(os.devnull), expected)
        elif not self._was_written(expected):
            require_space(self, {task["output_file"]: size_of(used_shares(task, probes, expected.duration))})
            with self._output() as output:
                self._encode(self._argv(output.temporary), expected)
                self.report(info={"phase": "checking"})
                if problem := output.find_no_space():  # of what is written last, 5.1 exits with 0 all the same
                    raise RunError(message=problem)
                if is_empty_text(task, output.temporary):
                    self.warn(f"{output.target} is empty: there are no subtitles in what was asked for")
                else:
                    media.verify(output.temporary, expected, partial(self._goes_on, task, probes))
                output.commit()
            logger.info("Wrote {}", output.target)
        self.report(done=True)

    def cleanup(self) -> None:
        """Remove the temporary file that a killed process of this job left; otherwise there is none."""
        try:
            if not self._is_discarded():
                self._output().discard()
        except OSError as error:
            raise CleanupError(message=f"temporary file of {self.task['output_file']}: {error}") from error

    def _was_written(self, expected: media.Expected) -> bool:
        """Whether an earlier attempt has written the output. It got its name only when it was whole, as it is now.

        Raises:
            RunError: there is a file of that name, and it is something else.
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
        """Whether nobody wants the output: the first of two passes only takes notes."""
        return bool(os.path.realpath(self.task["output_file"]) == os.devnull)

    def _output(self) -> Output:
        return Output(self.task["output_file"], overwrite=self.task.to_dict().get("overwrite", False))

    def _sources(self) -> list[tuple[str, Options]]:
        return sources(self.task.to_dict())

    def _argv(self, target: str) -> list[str]:
        return arguments(self.task.to_dict(), self._sets, target, self.will_exist)

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
        """Sources that are cut short, as far as their containers tell, unless a part may be all that is wanted."""
        ends = {key.split(":")[0] for entry in task["output_maps"] for key in self._known_options(entry)}
        mapped = {int(entry["source"]) for entry in task["source_maps"]}
        for index, (name, options) in enumerate(self._sources()):
            if index not in mapped or _ENDS & (ends | set(options)) or not can_look(name):
                continue
            if shortage := find_shortage(name):
                yield f"sources[{index}]: {name}: {shortage}"

    def _can_look(self, name: str) -> bool:
        """Whether a source can be looked into before the job."""
        return is_settled(self, name) and os.path.isfile(name) and os.access(name, os.R_OK)

    def _known_options(self, entry: Mapping[str, Any]) -> Options:
        """An output map's options, as far as its option set could be had."""
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
            text_of(value)
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
        """Streams that are mapped, not optional, and not in their source, as far as it can be looked into by now."""
        found: dict[int, Mapping[str, Any]] = {}
        for index, (name, options) in enumerate(self._sources()):
            if self._can_look(name):
                found[index] = self._probe_source((name, options))
                if not found[index] and not set(options) - _TIMES:
                    yield f"sources[{index}]: {name}: is no media that ffprobe can read"
                length = certain_length(found[index])
                if length is not None and "stream_loop" not in options and media.clock(options.get("ss")) >= length:
                    yield f"sources[{index}]: {name}: ss {options['ss']} is after its end ({length:.1f} s)"
        for index, entry in enumerate(task["source_maps"]):
            streams = found.get(entry["source"], {}).get("streams")
            if streams and not entry.get("optional") and not mapped(streams, entry):
                kind = KINDS.get(entry.get("specifier", "")[:1].lower(), "")
                count = len(mapped(streams, {key: entry[key] for key in entry if key != "stream"}))
                has = f"{count} {kind} stream{'s' if count != 1 else ''}".replace("  ", " ")
                yield f"source_maps[{index}]: {source_map(entry)}, but sources[{entry['source']}] has {has}"

    def _need_sets(self, error: type[ValidationError | RunError]) -> None:
        if problems := list(self._fetch_sets()):
            raise error(problems=problems)

    def _fetch_sets(self) -> Iterator[str]:
        """Fetch the option sets that are not here yet; yields what is wrong with them."""
        for index, entry in enumerate(self.task.to_dict()["output_maps"]):
            name = entry.get("option_set")
            if name is None or name in self._sets:
                continue
            try:
                self._sets[name] = fetch_option_set(name)
            except ValidationError as error:
                yield from (f"output_maps[{index}].option_set: {problem}" for problem in error.problems)

    def _probe_source(self, source: tuple[str, Options]) -> Mapping[str, Any]:
        """What ffprobe says of a source; nothing if it cannot tell. ffmpeg itself will say what is wrong with it."""
        name, options = source
        if is_special(name):
            return {}  # what is read of a pipe is gone
        forced = probe_options(options)
        key = shlex.join([name, *forced])
        stamp = _stamp(name)
        if stamp and key in self._probed and self._probed[key][0] == stamp:
            return self._probed[key][1]  # as at validation: a probe takes as long as a short task's whole start
        try:
            found = media.probe(source_argument(name, self.will_exist), forced)
        except RunError as error:
            logger.debug("{}", error.message)
            found = {}
        if stamp:
            self._probed[key] = stamp, found
        return found

    def _encode(self, argv: Sequence[str], expected: media.Expected) -> None:
        truncated: list[str] = []
        errors: deque[str] = deque(maxlen=10)
        progress = _Progress(expected, phase(self.task.to_dict(), self._sets), self.report)

        def on_stderr(line: str) -> None:
            line, level = without_level(line)
            if level in {"error", "fatal", "panic"} and not _VAGUE.search(line):
                errors.append(line)
            if media.TRUNCATED.match(line) and not truncated:
                truncated.append(line)

        logger.info("Running {}", shlex.join(argv))
        finished = tool.run(argv, on_line=progress.take, on_stderr=on_stderr)
        rest = [line for line, _ in map(without_level, finished.stderr) if line not in errors]
        finished = dataclasses.replace(finished, stderr=(*rest, *errors))  # why it failed comes last
        if finished.returncode:
            raise finished.error(": ".join([finished.described(), *list(errors)[-3:-1]]))
        if truncated:
            raise RunError(message=f"a source is cut short: {truncated[0]}", stderr=finished.stderr)
        if unwritten := [line for line in errors if _UNWRITTEN.search(line)]:
            raise finished.error(f"ffmpeg could not write all of it: {unwritten[0]}")

    def _goes_on(self, task: Mapping[str, Any], probes: Sequence[Mapping[str, Any]], kind: str, seconds: float) -> bool:
        """Whether the sources have anything of a type after so many seconds of the output."""
        if not all(os.path.isfile(name) and is_whole(name) for name, _ in self._sources()):
            return True  # what is not in them may be what is missing
        try:
            return self._has_packets(
                task, [self._begins(index, found) for index, found in enumerate(probes)], kind, seconds
            )
        except RunError as error:
            logger.debug("{}", error.message)
            return True

    def _begins(self, index: int, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """What ffprobe says of a source, with the true beginnings of its streams, which headers do not always tell."""
        name, options = self._sources()[index]
        argument, streams = source_argument(name, self.will_exist), []
        for stream in found.get("streams", []):
            if stream.get("codec_type") in {"video", "audio"}:
                first = media.packet_times(argument, probe_options(options), stream["index"], "%+#1")
                stream = {**stream, "start_time": first[0]} if first else stream
            streams.append(stream)
        return {**found, "streams": streams}

    def _has_packets(
        self, task: Mapping[str, Any], probes: Sequence[Mapping[str, Any]], kind: str, seconds: float
    ) -> bool:
        cut = output_window(task, self._sets)
        earliest = earliest_start(task, self._sets, probes)
        for entry in task["source_maps"]:
            found, (name, options) = probes[entry["source"]], self._sources()[entry["source"]]
            (first, last), (cut_first, cut_last) = windows_of(found, options, cut)
            zero = (media.number(found.get("format", {}).get("start_time")) or 0.0) + first + cut_first
            end = zero + min(last - first - cut_first, cut_last - cut_first)
            begin = zero + earliest + seconds
            for stream in mapped(found.get("streams", []), entry):
                if stream.get("codec_type") == kind:
                    argument = source_argument(name, self.will_exist)
                    times = media.packet_times(argument, probe_options(options), stream["index"], f"{begin:.3f}%")
                    if any(begin < time < end for time in times):
                        return True
        return False


def _stamp(name: str) -> tuple[int, int] | None:
    """What tells whether a file has changed; `None` if it is none."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def without_level(line: str) -> tuple[str, str]:
    """A line of ffmpeg's log without its level, `[error]` in `[mov @ 0x55d0] [error] no moov`, and that level."""
    match = re.match(r"(\[[^\]]+ @ 0x[0-9a-f]+\] )?\[(\w+)\] ", line)
    return ((match[1] or "") + line[match.end() :], match[2]) if match else (line, "")


class _Progress:
    """Reads ffmpeg's `-progress` lines, and reports each block of them."""

    def __init__(self, expected: media.Expected, phase: str, report: Callable[..., None]) -> None:
        self._expected = expected
        self._phase = phase
        self._report = report
        self._block: dict[str, str] = {}

    def take(self, line: str) -> None:
        key, _, value = line.partition("=")
        if key != "progress":
            self._block[key.strip()] = value.strip()
            return
        block, self._block = self._block, {}
        duration = self._expected.duration
        seconds = max((media.number(block.get("out_time_us")) or 0.0) / 1e6, 0.0)
        frame, speed = media.number(block.get("frame")), media.number(block.get("speed", "").rstrip("x"))
        info = {
            "phase": self._phase,
            "current_frame": None if frame is None else int(frame),
            "total_frames": None if frame is None else self._expected.frames,
            "fps": media.number(block.get("fps")),
            "speed": speed,
            "eta_seconds": round(max(duration - seconds, 0) / speed, 1) if duration and speed and seconds else None,
        }
        self._report(None if duration is None else seconds / duration * 100, info)
