"""The `mkvmerge` module: mux files into one Matroska file, and believe the result only after looking at it.

mkvmerge selects tracks by type, and the task's data by number, so the sources are identified first: the existing ones
at validation, and all of them at run. Only listed tracks are copied. The output gets its name when it has the tracks
and attachments that the task asks for, and the lengths that the sources state for certain.
"""

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from app.exceptions import RunError
from modules import checks, context
from modules import schema as task_schema
from modules.base import location
from modules.containers import contradiction
from modules.mkvmerge.command import may_select, mkvmerge_command, option_arguments, shielded, source_files
from modules.mkvmerge.expect import attachment_names, expect_tracks, frames_of_pictures, used_shares, verify_output
from modules.mkvmerge.known import option_problems, refused_values, selection_problems, table
from modules.mkvmerge.tracks import append_problems, has_words, joined, known_tracks, settled, track_problems
from modules.mkvtoolnix import Media, MkvModule, argument, examine
from modules.output import Output
from modules.selection import in_words
from modules.sources import Watch

_FILES, _TRACK_FILES = {"chapters", "global-tags", "segmentinfo"}, {"tags", "timecodes", "timestamps"}
"""Options whose values are files: those of the task and of sources, and those of tracks."""
_READ = _FILES | _TRACK_FILES


