"""What ffprobe says of a task's sources, asked for ahead and kept while the sources stay as they are."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from loguru import logger

from app.exceptions import RunError
from modules.command import Options
from modules.ffmpeg.options import probe_options, source_argument
from modules.media import Probe
from modules.output import is_special
from modules.sources import Stamp, read_stamp

Source = tuple[str, Options]


class Probes:
    """Runs as many ffprobes at a time as there are processors. `stop` must be called after `begin`."""

    def __init__(self, exists: Callable[[str], bool]) -> None:
        self._exists = exists
        self._under_way: dict[str, tuple[Stamp | None, Probe]] = {}
        self._known: dict[str, tuple[Stamp | None, Mapping[str, Any]]] = {}

    def begin(self, sources: Sequence[Source]) -> None:
        """Start with the first of the sources.

        Raises:
            RunError: ffprobe cannot be started.
        """
        for name, options in sources[: len(os.sched_getaffinity(0))]:
            key, stamp = repr((name, options)), read_stamp(name)
            if key in self._under_way or (stamp and self._known.get(key, (None,))[0] == stamp):
                continue
            self._known.pop(key, None)
            if not is_special(name):  # of a pipe, ffprobe would take away what it reads
                probe = Probe(source_argument(name, self._exists), probe_options(options))
                self._under_way[key] = stamp, probe.start()

    def answers(self, sources: Sequence[Source]) -> Iterator[Mapping[str, Any]]:
        """The answer for each source, empty if there is none: ffmpeg itself will say what is wrong with the source."""
        try:
            for index, source in enumerate(sources):
                try:
                    self.begin(sources[index:])
                except RunError as error:
                    logger.debug("{}", error.message)
                yield self._answer(repr(source))
        finally:
            self.stop()

    def stop(self) -> None:
        """End what was begun for nothing."""
        while self._under_way:
            self._under_way.popitem()[1][1].close()

    def _answer(self, key: str) -> Mapping[str, Any]:
        if key in self._under_way:
            stamp, probe = self._under_way[key]
            self._known[key] = stamp, {}
            try:
                self._known[key] = stamp, probe.answer()
            except RunError as error:
                logger.debug("{}", error.message)
            finally:
                self._under_way.pop(key)[1].close()
        return self._known.get(key, (None, {}))[1]
