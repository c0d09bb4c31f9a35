"""Connections that cannot take the server down: bounded in number, and in the time of a head and of a write.

uvicorn drops its own time limit as soon as one byte comes, and takes connections until descriptors run out; then
asyncio logs a traceback for each one. Here the connection that was idle longest makes room for a new one.
"""

import asyncio
import math
import resource
import ssl
from asyncio.sslproto import SSLProtocol
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_TIME = 20.0
"""Seconds for the head of a request, from its first byte or from the connection."""

WRITE_TIME = 60.0
"""Seconds for a client to read on when it has stopped."""

RESERVED = 256
"""Descriptors for all but clients: the database, the log, the pages' files."""

MAX_CONNECTIONS = 20_000


class Connections:
    """The connections of one server. An instance makes uvicorn's protocols. For the loop's thread alone.

    Attributes:
        tls: What they are encrypted with, if they are.
    """

    def __init__(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self._limit = max(16, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED, MAX_CONNECTIONS))
        self._all: set[Connection] = set()
        # The one that is idle longest first; those that never sent a request go before those of good clients.
        self._silent: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._sending: dict[Connection, None] = {}  # a body, which may never end

    def __call__(self, **options: Any) -> "Connection | Handshake":
        """Make the protocol of a connection."""
        connection = Connection(self, **options)
        return Handshake(self, connection, self.tls) if self.tls else connection

    def abort(self) -> None:
        """Close all, among them those whose clients do not read on."""
        for connection in list(self._all):
            connection.transport.abort()

    def add(self, connection: "Connection") -> None:
        """Take a connection. If there are too many, another one is closed, or this one if none is idle."""
        self._all.add(connection)
        if len(self._all) > self._limit:
            superfluous = next(iter(self._silent or self._idle or self._sending), connection)
            self.remove(superfluous)
            superfluous.transport.close()
        if connection in self._all:
            self._silent[connection] = None

    def remove(self, connection: "Connection") -> None:
        """Forget a connection."""
        self._all.discard(connection)
        self.set_busy(connection)

    def set_busy(self, connection: "Connection") -> None:
        """Note that a connection has a request."""
        for known in (self._silent, self._idle, self._sending):
            known.pop(connection, None)

    def set_sending(self, connection: "Connection") -> None:
        """Note that a connection has a request whose body is under way."""
        self.set_busy(connection)
        self._sending[connection] = None

    def set_idle(self, connection: "Connection") -> None:
        """Note that a connection has no request any more."""
        if connection in self._all:
            self.set_busy(connection)
            self._idle[connection] = None


class Handshake(SSLProtocol):
    """The encryption of a connection, which counts before the handshake. asyncio's own tells of it only after that."""

    def __init__(self, connections: Connections, connection: "Connection", context: ssl.SSLContext) -> None:
        loop, seconds = asyncio.get_running_loop(), math.ceil(HEAD_TIME)
        waiter: Any = None  # nobody waits for the end of the handshake
        super().__init__(loop, connection, context, waiter, server_side=True, ssl_handshake_timeout=seconds)
        self._connections, self._connection = connections, connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        super().connection_made(transport)
        self._connection.transport = transport
        self._connections.add(self._connection)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._connections.remove(self._connection)
        super().connection_lost(exc)


class Connection(H11Protocol):
    """A connection with time limits."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        super().connection_made(transport)
        self._connections.add(self)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timers()
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        if not self._is_busy() and self._head_timer is None:
            self._await_head()
        super().data_received(data)
        if self._is_busy():
            self._stop_head_timer()
            if self.cycle.more_body:
                self._connections.set_sending(self)
            else:
                self._connections.set_busy(self)

    def on_response_complete(self) -> None:
        """Be idle, unless the next request is here already."""
        super().on_response_complete()
        if not self._is_busy():
            self._connections.set_idle(self)

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for ever."""
        super().pause_writing()
        self._write_timer = self._write_timer or self.loop.call_later(WRITE_TIME, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: who offers HTTP/2 or a WebSocket gets an answer all the same, and no package would change it."""

    def _is_busy(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIME, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_timers(self) -> None:
        self._stop_head_timer()
        if self._write_timer:
            self._write_timer.cancel()


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may have: waiting workers hold one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_CONNECTIONS + RESERVED
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if hard == resource.RLIM_INFINITY else min(hard, most), hard))
