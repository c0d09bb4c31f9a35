"""Runs the server: in the foreground, or in a thread of another program."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from loguru import logger

from app.config import VERSION
from app.formats import SERVER_HEADER
from server.app import create_app
from server.config import ServerSettings
from server.errors import ServerError
from server.http.connections import Connections, raise_descriptor_limit
from server.processes import serve_with, stopped_by_signals
from server.services import Services
from server.storage.database import ServerDatabase

__all__ = ["ServerError", "ServerSettings", "in_background", "serve"]

STOP_GRACE = 2
"""Seconds for requests in flight to end when the server stops."""

KEEP_ALIVE = 75
"""Seconds that a connection may idle: longer than clients pause, so that no request meets a closing connection."""

ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before any of them can be closed: fewer than `http.connections.RESERVED`."""

BACKLOG = 512
"""Connections that may wait for the server to accept them."""


class _Server(uvicorn.Server):
    """Serves on a socket that listens already, and leaves signals to its caller."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        url: str,
        services: Services,
        connections: Connections,
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self.url = url
        self._listener = listener
        self._services = services

    def run_until_stopped(self) -> None:
        """Serve until `should_exit` is set."""
        logger.info("Serving {} from {}", self.url, self._services.database.name)
        self.run([self._listener])
        logger.info("Stopped serving {}", self.url)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Let more connections wait than are accepted at once: asyncio knows one number for both."""
        self._connections.tls, self.config.ssl = self.config.ssl, None  # they encrypt, and count before that
        await super().startup(sockets)
        self._listener.listen(BACKLOG)

    def stop(self) -> None:
        """Stop soon."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the calls that wait end first: they would keep their connections."""
        self._services.let_go()
        await super().shutdown(sockets)
        self._connections.abort()
        await asyncio.sleep(0)  # closes them: nobody would after the loop's end

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ServerError: the server cannot start.
    """
    settings.check()
    raise_descriptor_limit()
    with _listening(settings) as listener:
        url = _url(settings, listener)
        if settings.processes == 1:
            serve_on(settings, listener, url)
        else:
            # Opened once before: what is wrong is told in one line, and the tables are made.
            ServerDatabase(settings.database).close()
            serve_with(settings, listener, url)


def serve_on(
    settings: ServerSettings, listener: socket.socket, url: str, wait_for_end: Callable[[], object] | None = None
) -> None:
    """Serve on a socket until SIGTERM or SIGINT, or until `wait_for_end` returns."""
    with _prepared(settings, listener, url) as server, stopped_by_signals(server.stop):
        if wait_for_end:
            threading.Thread(target=_stop_after, args=(wait_for_end, server), daemon=True).start()
        server.run_until_stopped()


def _stop_after(wait_for_end: Callable[[], object], server: _Server) -> None:
    wait_for_end()
    server.stop()


@contextlib.contextmanager
def in_background(settings: ServerSettings) -> Iterator[str]:
    """Serve in a thread, and stop at the end. Yields the URL, which responds from then on.

    Raises:
        ServerError: the server cannot start.
    """
    settings.check()
    with _listening(settings) as listener, _prepared(settings, listener, _url(settings, listener)) as server:
        thread = threading.Thread(target=server.run_until_stopped, name="server")
        thread.start()
        try:
            yield server.url
        finally:
            server.stop()
            thread.join()


@contextlib.contextmanager
def _prepared(settings: ServerSettings, listener: socket.socket, url: str) -> Iterator[_Server]:
    """Yield a server whose database is open, so that running it cannot fail."""
    try:
        threading.Thread(target=int).start()  # each request needs one
    except RuntimeError as error:
        raise ServerError("no thread can be started (ulimit -u, TasksMax=)") from error
    with contextlib.closing(ServerDatabase(settings.database)) as database, _log_to_loguru():
        services = Services(database, settings)
        app = create_app(services)
        connections: Any = Connections()  # on h11, not httptools, even if that is installed: one parser to test
        config = uvicorn.Config(
            app,
            headers=[(SERVER_HEADER, VERSION)],
            loop="asyncio",
            http=connections,
            ssl_certfile=settings.tls_cert or None,
            ssl_keyfile=settings.tls_key or None,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=STOP_GRACE,
        )
        yield _Server(config, listener, url, services, connections)


@contextlib.contextmanager
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    address = f"{settings.host}:{settings.port}"
    if not 0 <= settings.port < 1 << 16:  # getaddrinfo would take 70000 for 4464
        raise ServerError(f"{address}: cannot be listened on: a port is a number from 0 to 65535")
    with contextlib.ExitStack() as opened:
        try:
            found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, socket_address = found[0]
            # Not `socket.create_server`: that names no protocol, so asyncio would not set TCP_NODELAY. A response is
            # two writes, and the second would wait 40 ms for the client's delayed acknowledgement.
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # or a port closed a moment ago would be in use
            listener.bind(socket_address)
            listener.listen(BACKLOG)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ServerError(f"{address}: cannot be listened on: {reason}") from error
        yield listener


def _url(settings: ServerSettings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


class _ToLoguru(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info).log(record.levelname, "{}", record.getMessage())


@contextlib.contextmanager
def _log_to_loguru() -> Iterator[None]:
    """Send uvicorn's log (defects, with their tracebacks) to loguru, as everything else."""
    uvicorn_log = logging.getLogger("uvicorn.error")
    handler, propagate = _ToLoguru(), uvicorn_log.propagate
    uvicorn_log.addHandler(handler)
    uvicorn_log.propagate = False
    try:
        yield
    finally:
        uvicorn_log.removeHandler(handler)
        uvicorn_log.propagate = propagate
