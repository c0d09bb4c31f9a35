"""Check that a task's maps select what they mean: of the sources, and of the output.

ffmpeg encodes a cover picture as if it were the film, and says nothing of options for a stream that the output lacks.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from modules.command import Options, to_argument
from modules.ffmpeg.options import EncodeTask, names
from modules.ffmpeg.specifiers import KINDS, Stream, describe, further_maps, select, select_map, source_map, specifier
from modules.media import is_cover
from modules.selection import in_words, is_in_words, list_known

_COUNTED = re.compile(r"(?:[vasdtV]:)?\d+")
"""Specifiers that count streams. What they count may be covers; any other specifier names what it selects."""

_PLAIN = re.compile(r"[vasdtV](?::\d+)?|\d+")
"""Specifiers that are decided by the types and the order of the output's streams alone."""

_OF_OUTPUT = names("an dn f fs map map_chapters map_metadata shortest sn ss t to vn")
"""Options that count for the whole output, whatever stream they are written for."""

_GRAPHS = names("filter_complex filter_complex_script lavfi")
_DROPPED = {"an": "audio", "dn": "data", "sn": "subtitle", "vn": "video"}


def source_problems(task: EncodeTask) -> Iterator[str]:
    """Streams that are mapped and that their source lacks, and covers in the place of films."""
    maps = []
    is_told = False
    for index, entry in enumerate(task.data["source_maps"]):
        own, where, source = _streams(task, entry), f"source_maps[{index}]", int(entry["source"])
        found = select_map(own, entry)
        if own and not entry.get("optional") and found == []:
            is_told = True
            yield f"{where}: {_missing(own, entry)}"
        if is_in_words(entry) and not own and source in task.probes:
            yield f"{where}: nothing can be read of the streams of sources[{source}], to choose one in words"
        if not is_in_words(entry):
            maps.append((where, source, specifier(entry)))
        elif found and {"first", "stream"} & entry.keys():
            maps.append((where, source, str(own.index(found[0]))))
    yield from _covers(task, maps)
    is_known = all(task.streams) and not task.given & _GRAPHS
    if is_known and not is_told and not task.chosen and any(map(is_in_words, task.data["source_maps"])):
        yield "source_maps: none of them selects a stream, and without any ffmpeg would choose by itself"


def _missing(own: Sequence[Stream], entry: Mapping[str, Any]) -> str:
    """What to tell of a map that selects nothing."""
    if is_in_words(entry):
        has = list_known(itertools.starmap(describe, enumerate(own)))
        return f"no stream of sources[{entry['source']}] fits {in_words(entry)}; it has {has}"
    name = specifier(entry)
    kind = KINDS.get(name[:1].lower(), "")
    count = len(select(own, name[:1]) or []) if kind else len(own)
    has = f"{count} {kind} stream{'s' if count != 1 else ''}".replace("  ", " ")
    return f"{source_map(entry)}, but sources[{entry['source']}] has {has}"


def _streams(task: EncodeTask, entry: Mapping[str, Any]) -> Sequence[Stream]:
    """The streams of a source map's source, as far as they are known."""
    return task.streams[int(entry["source"])] if int(entry["source"]) < len(task.streams) else ()


def _covers(task: EncodeTask, maps: Iterable[tuple[str, int, str]]) -> Iterator[str]:
    """Maps that count to a cover that stands before the film, in outputs without that film."""
    added = [
        ("the option map", source, name) for is_negative, source, name in further_maps(task.outputs) if not is_negative
    ]
    taken = [(f"the option {key}", source, name) for key, source, name in _taken_by_graphs(task.outputs)]
    streams = dict(enumerate(task.streams))
    chosen = task.chosen + [
        (source, each) for _, source, name in taken for each in (select(streams.get(source, ()), name) or ())[:1]
    ]
    for where, source, name in [*maps, *added, *taken]:
        own = streams.get(source, ())
        films = [each for each in own if each.get("codec_type") == "video" and not is_cover(each)]
        for cover in select(own, name) or () if _COUNTED.fullmatch(name) and films else ():
            is_mapped = any((source, film) in chosen for film in films)
            if is_cover(cover) and not is_mapped and own.index(cover) < own.index(films[0]):
                yield f"{where}: {source}:{name} is a cover picture, and the film is not mapped: V:0 is the film"


