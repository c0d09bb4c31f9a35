"""Sources of a task: files that must not change while they are read, and lists of other files.

A tool reads a source for hours, and does not notice that somebody still writes to it or puts another file in its place.
It also follows a list (HLS, DASH, concat) whatever the list is called, and may skip the parts that are not there.
"""

import contextlib
import os
import re
import shlex
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from loguru import logger

from app.exceptions import RunError
from modules import context
from modules.base import BaseModule, location
from modules.containers import find_shortage, is_joined
from modules.media import Probe
from modules.output import is_special

Stamp = tuple[int, int, int, int]
"""Device, inode, size and time of modification of a file."""

Source = tuple[str, str, tuple[str, ...]]
"""A source's name, how ffprobe is to be given it, and ffprobe's options for it."""

_MAX_HELD = 64
"""Files that are kept open. Some file systems give a file another inode number when nobody has it open."""

_MOMENT = 1.0
"""Seconds after which somebody who writes to a file will have written again."""

_BLOCK = 512
_HEAD = 64 << 10
"""Bytes at the beginning of a file in which a list is recognised: of most lists, and of those in XML."""

_LISTS = {
    re.compile(rb"#EXTM3U"): "an HLS playlist",
    re.compile(rb"ffconcat version"): "a concat list",
    re.compile(rb"<.*<MPD\b|<MPD\b", re.DOTALL | re.IGNORECASE): "a DASH playlist",
    re.compile(rb"<.*<(\w+:)?CompositionPlaylist\b|<CompositionPlaylist\b", re.DOTALL): "an IMF playlist",
    re.compile(rb"MPLS0\d00"): "a Blu-ray playlist",
    re.compile(rb"v=0\r?\no="): "a description of network streams (SDP)",
}
"""The beginnings of lists that the tools follow, after white space, and the kinds of the lists."""

_LIST_EXTENSIONS = {".cpl", ".ffconcat", ".m3u", ".m3u8", ".mpd", ".mpls", ".sdp", ".xml"}
"""Extensions that say that a file is a list."""

_PREFIX = re.compile(r"(?:file|async|cache|crypto)[:+]|subfile,[^:]*:")
"""Protocols of ffmpeg for a file whose name follows."""


