"""The log on standard error: written by a thread for a worker, at once for a job in the foreground."""

import os
import queue
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from loguru import logger

from supervisor.isolation.line_pipe import without_controls

if TYPE_CHECKING:
    from loguru import Message, Record

LINES_WAITING = 10_000
"""Lines of the log that wait for a slow reader. Further lines are dropped and counted."""

LOG_PATIENCE = 2.0
"""Seconds to wait at the end until the last lines are read."""

STDERR = 2


@contextmanager
def logging_to(write: Callable[["Message"], None], level: str) -> Iterator[None]:
    """Have `write` called with each line of the log: for a person if standard error is a terminal, else whole."""
    is_terminal = os.isatty(STDERR)
    colorize = is_terminal and not os.environ.get("NO_COLOR")
    logger.remove()
    line = _format_for_person if is_terminal else _format
    handler = logger.add(write, level=level, format=line, colorize=colorize, diagnose=False)
    try:
        yield
    finally:
        logger.remove(handler)


def logging_to_stderr(level: str) -> AbstractContextManager[None]:
    """Log to standard error."""
    return logging_to(_write, level)


@contextmanager
def logging_in_background(level: str) -> Iterator[None]:
    """Log to standard error, in the same form, through a thread: a slow reader blocks only that thread."""
    lines: queue.Queue[str | None] = queue.Queue(LINES_WAITING)
    writer = threading.Thread(target=_write_lines, args=(lines,), name="log", daemon=True)
    writer.start()
    lost = 0

    def put(message: "Message") -> None:
        nonlocal lost
        try:
            if lost:
                lines.put_nowait(f"{lost} lines of the log were lost: they were not read in time\n")
                lost = 0
            lines.put_nowait(str(message))
        except queue.Full:
            lost += 1

    try:
        with logging_to(put, level):
            yield
    finally:
        with suppress(queue.Full):
            lines.put(None, timeout=LOG_PATIENCE)
        writer.join(LOG_PATIENCE)


def _write_lines(lines: "queue.Queue[str | None]") -> None:
    while (line := lines.get()) is not None:
        _write(line)


def _write(line: str) -> None:
    data = line.encode("utf-8", "backslashreplace")
    while data:
        try:
            data = data[os.write(STDERR, data) :]
        except BlockingIOError:  # another user of the terminal made it non-blocking
            select.select([], [STDERR], [], 1.0)
        except OSError:
            break  # no reader any more


def _format_for_person(record: "Record") -> str:
    """Time, level, the beginning of the job's id, and task."""
    marks = "".join(
        f" {{extra[{name}]{form}}}" for name, form in (("job", "!s:.8"), ("task", "")) if name in record["extra"]
    )
    record["message"] = without_controls(record["message"])  # modules' words are in it
    return f"{{time:HH:mm:ss}} <level>{{level:<7}}</level>{marks} {{message}}\n{{exception}}"


def _format(record: "Record") -> str:
    """Time, level, job, task and pid."""
    marks = "".join(f" {name}={{extra[{name}]}}" for name in ("job", "task", "pid") if name in record["extra"])
    record["message"] = without_controls(record["message"])
    return f"{{time:YYYY-MM-DD HH:mm:ss.SSS}} {{level:<7}}{marks} {{message}}\n{{exception}}"
