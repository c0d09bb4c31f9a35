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

from app.exceptions import CleanupError, RunError, ValidationError
from modules import schema as task_schema
from modules import tool
from modules.base import location
from modules.checks import same_file, source_problems, target_problems
from modules.mkvtoolnix import Media, MkvModule, Track, argument, examine, find_shortage, identify
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

_RETIMING = {"default-duration", "sync", "timecodes", "timestamps"}
"""Options after which a track's length is anybody's guess: a negative offset, for one, cuts its beginning off."""

_SELECTING = {f"no-{name}" for name in _TYPES} | {f"{singular}-tracks" for singular in _TYPES.values()}
"""Options that select tracks by mkvmerge's own rules, over those of the task's data."""

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
    program = "mkvmerge"
    phase = "muxing"

    def outputs(self) -> list[str]:
        return [self.task["output_file"]]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows.

        The types of tracks are not known of a source that is not there yet: its tracks are then selected whatever
        their type, which copies the same.
        """
        task, output = self.task.to_dict(), self._output()
        media = [self._identify_settled(source["filename"]) for source in task["sources"]]
        attached: list[str] = []
        with contextlib.suppress(RunError):  # an earlier task will make the directory
            attached = self._files(output)
        argv, files = shielded(arguments(task, media, attached, output.temporary))
        lines = [f"printf %s {shlex.quote(text)} > {shlex.quote(name)}" for name, text in files.items()]
        return [*lines, shlex.join(argv), shlex.join(["mv", "--", output.temporary, output.target])]

    def validate(self) -> None:
        super().validate()
        task = self.task.to_dict()
        missing = tool.missing("mkvmerge")
        found = [missing] if missing else []
        found += self._problems_of_sources(task, is_installed=not missing)
        found += self._problems_of_attachments(task)
        found += _problems_of_options("options", task.get("options", {}))
        for index, source in enumerate(task["sources"]):
            found += _problems_of_options(f"sources[{index}].options", source.get("options", {}))
        found += self._problems_of_output(task)
        if found:
            raise ValidationError(message="; ".join(found))

    def run(self) -> None:
        self.set_start_time()
        tool.require("mkvmerge", RunError)
        task = self.task.to_dict()
        media = self._examine_all(task)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(self._output())
            attached = self._files(output)
            argv, files = shielded(arguments(task, media, attached, output.temporary))
            for name, text in files.items():
                stack.callback(os.unlink, name)
                Path(name).write_text(text, encoding="utf-8")
            has_warned = self._execute(argv)
            if has_warned and "--abort-on-warnings" in argv:
                raise RunError(message="mkvmerge gave up at a warning, as abort-on-warnings tells it to")
            verify(output.temporary, expect(task, media), attachment_names(task, attached), media if has_warned else ())
            self._warn_of_loss(output.target)
            output.commit()
        self._report(progress=100.0)

    def cleanup(self) -> None:
        """Remove the temporary file that a killed process of this job left; otherwise there is none."""
        try:
            self._output().discard()
        except OSError as error:
            raise CleanupError(message=f"temporary file of {self.task['output_file']}: {error}") from error

    def _output(self) -> Output:
        return Output(self.task["output_file"], overwrite=True)

    def _examine_all(self, task: Mapping[str, Any]) -> list[Media]:
        """What is in the sources, now that they are all there."""
        media, found = [], []
        for index, source in enumerate(task["sources"]):
            content, problems = examine(f"sources[{index}].filename", source["filename"])
            media.append(content or Media(""))
            found += problems
        found = found or list(track_problems(task, dict(enumerate(media))))
        if found:
            raise RunError(message="; ".join(found))
        return media

    def _problems_of_sources(self, task: Mapping[str, Any], *, is_installed: bool) -> Iterator[str]:
        media: dict[int, Media] = {}
        for index, source in enumerate(task["sources"]):
            where, name = f"sources[{index}].filename", source["filename"]
            problems = list(source_problems(self, where, name))
            if is_installed and not problems and self._is_settled(name):
                content, problems = examine(where, name)
                if content:
                    media[index] = content
            yield from problems
        yield from track_problems(task, media)

    def _problems_of_attachments(self, task: Mapping[str, Any]) -> Iterator[str]:
        for index, entry in enumerate(task.get("attachments", [])):
            where, name = f"attachments[{index}].filename", entry["filename"]
            yield from source_problems(self, where, name)
            if self._is_settled(name) and os.path.getsize(name) == 0:
                yield f"{where}: {name}: is empty, which mkvmerge does not attach"
        for index, directory in enumerate(task.get("attachment_directories", [])):
            where, inside = f"attachment_directories[{index}]", location(directory) + "/"
            if os.path.isdir(directory):
                if not os.access(directory, os.R_OK | os.X_OK):
                    yield f"{where}: {directory}: cannot be read: permission denied"
            elif os.path.lexists(directory):
                yield f"{where}: {directory}: is no directory"
            elif not any(stands and path.startswith(inside) for path, stands in self.sisyphus_files.items()):
                yield f"{where}: {directory}: no such directory"

    def _problems_of_output(self, task: Mapping[str, Any]) -> Iterator[str]:
        yield from target_problems(self, "output_file", task["output_file"], overwrite=True)
        for key in ("sources", "attachments"):
            for index, entry in enumerate(task.get(key, [])):
                if same_file(entry["filename"], task["output_file"]):
                    yield f"output_file: {task['output_file']} is also {key}[{index}]"

    def _files(self, output: Output) -> list[str]:
        """The files of the attachment directories, by directory and name, but for the output itself."""
        ours = {location(output.temporary), location(output.target)}
        found: list[str] = []
        for index, directory in enumerate(self.task.to_dict().get("attachment_directories", [])):
            try:
                with os.scandir(directory) as entries:
                    files = sorted(entry.path for entry in entries if entry.is_file())
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


def _problems_of_options(where: str, options: Options) -> Iterator[str]:
    return (f"{where}.{key}: {why}" for key, why in _REFUSED.items() if _is_set(options, key))


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
        # What stands before the first source is for that one, if it is for any.
        names = {*options, *(task.get("options", {}) if index == 0 else ())}
        if names & _SELECTING:
            continue
        for track in media[index].tracks:
            key = (index, track.id)
            if key in listed or _is_set(options, f"_copy-{track.type}-tracks"):
                is_retimed = bool((names | listed.get(key, set())) & _RETIMING)
                found[key] = Expected(index, track, is_retimed)
    order = [*(key for key in listed if key in found), *(key for key in found if key not in listed)]
    return [found[key] for key in order]


def attachment_names(task: Mapping[str, Any], attached: Sequence[str]) -> set[str]:
    """Under which names files will be attached. Of two that are alike in name, type and size, mkvmerge keeps one."""
    named = {entry.get("name") or os.path.basename(entry["filename"]) for entry in task.get("attachments", [])}
    return named | {os.path.basename(name) for name in attached}


def verify(name: str, expected: Sequence[Expected], attachments: set[str], suspects: Sequence[Media]) -> None:
    """Check that the file is whole. `suspects` are the sources if mkvmerge had something to warn of.

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
        _verify_lengths(list(zip(found.tracks, expected, strict=True)), suspects)


