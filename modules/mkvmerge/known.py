"""The options of the installed mkvmerge, and the problems of a task's options.

mkvmerge takes the value of a flag, and an option that it does not know, for the names of further sources.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from app.exceptions import RunError
from ipc.words import suggestion
from modules import tool
from modules.command import Options, to_argument
from modules.installed import LOCALE, help_of
from modules.mkvmerge.command import TRACK_FLAGS, TYPES
from modules.mkvtoolnix import Media

FLAG, VALUE, OPTIONAL = "flag", "value", "optional"
"""Kinds of options. An option of a track whose value is optional needs at least the number of the track."""

_PRINTING = """
    capabilities help identification-format identify list-audio-emphasis list-languages list-stereo-modes list-types
    version
"""
_REFUSED = dict.fromkeys(_PRINTING.split(), "it prints something and ends, and mkvmerge would mux nothing") | {
    "output": "the file's name is that of output_file",
    "redirect-output": "mkvmerge's messages would be lost",
    "split": "mkvmerge writes several files, which the mkvmerge module does not support",
}

_RATIO = r"\d+(\.\d+)?([/:]\d+(\.\d+)?)?"
_RATIOS = {"aspect-ratio", "aspect-ratio-factor"}
_HIGHEST = {
    "color-matrix": 17, "color-matrix-coefficients": 17, "color-primaries": 22, "color-range": 3,
    "color-transfer-characteristics": 18, "projection-type": 3,
}  # fmt: skip
"""Options whose values mkvmerge 74 takes unchecked: ratios, and the highest codes of Matroska (RFC 9559, H.273)."""


@functools.cache
def table() -> Mapping[str, str]:
    """The kinds of all options in mkvmerge's help, by their names without dashes.

    Raises:
        RunError: mkvmerge cannot be started.
    """
    lines = help_of("mkvmerge", ("--help",)).splitlines()
    found = [match for line in lines if (match := re.match(r"  (?:-\w, )?--([\w-]+)( \S)?", line))]
    return {match[1]: VALUE if match[2] else FLAG for match in found}


def kind_of(name: str) -> str | None:
    """The kind of an option; `None` if this mkvmerge does not know it."""
    return OPTIONAL if name in TRACK_FLAGS else table().get(name) or _ask(name)


@functools.cache
def _ask(name: str) -> str | None:
    """Ask mkvmerge about an option that its help leaves out, such as `default-track`."""
    finished = tool.capture(["mkvmerge", "--output", "/dev/null/none", f"--{name}"], environment=LOCALE)
    said = finished.stdout.decode(errors="replace")
    return None if f"'--{name}' could not be opened" in said else VALUE if " lacks " in said else FLAG


def option_problems(key: str, value: object, *, of_track: bool = False) -> Iterator[str]:
    """The problems of an option and the form of its value."""
    is_bare = value is None or value is True
    if key.startswith("_"):
        return
    if key in _REFUSED:
        if value is not False:
            yield _REFUSED[key]
        return
    try:
        kind = kind_of(key)
    except RunError:
        return  # a missing program is told elsewhere
    if kind is None:
        yield f"this mkvmerge knows no such option{suggestion(key, table())}"
    elif kind == FLAG and value is not False and not is_bare:
        yield f"--{key} is a flag, which takes no value: mkvmerge would read a file of that name"
    elif is_bare and (kind == VALUE or (kind == OPTIONAL and not of_track)):
        yield f"expected a value: --{key} needs one"
    elif not is_bare and value is not False:
        yield from _unchecked(key.replace("colour", "color"), to_argument(value), of_track)


def refused_values(given: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The values that mkvmerge refuses. `given` are the arguments for options, by their places in the task's data."""
    if (argv := list(chain(*given.values()))) and _refusal(argv):
        told = ((where, _refusal(argv)) for where, argv in given.items())
        yield from (f"{where}: {said}" for where, said in told if said)


def _refusal(argv: Sequence[str]) -> str:
    """What mkvmerge says against arguments, which it reads before it opens a source that is not there."""
    none = "/dev/null/none"
    finished = tool.capture(["mkvmerge", "--gui-mode", "--output", none, *argv, "(", none, ")"], environment=LOCALE)
    match = re.search("^#GUI#error (.*)", finished.stdout.decode(errors="replace"), re.MULTILINE)
    return match[1] if match and none not in match[1] else ""


def _unchecked(name: str, text: str, of_track: bool) -> Iterator[str]:
    """Problems of a value that mkvmerge would take as it is, or leave out. A source's begins with the track number."""
    own = text if of_track else text.partition(":")[2]
    if name in _RATIOS and not re.fullmatch(_RATIO, own, re.ASCII):
        yield f"expected a number or a ratio, as 16/9, got {own!r}"
    elif own.isdigit() and int(own) > (highest := _HIGHEST.get(name, int(own))):
        yield f"expected a number from 0 to {highest}, got {own}"


def selection_problems(where: str, options: Options, media: Media, warn: Callable[[str], None]) -> Iterator[str]:
    """Selections of tracks and attachments that select nothing of a source; mkvmerge says nothing of them.

    `warn` is told of a language that a selection names beside others and that the source lacks.
    """
    for kind, word in TYPES.items():
        tracks = [track for track in media.tracks if track.type == kind]
        ids = {str(track.id) for track in tracks}
        names = _selected(options.get(f"{word}-tracks"))
        missing = [name for name in names if name not in ids and not any(each.has_language(name) for each in tracks)]
        for name in missing:
            has = ", ".join(f"{track.id} ({' '.join(sorted(track.languages))})" for track in tracks) or "none"
            line = f"{where}.{word}-tracks: {name}, but the source has only these {kind} tracks: {has}"
            if name.isdigit() or len(missing) == len(names):
                yield line
            else:
                warn(line)
    for name in _selected(options.get("attachments")):
        if name.isdigit() and int(name) not in media.attachments:
            yield f"{where}.attachments: {name}, but the source has no such attachment"


def _selected(value: object) -> list[str]:
    """What a selection names; nothing for one that begins with an exclamation mark, which takes all others."""
    text = "" if value is None or isinstance(value, bool) else to_argument(value)
    names = [name.partition(":")[0].strip() for name in text.split(",")]  # `1:all` is for attachments
    return [] if text.startswith("!") else list(filter(None, names))
