"""The `mkvmerge` module: mux files into one Matroska file, and believe the result only after looking at it.

mkvmerge selects tracks by type, and the task's data by number, so the sources are identified first: at validation those
that are there, and all of them at run. Only the tracks that are listed are copied. The output gets its name when it has
the tracks and attachments that were asked for, and its tracks are as long as the sources say, where that is certain.
"""

import contextlib
import json
import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.exceptions import RunError
from modules import schema as task_schema
from modules.base import location
from modules.checks import (
    chain_checks,
    is_settled,
    require_space,
    same_file,
    size_of,
    source_problems,
    target_problems,
    will_be_made,
)
from modules.containers import find_shortage
from modules.mkvtoolnix import Media, MkvModule, Track, argument, examine, identify, output
from modules.output import Output

Options = Mapping[str, Any]

_TYPES = {"video": "video", "audio": "audio", "subtitles": "subtitle", "buttons": "button"}
"""What comes before `-tracks` in the option that selects tracks of a type."""

_FLAGS = {
    "aac-is-sbr",
    "commentary-flag",
    "default-track",
    "default-track-flag",
    "fix-bitstream-timing-information",
    "forced-display-flag",
    "forced-track",
    "hearing-impaired-flag",
    "original-flag",
    "reduce-to-core",
    "remove-dialog-normalization-gain",
    "text-descriptions-flag",
    "track-enabled-flag",
    "visual-impaired-flag",
}
"""Options that take a track's number alone, too. Bare, they would swallow what comes after them."""

_RETIMING = {"default-duration", "stop-after-video-ends", "sync", "timecodes", "timestamps"}
"""Options after which a track's length is anybody's guess: a negative offset, for one, cuts its beginning off."""

_SELECTING = {f"no-{name}" for name in _TYPES} | {f"{singular}-tracks" for singular in _TYPES.values()}
"""Options that select tracks by mkvmerge's own rules, over those of the task's data."""

_NEED_VALUE = {
    "attachment-description", "attachment-mime-type", "attachment-name", "aspect-ratio", "chapter-charset",
    "chapter-language", "chapters", "cluster-length", "compression", "cues", "default-duration", "default-language",
    "display-dimensions", "generate-chapters", "global-tags", "language", "segmentinfo", "sub-charset", "sync", "tags",
    "timecodes", "timestamps", "title", "track-name",
}  # fmt: skip
"""Options that, bare, would swallow what comes after them: an option, or the file's name."""

_FILES, _TRACK_FILES = {"chapters", "global-tags", "segmentinfo"}, {"tags", "timecodes", "timestamps"}
"""Options whose values are files: of all and of sources, and of tracks."""

_REFUSED = {
    "output": "the file's name is that of output_file",
    "redirect-output": "mkvmerge's messages would be lost",
    "split": "mkvmerge writes several files, which the mkvmerge module does not support",
}


@dataclass(frozen=True)
class Expected:
    """A track that the output will have, and the index of the source that it is from."""

    source: int
    track: Track
    is_retimed: bool = False