class Mkvmerge(MkvModule):
    """Muxes the task's sources into one output file."""

    schema = task_schema.load("mkvmerge")
    tools = ("mkvmerge",)
    phase_name = "muxing"

    @classmethod
    def ask_tools(cls) -> None:
        table()

    def outputs(self) -> list[str]:
        return [self.task["output_file"]]

    def inputs(self) -> list[str]:
        return [name for _, name in chain(*source_files(self.task))]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows.

        The tracks of a source that does not exist yet are selected for every type, which copies the same tracks.
        """
        task, written = self.task.to_dict(), self.output(self.task["output_file"])
        media = [self._identify_settled(source["filename"]) for source in task["sources"]]
        task = settled(task, {index: each for index, each in enumerate(media) if each})
        words = [entry for entry in task["tracks"] if has_words(entry)]
        task["tracks"] = [entry for entry in task["tracks"] if entry not in words]
        notes = [f"# of sources[{each['source']}], which is not there yet: {in_words(each)}" for each in words]
        attached: list[str] = []
        with contextlib.suppress(RunError):  # an earlier task will make the directory
            attached = self._files(written)
        argv, files = shielded(mkvmerge_command(task, media, attached, written.temporary))
        lines = [f"printf %s {shlex.quote(text)} > {shlex.quote(name)}" for name, text in files.items()]
        return [*notes, *lines, shlex.join(argv), written.commit_command()]

    def find_problems(self) -> Iterator[str]:
        task = self.task.to_dict()
        yield from checks.chain_checks(
            self._problems_of_sources(task),
            self._problems_of_output(task),
            self._problems_of_attachments(task),
            self._problems_of_options(task),
            self._problems_of_contents(task),
        )

    def _read_files(self) -> list[str]:
        task = self.task.to_dict()
        entries = [*task["sources"], *task.get("tracks", []), task]
        named = [value for entry in entries for key, value in entry.get("options", {}).items() if key in _READ]
        attached = [entry["filename"] for entry in task.get("attachments", [])]
        return [*self.inputs(), *attached, *(name for name in named if isinstance(name, str))]

    def _work(self, task: Mapping[str, Any], watch: Watch) -> None:
        known = self._examine_all(task)
        media = list(joined(known).values())
        names = map(argument, self.inputs())
        durations = {name: each.duration for name, each in zip(names, chain(*known.values()), strict=True)}
        task = settled(task, dict(enumerate(media)))
        expected = expect_tracks(task, media)
        with contextlib.ExitStack() as stack:
            written = stack.enter_context(self.output(task["output_file"]))
            attached = self._files(written)
            files = [*(entry["filename"] for entry in task.get("attachments", [])), *attached]
            checks.require_space(
                self, {written.target: checks.size_of(used_shares(task, media, expected)) + checks.size_of(files)}
            )
            argv, option_files = shielded(mkvmerge_command(task, media, attached, written.temporary))
            for name, text in option_files.items():
                stack.callback(os.unlink, name)
                Path(name).write_text(text, encoding="utf-8")
            has_warned = self._execute(argv, durations)
            if has_warned and "--abort-on-warnings" in argv:
                raise RunError(message="mkvmerge gave up at a warning, as abort-on-warnings tells it to")
            frames = verify_output(written.temporary, expected, attachment_names(task, attached))
            held = frames_of_pictures(task, media, frames)
            counts = known_tracks(self.task.to_dict(), known)
            self._require_read(list(dict.fromkeys(self.inputs())), watch, held, counts)
            self.warn_of_loss(written.target)
            written.commit()

    def _examine_all(self, task: Mapping[str, Any]) -> dict[int, list[Media]]:
        """The contents of all files by the sources' numbers, if all are whole and have the listed tracks."""
        known, found = self._examine(task, lambda _where, _name: True)
        if found := found or list(self._problems_of_tracks(task, known, self.warn)):
            raise RunError(problems=found)
        return known

    def _examine(
        self, task: Mapping[str, Any], can_look: Callable[[str, str], bool]
    ) -> tuple[dict[int, list[Media]], list[str]]:
        """The contents of those sources all of whose files can be looked at, by number, and problems of all files."""
        known: dict[int, list[Media]] = {}
        found: list[str] = []
        for index, files in enumerate(source_files(task)):
            contents = []
            for where, name in files:
                content, problems = examine(where, name) if can_look(where, name) else (None, [])
                found += problems
                contents += [content] if content else []
            if len(contents) == len(files):
                known[index] = contents
        return known, found

    def _problems_of_sources(self, task: Mapping[str, Any]) -> Iterator[str]:
        for where, name in chain(*source_files(task)):
            yield from checks.source_problems(self, where, name)

    def _problems_of_options(self, task: Mapping[str, Any]) -> Iterator[str]:
        places = [("options", task)]
        places += [(f"sources[{index}].options", entry) for index, entry in enumerate(task["sources"])]
        places += [(f"tracks[{index}].options", entry) for index, entry in enumerate(task.get("tracks", []))]
        given: dict[str, list[str]] = {}
        for where, entry in places:
            is_track = where.startswith("tracks")
            for key, value in entry.get("options", {}).items():
                found = list(option_problems(key, value, of_track=is_track))
                yield from (f"{where}.{key}: {problem}" for problem in found)
                if key in (_TRACK_FILES if is_track else _FILES) and isinstance(value, str):
                    yield from checks.source_problems(self, f"{where}.{key}", value)
                elif not (found or key.startswith(("_", "attach-file")) or str(value).startswith("@")):
                    track = int(entry.get("track", 0)) if is_track else None
                    given[f"{where}.{key}"] = list(option_arguments({key: value}, track))
        with contextlib.suppress(RunError):  # a missing program is told elsewhere
            yield from refused_values(given)
        if not task.get("tracks") and not may_select(task):
            yield "tracks: none is listed, and no source has an option such as _copy-video-tracks: none would be muxed"

    def _problems_of_contents(self, task: Mapping[str, Any]) -> Iterator[str]:
        def can_look(where: str, name: str) -> bool:
            return checks.is_settled(self, name) and not any(checks.source_problems(self, where, name))

        known, problems = self._examine(task, can_look)
        yield from problems
        yield from self._problems_of_tracks(task, known, lambda _: None)  # it will warn at run

    def _problems_of_tracks(
        self, task: Mapping[str, Any], known: Mapping[int, Sequence[Media]], warn: Callable[[str], None]
    ) -> Iterator[str]:
        media = joined(known)
        problems = list(track_problems(task, media))
        yield from problems
        is_known = len(media) == len(task["sources"]) and bool(task.get("tracks")) and not problems
        if is_known and not settled(task, media)["tracks"] and not may_select(task):
            yield "tracks: none of them is in its source: none would be muxed"
        for index, content in media.items():
            options = task["sources"][index].get("options", {})
            yield from selection_problems(f"sources[{index}].options", options, content, warn)
        yield from append_problems(settled(task, media), known)

    def _problems_of_attachments(self, task: Mapping[str, Any]) -> Iterator[str]:
        for index, entry in enumerate(task.get("attachments", [])):
            where, name = f"attachments[{index}].filename", entry["filename"]
            yield from checks.source_problems(self, where, name)
        for index, directory in enumerate(task.get("attachment_directories", [])):
            where = f"attachment_directories[{index}]"
            if obstacle := context.find_obstacle(directory):
                yield f"{where}: {directory}: {obstacle}"
            elif os.path.isdir(directory):
                if not os.access(directory, os.R_OK | os.X_OK):
                    yield f"{where}: {directory}: cannot be read: permission denied"
            elif os.path.lexists(directory):
                yield f"{where}: {directory}: is no directory"
            elif not checks.will_be_made(self, directory):
                yield f"{where}: {directory}: no such directory"

    def _problems_of_output(self, task: Mapping[str, Any]) -> Iterator[str]:
        yield from checks.target_problems(self, "output_file", task["output_file"], overwrite=True)
        is_webm = task["output_file"].lower().endswith(".webm")
        if line := contradiction(task["output_file"], "webm" if is_webm else "Matroska"):
            self.warn(f"output_file: {line}")
        attached = [
            (f"attachments[{index}]", each["filename"]) for index, each in enumerate(task.get("attachments", []))
        ]
        read = dict.fromkeys(self._read_files(), "a file that an option names")
        read |= {name: where.removesuffix(".filename") for where, name in [*chain(*source_files(task)), *attached]}
        for name, where in read.items():
            if checks.same_file(name, task["output_file"]):
                yield f"output_file: {task['output_file']} is also {where}"

    def _files(self, written: Output) -> list[str]:
        """The files of the attachment directories, sorted by name in each, without the output and empty files.

        mkvmerge refuses to attach an empty file, and a directory may well have a `.nomedia` or the like.

        Raises:
            RunError: A directory cannot be read.
        """
        ours = {location(written.temporary), location(written.target)}
        found: list[str] = []
        for index, directory in enumerate(self.task.to_dict().get("attachment_directories", [])):
            try:
                with os.scandir(directory) as listed:
                    entries = sorted((entry for entry in listed if not entry.is_dir()), key=lambda entry: entry.path)
                files = [entry.path for entry in entries if entry.is_file() and entry.stat().st_size]
            except OSError as error:
                raise RunError(message=f"attachment_directories[{index}]: {directory}: {error.strerror}") from error
            found += [name for name in files if location(name) not in ours]
            missing = [entry.path for entry in entries if not entry.is_file()] or ([] if files else [directory])
            for name in missing:
                self.warn(f"attachment_directories[{index}]: {name}: holds nothing to attach")
        return found
