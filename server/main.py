"""Runs the server: in the foreground, or in a thread of a program that needs one."""

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec
import uvicorn
from loguru import logger

from server.app import VANISHED_AFTER, create_app
from server.errors import ServerError
from server.store import Store

__all__ = ["ServerError", "ServerSettings", "in_background", "serve"]

STOP_GRACE = 2
"""Seconds that requests under way have to end when the server stops."""

KEEP_ALIVE = 75
"""Seconds that a connection may idle: longer than clients pause, so that none meets one that is just being closed."""

BACKLOG = 512
"""Connections that may wait to be accepted."""


class ServerSettings(msgspec.Struct, frozen=True):
    """What to serve, and where."""

    database: Path
    host: str = "127.0.0.1"
    port: int = 5000
    """0 for any that is free."""
    vanished_after: float = VANISHED_AFTER
    """Seconds without a heartbeat after which a worker's job goes back to the queue."""
    token: str = ""
    """What requests must carry, or nothing."""


class _Server(uvicorn.Server):
    """Serves on a socket that listens already, and leaves signals to whoever runs it."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, url: str, database: Path) -> None:
        super().__init__(config)
        self.url = url
        self._listener = listener
        self._database = database

    def run_until_stopped(self) -> None:
        """Serve until `should_exit` is set."""
        logger.info("Serving {} from {}", self.url, self._database)
        self.run([self._listener])
        logger.info("Stopped serving {}", self.url)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ServerError: the server cannot start.
    """
    with _prepared(settings) as server, _stopped_by_signals(server):
        server.run_until_stopped()


@contextlib.contextmanager
def in_background(settings: ServerSettings) -> Iterator[str]:
    """Serve in a thread, and stop at the end. Gives the URL; requests are answered from now on.

    Raises:
        ServerError: the server cannot start.
    """
    with _prepared(settings) as server:
        thread = threading.Thread(target=server.run_until_stopped, name="server")
        thread.start()
        try:
            yield server.url
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def _prepared(settings: ServerSettings) -> Iterator[_Server]:
    """A server to run. All that can fail is done: its database is open, its port taken."""
    if not settings.vanished_after > 0:
        raise ServerError(f"vanished_after: {settings.vanished_after!r} is not a number of seconds greater than 0")
    with contextlib.closing(Store(settings.database)) as store, _listening(settings) as listener, _log_to_loguru():
        app = create_app(store, settings.vanished_after, token=settings.token)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",  # whatever else is installed: one parser to know
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=STOP_GRACE,
        )
        yield _Server(config, listener, _url(settings.host, listener), settings.database)


@contextlib.contextmanager
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    place = f"{settings.host}:{settings.port}"
    if not 0 <= settings.port < 1 << 16:  # getaddrinfo takes 70000 for 4464
        raise ServerError(f"{place}: cannot be listened on: a port is a number from 0 to 65535")
    with contextlib.ExitStack() as opened:
        try:
            found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            # Not `socket.create_server`: that names no protocol, so asyncio sees no TCP and leaves TCP_NODELAY out; an
            # answer, which is two writes, would then wait 40 ms for the client's delayed acknowledgement.
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was just closed is free
            listener.bind(address)
            listener.listen(BACKLOG)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ServerError(f"{place}: cannot be listened on: {reason}") from error
        yield listener


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _stopped_by_signals(server: _Server) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the server: the handler only sets a flag, at which the server's loop looks."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _ToLoguru(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info).log(record.levelname, "{}", record.getMessage())


@contextlib.contextmanager
def _log_to_loguru() -> Iterator[None]:
    """Send what uvicorn has to say (defects, with their tracebacks) where everything else goes."""
    theirs = logging.getLogger("uvicorn.error")
    handler, propagate = _ToLoguru(), theirs.propagate
    theirs.addHandler(handler)
    theirs.propagate = False
    try:
        yield
    finally:
        theirs.removeHandler(handler)
        theirs.propagate = propagate