class Mkvmerge(MkvModule):
    """Muxes the task's sources into one output file."""

    schema = task_schema.load("mkvmerge")
    tools = ("mkvmerge",)
    phase = "muxing"

    def outputs(self) -> list[str]:
        return [self.task["output_file"]]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows.

        The types of tracks are not known of a source that is not there yet: its tracks are then selected whatever
        their type, which copies the same.
        """
        task, written = self.task.to_dict(), output(self.task["output_file"])
        media = [self._identify_settled(source["filename"]) for source in task["sources"]]
        attached: list[str] = []
        with contextlib.suppress(RunError):  # an earlier task will make the directory
            attached = self._files(written)
        argv, files = shielded(arguments(task, media, attached, written.temporary))
        lines = [f"printf %s {shlex.quote(text)} > {shlex.quote(name)}" for name, text in files.items()]
        return [*lines, shlex.join(argv), shlex.join(["mv", "--", written.temporary, written.target])]

    def find_problems(self) -> Iterator[str]:
        task = self.task.to_dict()
        yield from chain_checks(
            self._problems_of_sources(task),
            self._problems_of_output(task),
            self._problems_of_attachments(task),
            self._problems_of_options(task),
            self._problems_of_contents(task),
        )

    def _work(self, task: Mapping[str, Any]) -> None:
        media = self._examine_all(task)
        expected = expect(task, media)
        with contextlib.ExitStack() as stack:
            written = stack.enter_context(output(task["output_file"]))
            attached = self._files(written)
            files = [*(entry["filename"] for entry in task.get("attachments", [])), *attached]
            require_space(self, {written.target: size_of(shares(task, media, expected)) + size_of(files)})
            argv, option_files = shielded(arguments(task, media, attached, written.temporary))
            for name, text in option_files.items():
                stack.callback(os.unlink, name)
                Path(name).write_text(text, encoding="utf-8")
            durations = {
                argument(source["filename"]): each.duration for source, each in zip(task["sources"], media, strict=True)
            }
            has_warned = self._execute(argv, durations)
            if has_warned and "--abort-on-warnings" in argv:
                raise RunError(message="mkvmerge gave up at a warning, as abort-on-warnings tells it to")
            verify(written.temporary, expected, attachment_names(task, attached))
            self._warn_of_loss(written.target)
            written.commit()

    def _examine_all(self, task: Mapping[str, Any]) -> list[Media]:
        """What is in the sources, now that they are all there."""
        media, found = [], []
        for index, source in enumerate(task["sources"]):
            content, problems = examine(f"sources[{index}].filename", source["filename"])
            media.append(content or Media(""))
            found += problems
        found = found or list(track_problems(task, dict(enumerate(media))))
        if found:
            raise RunError(problems=found)
        return media

    def _problems_of_sources(self, task: Mapping[str, Any]) -> Iterator[str]:
        for index, source in enumerate(task["sources"]):
            yield from source_problems(self, f"sources[{index}].filename", source["filename"])

    def _problems_of_options(self, task: Mapping[str, Any]) -> Iterator[str]:
        places = [("options", task)]
        places += [(f"sources[{index}].options", entry) for index, entry in enumerate(task["sources"])]
        places += [(f"tracks[{index}].options", entry) for index, entry in enumerate(task.get("tracks", []))]
        for where, entry in places:
            is_track = where.startswith("tracks")
            for key, value in entry.get("options", {}).items():
                if key in _REFUSED and value is not False and not is_track:
                    yield f"{where}.{key}: {_REFUSED[key]}"
                elif key in _NEED_VALUE and (value is None or value is True):
                    yield f"{where}.{key}: expected a value: --{key} needs one"
                elif key in (_TRACK_FILES if is_track else _FILES) and isinstance(value, str):
                    yield from source_problems(self, f"{where}.{key}", value)
        if not task.get("tracks") and not _may_select(task):
            yield "tracks: none is listed, and no source has an option such as _copy-video-tracks: none would be muxed"

    def _problems_of_contents(self, task: Mapping[str, Any]) -> Iterator[str]:
        media: dict[int, Media] = {}
        for index, source in enumerate(task["sources"]):
            where, name = f"sources[{index}].filename", source["filename"]
            if is_settled(self, name) and not any(source_problems(self, where, name)):
                content, problems = examine(where, name)
                yield from problems
                if content:
                    media[index] = content
        yield from track_problems(task, media)

    def _problems_of_attachments(self, task: Mapping[str, Any]) -> Iterator[str]:
        for index, entry in enumerate(task.get("attachments", [])):
            where, name = f"attachments[{index}].filename", entry["filename"]
            yield from source_problems(self, where, name)
            if is_settled(self, name) and os.path.getsize(name) == 0:
                yield f"{where}: {name}: is empty, which mkvmerge does not attach"
        for index, directory in enumerate(task.get("attachment_directories", [])):
            where = f"attachment_directories[{index}]"
            if os.path.isdir(directory):
                if not os.access(directory, os.R_OK | os.X_OK):
                    yield f"{where}: {directory}: cannot be read: permission denied"
            elif os.path.lexists(directory):
                yield f"{where}: {directory}: is no directory"
            elif not will_be_made(self, directory):
                yield f"{where}: {directory}: no such directory"

    def _problems_of_output(self, task: Mapping[str, Any]) -> Iterator[str]:
        yield from target_problems(self, "output_file", task["output_file"], overwrite=True)
        for key in ("sources", "attachments"):
            for index, entry in enumerate(task.get(key, [])):
                if same_file(entry["filename"], task["output_file"]):
                    yield f"output_file: {task['output_file']} is also {key}[{index}]"

    def _files(self, written: Output) -> list[str]:
        """The files of the attachment directories, by directory and name, but for the output itself and empty ones.

        mkvmerge refuses to attach what is empty, and a directory may well have a `.nomedia` or the like.
        """
        ours = {location(written.temporary), location(written.target)}
        found: list[str] = []
        for index, directory in enumerate(self.task.to_dict().get("attachment_directories", [])):
            try:
                with os.scandir(directory) as entries:
                    files = sorted(entry.path for entry in entries if entry.is_file() and entry.stat().st_size)
            except OSError as error:
                raise RunError(message=f"attachment_directories[{index}]: {directory}: {error.strerror}") from error
            found += [name for name in files if location(name) not in ours]
        return found


# --- the command line ---


def arguments(
    task: Mapping[str, Any], media: Sequence[Media | None], attached: Sequence[str], temporary: str
) -> list[str]:
    """The command line that writes the task's output to `temporary`.

    `media` is what is in each source, `None` where that is not known; `attached` are more files to attach.
    """
    argv = ["mkvmerge", "--gui-mode", "--output", argument(temporary), *_flags(task.get("options", {}))]
    for index, source in enumerate(task["sources"]):
        options = source.get("options", {})
        tracks = [entry for entry in task.get("tracks", []) if entry["source"] == index]
        argv += _selection(options, [int(entry["track"]) for entry in tracks], media[index])
        argv += _flags({key: value for key, value in options.items() if not key.startswith("_")})
        for entry in tracks:
            argv += _track_flags(int(entry["track"]), entry.get("options", {}))
        # In parentheses nothing is an option, and VTS_01_1.VOB does not bring VTS_01_2.VOB with it.
        argv += ["(", argument(source["filename"]), ")"]
    for entry in task.get("attachments", []):
        argv += _attachment(entry)
    for name in attached:
        argv += ["--attach-file", argument(name)]
    order = [f"{int(entry['source'])}:{int(entry['track'])}" for entry in task.get("tracks", [])]
    return [*argv, "--track-order", ",".join(order)] if order else argv


def shielded(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """`argv` for the program, and option files by name: one for each argument that begins with `@`.

    For such an argument there is no other way: mkvmerge takes it for the name of an option file wherever it stands.
    """
    files: dict[str, str] = {}
    shielded = []
    for index, text in enumerate(argv):
        if text.startswith("@"):
            name = os.path.join(tempfile.gettempdir(), f"mkvmerge-{os.getpid()}-{index}.json")
            files[name] = json.dumps([text])
            text = f"@{name}"
        shielded.append(text)
    return shielded, files


def _selection(options: Options, tracks: Sequence[int], media: Media | None) -> Iterator[str]:
    """Which tracks of a source are copied. The numbers of other types' tracks do no harm, where types are not known."""
    types = {track.id: track.type for track in media.tracks} if media else {}
    for name, singular in _TYPES.items():
        if _is_set(options, f"_copy-{name}-tracks"):
            continue
        chosen = dict.fromkeys(track for track in tracks if types.get(track, name) == name)
        if chosen:
            yield from (f"--{singular}-tracks", ",".join(map(str, chosen)))
        else:
            yield f"--no-{name}"


