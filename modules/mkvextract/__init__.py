"""The `mkvextract` module: take tracks, attachments, chapters and the like out of a Matroska file, all in one pass.

mkvextract's exit status says little: it is 0 even if there are no chapters, a file cannot be opened, or the disk is
full at the last bytes. So each file is written under a temporary name and checked, and the files get their names when
all of them are whole.
"""

import contextlib
import os
import resource
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.exceptions import RunError
from modules import checks
from modules import schema as task_schema
from modules.mkvtoolnix import Media, MkvModule, Track, argument, examine
from modules.output import Output
from modules.sources import Watch

_LISTS = {"tracks": "tracks", "attachments": "attachments", "timestamps": "timestamps_v2", "cues": "cues"}
"""Keys of the task's data whose values are lists, and the modes of mkvextract for them."""

_NEED_ALL = {"tracks", "tags", "timestamps_v2", "cues"}
"""Modes for which the source must be whole. Attachments and chapters are stored contiguously: present or absent, never
partial."""

_ENDINGS = {"chapters": b"</Chapters>", "tags": b"</Tags>", "timestamps_v2": b"\n", "cues": b"\n"}
"""The last bytes of a whole file, by mode. White space may follow."""

_LEAST = 0.8
"""Least size of an extracted file, as a share of its track's bytes. It is usually above 1: mkvextract adds headers."""

_SMALL = 1000
"""Bytes up to which a track may have nothing to extract: subtitles without text."""

_VOBSUB = (".idx", ".sub")
"""Extensions of the two files that mkvextract writes for a VobSub track, whatever the given name's extension."""


@dataclass(frozen=True)
class Extraction:
    """One thing to extract. `where` is its place in the task's data; `id` is empty for a mode that takes none."""

    where: str
    mode: str
    id: str
    files: tuple[str, ...]
    track: Track | None = None


