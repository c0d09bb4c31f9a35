"""HTTP calls in threads, each with a deadline, so that no call blocks the loop.

`requests` blocks, so each call takes one of the transport's own threads. The timeouts of `requests` are those of single
socket operations: a server that sends a byte now and then never exceeds them. So the loop holds the deadline of the
whole call. When it has passed, the loop shuts the connection's socket down, which ends the call and frees the thread.
"""

import asyncio
import contextlib
import errno
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url, get_environ_proxies, prepend_scheme_if_needed, select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from app.config import VERSION, ConfigError, Settings, shown_url
from app.formats import SERVER_HEADER, refuse_constant
from ipc.threads import Threads
from supervisor.api.errors import SessionError, is_dropped, reason

CALL_TIMEOUT = 30.0
"""Seconds for a call to have its whole response."""

CONNECT_TIMEOUT = 10.0
"""Seconds for making a connection. A deadline cannot interrupt this: it bounds how long a cut call holds its thread."""

MAX_RESPONSE = 256 << 20
"""Bytes of the largest response that is read: `GET /queue` has every queued job in full."""

MAX_IDLE = 1.0
"""Seconds since its last request after which non-idempotent calls do not reuse a connection: it may be closing."""

THREADS, THREADS_PER_SLOT = 4, 6
"""At most so many HTTP threads: 4 shared (outbox, module data), 6 per slot (4 heartbeats in flight, poll, flags)."""

NOT_JSON = "the response is not JSON"

_T = TypeVar("_T")


