"""The tracks that a task takes: by their numbers, or in words as `modules.selection` understands them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from modules.mkvmerge.command import SELECTING, TYPES, copies_all, option_names
from modules.mkvtoolnix import Media, Track
from modules.selection import Description, Words, choose, in_words, is_in_words, list_known

_UNKNOWN = frozenset({"und"})
"""The language of tracks that state none."""


_Number = TypeVar("_Number", int, float)


def has_words(entry: Words) -> bool:
    """True if an entry of `tracks` does not say the number of its track in the file."""
    return "track_type" in entry or is_in_words(entry)


def track_problems(task: Mapping[str, Any], media: Mapping[int, Media]) -> Iterator[str]:
    """Listed tracks that their source lacks. `media` holds the contents of the sources that are known, by index."""
    count = len(task["sources"])
    places: dict[tuple[int, int], int] = {}
    for index, entry in enumerate(task.get("tracks", [])):
        where, source = f"tracks[{index}]", int(entry["source"])
        if source >= count:
            yield f"{where}.source: {source}, but there are only sources 0 to {count - 1}"
        elif has_words(entry):
            if source in media and not entry.get("optional") and not _select(media[source], entry):
                has = list_known(map(_describe, media[source].tracks))
                yield f"{where}: no track of sources[{source}] fits {in_words(entry)}; it has {has}"
        elif (first := places.setdefault((source, int(entry["track"])), index)) != index:
            yield f"{where}: is the same track as tracks[{first}], and mkvmerge copies none twice"
        elif source in media and not _is_there(entry, media[source]) and not entry.get("optional"):
            has = ", ".join(f"{track.id} ({track.type})" for track in media[source].tracks) or "none"
            yield f"{where}.track: {int(entry['track'])}, but sources[{source}] has only these tracks: {has}"


def _is_there(entry: Words, media: Media) -> bool:
    return int(entry["track"]) in {track.id for track in media.tracks}


def settled(task: Mapping[str, Any], media: Mapping[int, Media]) -> dict[str, Any]:
    """The task with the numbers of tracks in the place of words, and without optional tracks that are missing.

    Words take no track that another entry has already. They stay where the source is not known.
    """
    entries = task.get("tracks", [])
    taken = {(int(each["source"]), int(each["track"])) for each in entries if not has_words(each)}
    found: list[Mapping[str, Any]] = []
    for entry in entries:
        source = int(entry["source"])
        if source not in media:
            found.append(entry)
        elif has_words(entry):
            chosen = [each.id for each in _select(media[source], entry) if (source, each.id) not in taken]
            taken |= {(source, number) for number in chosen}
            found += [{"source": source, "track": number, "options": entry.get("options", {})} for number in chosen]
        elif _is_there(entry, media[source]):
            found.append(entry)
    return {**task, "tracks": found}


def joined(known: Mapping[int, Sequence[Media]]) -> dict[int, Media]:
    """The contents of each source as a whole: those of its first file, as long as all of its files together."""
    found: dict[int, Media] = {}
    for index, (first, *parts) in sorted(known.items()):
        tracks = []
        for track in first.tracks:
            more = [next((each for each in part.tracks if each.id == track.id), Track(track.id, "")) for part in parts]
            counts, spans = [each.bytes for each in (track, *more)], [each.span for each in (track, *more)]
            tracks.append(replace(track, bytes=_sum(counts), span=_sum(spans)))
        durations = [each.duration for each in (first, *parts)]
        found[index] = replace(first, tracks=tuple(tracks), duration=_sum(durations))
    return found


def known_tracks(task: Mapping[str, Any], known: Mapping[int, Sequence[Media]]) -> dict[str, Counter[str]]:
    """The number of tracks that mkvmerge finds in each file, by its name and their type: only of those types of which
    the task wants all. `known` holds the contents of each source's files."""
    found: dict[str, Counter[str]] = {}
    for index, source in enumerate(task["sources"]):
        kinds = {kind for kind in TYPES if copies_all(source.get("options", {}), kind)}
        for entry in task.get("tracks", []):
            if entry["source"] == index and entry.keys() <= {"source", "track_type", "options", "optional"}:
                kinds.add(entry["track_type"])
        if not option_names(task, index) & SELECTING:
            for name, media in zip([source["filename"], *source.get("append", ())], known[index], strict=True):
                counted = Counter(track.type for track in media.tracks)
                found[name] = Counter({kind: counted[kind] for kind in kinds})
    return found


def _sum(values: Sequence[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if len(known) == len(values) else None


def append_problems(task: Mapping[str, Any], known: Mapping[int, Sequence[Media]]) -> Iterator[str]:
    """Tracks that a file to be appended lacks. The task has no words."""
    for index, (first, *parts) in known.items():
        source = task["sources"][index]
        listed = {int(entry["track"]) for entry in task["tracks"] if entry["source"] == index}
        taken = [each for each in first.tracks if each.id in listed or copies_all(source.get("options", {}), each.type)]
        for number, part in enumerate(parts):
            has = {(each.id, each.type) for each in part.tracks}
            for track in taken:
                if (track.id, track.type) not in has:
                    name, what = source["append"][number], f"track {track.id} ({track.type})"
                    yield f"sources[{index}].append[{number}]: {name}: has no {what} to continue {source['filename']}"


def _select(media: Media, entry: Words) -> Sequence[Track]:
    def candidates(words: Words) -> Sequence[Track]:
        return [each for each in media.tracks if words.get("track_type", each.type) == each.type]

    return choose(entry, "track", candidates, _describe)


def _describe(track: Track) -> Description:
    return Description(track.id, track.type, track.codecs, track.languages or _UNKNOWN, track.title, track.dispositions)