def _flags(options: Options) -> Iterator[str]:
    for key, value in options.items():
        if value is not False:
            yield f"--{key}"
            if value is not None and value is not True:
                yield _text(value)


def _track_flags(track: int, options: Options) -> Iterator[str]:
    for key, value in options.items():
        if value is False:
            continue
        yield f"--{key}"
        if value is not None and value is not True:
            yield f"{track}:{_text(value)}"
        elif key in _FLAGS:
            yield str(track)


def _attachment(entry: Mapping[str, Any]) -> Iterator[str]:
    if mime_type := entry.get("mime_type") or entry.get("mimetype"):
        yield from ("--attachment-mime-type", mime_type)
    if entry.get("name"):
        yield from ("--attachment-name", entry["name"])
    yield from ("--attach-file", argument(entry["filename"]))


def _may_select(task: Mapping[str, Any]) -> bool:
    """Whether tracks are selected by anything but the list of them."""
    for index, source in enumerate(task["sources"]):
        copies = any(_is_set(source.get("options", {}), f"_copy-{name}-tracks") for name in _TYPES)
        if copies or _option_names(task, index) & _SELECTING:
            return True
    return False


def _is_set(options: Options, key: str) -> bool:
    return options.get(key, False) is not False


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# --- what comes out ---


def track_problems(task: Mapping[str, Any], media: Mapping[int, Media]) -> Iterator[str]:
    """Tracks that are listed, and not in their source, as far as it is known by its index what is in it."""
    count = len(task["sources"])
    for index, entry in enumerate(task.get("tracks", [])):
        source, number = int(entry["source"]), int(entry["track"])
        if source >= count:
            yield f"tracks[{index}].source: {source}, but there are only sources 0 to {count - 1}"
        elif source in media and number not in {track.id for track in media[source].tracks}:
            has = ", ".join(f"{track.id} ({track.type})" for track in media[source].tracks) or "none"
            yield f"tracks[{index}].track: {number}, but sources[{source}] has only these tracks: {has}"