def _taken_by_graphs(outputs: Sequence[Options]) -> Iterator[tuple[str, int, str]]:
    """The streams of sources that graphs of filters take: the option, the source's number, and the specifier."""
    for options in outputs:
        for key in _GRAPHS & options.keys():
            for source, name in re.findall(r"\[(\d+):([^\]]+)\]", to_argument(options[key])):
                yield key, int(source), "v:0" if name == "v" else name  # of several, the first


def output_problems(task: EncodeTask) -> Iterator[tuple[str, bool]]:
    """Options for streams that the output will not have: a line for a person, and whether that is an error.

    It is none if the stream depends on the source: its map is optional, or takes whatever there is.
    """
    if task.given & _GRAPHS or not all(_is_known(task, each) for each in task.data["source_maps"]):
        return
    dropped = {kind for name, kind in _DROPPED.items() if name in task.given}
    found = [each for _, each in task.chosen if each.get("codec_type") not in dropped]
    given = (options.get("attach", []) for options in task.outputs)
    attached = [name for value in given for name in (value if isinstance(value, list) else [value])]
    found += [{"codec_type": "attachment"}] * len(attached)  # they come last
    yield from ((line, False) for line in _lost_options(task, found))
    for where, name in _addressed(task):
        if _PLAIN.fullmatch(name) and not select(found, name.lower()):
            is_error = not any(_may_bring(each, name) for each in task.data["source_maps"])
            yield f"{where}: the output has no stream {name}: its options are lost", is_error


def _lost_options(task: EncodeTask, found: Sequence[Stream]) -> Iterator[str]:
    """Options that two output maps give to one stream of the output: ffmpeg takes the last."""
    places = [{**stream, "place": place} for place, stream in enumerate(found)]
    given: dict[tuple[int, str], tuple[int, Any]] = {}
    for index, (entry, options) in enumerate(zip(task.data["output_maps"], task.outputs[1:], strict=True)):
        name = specifier(entry)
        own = select(places, name.lower()) or () if name[-1:].isdigit() and _PLAIN.fullmatch(name) else ()
        for stream, (key, value) in itertools.product(own, options.items()):
            if value is False or key.split(":")[0] in {"map", "metadata"}:
                continue
            option = re.sub(r"^c\b", "codec", key)
            first, other = given.get((stream["place"], option), (index, value))
            if other != value:
                yield f"output_maps[{first}].options.{key}: is lost: output_maps[{index}] has it for the same stream"
            given[stream["place"], option] = index, value


def _is_known(task: EncodeTask, entry: Mapping[str, Any]) -> bool:
    own = _streams(task, entry)
    return bool(own) and select_map(own, entry) is not None


def _addressed(task: EncodeTask) -> Iterator[tuple[str, str]]:
    """The places in the task's data whose options are for a stream of the output, and its specifier."""
    own, *outputs = task.outputs
    for key in own:
        name, _, suffix = key.partition(":")
        suffix = suffix.removeprefix("s:") if name in {"metadata", "map_metadata"} and suffix != "s" else suffix
        if re.search(r"\d$", suffix):  # `c:s` alone is for all subtitles, if there are any
            yield f"output_options.{key}", suffix
    for index, (entry, options) in enumerate(zip(task.data["output_maps"], outputs, strict=True)):
        if any(value is not False and key.split(":")[0] not in _OF_OUTPUT for key, value in options.items()):
            yield f"output_maps[{index}]", specifier(entry)


def _may_bring(entry: Mapping[str, Any], name: str) -> bool:
    """True if a source map may bring a stream that `name` counts in the output, if the source only had one."""
    own = specifier(entry)
    is_fitting = own[:1] not in KINDS or name[:1].lower() in {own[:1], *"0123456789"}
    return is_fitting and bool(entry.get("optional") or (own == "" and not name[-1:].isdigit()))