class Mkvextract(MkvModule):
    """Extracts parts of the task's source into files of their own."""

    schema = task_schema.load("mkvextract")
    tools = ("mkvextract", "mkvmerge")
    phase_name = "extracting"

    def outputs(self) -> list[str]:
        """The files to be written. VobSub tracks are recognised by the names, because the source may not exist yet."""
        found = []
        for extraction in extractions(self.task.to_dict(), None):
            (name,) = extraction.files
            stem, extension = os.path.splitext(name)
            found += [stem + each for each in _VOBSUB] if extension in _VOBSUB else [name]
        return list(dict.fromkeys(found))

    def inputs(self) -> list[str]:
        return [self.task["source"]]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows.

        A track that is selected by its type or language has no number in it if the source does not exist yet.
        """
        wanted = list(extractions(self.task.to_dict(), self._identify_settled(self.task["source"])))
        outputs = {name: self.output(name) for extraction in wanted for name in extraction.files}
        links = find_links(wanted, outputs)
        lines = [["ln", "-s", "--", os.path.abspath(name), link] for name, link in links.items()]
        lines.append(mkvextract_command(self.task["source"], wanted, _given(outputs, links)))
        return [*map(shlex.join, lines), *(output.commit_command() for output in outputs.values())]

    def find_problems(self) -> Iterator[str]:
        task = self.task.to_dict()
        yield from checks.chain_checks(
            checks.source_problems(self, "source", task["source"]),
            self._problems_of_targets(task, None),
            self._problems_of_content(task),
        )

    def _problems_of_content(self, task: Mapping[str, Any]) -> Iterator[str]:
        if checks.is_settled(self, task["source"]) and not any(checks.source_problems(self, "source", task["source"])):
            media, problems = examine_source(task)
            yield from problems
            yield from self._problems_of_targets(task, media)  # only the source tells which tracks are VobSub ones

    def _possible_outputs(self) -> list[Output]:
        wanted = extractions(self.task.to_dict(), None)
        return [self.output(name) for each in wanted for name in (*each.files, *_vobsub_files(each.files[0]))]

    def _read_files(self) -> list[str]:
        return [self.task["source"]]

    def _work(self, task: Mapping[str, Any], watch: Watch) -> None:
        media, problems = examine_source(task)
        if media is None or problems:
            raise RunError(problems=problems)
        wanted = list(extractions(task, media))
        checks.require_space(self, sizes(task["source"], wanted, media))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each output is held open, and there may be 1000
        with contextlib.ExitStack() as stack:
            outputs = {name: stack.enter_context(self.output(name)) for each in wanted for name in each.files}
            links = find_links(wanted, outputs)
            for temporary, link in links.items():
                os.symlink(os.path.abspath(temporary), link)
                stack.callback(os.unlink, link)
            argv = mkvextract_command(task["source"], wanted, _given(outputs, links))
            self._execute(argv, {argv[1]: media.duration} if _needs_all(wanted) else {})
            self._verify(wanted, outputs, media)
            self._require_read([task["source"]] if _needs_all(wanted) else [], watch, {}, {})
            for each in outputs.values():
                self.warn_of_loss(each.target)
                each.commit()

    def _verify(self, wanted: Sequence[Extraction], outputs: Mapping[str, Output], media: Media) -> None:
        for extraction in wanted:
            for name in extraction.files:
                if problem := outputs[name].find_no_space():  # mkvextract exits with 0 then
                    raise RunError(message=problem)
                problem = find_damage(extraction, outputs[name].temporary, media)
                track = extraction.track
                is_text = track is not None and track.type in {"subtitles", "buttons"}
                if problem and track and is_text and (track.bytes or 0) <= _SMALL:
                    self.warn(f"{extraction.where}: {name}: {problem}")  # the track may have had no text to show
                elif problem:
                    raise RunError(message=f"{extraction.where}: {name}: {problem}")

    def _problems_of_targets(self, task: Mapping[str, Any], media: Media | None) -> Iterator[str]:
        wanted = list(extractions(task, media))
        if not wanted:
            yield "there is nothing to extract"
        used: dict[tuple[str, str], str] = {}
        written: dict[str, str] = {}
        for extraction in wanted:
            where = extraction.where
            if extraction.id and (first := used.setdefault((extraction.mode, extraction.id), where)) != where:
                yield f"{where}: is the same as {first}, and mkvextract extracts nothing twice"
            for name in extraction.files:
                yield from checks.target_problems(self, where, name, overwrite=True)
                if checks.same_file(name, task["source"]):
                    yield f"{where}: {name} is also the source"
                if (first := written.setdefault(os.path.realpath(name), where)) != where:
                    yield f"{where}: {name} is written by {first} already"


# --- what is asked for ---


def extractions(task: Mapping[str, Any], media: Media | None) -> Iterator[Extraction]:
    """The task's extractions, in the order of the command line. `media` is the source's contents, if they are known.

    If a track is missing or not known, the extraction's id repeats how the task selects it: `<audio ger 0>`.
    """
    for key in ("tracks", "attachments", "chapters", "tags", "timestamps", "cues"):
        if key not in task:
            continue
        if key not in _LISTS:
            yield Extraction(key, key, "", (task[key],))
            continue
        for index, entry in enumerate(task[key]):
            track = find_track(entry, media) if media and key == "tracks" else None
            name = entry["filename"]
            files = _vobsub_files(name) if track and track.codec == "S_VOBSUB" else (name,)
            yield Extraction(
                f"{key}[{index}]", _LISTS[key], str(track.id) if track else _asked_for(entry), files, track
            )


def find_track(entry: Mapping[str, Any], media: Media) -> Track | None:
    """The track that an entry of `tracks` selects: by its id, or by its place, from 0, among those that match."""
    kind, language, number = entry.get("track_type"), entry.get("language"), int(entry["id"])
    if kind is None and language is None:
        return next((track for track in media.tracks if track.id == number), None)
    matching = [
        track
        for track in media.tracks
        if kind in {None, track.type} and (language is None or track.has_language(language))
    ]
    return matching[number] if number < len(matching) else None


def examine_source(task: Mapping[str, Any]) -> tuple[Media | None, list[str]]:
    """The source's contents, if it can be read, and its problems: damage, and parts that it lacks."""
    media, problems = examine("source", task["source"])
    if media is None:
        return None, problems
    if media.format != "Matroska":
        return None, [f"source: {task['source']}: is {media.format}; mkvextract reads Matroska only"]
    wanted = list(extractions(task, media))
    if not _needs_all(wanted):
        problems = []
    return media, [*problems, *_problems_of_ids(task, media)]


def mkvextract_command(source: str, wanted: Sequence[Extraction], names: Mapping[str, str]) -> list[str]:
    """The command line for the extractions. `names` maps each file to the name that mkvextract is given for it."""
    # A source's name could be that of a mode, such as `tracks`.
    argv = ["mkvextract", f"./{source}" if source.isidentifier() else argument(source), "--gui-mode"]
    mode = ""
    for extraction in wanted:
        if extraction.mode != mode:
            mode = extraction.mode
            argv.append(mode)
        name = names[extraction.files[0]]
        argv.append(f"{extraction.id}:{name}" if extraction.id else name)
    return argv


