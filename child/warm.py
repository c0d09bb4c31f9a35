"""Done once in the zygote, so that its task processes share the result: imports, logging, warm bytecode."""

import atexit
import contextlib
import faulthandler
import importlib
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from loguru import logger

from app.config import Settings
from child.exchange import Termination
from child.task import StepExecutor
from ipc.messages import Start, Step
from ipc.queue import encode

if TYPE_CHECKING:
    from loguru import Message

SHARED = ("modules.output",)
"""Imported because the bundled modules need them. Not `requests`: it takes 8 MB, and a fork with it 0.3 ms more, and
few tasks use it."""

AHEAD = (
    *("attr", "referencing.jsonschema", "jsonschema_specifications", "jsonschema", "modules.schema.checking"),
    *("modules.media", "modules.damage", "modules.sources", "modules.ffmpeg", "modules.cleanup"),
)
"""Imported in small pieces while there is no task, and before each but the first of many: the checking of data, and the
modules that most tasks are of. A task takes 80 ms for them. They are our own and what those need, nothing of others."""

REHEARSAL = "child.rehearsal"

REHEARSALS = 10
"""CPython 3.11 specialises a function's bytecode after eight calls."""

_SYSLOG = ((40, 3), (30, 4), (20, 6), (0, 7))
"""loguru's level numbers, from the highest, and the syslog level that marks a line, as in sd-daemon(3)."""


class LogSink:
    """Writes loguru's messages to the pipe that the supervisor reads.

    Attributes:
        descriptor: The pipe, set in each task process. The zygote itself logs nothing.
    """

    def __init__(self) -> None:
        self.descriptor = -1

    def __call__(self, message: "Message") -> None:
        """Write `message`, each line of it marked with its level."""
        level = next(syslog for number, syslog in _SYSLOG if message.record["level"].no >= number)
        lines = str(message).encode("utf-8", "backslashreplace").splitlines()
        data = b"".join(b"<%d>%s\n" % (level, line) for line in lines)
        with contextlib.suppress(OSError):  # the supervisor is gone: nobody reads any more
            while data:
                data = data[os.write(self.descriptor, data) :]


def prepare(settings: Mapping[str, Any]) -> LogSink:
    """Apply the settings and set up logging. Returns the sink that task processes log to."""
    known = msgspec.convert(settings, Settings)
    known.apply()
    # For tools and other processes. The level is the supervisor's: loguru fails to import at a name that is no level.
    os.environ |= {"API_URL": known.api_url, "LOGURU_LEVEL": known.log_level}
    sink = LogSink()
    # Adding a handler takes 4 ms, as much as all the rest of an empty task.
    logger.configure(
        handlers=[
            {"sink": sink, "level": known.log_level, "format": "{message}", "diagnose": False, "backtrace": False}
        ]
    )
    atexit.unregister(logger.remove)
    atexit.unregister(logging.shutdown)
    atexit.register(finish_logging)
    faulthandler.enable()  # a crash in C code says on stderr which line of Python called it
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper, still ours
    return sink


def import_shared() -> None:
    """Import what the tasks share. The zygote does it while the supervisor still imports and reads."""
    for name in SHARED:
        importlib.import_module(name)


def warm_up(termination: Termination) -> Iterator[None]:
    """Warm the interpreter in pieces of a few milliseconds, between which the zygote can fork."""
    for _ in range(REHEARSALS):
        _rehearse(termination)
        yield


def finish_logging() -> None:
    """Do what loguru and logging would at the interpreter's end, if a module has given them something to do.

    To go through the handlers that the zygote has made takes an empty task 0.3 ms.
    """
    if len(logger._core.handlers) > 1:  # type: ignore[attr-defined]  # one is ours
        logger.remove()
    if len(logging._handlerList) > 1:  # type: ignore[attr-defined]  # one is logging's own, for want of any other
        logging.shutdown()


class _Rehearsing(StepExecutor):
    def _show(self, step: str) -> None:
        """Leave the title: it is the zygote's."""


def _rehearse(termination: Termination) -> None:
    """Serve an empty task. Its caches and specialised bytecode are then shared, which saves each task 0.5 ms."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = Start("", "", 0, "rehearsal", f"{REHEARSAL}.Rehearsal", "{}", (), {}, None, {})
        for request in (start, Step("validate"), Step("run"), Step("cleanup")):
            ours.sendall(encode(request))
        ours.shutdown(socket.SHUT_WR)
        _Rehearsing(lambda _: None, termination).serve(theirs.fileno())  # not confined: this is the zygote itself
    del sys.modules[REHEARSAL]  # each rehearses the import, too, which is the largest part of an empty task