class Watch:
    """Notices that files change while a `with` statement runs: they grow, go, or other files take their places.

    If the statement ends with a `RunError`, a change is told in the error, too, since it may be the reason.
    """

    def __init__(self, module: BaseModule, names: Callable[[], Iterable[str]]) -> None:
        """`names` tells the files. It is called at the beginning and at the end, since a list may change, too."""
        self._module = module
        self._names = names
        self._stamps: dict[str, Stamp] = {}
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Watch":
        for name in self._names():
            if (stamp := read_stamp(name)) is not None and name not in self._stamps:
                self._stamps[name] = stamp
                if len(self._stamps) <= _MAX_HELD:
                    self._hold(name)
        return self

    def warn_of_joined(self) -> None:
        """Warn of files in which others follow: of those, most tools read nothing, or their times begin again."""
        for name in self._stamps:
            with contextlib.suppress(OSError):
                if is_joined(name):
                    self._module.warn(f"{name}: another file follows in it, which may be lost: mkvmerge can join files")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._held:
            if isinstance(error, RunError) and (problem := self.find_change()) and problem not in error.message:
                error.message = f"{problem}; {error.message}"
                error.args = (error.message,)

    def require_unchanged(self) -> None:
        """Check that the files are what they were. What was written to just now is looked at a moment longer.

        Raises:
            RunError: A file has changed.
        """
        made = self._module.sisyphus_context.files  # earlier tasks of the job have finished them
        times = [stamp[3] / 1e9 for name, stamp in self._stamps.items() if location(name) not in made]
        age = time.time() - max(times, default=0.0)
        if age < _MOMENT and not self.find_change():
            time.sleep(_MOMENT - max(age, 0.0))
        if problem := self.find_change():
            raise RunError(message=problem)

    def find_change(self) -> str | None:
        """A message for a person about the first file that has changed, else `None`."""
        for name, before in self._stamps.items():
            now = read_stamp(name)
            if now is None:
                return f"{name}: was removed meanwhile"
            if now[:2] != before[:2]:
                return f"{name}: was changed meanwhile: another file has taken its place"
            if now != before:
                return f"{name}: was written to meanwhile: somebody may still be writing it"
        new = next((name for name in self._names() if name not in self._stamps and read_stamp(name)), None)
        return f"{new}: was written meanwhile, after the task had begun to read" if new else None

    def _hold(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the tool will say why it cannot be opened
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
            self._held.callback(os.close, descriptor)


def read_stamp(name: str) -> Stamp | None:
    """`None` if `name` is no regular file."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def files_of(names: Iterable[str]) -> Iterator[str]:
    """The files that sources consist of: the files of directories, and lists together with their parts."""
    for name in names:
        if os.path.isdir(name):
            for directory, _, inside in os.walk(name):
                yield from (os.path.join(directory, each) for each in sorted(inside))
        else:
            yield name
            yield from parts_of(name)


def plain_names(name: str) -> list[str]:
    """The files behind a name with a protocol of ffmpeg: `file:a.mkv`, `concat:a.ts|b.ts`."""
    if name.startswith("concat:"):
        return [inner for each in name.removeprefix("concat:").split("|") for inner in plain_names(each)]
    match = _PREFIX.match(name)
    return plain_names(name[match.end() :]) if match else [name]


class Probes:
    """What ffprobe says of sources, kept while they stay as they are.

    As many ffprobes run at a time as there are processors. `stop` must be called after `begin`.
    """

    def __init__(self) -> None:
        self._under_way: dict[Source, tuple[Stamp | None, Probe]] = {}
        self._known: dict[Source, tuple[Stamp | None, Mapping[str, Any]]] = {}

    def begin(self, sources: Sequence[Source]) -> None:
        """Start with the first of the sources.

        Raises:
            RunError: ffprobe cannot be started.
        """
        for source in sources[: len(os.sched_getaffinity(0))]:
            name, argument, options = source
            stamp = read_stamp(name)
            if source in self._under_way or (stamp and self._known.get(source, (None,))[0] == stamp):
                continue
            self._known.pop(source, None)
            if not is_special(name):  # of a pipe, ffprobe would take away what it reads
                self._under_way[source] = stamp, Probe(argument, options).start()

    def answers(self, sources: Sequence[Source]) -> Iterator[Mapping[str, Any]]:
        """The answer for each source, empty if there is none: ffmpeg itself will say what is wrong with the source."""
        try:
            for index, source in enumerate(sources):
                try:
                    self.begin(sources[index:])
                except RunError as error:
                    logger.debug("{}", error.message)
                yield self._answer(source)
        finally:
            self.stop()

    def stop(self) -> None:
        """End what was begun for nothing."""
        while self._under_way:
            self._under_way.popitem()[1][1].close()

    def _answer(self, source: Source) -> Mapping[str, Any]:
        if source in self._under_way:
            stamp, probe = self._under_way[source]
            self._known[source] = stamp, {}
            try:
                self._known[source] = stamp, probe.answer()
            except RunError as error:
                logger.debug("{}", error.message)
            finally:
                self._under_way.pop(source)[1].close()
        return self._known.get(source, (None, {}))[1]


# --- lists ---


def list_kind(name: str) -> str | None:
    """The kind of list that a file's contents are, for a person; `None` for any other file."""
    if read_stamp(name) is None:
        return None
    try:
        with open(name, "rb") as file:
            head = file.read(_BLOCK).removeprefix(b"\xef\xbb\xbf").lstrip()
            if head.startswith(b"<"):
                head += file.read(_HEAD)
    except OSError:
        return None  # another check tells that it cannot be read
    return next((kind for pattern, kind in _LISTS.items() if pattern.match(head)), None)


def list_problems(module: BaseModule, where: str, name: str, format_name: str = "") -> Iterator[str]:
    """Problems of a source that is a list: neither its name nor `format_name` says so, or a part is not there.

    `format_name` is the format that the task names for the source.
    """
    kind = list_kind(name)
    if kind and not format_name and os.path.splitext(name)[1].lower() not in _LIST_EXTENSIONS:
        yield f"{where}: {name}: is {kind}, a list that names other files, and is not called one"
        return
    for part in parts_of(name, format_name):
        if is_special(part):
            yield f"{where}: {name}: the list names {part}, which is no regular file"
        elif obstacle := context.find_obstacle(part):
            yield f"{where}: {name}: the list names {part}, which {obstacle}"
        elif not module.will_exist(part):
            yield f"{where}: {name}: the list names {part}, and there is no such file"
        elif os.path.exists(part) and not os.access(part, os.R_OK):
            yield f"{where}: {name}: the list names {part}, which cannot be read: permission denied"


def part_shortages(name: str, format_name: str = "") -> Iterator[str]:
    """Parts of a list that have fewer bytes than their containers state, for a person. Of a concat list with a range
    in it, nothing is known."""
    parts = parts_of(name, format_name)
    for part in [] if parts and _takes_ranges(name) else parts:
        with contextlib.suppress(OSError):
            if os.path.isfile(part) and (shortage := find_shortage(part)):
                yield f"{part}: {shortage}"


def parts_of(name: str, format_name: str = "", within: frozenset[str] = frozenset()) -> list[str]:
    """The files that a concat list or an HLS playlist names, and those of lists in it. Addresses are left out.

    `within` are the lists that this one is in.
    """
    kind = "a concat list" if format_name == "concat" else list_kind(name)
    find = {"a concat list": _concat_parts, "an HLS playlist": _hls_parts}.get(kind or "")
    if find is None or len(within) > 9 or os.path.realpath(name) in within or read_stamp(name) is None:
        return []
    found: dict[str, None] = {}
    with contextlib.suppress(OSError), open(name, encoding="utf-8-sig", errors="surrogateescape") as file:
        for text in find(file):
            for each in plain_names(text):
                if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", each):
                    part = os.path.join(os.path.dirname(name), each)
                    inner = parts_of(part, within=within | {os.path.realpath(name)})
                    found |= dict.fromkeys([part, *inner])
    return list(found)


def _concat_parts(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        words = _words(line)
        if len(words) > 1 and words[0] == "file":
            yield words[1]


def _words(line: str) -> list[str]:
    """The words of a line of a concat list, in which apostrophes and backslashes quote."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.quotes, lexer.commenters = True, "'", "#"
    try:
        return list(lexer)
    except ValueError:
        return []  # ffmpeg tells of a quote that is not closed


def _hls_parts(lines: Iterable[str]) -> Iterator[str]:
    for line in map(str.strip, lines):
        if match := re.match(r'#EXT-X-(?:MAP|KEY):.*?\bURI="([^"]+)"', line):
            yield match[1]
        elif line and not line.startswith("#"):
            yield line


def _takes_ranges(name: str) -> bool:
    with contextlib.suppress(OSError), open(name, "rb") as file:
        return bool(re.search(rb"^\s*(inpoint|outpoint)\s", file.read(_HEAD), re.MULTILINE))
    return False