def _needs_all(wanted: Sequence[Extraction]) -> bool:
    return any(extraction.mode in _NEED_ALL for extraction in wanted)


def _problems_of_ids(task: Mapping[str, Any], media: Media) -> Iterator[str]:
    for key in ("tracks", "timestamps", "cues"):
        for index, entry in enumerate(task.get(key, [])):
            if find_track(entry, media) is None:
                which = " ".join(str(entry[each]) for each in ("track_type", "language") if each in entry)
                has = ", ".join(_described(track) for track in media.tracks) or "none"
                what = f"number {int(entry['id'])} (from 0) of {which} tracks" if which else f"track {int(entry['id'])}"
                yield f"{key}[{index}].id: the source has no {what}, only: {has}"
    for index, entry in enumerate(task.get("attachments", [])):
        if int(entry["id"]) not in media.attachments:
            has = ", ".join(map(str, media.attachments)) or "none"
            yield f"attachments[{index}].id: the source has no attachment {int(entry['id'])}, only: {has}"
    for key, is_there in (("chapters", media.has_chapters), ("tags", media.has_tags)):
        if key in task and not is_there:
            yield f"{key}: the source has none"


def _described(track: Track) -> str:
    return f"{track.id} ({' '.join([track.type, *sorted(track.languages)])})"


def _asked_for(entry: Mapping[str, Any]) -> str:
    words = [entry[key] for key in ("track_type", "language") if key in entry]
    return f"<{' '.join([*words, str(int(entry['id']))])}>" if words else str(int(entry["id"]))


# --- the files ---


def sizes(source: str, wanted: Sequence[Extraction], media: Media) -> dict[str, int]:
    """Estimated bytes of each file, by its name. Files of unknown size share that of the source."""
    counted = {each.files[-1]: _size(each, media) for each in wanted}
    share = os.path.getsize(source) // max(list(counted.values()).count(None), 1)
    return {name: share if size is None else size for name, size in counted.items()}


def _size(extraction: Extraction, media: Media) -> int | None:
    """Bytes of one file; `None` if they are not known and may be many."""
    if extraction.mode == "attachments":
        return media.attachments[int(extraction.id)]
    track = extraction.track
    if extraction.mode != "tracks" or track is None:
        return 0
    return track.bytes if track.type in {"video", "audio"} else track.bytes or 0


def find_damage(extraction: Extraction, name: str, media: Media) -> str | None:
    """A message for a person if an extracted file is not whole, else `None`."""
    size = os.path.getsize(name)
    if extraction.mode == "attachments":
        stated = media.attachments[int(extraction.id)]
        return f"mkvextract wrote {size} bytes of {stated}" if size != stated else None
    track = extraction.track
    if track and track.bytes and size < track.bytes * _LEAST - _SMALL:
        return f"mkvextract wrote {size} bytes of a track of {track.bytes}"
    if size == 0:
        return "mkvextract wrote nothing"
    with open(name, "rb") as file:
        file.seek(max(size - 100, 0))
        end = file.read()
    ending = _ENDINGS.get(extraction.mode, b"")
    return None if end.endswith(ending) or end.strip().endswith(ending) else "mkvextract did not write all of it"


def _vobsub_files(name: str) -> tuple[str, ...]:
    return tuple(os.path.splitext(name)[0] + extension for extension in _VOBSUB)


def find_links(wanted: Sequence[Extraction], outputs: Mapping[str, Output]) -> dict[str, str]:
    """Links for temporary files whose names mkvextract cannot be given, by those names.

    mkvextract accepts no line feed in a name, replaces bytes that are not UTF-8, and writes the two files of a VobSub
    track under one stem.
    """
    links: dict[str, str] = {}
    for index, extraction in enumerate(wanted):
        names = [outputs[name].temporary for name in extraction.files]
        if all(map(_is_plain, names)) and len({os.path.splitext(name)[0] for name in names}) == 1:
            continue
        stem = os.path.join(tempfile.gettempdir(), f"mkvextract-{os.getpid()}-{index}")
        extensions = _VOBSUB if len(names) > 1 else ("",)
        links.update({name: stem + extension for name, extension in zip(names, extensions, strict=True)})
    return links


def _is_plain(name: str) -> bool:
    return "\n" not in name and name == name.encode("utf-8", "replace").decode()


def _given(outputs: Mapping[str, Output], links: Mapping[str, str]) -> dict[str, str]:
    """The name that mkvextract is given for each file."""
    return {name: links.get(output.temporary, argument(output.temporary)) for name, output in outputs.items()}
