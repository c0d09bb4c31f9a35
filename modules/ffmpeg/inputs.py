"""The files that an ffmpeg task reads: their names, whether ffmpeg may read them, and whether it has read them all."""

import os
import re
from collections.abc import Callable, Iterator

from app.exceptions import RunError
from modules import damage, media
from modules.base import BaseModule
from modules.checks import source_problems
from modules.command import Options
from modules.containers import find_shortage
from modules.damage import DamageLog, read_through
from modules.ffmpeg.encode import Encoded
from modules.ffmpeg.expect import dropped_frames, missing_frames
from modules.ffmpeg.options import EncodeTask, is_device, is_file, is_sequence, names
from modules.output import is_special
from modules.sources import files_of, list_problems, part_shortages, parts_of, plain_names

_ENDS = names("t to fs frames vframes aframes dframes shortest isync")
"""Options with which ffmpeg may not read a source to its end."""

_PIPE = re.compile(r"(pipe|fd):|-$")


def file_problems(module: BaseModule, where: str, name: str, options: Options) -> Iterator[str]:
    """Problems of a source's files: they will not exist, cannot be read, or are pipes."""
    if is_device(options) or is_sequence(name, options):
        return
    if _PIPE.match(name) and not module.will_exist(name):
        yield f"{where}: {name}: is a pipe, which can be read once only"
    elif is_file(name, options) or module.will_exist(name):
        yield from source_problems(module, where, name)
    else:
        for inner in plain_names(name):
            if inner != name and "://" not in inner:
                yield from source_problems(module, where, inner)


def content_problems(module: BaseModule, task: EncodeTask, can_look: Callable[[str], bool]) -> Iterator[str]:
    """Sources that are lists though they do not say so, that are cut short, or of which a part is missing.

    `can_look` tells whether a file is there as the task will read it. What may not be needed is not missed.
    """
    needed = set() if _is_limited(task) else task.mapped
    for index, (name, options) in enumerate(task.sources):
        where, format_name = f"sources[{index}]", str(options.get("f", ""))
        if is_device(options):
            continue
        if missing := _missing_picture(name, options) if index in needed else None:
            yield f"{where}: {name}: there is no {missing}, but a later picture: ffmpeg would end before it"
        for inner in filter(is_special, _inner_names(name)):
            yield from source_problems(module, where, inner)
        for inner in filter(can_look, _inner_names(name)):
            yield from list_problems(module, where, inner, format_name)
            if index in needed:
                # Read as another format, a file lacks nothing that its own container states.
                shortage = None if format_name else find_shortage(inner)
                shortages = [shortage] if shortage else part_shortages(inner, format_name)
                yield from (f"{where}: {inner}: {each}" for each in shortages)


def read_files(task: EncodeTask) -> list[str]:
    """All files that ffmpeg reads as sources."""
    return list(dict.fromkeys(file for name, options in task.sources for file in source_files(name, options)))


def source_files(name: str, options: Options) -> list[str]:
    """The files that ffmpeg reads as one source, the parts of a list and the pictures of a sequence among them."""
    files = files_of([] if is_device(options) else _inner_names(name))
    return [*_pictures(name, options).values(), *files, *parts_of(name, str(options.get("f", "")))]


def require_read(task: EncodeTask, log: DamageLog) -> None:
    """Check that ffmpeg has read the mapped sources to their ends. Where its log tells of damage, read them again.

    Raises:
        RunError: A part of a source could not be read.
    """
    files = [
        file
        for index, (name, options) in enumerate(task.sources)
        if index in task.mapped and not is_device(options)
        for inner in _inner_names(name)
        for file in parts_of(inner, str(options.get("f", ""))) or [inner]
    ]
    if log.lost:
        names = ", ".join(name for name, _ in task.sources)
        raise RunError(message=f"{names}: cannot be read whole: {log.lost}")
    # A recording that was broken off states no size, and lacks nothing that anybody knows of.
    if log.truncated and not all(os.path.isfile(file) and not find_shortage(file) for file in files):
        raise RunError(message=f"a source is cut short: {log.truncated}")
    if log.lines and not _is_limited(task):
        damage.require_read(files)


def damage_warnings(task: EncodeTask, encoded: Encoded) -> Iterator[str]:
    """Errors that ffmpeg told of and went on, and frames that are missing."""
    yield from encoded.log.warnings("ffmpeg")
    if missing := missing_frames(task, encoded.frames, is_damaged=bool(encoded.log.lines)):
        yield f"{task.data['output_file']}: {missing}"
    if dropped := dropped_frames(task, encoded.frames, encoded.dropped):
        yield f"{task.data['output_file']}: {dropped}"
    for index in set() if _is_limited(task) else task.mapped:
        name, options = task.sources[index]
        if media.format_of(task.probes[index]) in media.LIKELY_FORMATS and not is_device(options):
            reading = read_through(name)
            if reading and (doubt := reading.doubt()):
                yield doubt


def _is_limited(task: EncodeTask) -> bool:
    """True if ffmpeg may not read all sources to their ends."""
    return any(_ENDS & {key.split(":")[0] for key in options} for options in (*task.inputs, *task.outputs))


def _inner_names(name: str) -> list[str]:
    return [name] if os.path.lexists(name) else plain_names(name)


def _pictures(name: str, options: Options) -> dict[int, str]:
    """The pictures of a numbered sequence that are not empty, by their numbers."""
    directory, pattern = os.path.split(name)
    match = re.search(r"%(0?)(\d*)d", pattern, re.ASCII)
    is_numbered = is_sequence(name, options) and options.get("pattern_type", "sequence") == "sequence"
    if not match or not is_numbered or not os.path.isdir(directory or "."):
        return {}
    before, after = pattern[: match.start()], pattern[match.end() :]
    form = re.compile(f"{re.escape(before)}(\\d{{{match[2] or 1},}}){re.escape(after)}".replace("%%", "%"), re.ASCII)
    found = {int(each[1]): each[0] for entry in os.listdir(directory or ".") if (each := form.fullmatch(entry))}
    first = media.number(options.get("start_number")) or 0
    paths = {number: os.path.join(directory, found[number]) for number in sorted(found) if number >= first}
    return {
        number: path for number, path in paths.items() if os.path.isfile(path) and os.path.getsize(path)
    }  # ffmpeg skips an empty one


def _missing_picture(name: str, options: Options) -> str | None:
    pictures = _pictures(name, options)
    gap = next((number + 1 for number in list(pictures)[:-1] if number + 1 not in pictures), None)
    return None if gap is None else f"picture {gap}"