class Response(msgspec.Struct, frozen=True):
    """A whole response of the server."""

    status: int
    body: bytes
    from_embedded_server: bool = False
    is_shortened: bool = False
    """The middle of the body is left out: see `Call`."""
    through: str = ""
    """Words about the proxy that it came through, if it did."""

    @property
    def is_doubtful(self) -> bool:
        """A 404 that may be of a proxy that has lost its server: not marked as ours, nor the `null` of sisyphus-server.

        Of most of its routes nobody has written down what sisyphus-server gives with a 404.
        """
        is_known = self.from_embedded_server or self.body.strip() == b"null"
        return self.status == requests.codes.not_found and not is_known

    def json(self) -> Any:
        """Decode the body.

        Raises:
            SessionError: it is not JSON.
        """
        try:
            return json.loads(self.body, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise SessionError(f"{NOT_JSON}: {error}", self.status, self.body) from error


class Call:
    """One call: the request, the part of the response that has arrived, and a way to cut it short."""

    def __init__(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = True,
        ends: int | None = None,
        wait: float = 0.0,
        given_up: "asyncio.Future[None] | None" = None,
    ) -> None:
        """`content` is JSON, if `headers` say nothing else. A call that is not `idempotent` is never sent twice.

        Of a response that is longer than twice `ends` bytes, so many are kept at its beginning and at its end. The
        server may take `wait` seconds more than for other calls. The call ends when `given_up` is done.
        """
        self.method = method
        self.path = path
        self.content = content
        self.headers = ({"Content-Type": "application/json"} if content is not None else {}) | dict(headers or {})
        self.idempotent = idempotent
        self.timeout = CALL_TIMEOUT + wait
        self.given_up = given_up
        self.received = bytearray()
        self.is_cut = False
        self.is_again = False
        self.is_shortened = False
        self._ends = ends
        self.connection: HTTPConnection | None = None

    def take(self, data: bytes) -> None:
        """More of the response has arrived."""
        self.received += data
        if self._ends and len(self.received) > 2 * self._ends:
            del self.received[self._ends : -self._ends]
            self.is_shortened = True

    def cut(self) -> None:
        """Make the call fail now, from another thread than its own."""
        self.is_cut = True
        connection = self.connection
        with contextlib.suppress(OSError, AttributeError):  # not connected yet, or not any more
            connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


class Transport:
    """Performs calls to the server at `settings.api_url`. Close it at the end."""

    def __init__(self, settings: Settings) -> None:
        self._url = shown_url(settings.api_url)
        self._threads = Threads(THREADS + THREADS_PER_SLOT * settings.worker_slots, "session", THREADS)
        self._current = threading.local()  # `call`: the call that the thread performs
        self._through = through_proxy(self._url)
        self._session = make_session(settings)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._current))

    def close(self) -> None:
        """Close all connections. Calls in flight fail."""
        self._session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def perform(self, call: Call, read: Callable[[Response], _T]) -> _T:
        """Perform a call; returns what `read`, called in the thread, makes of the response.

        Raises:
            SessionError: there is no whole response in time, or `read` refuses it.
        """
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._request, call, read)
        ends: list[asyncio.Future[Any]] = [future, call.given_up] if call.given_up else [future]
        try:
            await asyncio.wait(ends, timeout=call.timeout, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                call.cut()
                await asyncio.wait([future], timeout=1)  # let the thread keep what has arrived: it may name a job
                if not future.done() or future.exception():
                    raise SessionError(f"no response within {call.timeout:g} s", 0, bytes(call.received))
            return future.result()
        finally:
            if not future.done():
                call.cut()
                future.cancel()
            elif not future.cancelled():
                future.exception()  # mark the exception as retrieved: no one awaits this future now

    # --- in a thread ---

    def _request(self, call: Call, read: Callable[[Response], _T]) -> _T:
        self._current.call = call
        try:
            response = self._send_again_if_dropped(call)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise SessionError(reason(error) + self._through, 0, bytes(call.received)) from error
        return read(response)  # here and not in the loop: decoding a long queue takes a while

    def _send_again_if_dropped(self, call: Call) -> Response:
        try:
            return self._send(call)
        except (requests.ConnectionError, HTTPError) as error:
            if not call.idempotent or call.is_cut or call.received or not is_dropped(error):
                raise
            call.is_again = True  # the server had closed a connection that was kept open, and may have closed them all
            return self._send(call)

    def _send(self, call: Call) -> Response:
        with self._session.request(
            call.method,
            self._url + call.path,
            data=call.content,
            headers=call.headers,
            timeout=(CONNECT_TIMEOUT, call.timeout),
            allow_redirects=False,  # a POST would become a GET, and the token would go elsewhere
            stream=True,
        ) as response:
            # Not `iter_content`: of a response that is cut short it gives nothing (requests 2.34, urllib3 2.8).
            while data := response.raw.read1(1 << 16, decode_content=True):
                call.take(data)
                if len(call.received) > MAX_RESPONSE:
                    raise SessionError(f"the response is larger than {MAX_RESPONSE >> 20} MiB")
            return Response(
                response.status_code,
                bytes(call.received),
                SERVER_HEADER in response.headers,
                call.is_shortened,
                self._through,
            )


class _Adapter(HTTPAdapter):
    """Makes connections that enter themselves in the call that they serve, so that `Call.cut` finds its socket.

    One whose last request is older than `MAX_IDLE` serves no call that must not be repeated, and a call that is sent
    again gets a new one.
    """

    def __init__(self, current: threading.local) -> None:
        def noting(base: type[HTTPConnection]) -> type[HTTPConnection]:
            class Noting(base):  # type: ignore[misc, valid-type]
                used_at = 0.0

                def request(self, *args: Any, **kwargs: Any) -> None:
                    self.used_at = time.monotonic()
                    current.call.connection = self
                    super().request(*args, **kwargs)

                def connect(self) -> None:
                    super().connect()
                    if current.call.is_cut:  # it had no socket yet that could be shut down
                        self.close()
                        raise ConnectionAbortedError(errno.ECONNABORTED, "the call was cut")

                @property
                def is_connected(self) -> bool:
                    call, age = current.call, time.monotonic() - self.used_at
                    is_wanted = not call.is_again and (call.idempotent or age <= MAX_IDLE)
                    return is_wanted and bool(super().is_connected)

            return Noting

        class Plain(HTTPConnectionPool):
            ConnectionCls = noting(HTTPConnection)

        class Secure(HTTPSConnectionPool):
            ConnectionCls = noting(HTTPSConnection)  # type: ignore[assignment]

        self._pools = {"http": Plain, "https": Secure}
        super().__init__(pool_maxsize=64)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def proxy_for(url: str) -> str:
    """The proxy that the environment names for a server; empty for none. A loopback address has none.

    Raises:
        ConfigError: what it names is no address; with that, each call would fail, some without a word.
    """
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        if host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback:
            return ""
    proxy = select_proxy(url, get_environ_proxies(url)) or ""
    if proxy and not _is_address(proxy):
        names = f"{urlsplit(url).scheme.upper()}_PROXY or ALL_PROXY"
        raise ConfigError(f"{names}: what it holds is not the address of a proxy (such as http://proxy:3128)")
    return proxy


def _is_address(proxy: str) -> bool:
    try:
        shown_url(proxy)
        found = parse_url(prepend_scheme_if_needed(proxy, "http"))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):  # requests 2.34 raises that one where a host is missing
        return False
    return bool(found.host) and (found.scheme in ("http", "https") or str(found.scheme).startswith("socks"))


def through_proxy(url: str) -> str:
    """Name the proxy for a server, without its password, for the end of a message; empty if there is none."""
    proxy = proxy_for(url)
    return f" (through the proxy {shown_url(proxy).rpartition('@')[2]})" if proxy else ""


def make_session(settings: Settings) -> requests.Session:
    """Return a session for the server at `settings.api_url`, with the token, or else that address's name and password.

    The environment is read now, and not at each call: its proxy, unless the server is exempt, and its certificates.
    Raises `ConfigError` if that proxy is none.
    """
    session = requests.Session()
    found = session.merge_environment_settings(settings.api_url, {}, None, None, None)
    session.trust_env = False  # nor is the machine's .netrc read
    session.verify = found["verify"]
    session.proxies = found["proxies"] if proxy_for(settings.api_url) else {}
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # threads share it: no state
    session.headers["User-Agent"] = f"sisyphus-client/{VERSION}"
    user, password = get_auth_from_url(settings.api_url)
    if settings.api_token:
        session.headers["Authorization"] = f"Bearer {settings.api_token}"
    elif user:
        session.auth = HTTPBasicAuth(user.encode(), password.encode())
    return session
