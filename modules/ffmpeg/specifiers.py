"""ffmpeg's stream specifiers: how a task's data gives them, and which streams they select."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modules.command import to_argument
from modules.media import is_cover
from modules.selection import Description, choose, is_in_words

KINDS = {"v": "video", "a": "audio", "s": "subtitle", "d": "data", "t": "attachment"}

Stream = Mapping[str, Any]
"""A stream as ffprobe describes it."""

_MAP = re.compile(r"(-?)(\d+)(?::(.*?))?\??", re.DOTALL)


def specifier(entry: Mapping[str, Any]) -> str:
    """The specifier of an entry of `source_maps` or `output_maps`: `v:1`, `a:m:language:eng`; empty for all streams.

    A word (`video`, `Audio`) is its first letter. `V` is video without covers.
    """
    text = entry.get("specifier", "")
    word, colon, rest = text.partition(":")
    if re.fullmatch("[VvAaSsDdTt][A-Za-z]+", word) and (word, colon) != ("disp", ":"):
        text = word[0].lower() + colon + rest
    elif re.fullmatch("[ASDT]", word):
        text = word.lower() + colon + rest
    return ":".join([*([text] if text else []), *([str(int(entry["stream"]))] if "stream" in entry else [])])


def source_map(entry: Mapping[str, Any]) -> str:
    """An entry of `source_maps` as the value of `-map`: `0:v:1?`."""
    name = specifier(entry)
    return f"{int(entry['source'])}{f':{name}' if name else ''}{'?' if entry.get('optional') else ''}"


def settled_maps(maps: Sequence[Mapping[str, Any]], sources: Sequence[Sequence[Stream]]) -> Sequence[Mapping[str, Any]]:
    """The maps with numbers in the place of words, and without those optional ones that look for a tag and select
    nothing: ffmpeg 7.1 takes the `?` of such a map for a part of the tag's value.

    Words stay where the source is not known.
    """
    settled: list[Mapping[str, Any]] = []
    for entry in maps:
        streams = sources[int(entry["source"])]
        in_words = is_in_words(entry) and bool(streams)
        is_doubtful = entry.get("optional") and re.search(r"(^|:)m:", specifier(entry))
        found = select_map(streams, entry) if in_words or is_doubtful else None
        if found is None:
            settled.append(entry)
        elif in_words:
            settled += [{"source": entry["source"], "stream": streams.index(each)} for each in found]
        elif found:
            settled.append({**entry, "optional": False})
    # Without any map, ffmpeg would choose by itself.
    return settled or [entry for entry in maps if not is_in_words(entry)]


def with_suffix(key: str, entry: Mapping[str, Any]) -> str:
    """An option's key with the specifier of its output map. What the key ends in already is not said twice."""
    name = specifier(entry)
    if key in ("metadata:s", "map_metadata:s"):  # here, s is for streams of any type
        return f"{key}:{name}"
    if f"{key}:".endswith(f":{name}:"):
        return key
    first, colon, rest = name.partition(":")
    return f"{key}{colon}{rest}" if key.endswith(f":{first}") else f"{key}:{name}"


def select_map(streams: Sequence[Stream], entry: Mapping[str, Any]) -> list[Stream] | None:
    """The streams that an entry of `source_maps` selects; `None` where ffprobe's answer does not tell."""
    if not is_in_words(entry):
        return select(streams, specifier(entry))

    def candidates(words: Mapping[str, Any]) -> Sequence[Stream]:
        return select(streams, specifier({key: value for key, value in words.items() if key != "stream"})) or ()

    return choose(entry, "stream", candidates, lambda stream: describe(streams.index(stream), stream))


def describe(number: int, stream: Stream) -> Description:
    """A stream as words select it. One without a language has the language `und`."""
    tags = {name.lower(): str(held) for name, held in stream.get("tags", {}).items()}
    dispositions = stream.get("disposition", {})
    return Description(
        number,
        stream.get("codec_type", ""),
        (stream.get("codec_name", ""),),
        frozenset({tags.get("language", "und").lower()}),
        tags.get("title", ""),
        frozenset(name for name, is_set in dispositions.items() if is_set),
    )


def select(streams: Sequence[Stream], name: str) -> list[Stream] | None:
    """The streams that a specifier selects; `None` where ffprobe's answer does not tell, as for programs."""
    part, _, rest = name.partition(":")
    if part in {*KINDS, "V"}:
        kind = KINDS[part.lower()]
        found = [each for each in streams if each.get("codec_type") == kind and not (part == "V" and is_cover(each))]
    elif re.fullmatch(r"\d+", part):
        return list(streams[int(part) :][:1])
    elif part == "m":
        return [each for each in streams if _has_tag(each, rest)]
    elif part == "disp":
        words, _, rest = rest.partition(":")
        found = [each for each in streams if all(each.get("disposition", {}).get(word) for word in words.split("+"))]
    elif match := re.fullmatch(r"(?:#|i:)(\w+)", name):
        return [each for each in streams if _number(each.get("id")) == _number(match[1])]
    elif name:
        return None
    else:
        return list(streams)
    return select(found, rest) if rest else found


def selected(
    maps: Sequence[Mapping[str, Any]], options: Sequence[Mapping[str, Any]], sources: Sequence[Sequence[Stream]]
) -> list[tuple[int, Stream]]:
    """The streams that ffmpeg takes, each with the number of its source.

    `maps` are the task's `source_maps`, `options` those of its outputs, whose `map` adds streams and takes some away,
    and `sources` the streams of each source.
    """
    chosen: list[tuple[int, Stream]] = []
    for entry in maps:
        index = int(entry["source"])
        chosen += [(index, each) for each in (select_map(sources[index], entry) or () if index < len(sources) else ())]
    for is_negative, index, name in further_maps(options):
        found = [(index, stream) for stream in (select(sources[index], name) or [] if index < len(sources) else [])]
        chosen = [each for each in chosen if each not in found] if is_negative else chosen + found
    return chosen


def further_maps(options: Sequence[Mapping[str, Any]]) -> Iterator[tuple[bool, int, str]]:
    """The values of `map` in options: whether one takes streams away, the number of the source, and the specifier."""
    for each in options:
        for key, value in each.items():
            for text in value if isinstance(value, list) else [value]:
                if key.split(":")[0] == "map" and (match := _MAP.fullmatch(to_argument(text))):
                    yield bool(match[1]), int(match[2]), match[3] or ""


def _has_tag(stream: Stream, text: str) -> bool:
    key, colon, value = text.partition(":")
    tags = {name.lower(): held for name, held in stream.get("tags", {}).items()}
    found = tags.get(key.lower())
    return found is not None and (not colon or found == re.sub(r"\\(.)", r"\1", value))


def _number(text: object) -> int | None:
    try:
        return int(str(text), 0)
    except ValueError:
        return None
