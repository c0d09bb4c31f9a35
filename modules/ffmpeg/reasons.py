"""Choose the lines of ffmpeg's log that say why it failed.

ffmpeg writes the cause first, then a line for each layer and thread that could not go on because of it: those say no
more than that there was an error. A library writes lines of its own, without a level. Damage in a source is written
for every packet, before or after the cause. So a reason is an error that names something, and that is not repeated.
"""

import itertools
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from modules.damage import split_level

MAX_REASONS = 4
"""Lines that are chosen at most: the first and the last ones."""

MAX_LENGTH = 400
"""Characters of a line that are kept."""

_MAX_KINDS = 100
_NOISE = 3
"""Times that a line is repeated, with other numbers in it, if it tells of damage and not of the end."""

_ERRORS = {"error", "fatal", "panic"}
_CONTEXT = re.compile(r"(?:\[[^\]]+ @ 0x[0-9a-f]+\] )*")
_ADDRESS = re.compile(" @ 0x[0-9a-f]+")
_LIBRARY = re.compile(r"\berror\b|\[error\]|\bfailed\b|\bcannot\b|Assertion|what\(\):", re.IGNORECASE)
"""Errors among the lines without a level: of x264, x265, SVT-AV1, libva, the dynamic linker, the C++ runtime."""

_CONSEQUENCE = re.compile(
    r"(?:Conversion failed|Last message repeated|Nothing was written|Could not open encoder before|Task finished"
    r"|Terminating thread|(?:Hardware d|D)evice setup|Failed to (?:inject|configure|set option)"
    r"|Error (?:while|splitting|sending|submitting|opening (?!input file )|(?:re)?initializing (?:output|filter|the|a)"
    r"|binding|configuring|muxing|processing|linking|applying (?!option ')|parsing (?:global |a filter|options)"
    r"|encoding a))[^'\"]*"
)
"""Errors that only say what did not go on: nothing is quoted in them."""

_OF_SYSTEM = re.compile(
    "No such file or directory|Permission denied|No space left on device|Read-only file system|Disk quota exceeded"
    "|File too large|Input/output error|Cannot allocate memory|Too many open files|Connection [a-z ]+|[a-z]+ timed out"
)
"""What may stand at the end of a consequence, and nowhere else."""

_OF_FILTERS = re.compile(r"\bfilter|Parsed_|\bauto_|\[[va]f#|\[fc#", re.IGNORECASE)
_FILTERS, _ENCODERS = {"vf", "af", "filter", "filter_complex", "lavfi"}, {"c", "codec", "vcodec", "acodec"}


class Reasons:
    """Reads ffmpeg's log, line by line."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}
        self._last = ""
        self._warning = ("", "")

    def add(self, line: str) -> None:
        """Add a line, with its level in it."""
        line, level = split_level(line)
        context = _CONTEXT.match(line)[0]  # type: ignore[index]  # it matches an empty text, too
        text = line[len(context) :]
        if not level and _LIBRARY.search(line):
            level = "error"
        warning, self._warning = self._warning, (context, text) if level == "warning" else ("", "")
        if level not in _ERRORS or not text.strip():
            return
        if text.startswith("  ") and self._last in self._found:  # an entry of a list, as of supported sample rates
            self._extend(text.strip())
            return
        if context and warning[0] == context:  # it may name what the error does not
            self._take(*warning)
        self._take(context, text)

    def chosen(self) -> list[str]:
        """The lines that tell why ffmpeg failed, in their order; empty if none does."""
        found = self._found.items()
        naming = {kind: held for kind, held in found if not _CONSEQUENCE.fullmatch(kind)}
        text = "".join(line for line, _ in naming.values())
        for kind, held in found:
            if kind not in naming and (match := _OF_SYSTEM.search(kind)) and match[0] not in text:
                naming[kind] = held
                text += kind
        lines = [line for line, _ in (naming or self._found).values()]
        if len(lines) > MAX_REASONS:
            rare = [line for line, count in naming.values() if count <= _NOISE]
            lines = list(dict.fromkeys([lines[0], *(rare or lines)]))
        half = MAX_REASONS // 2
        return lines if len(lines) <= MAX_REASONS else lines[:half] + lines[-half:]

    def _take(self, context: str, text: str) -> None:
        general, _, reason = text.partition(" -- ")  # of ffmpeg 5: "Error initializing output stream 0:0 -- reason"
        text = reason or general
        self._last = kind = re.sub(r"#?\d+:\d+|#\d+|\d+", "#", text)
        line, count = self._found.get(kind, ((_ADDRESS.sub("", context) + text)[:MAX_LENGTH], 0))
        self._found[kind] = line, count + 1
        if len(self._found) > _MAX_KINDS:  # the first and the last ones stay
            del self._found[next(itertools.islice(self._found, _MAX_KINDS // 2, None))]

    def _extend(self, entry: str) -> None:
        line, count = self._found[self._last]
        self._found[self._last] = f"{line} {entry}"[:MAX_LENGTH], count


def explain(reasons: Sequence[str], argv: Sequence[str]) -> list[str]:
    """`reasons`, after the filters of the command if they are about filters, which ffmpeg numbers, or its codecs."""
    text = "\n".join(reasons)
    wanted = _FILTERS if _OF_FILTERS.search(text) else set()
    is_unfitting = "Could not write header" in text  # of some containers, ffmpeg says no more
    if "formats supported" in text or is_unfitting:  # formats of an encoder, if the filters end with others
        wanted = wanted | _ENCODERS
    asked = shlex.join(_values(argv, wanted))[:MAX_LENGTH]
    if is_unfitting:
        asked = f"a codec may not fit into the container {os.path.splitext(argv[-1])[1][1:]}: {asked or 'its defaults'}"
    return [asked, *reasons] if asked else [*reasons]


def _values(argv: Sequence[str], wanted: set[str]) -> Iterator[str]:
    """The options of these names behind the last source, and their values."""
    last = max((index for index, each in enumerate(argv) if each == "-i"), default=0)
    for key, value in itertools.pairwise(argv[last:]):
        if key.startswith("-") and key[1:].split(":")[0] in wanted and value != "copy":
            yield from (key, value)
