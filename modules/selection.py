"""Streams and tracks in words: `{"language": ["jpn", "eng"], "exclude": {"title": "*comment*"}, "first": true}`.

ffmpeg's streams and mkvmerge's tracks are described alike, so that the same words mean the same for both.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Words = Mapping[str, Any]
"""An entry of a task's data that selects."""

WORDS = frozenset({"language", "codec", "title", "disposition", "exclude", "first", "or"})
"""The keys of an entry that select in words."""

_INHERITED = ("specifier", "track_type")
"""Keys that `or` has from its entry unless it has its own."""

_PAIRS = """
    alb sqi arm hye baq eus bur mya chi zho cze ces dut nld fre fra geo kat ger deu gre ell ice isl mac mkd mao mri
    may msa per fas rum ron slo slk tib bod wel cym
""".split()  # noqa: SIM905 - forty words
_OTHER_CODES = dict(zip(_PAIRS[::2], _PAIRS[1::2], strict=True)) | dict(zip(_PAIRS[1::2], _PAIRS[::2], strict=True))
"""The other code of each language that has two in ISO 639-2, a bibliographic and a terminological one."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Description:
    """A stream or a track. `number` is its place in its file, `codecs` are all names of its codec."""

    number: int
    kind: str
    codecs: tuple[str, ...] = ()
    languages: frozenset[str] = frozenset()
    title: str = ""
    dispositions: frozenset[str] = frozenset()

    def __str__(self) -> str:
        title = f'"{self.title}"' if self.title else ""
        parts = [self.kind, *self.codecs[:1], *sorted(self.languages), title, *sorted(self.dispositions)]
        return f"{self.number} ({', '.join(filter(None, parts))})"


def is_in_words(entry: Words) -> bool:
    """True if an entry selects by more than a type and a number."""
    return not WORDS.isdisjoint(entry)


def codes_of(language: str) -> set[str]:
    """`language`, and the other codes for it."""
    code = language.lower()
    return {language, code, _OTHER_CODES.get(code, code)}


def choose(
    entry: Words, number: str, candidates: Callable[[Words], Sequence[_T]], describe: Callable[[_T], Description]
) -> list[_T]:
    """What an entry selects; if that is nothing, what its `or` selects.

    `number` is the key that counts among what matches. `candidates` returns what an entry selects without its words.
    """
    found = _matching(entry, [(describe(each), each) for each in candidates(entry)])
    if number in entry:
        found = found[int(entry[number]) :][:1]
    elif entry.get("first"):
        found = found[:1]
    if found or "or" not in entry:
        return found
    inherited = {key: entry[key] for key in _INHERITED if key in entry}
    return choose({**inherited, **entry["or"]}, number, candidates, describe)


def _matching(entry: Words, candidates: Sequence[tuple[Description, _T]]) -> list[_T]:
    """What matches all words. Of several languages, the first in which there is anything is taken."""
    excluded = entry.get("exclude")
    for language in _texts(entry.get("language")) or [""]:
        words = {**entry, "language": language} if language else entry
        found = [
            each for known, each in candidates if _fits(known, words) and not (excluded and _fits(known, excluded))
        ]
        if found:
            return found
    return []


def _fits(known: Description, words: Words) -> bool:
    """True if a stream matches `language`, `codec`, `title` and `disposition`, as far as they are given."""
    languages, codecs, titles = (_texts(words.get(key)) for key in ("language", "codec", "title"))
    return (
        (not languages or any(known.languages & codes_of(each) for each in languages))
        and (not codecs or any(_is_like(_bare(name), _bare(each)) for name in known.codecs for each in codecs))
        and (not titles or any(_is_like(known.title.lower(), each.lower()) for each in titles))
        and known.dispositions.issuperset(_texts(words.get("disposition")))
    )


def _is_like(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))  # titles have brackets: these are no wildcards


def _bare(codec: str) -> str:
    """A codec's name without what programs write differently: `AC-3` is `ac3`."""
    return re.sub(r"[^a-z0-9*?]", "", codec.lower())


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def in_words(entry: Words) -> str:
    """What an entry asks for, for a person. Its source and whether it may be missing are left out."""
    return ", ".join(_parts(entry))


def _parts(entry: Words) -> Iterator[str]:
    for key, value in entry.items():
        if key in {"source", "optional", "options"}:
            continue
        match value:
            case Mapping():
                yield f"{key} {{{in_words(value)}}}"
            case bool():
                yield from [key] if value else []
            case str() | int() | list():
                yield f"{key} {' or '.join(map(str, value if isinstance(value, list) else [value]))}"


def list_known(known: Iterable[Description]) -> str:
    """All that there is, for the message that nothing matches."""
    return ", ".join(map(str, known)) or "none"