def expect(task: Mapping[str, Any], media: Sequence[Media]) -> list[Expected]:
    """The tracks that the output will have at least, in their order: those that are listed first."""
    listed: dict[tuple[int, int], set[str]] = {}
    for entry in task.get("tracks", []):
        key = (int(entry["source"]), int(entry["track"]))
        listed.setdefault(key, set()).update(entry.get("options", {}))
    found: dict[tuple[int, int], Expected] = {}
    for index, source in enumerate(task["sources"]):
        options = source.get("options", {})
        names = _option_names(task, index)
        if names & _SELECTING:
            continue
        for track in media[index].tracks:
            key = (index, track.id)
            if key in listed or _is_set(options, f"_copy-{track.type}-tracks"):
                is_retimed = bool((names | listed.get(key, set())) & _RETIMING)
                found[key] = Expected(index, track, is_retimed)
    order = [*(key for key in listed if key in found), *(key for key in found if key not in listed)]
    return [found[key] for key in order]


def shares(task: Mapping[str, Any], media: Sequence[Media], expected: Sequence[Expected]) -> dict[str, float]:
    """How much of each source goes into the output: all of it, where nobody has counted the bytes of its tracks."""
    found: dict[str, float] = {}
    for index, source in enumerate(task["sources"]):
        name = source["filename"]
        counts = [entry.track.bytes for entry in expected if entry.source == index]
        counts += media[index].attachments.values()
        known = [count for count in counts if count is not None]
        is_known = len(known) == len(counts) and not _option_names(task, index) & _SELECTING
        share = sum(known) / max(os.path.getsize(name), 1) if is_known else 1.0
        found[name] = min(found.get(name, 0.0) + share, 1.0)
    return found


def _option_names(task: Mapping[str, Any], index: int) -> set[str]:
    """Options that may be for a source: its own, and those of all."""
    return {*task["sources"][index].get("options", {}), *task.get("options", {})}


def attachment_names(task: Mapping[str, Any], attached: Sequence[str]) -> set[str]:
    """Under which names files will be attached. Of two that are alike in name, type and size, mkvmerge keeps one."""
    named = {entry.get("name") or os.path.basename(entry["filename"]) for entry in task.get("attachments", [])}
    return named | {os.path.basename(name) for name in attached}


def verify(name: str, expected: Sequence[Expected], attachments: set[str]) -> None:
    """Check that the file is whole.

    Raises:
        RunError: it is not.
    """
    if os.path.getsize(name) == 0:
        raise RunError(message="mkvmerge wrote nothing")
    try:
        found = identify(name)
    except RunError as error:
        raise RunError(message=f"the output cannot be read: {error.message}", stderr=error.stderr) from error
    if shortage := find_shortage(name):
        raise RunError(message=f"the output {shortage}")
    _verify_contents(found, [entry.track for entry in expected], attachments)
    if [track.type for track in found.tracks] == [entry.track.type for entry in expected]:
        # Otherwise the sources' own options have added some, and it is not known which is which.
        for track, entry in zip(found.tracks, expected, strict=True):
            _verify_length(track, entry)


def _verify_contents(found: Media, expected: Sequence[Track], attachments: set[str]) -> None:
    if not found.tracks:
        raise RunError(message="the output has no tracks")
    counts = Counter(track.type for track in found.tracks)
    for kind, count in Counter(track.type for track in expected).items():
        if counts[kind] < count:
            raise RunError(message=f"the output has {counts[kind]} {kind} tracks of {count}")
    if len(found.attachments) < len(attachments):
        raise RunError(message=f"the output has {len(found.attachments)} attachments of {len(attachments)}")


def _verify_length(track: Track, expected: Expected) -> None:
    length, least = track.span, expected.track.span
    if length is None or least is None or expected.is_retimed or track.type not in {"video", "audio"}:
        return  # of subtitles, some may be empty
    # A block of sound can last a second (TTA), and nobody counts the last one to the letter.
    tolerance = min(max(2.0, min(least / 100, 10.0)), least / 2)
    if length < least - tolerance:
        raise RunError(
            message=f"the output is cut short: {length:.1f} s of track {expected.track.id} "
            f"of sources[{expected.source}], which has {least:.1f} s (it may be damaged)"
        )
