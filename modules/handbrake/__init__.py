"""The `handbrake` module: encode with HandBrakeCLI, and believe the result only after looking at it.

An encode succeeded if HandBrakeCLI reports `WORKDONE` without error and ffprobe finds in the file what `expect`
predicts. A certain prediction that does not hold is an error, a likely one a warning: a good encode must never fail.
"""

import contextlib
import dataclasses
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from app.exceptions import RunError
from modules import checks, context, media, tool
from modules import schema as task_schema
from modules.containers import contradiction, find_shortage, is_whole
from modules.damage import require_read
from modules.handbrake import cli as handbrake_cli
from modules.handbrake import tracks
from modules.handbrake.cli import Title, file_argument, given_names
from modules.handbrake.expect import WHOLE, expect_encode, window
from modules.handbrake.options import (
    TOOL,
    entries,
    file_names,
    handbrake_command,
    known_options,
    numbers,
    option_problems,
    options_of,
    position,
    preset_query,
    read_preset,
    scan_command,
)
from modules.media import ExpectedOutput
from modules.output import WritingModule
from modules.sources import Probes, Source, Watch, files_of, list_problems, part_shortages


class Handbrake(WritingModule):
    """Encodes the task's source into one output file."""

    schema = task_schema.load("handbrake")
    tools = (TOOL, "ffprobe")

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self._title: Title | None = None
        self._is_scanned = False
        self._probes = Probes()

    def outputs(self) -> list[str]:
        return [self.task["output_file"]]

    def inputs(self) -> list[str]:
        return [self.task["source"]]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows.

        Raises:
            RunError: HandBrakeCLI cannot list its options.
        """
        tool.require(TOOL, RunError)
        output = self.output(self.task["output_file"])
        argv = self._argv(file_argument(self.task["source"]), file_argument(output.temporary))
        return [shlex.join(argv), output.commit_command()]

    def find_problems(self) -> Iterator[str]:
        """Check options first, which need no file, then files, then the source's contents."""
        task = self.task.to_dict()
        try:
            known = known_options()
        except RunError as error:
            if not tool.missing(TOOL):  # which is told already
                yield f"{TOOL} cannot be asked for its options: {error.message}"
            yield from self._file_problems(task)
            return
        yield from checks.chain_checks(
            option_problems(task, known, self.warn),
            tracks.selection_problems(task, known),
            self._file_problems(task),
            self._content_problems(task),
        )

    @classmethod
    def ask_tools(cls) -> None:
        known_options()

    @classmethod
    def probe_encoders(cls) -> Iterator[tuple[str, str]]:
        return handbrake_cli.try_encoders()

    def run(self) -> None:
        self.set_start_time()
        for name in self.tools:
            tool.require(name, RunError)
        task = self.task.to_dict()
        problems = list(list_problems(self, "source", task["source"]))
        if problems := problems or ([] if self._is_scanned else list(self._scan_problems(task))):
            raise RunError(problems=problems)
        with Watch(self, self._read_files) as watch:
            watch.warn_of_joined()
            self._encode(task, watch)
        self.report(done=True)

    def _encode(self, task: Mapping[str, Any], watch: Watch) -> None:
        found = self._probe_source()
        certain, likely = expect_encode(options_of(task), self._title, found)
        if shortage := self._find_shortage():
            certain = self._require_part(shortage, certain, likely)
        checks.require_space(self, {task["output_file"]: checks.size_of(self._used_shares(likely.duration))})
        with self.output(task["output_file"]) as output:
            with given_names(task["source"], output.temporary) as (source, target):
                argv = self._argv(source, target)
                said = handbrake_cli.encode(argv, output.temporary, certain.frame_rate, self.report)
            self.report(info={"phase": "checking"})
            if problem := output.find_no_space():  # 1.6.1 makes nothing of it if that comes at the end
                raise RunError(message=problem)
            damage = self._find_damage(said, found)
            with preset_query(task, known_options()) as query:
                written = self._verify(output.temporary, said, certain, likely, found)
                self._verify_tracks(said, found, written, read_preset(query))
            for warning in damage:
                self.warn(warning)
            watch.require_unchanged()
            self.warn_of_loss(output.target)
            output.commit()
        logger.info("Wrote {}", output.target)

    def _verify(
        self,
        name: str,
        said: handbrake_cli.Messages,
        certain: ExpectedOutput,
        likely: ExpectedOutput,
        found: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Check the output by both predictions, and return ffprobe's answer for it. `found` is that for the source."""
        goes_on = partial(self._goes_on, found)
        with media.quoting(said.telling):
            written = media.probe_output(name)
            media.compare(written, certain, goes_on)
            _require_frames(name, written)
        _require_duration(written)
        try:
            with media.quoting(said.telling):
                media.compare(written, likely, goes_on)
        except RunError as error:
            self.warn(error.message)
        for line in said.ignored:
            self.warn(f"a setting is ignored: {line}")
        return written

    def _find_damage(self, said: handbrake_cli.Messages, found: Mapping[str, Any]) -> list[str]:
        """Warnings about damage of the source that HandBrakeCLI tells of, or that may be.

        Raises:
            RunError: A part of the source cannot be read.
        """
        told, damage = said.log.warnings(TOOL), []
        if window(options_of(self.task.to_dict()), self._title, None) == WHOLE:
            # Lines of several threads may run into each other, and are then not recognised.
            doubt = said.frames and media.missing_frames(found, said.frames, is_damaged=True)
            if told or doubt or media.format_of(found) in media.LIKELY_FORMATS | {"mpegts"}:
                damage = require_read([self._title_path()])
            missing = media.missing_frames(found, said.frames, is_damaged=bool(told or damage))
            return [*(told or damage), *([f"{self.task['output_file']}: {missing}"] if missing else [])]
        return told

    def _verify_tracks(
        self,
        said: handbrake_cli.Messages,
        found: Mapping[str, Any],
        written: Mapping[str, Any],
        preset: Mapping[str, Any],
    ) -> None:
        """Warn of each track that was asked for and is not in the output.

        Raises:
            RunError: The output has no audio at all, though the task has not refused it.
        """
        options, title = options_of(self.task.to_dict()), self._title
        source = {"audio": title.audio, "subtitle": title.subtitles} if title is not None else {}
        counts = media.count_streams(written)
        known = max(len(source.get("audio", ())), media.count_streams(found)["audio"])
        if problem := tracks.lost_audio(options, preset, known, said.tracks, counts):
            raise RunError(message=problem)
        for line in tracks.lost_tracks(options, preset, source, said.tracks, counts):
            self.warn(line)
        for line in (*tracks.other_bitrates(options, said.tracks), *tracks.other_mixdowns(options, said.tracks)):
            self.warn(line)

    def _argv(self, source: str, target: str) -> list[str]:
        return handbrake_command(self.task.to_dict(), known_options(), source, target)

    def _content_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        source = task["source"]
        if checks.is_settled(self, source) and not checks.will_be_made(self, source) and os.access(source, os.R_OK):
            if not os.path.isdir(source) and any(checks.source_problems(self, "source", source)):
                return  # which are told already
            if problems := list(list_problems(self, "source", source)):
                yield from problems
                return  # a scan would read the files of the list
            yield from self._scan_problems(task)
            if not self._wants_part() and (shortage := self._find_shortage()):
                yield f"source: {shortage}"

    def _file_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        source, target = task["source"], task["output_file"]
        if not os.path.isdir(source):
            yield from checks.source_problems(self, "source", source)
        elif obstacle := context.find_obstacle(source):
            yield f"source: {source}: {obstacle}"
        elif not os.access(source, os.R_OK | os.X_OK):
            yield f"source: {source}: cannot be read: permission denied"
        yield from checks.target_problems(self, "output_file", target, overwrite=True)
        extension, container = os.path.splitext(target)[1].lower(), str(options_of(task).get("format", "")).lower()
        if not container and extension not in {".mkv", ".mp4", ".webm"}:
            self.warn(f"output_file: {target}: will be MP4, since neither its extension nor format says what else")
        elif container and (line := contradiction(target, container)):
            self.warn(f"output_file: {line}")
        others = [(where, name) for where, key, value in entries(task) for name in file_names(key, value)]
        for where, name in others:
            yield from checks.source_problems(self, where, name)
        for where, name in [("source", source), *others]:
            if checks.same_file(name, target):
                yield f"output_file: {target} is also {where}"

    def _scan_problems(self, task: Mapping[str, Any]) -> Iterator[str]:
        """Scan the source. Yields a problem for each track or chapter that the task asks for and the source lacks."""
        self._is_scanned = True
        source = task["source"]
        path = Path(source)
        if path.exists() and not (path.is_file() or path.is_dir() or path.is_block_device()):
            yield f"source: {source}: is a pipe or a device, which {TOOL} cannot read twice"
            return
        with given_names(source) as (name,):
            try:
                with contextlib.suppress(RunError):  # ffprobe is missing
                    self._probes.begin([self._probed(source)] if os.path.isfile(source) else [])
                argv = scan_command(task, known_options(), name)
                finished = tool.capture(argv, timeout=handbrake_cli.SCAN_TIMEOUT)
                self._probe_source()
            except RunError as error:
                logger.debug("{}", error.message)
                return
            finally:
                self._probes.stop()
        self._title = handbrake_cli.read_title(finished.stdout.decode(errors="replace"))
        if self._title is not None:
            yield from title_problems(task, self._title)
        elif finished.returncode and any("No title found" in line for line in finished.stderr):
            yield f"source: {source}: {TOOL} finds no title in it"

    def _title_path(self) -> str:
        """The file that is encoded: the source or, if that is a directory of titles, the title's file."""
        name: str = self.task["source"]
        return self._title.path if os.path.isdir(name) and self._title is not None else name

    def _read_files(self) -> list[str]:
        """The files that HandBrakeCLI reads: of a directory with titles the title's file, of a disc all."""
        path = self._title_path()
        return list(files_of([path if os.path.isfile(path) else self.task["source"]]))

    def _find_shortage(self) -> str | None:
        """A message for a person if the source has fewer bytes than its container states, else `None`."""
        path = self._title_path()
        shortage = find_shortage(path) if os.path.isfile(path) else None
        return f"{path}: {shortage}" if shortage else next(part_shortages(path), None)

    def _wants_part(self) -> bool:
        return bool(options_of(self.task.to_dict()).keys() & {"stop_at", "chapters"})

    def _probe_source(self) -> Mapping[str, Any]:
        """ffprobe's answer for the source, empty if it has none, as for a disc."""
        name = self._title_path()
        return {} if os.path.isdir(name) else next(self._probes.answers([self._probed(name)]))

    def _probed(self, name: str) -> Source:
        return name, media.file_argument(name), ()

    def _goes_on(self, found: Mapping[str, Any], kind: str, seconds: float) -> bool:
        """True if the source has anything of type `kind` (video, audio) after so many seconds of the output.

        True, too, if that is not known: the source is no whole file, cannot be read, or is encoded in part only.
        """
        path = self._title_path()
        if (
            not os.path.isfile(path)
            or not is_whole(path)
            or window(options_of(self.task.to_dict()), None, None) != WHOLE
        ):
            return True
        name = media.file_argument(path)
        try:
            for stream in found.get("streams", []):
                if stream.get("codec_type") == kind:
                    begin = sum(media.packet_times(name, [], stream["index"], "%+#1")[:1]) + seconds
                    if media.has_packets(name, [], stream["index"], begin):
                        return True
        except RunError as error:
            logger.debug("{}", error.message)
            return True
        return False

    def _used_shares(self, duration: float | None) -> dict[str, float]:
        """The share of each file that goes into an output of `duration` seconds: 1 is all of it."""
        path = self._title_path()
        if os.path.isdir(path):
            return {str(file): 1.0 for file in Path(path).rglob("*")}
        whole = self._title.duration if self._title is not None else None
        return {path: min(duration / whole, 1.0) if duration and whole else 1.0}

    def _require_part(self, truncated: str, certain: ExpectedOutput, likely: ExpectedOutput) -> ExpectedOutput:
        """The certain prediction for a source that is cut short: a part of it that ends before may still be whole.

        Raises:
            RunError: The task asks for the end, or for a part of unknown length.
        """
        if "video" not in likely.lengths or not self._wants_part():
            raise RunError(message=f"the source is cut short: {truncated}")
        return dataclasses.replace(certain, lengths=likely.lengths)


# --- what comes in, and out ---


def title_problems(task: Mapping[str, Any], title: Title) -> Iterator[str]:
    """Tracks that the source lacks, and an output that would change the titles' numbers."""
    source, target = task["source"], task["output_file"]
    for where, key, value in entries(task):
        if key in {"audio", "subtitle"} and not isinstance(value, bool):
            count = len(title.audio if key == "audio" else title.subtitles)
            for number in numbers(value):
                if not 1 <= number <= count:
                    has = f"only {key} tracks 1 to {count}" if count else f"no {key} tracks"
                    yield f"{where}: {number}, but {source} has {has}"
    options = options_of(task)
    rate = None  # the frame rate is not known before ffprobe has read the source
    if "start_at" in options and (start := position(options["start_at"], rate)) and start >= title.duration:
        yield f"source_options.start_at: is after the end of {source} ({title.duration:.1f} s)"
    last = re.findall(r"\d+", str(options.get("chapters", "")), re.ASCII)[-1:]
    if title.chapters and last and int(last[0]) > len(title.chapters):
        yield f"source_options.chapters: {last[0]}, but {source} has only chapters 1 to {len(title.chapters)}"
    if (angles := numbers(options.get("angle", ""))) and angles[0] > title.angles:
        yield f"source_options.angle: {angles[0]}, but {source} has only angles 1 to {title.angles}"
    # The temporary file would be one of the titles, and the first.
    if (
        os.path.isdir(source)
        and os.path.isfile(title.path)
        and checks.same_file(os.path.dirname(target) or ".", source)
    ):
        yield f"output_file: {target}: is in the directory {source}, whose files {TOOL} numbers as titles"


def _require_frames(name: str, written: Mapping[str, Any]) -> None:
    """Check that the output's picture has frames: none comes out of a filter that fails, and HandBrakeCLI goes on."""
    videos = [each["index"] for each in written.get("streams", []) if each.get("codec_type") == "video"]
    if videos and not media.packet_times(media.file_argument(name), [], videos[0], "%+#1"):
        raise RunError(message="the output has no frames of the picture")


def _require_duration(written: Mapping[str, Any]) -> None:
    """Check that the output states a duration. HandBrakeCLI 1.6.1 writes it last, and exits with 0 if it cannot."""
    if media.number(written.get("format", {}).get("duration")) is None:
        raise RunError(message="the output states no duration: its end could not be written, as if the disk were full")