def _verify_contents(found: Media, expected: Sequence[Track], attachments: set[str]) -> None:
    if not found.tracks:
        raise RunError(message="the output has no tracks")
    counts = Counter(track.type for track in found.tracks)
    for kind, count in Counter(track.type for track in expected).items():
        if counts[kind] < count:
            raise RunError(message=f"the output has {counts[kind]} {kind} tracks of {count}")
    if len(found.attachments) < len(attachments):
        raise RunError(message=f"the output has {len(found.attachments)} attachments of {len(attachments)}")


def _verify_lengths(pairs: Sequence[tuple[Track, Expected]], suspects: Sequence[Media]) -> None:
    for track, entry in pairs:
        _verify_track(track, entry, is_suspect=bool(suspects))
    for index, source in enumerate(suspects):
        _verify_source(index, source, [(track, entry) for track, entry in pairs if entry.source == index])


def _verify_track(track: Track, expected: Expected, *, is_suspect: bool) -> None:
    """Compare lengths. How long a video's last frame is shown may get lost, which is no loss unless something is."""
    certain = expected.track.is_exact or is_suspect
    if track.type in {"video", "audio"} and certain and not expected.is_retimed:  # subtitles come and go
        where = f"sources[{expected.source}], track {expected.track.id},"
        _require_length(track.span, expected.track.span, where)


def _verify_source(index: int, source: Media, pairs: Sequence[tuple[Track, Expected]]) -> None:
    """Compare the source's length with that of its tracks, if all of them are in the output.

    A damaged source may have lost what it says of its tracks: mkvmerge writes that at the end.
    """
    if source.duration is None or len(pairs) < len(source.tracks) or any(entry.is_retimed for _, entry in pairs):
        return
    tracks = [track for track, _ in pairs if track.span != 0]
    bounds = [(t.start, t.start + t.span) for t in tracks if t.start is not None and t.span is not None]
    if bounds and len(bounds) == len(tracks):
        unused = min((track.start for track in source.tracks if track.start is not None), default=0.0)
        length = max(end for _, end in bounds) - min(start for start, _ in bounds)
        _require_length(length, source.duration - unused, f"sources[{index}]")


def _require_length(length: float | None, least: float | None, where: str) -> None:
    # A block of sound can last a second (TTA), and nobody counts the last one to the letter.
    if length is not None and least is not None and length < least - max(2.0, min(least / 100, 10.0)):
        raise RunError(
            message=f"the output is cut short: {length:.1f} s where {where} has {least:.1f} s (it may be damaged)"
        )
