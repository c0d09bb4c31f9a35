"""The lines that a task process writes: read without waiting for it, and without letting it fill the log or memory."""

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable

KEPT_LINES = 20
"""Lines kept for the record of a failure."""

MAX_LINE = 4096
"""Bytes of a line; a longer one is cut into several."""

LINES_PER_SECOND = 200
LINES_BURST = 2000
"""Lines that a task may log at once, and in a second in the long run. The rest is counted and left out."""

BYTES_PER_SECOND = 64 << 20
"""Bytes that are read from one task in a second. A task that writes more waits, and takes no more of our time."""

_SYSLOG_LEVELS = {"7": "DEBUG", "6": "INFO", "4": "WARNING", "3": "ERROR"}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class LinePipe:
    """Reads `descriptor`, which must be non-blocking, and passes its lines to `emit`.

    Attributes:
        tail: The last lines read, logged or not.
    """

    def __init__(self, descriptor: int, emit: Callable[[str], None]) -> None:
        self.tail: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._descriptor = descriptor
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._partial = b""
        self._allowed = float(LINES_BURST)
        self._left_out = 0
        self._read = 0
        self._since = self._loop.time()
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(descriptor, self._readable)

    def drain(self) -> None:
        """Read the lines that are already written, within the allowance of a second."""
        while self._descriptor >= 0 and self._resume is None and self._readable():
            pass

    def close(self) -> None:
        """Read the lines that are already written, and stop reading."""
        self.drain()
        if self._partial:
            self._take(b"\n")
        if self._left_out:
            self._say_left_out()
        self._shut()

    def last_lines(self) -> tuple[str, ...]:
        """The last `KEPT_LINES` lines, as printable text."""
        return tuple(printable(line) for line in self.tail)

    def _readable(self) -> bool:
        """Read once. Returns false if there is no more for now."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._shut()
            return False
        self._refill()
        self._take(data)
        self._read += len(data)
        if self._read >= BYTES_PER_SECOND:
            self._loop.remove_reader(self._descriptor)
            self._resume = self._loop.call_at(self._since + 1.0, self._go_on)
        return True

    def _take(self, data: bytes) -> None:
        complete, newline, rest = (self._partial + data).rpartition(b"\n")
        if len(rest) > MAX_LINE:
            complete, newline, rest = complete + newline + rest, b"\n", b""
        self._partial = rest
        if not newline:
            return
        count = complete.count(b"\n") + 1
        shown = min(count, int(self._allowed))
        # Split no more lines than are shown: a megabyte of empty lines would be a million objects.
        for line in complete.split(b"\n", shown)[:shown]:
            self._emit(printable(line))
        self._allowed -= shown
        self._left_out += count - shown
        self.tail.extend(complete.rsplit(b"\n", KEPT_LINES)[-KEPT_LINES:])

    def _refill(self) -> None:
        elapsed = self._loop.time() - self._since
        if elapsed >= 1.0:
            self._since += elapsed
            self._read = 0
            self._allowed = min(LINES_BURST, self._allowed + elapsed * LINES_PER_SECOND)
            if self._left_out:
                self._say_left_out()

    def _say_left_out(self) -> None:
        self._emit(f"({self._left_out} more lines were not logged)")
        self._left_out = 0

    def _go_on(self) -> None:
        self._resume = None
        self._refill()
        self._loop.add_reader(self._descriptor, self._readable)

    def _shut(self) -> None:
        if self._resume:
            self._resume.cancel()
            self._resume = None
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def printable(line: bytes) -> str:
    """`line` as text that is safe to print: without control characters, of direction too; at most `MAX_LINE` long."""
    text = line[:MAX_LINE].rstrip(b"\r").decode("utf-8", "backslashreplace")
    return without_controls(text)


def without_controls(text: str) -> str:
    """`text` with control characters as escapes; those between lines and columns stay."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def split_level(line: str) -> tuple[str, str]:
    """Split a log line into the level that its prefix names, as in sd-daemon(3), and the rest."""
    if len(line) >= 3 and line[0] == "<" and line[2] == ">" and line[1] in _SYSLOG_LEVELS:
        return _SYSLOG_LEVELS[line[1]], line[3:]
    return "INFO", line
