"""mkvmerge's command line, made from a task's data."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modules.command import Options, to_argument
from modules.mkvtoolnix import Media, argument

TYPES = {"video": "video", "audio": "audio", "subtitles": "subtitle", "buttons": "button"}
"""Types of tracks, and the words before `-tracks` in the options that select tracks of these types."""

SELECTING = {f"no-{name}" for name in TYPES} | {f"{singular}-tracks" for singular in TYPES.values()}
"""Options that select tracks by mkvmerge's own rules, whatever the task's data lists."""

TRACK_FLAGS = {
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
"""Options of tracks that need at least the track's number: without it they would swallow the next argument."""


def mkvmerge_command(
    task: Mapping[str, Any], media: Sequence[Media | None], attached: Sequence[str], temporary: str
) -> list[str]:
    """The command line that writes the task's output to `temporary`.

    `media` holds the contents of each source, `None` where they are not known; `attached` are more files to attach.
    """
    argv = ["mkvmerge", "--gui-mode", "--output", argument(temporary), *option_arguments(task.get("options", {}))]
    numbers: list[int] = []  # mkvmerge counts the files, and those that are appended among them
    count = 0
    for index, source in enumerate(task["sources"]):
        options = source.get("options", {})
        tracks = [entry for entry in task.get("tracks", []) if entry["source"] == index]
        own = [*_selection(options, [int(entry["track"]) for entry in tracks], media[index])]
        own += option_arguments({key: value for key, value in options.items() if not key.startswith("_")})
        for entry in tracks:
            own += option_arguments(entry.get("options", {}), int(entry["track"]))
        # In parentheses nothing is an option, and VTS_01_1.VOB does not bring VTS_01_2.VOB with it.
        argv += [*own, "(", argument(source["filename"]), ")"]
        for name in source.get("append", ()):
            argv += ["+", *own, "(", argument(name), ")"]
        numbers.append(count)
        count += 1 + len(source.get("append", ()))
    for entry in task.get("attachments", []):
        argv += _attachment(entry)
    for name in attached:
        argv += ["--attach-file", argument(name)]
    order = [f"{numbers[int(entry['source'])]}:{int(entry['track'])}" for entry in task.get("tracks", [])]
    return [*argv, "--track-order", ",".join(order)] if order else argv


def shielded(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """`argv` with an option file in the place of each argument that begins with `@`, and the files' texts by name.

    mkvmerge takes such an argument for an option file's name wherever it stands, and has no way to quote it.
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


def copies_all(options: Options, kind: str) -> bool:
    """True if a source's options ask for all its tracks of a type."""
    return options.get(f"_copy-{kind}-tracks", False) is not False


def option_names(task: Mapping[str, Any], index: int) -> set[str]:
    """Options that may affect a source: its own, and those of the whole task."""
    return {*task["sources"][index].get("options", {}), *task.get("options", {})}


def may_select(task: Mapping[str, Any]) -> bool:
    """True if anything but the list of tracks selects tracks."""
    for index, source in enumerate(task["sources"]):
        if any(copies_all(source.get("options", {}), name) for name in TYPES) or option_names(task, index) & SELECTING:
            return True
    return False


def _selection(options: Options, tracks: Sequence[int], media: Media | None) -> Iterator[str]:
    """The options that select a source's tracks.

    Where the tracks' types are not known, all numbers are given for each type: mkvmerge ignores those of other types.
    """
    types = {track.id: track.type for track in media.tracks} if media else {}
    for name, singular in TYPES.items():
        if copies_all(options, name):
            continue
        if chosen := [track for track in tracks if types.get(track, name) == name]:
            yield from (f"--{singular}-tracks", ",".join(map(str, chosen)))
        else:
            yield f"--no-{name}"


def option_arguments(options: Options, track: int | None = None) -> Iterator[str]:
    """The arguments that set options: of a track, if its number is given.

    One that is false is left out; one that is true or null has no value. The chapters come last, because mkvmerge
    wants their language and the like before them.
    """
    if track is not None:
        options = {key: _for_track(track, key, value) for key, value in options.items()}
    for name, value in sorted(options.items(), key=lambda option: option[0] == "chapters"):
        if value is not False:
            yield f"--{name}"
            yield from [] if value is None or value is True else [to_argument(value)]


def source_files(task: Mapping[str, Any]) -> list[list[tuple[str, str]]]:
    """The files of each source, those that are appended to the first among them, with their places in the data."""
    return [
        [(f"sources[{index}].filename", source["filename"])]
        + [(f"sources[{index}].append[{number}]", name) for number, name in enumerate(source.get("append", ()))]
        for index, source in enumerate(task["sources"])
    ]


def _for_track(track: int, key: str, value: object) -> object:
    """An option's value with the number of the track it is for."""
    if value is False:
        return False
    if value is None or value is True:
        return str(track) if key in TRACK_FLAGS else True
    return f"{track}:{to_argument(value)}"


def _attachment(entry: Mapping[str, Any]) -> Iterator[str]:
    if mime_type := entry.get("mime_type") or entry.get("mimetype"):
        yield from ("--attachment-mime-type", mime_type)
    if entry.get("name"):
        yield from ("--attachment-name", entry["name"])
    yield from ("--attach-file", argument(entry["filename"]))
