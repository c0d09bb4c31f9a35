"""Several server processes on one port and one PostgreSQL: a parent starts, replaces and stops them.

A child is a new interpreter and no fork: the parent has threads. It gets the listening socket as a descriptor, and its
settings, which hold secrets, on standard input. When that ends, the parent has died, and the child stops.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import msgspec
from loguru import logger

from server.config import ServerSettings

RESTART_DELAY = 1.0
"""Seconds until a process that died is replaced."""

STOP_PATIENCE = 10.0
"""Seconds for the processes to stop before they are killed."""


def serve_with(settings: ServerSettings, listener: socket.socket, url: str) -> None:
    """Serve with `settings.processes` processes until SIGTERM or SIGINT."""
    stopped = threading.Event()
    with _metrics_directory(), contextlib.ExitStack() as children, stopped_by_signals(stopped.set):
        running = [children.enter_context(_child(settings, listener, url)) for _ in range(settings.processes)]
        while not stopped.wait(RESTART_DELAY):
            for index, child in enumerate(running):
                if (status := child.poll()) is not None:
                    logger.error("Server process {} ended with status {}; another one is started", child.pid, status)
                    running[index] = children.enter_context(_child(settings, listener, url))
        for child in running:
            child.terminate()


@contextlib.contextmanager
def _metrics_directory() -> Iterator[None]:
    """Let the children count requests in common, whichever of them a scrape meets."""
    with tempfile.TemporaryDirectory(prefix="sisyphus-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield


@contextlib.contextmanager
def _child(settings: ServerSettings, listener: socket.socket, url: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-P", "-m", "server", str(listener.fileno()), url]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
    assert child.stdin
    with contextlib.suppress(BrokenPipeError):  # it died at once: the loop above sees that
        child.stdin.write(msgspec.json.encode(settings) + b"\n")
        child.stdin.flush()
    try:
        yield child
    finally:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT call `stop`, which only sets a flag."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
