"""All HTTP of the supervisor: one session for the API, a deadline for every call, and nothing that blocks the loop.

`requests` blocks, so each call takes one of the session's own threads. Its timeouts are those of single socket
operations, which a server that sends a byte now and then never exceeds; so the loop holds the deadline of the whole
call and, when it has passed, shuts the connection's socket down, which frees the thread.

What the server may do (sisyphus-server 1.3.3 was observed) is dealt with here as far as one call goes; what a doubtful
answer means for a job is for `outbox` and `worker`.
"""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import requests
import requests.auth
from loguru import logger
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from app.config import VERSION, Settings, shown_url
from app.formats import refuse_constant
from ipc.messages import Data, Get, Put
from ipc.threads import started_threads

CALL_TIMEOUT = 30.0
"""Seconds in which a call must have its whole answer."""

CONNECT_TIMEOUT = 10.0
"""Seconds in which a connection must stand. This is not cut short by a call's end: it bounds how long that holds a
thread."""

MAX_ANSWER = 256 << 20
"""Bytes of an answer that are read: `GET /queue` has every queued job in full."""

IDLE_CONNECTION = 1.0
"""Seconds after which a call that must not be repeated takes a new connection: the server may close an old one at the
very moment it is used."""

THREADS, THREADS_PER_SLOT = 4, 6
"""For the outbox and modules' data; for each slot's beats in flight, its poll, and its questions."""

NOT_JSON = "what it answers is not JSON"


_T = TypeVar("_T")


class SessionError(Exception):
    """A call failed; the text is for a person, and names neither the address nor a secret.

    Attributes:
        status: What the server answered; 0 if there was no whole answer.
        partial: What there was of an answer.
    """

    def __init__(self, message: str, status: int = 0, partial: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.partial = partial


class Response(msgspec.Struct, frozen=True):
    """A whole answer of the server."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body's content.

        Raises:
            SessionError: it is not JSON.
        """
        try:
            return json.loads(self.body, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise SessionError(f"{NOT_JSON}: {error}", self.status, self.body) from error


class _Flags(msgspec.Struct):
    disabled: bool = False


class _Disabled(msgspec.Struct):
    """The one thing that is wanted of `GET /queue` and `GET /workers/{id}`, however long the rest."""

    attributes: _Flags | None = None


class WorkerStatus(msgspec.Struct):
    """What a worker last said of itself, as far as it is wanted."""

    worker_id: str = ""
    hostname: str = ""
    job_id: str | None = None
    task: str | None = None
    progress: float | None = None


class _Workers(msgspec.Struct):
    workers: list[WorkerStatus] | None = None


class QueuedJob(msgspec.Struct):
    """A job in the queue, as far as it is wanted."""

    job_id: str = ""
    tasks: Any = None


class _Queue(msgspec.Struct):
    queue: list[QueuedJob] | None = None


class PolledJob(msgspec.Struct, frozen=True):
    """A job that the server has given to this client."""

    job_id: str
    document: str
    """The whole of it, as JSON text."""


class Session:
    """Talks to the API server at `settings.api_url`. Close it at the end.

    Every call raises `SessionError` if it did not succeed.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.api_url
        self._threads = started_threads(THREADS + THREADS_PER_SLOT * settings.worker_slots, "session")
        self._current = threading.local()
        self._once = _Adapter(self._current)
        self._once_under_way = 0
        self._once_used = float("-inf")
        self._troubles = OutageLog(shown_url(settings.api_url))
        self._session = _AdapterByCall(self._current, self._once)
        self._session.auth = _Bearer(settings.api_token)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # threads share it: no state
        self._session.headers["User-Agent"] = f"sisyphus-client/{VERSION}"
        self._session.mount("http://", _Adapter(self._current))
        self._session.mount("https://", _Adapter(self._current))

    @property
    def answered(self) -> asyncio.Event:
        """Set while the server can be reached."""
        return self._troubles.answered

    def close(self) -> None:
        """Close all connections. Calls under way fail."""
        self._session.close()
        self._once.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- the calls ---

    async def beat(self, worker_id: str, message: Mapping[str, Any]) -> None:
        """Send a heartbeat."""
        await self._call("POST", f"/workers/{_quoted(worker_id)}", _nothing, message)

    async def queue_disabled(self) -> bool:
        """Whether the operator has disabled the queue."""
        return await self._call("GET", "/queue", _read_disabled)

    async def worker_disabled(self, worker_id: str) -> bool:
        """Whether the operator has disabled this worker. One that the server does not know is not disabled."""
        return await self._call("GET", f"/workers/{_quoted(worker_id)}", _read_disabled, accept=(404,))

    async def poll(self) -> PolledJob | None:
        """Take a job from the queue; `None` if there is none. Is not repeated: if it fails, a job may be gone."""
        return await self._call_once("GET", "/queue/poll", _read_given, accept=(404,))

    async def job(self, job_id: str) -> Response | None:
        """A job that is queued or running; `None` for one that is completed, deleted or unknown."""
        return await self._call("GET", f"/jobs/{_quoted(job_id)}", _read_found, accept=(404,))

    async def complete(self, job_id: str, verdict: Mapping[str, Any]) -> None:
        """Tell how a job ended. If this fails, `job` tells whether it was heard."""
        await self._call_once("PATCH", f"/jobs/{_quoted(job_id)}/completed", _nothing, verdict, quiet=True)

    async def post(self, job: Mapping[str, Any]) -> str:
        """Put a job into the queue; returns its id. If this fails, it may be there all the same."""
        return await self._call_once("POST", "/queue", _read_job_id, job)

    async def delete(self, job_id: str) -> None:
        """Delete a job and its record. One that is not there is deleted."""
        await self._call("DELETE", f"/jobs/{_quoted(job_id)}", _nothing, accept=(404,))

    async def queued(self) -> list[QueuedJob]:
        """The jobs in the queue. Costs more, the more there are."""
        return (await self._call("GET", "/queue", _reading(_Queue))).queue or []

    async def workers(self) -> list[WorkerStatus]:
        """The workers that have been heard of lately."""
        return (await self._call("GET", "/workers", _reading(_Workers))).workers or []

    async def completed(self, job_id: str) -> Any:
        """How a job ended, as the embedded server tells; `None` if it does not know, or is another server."""
        answer = await self._call("GET", f"/jobs/{_quoted(job_id)}/completed", _read_found, accept=(404, 405))
        return answer.json() if answer else None

    async def exchange(self, request: Get | Put) -> Data:
        """Fetch or store server-side data for a module. Never raises."""
        path = f"/data/{_quoted(request.module)}/{_quoted(request.name)}"
        method, content = ("POST", request.body.encode()) if isinstance(request, Put) else ("GET", None)
        try:
            answer = await self._in_thread(_Call(method, self._url + path, content), _whole)
        except SessionError as error:
            return Data(0, error=str(error))
        return Data(answer.status, answer.body.decode("utf-8", "replace"))

    # --- how they are made ---

    async def _call_once(
        self,
        method: str,
        path: str,
        read: Callable[[Response], _T],
        body: Mapping[str, Any] | None = None,
        *,
        accept: tuple[int, ...] = (),
        quiet: bool = False,
    ) -> _T:
        """A call that must not be repeated. It has connections of its own, and none that has been idle for long."""
        if not self._once_under_way and time.monotonic() - self._once_used > IDLE_CONNECTION:
            self._once.close()
        self._once_under_way += 1
        try:
            return await self._call(method, path, read, body, accept=accept, once=True, quiet=quiet)
        finally:
            self._once_under_way -= 1
            self._once_used = time.monotonic()

    async def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Response], _T],
        body: Mapping[str, Any] | None = None,
        *,
        accept: tuple[int, ...] = (),
        once: bool = False,
        quiet: bool = False,
    ) -> _T:
        """What `read` makes of an answer that has a 2xx status, or one of `accept`.

        Anything else is logged, once; but not if it is `quiet`, for then the caller finds out what it means.
        """
        route = None if quiet else f"{method} {_ONE_OF_MANY.sub('/…', path)}"
        content = None if body is None else json.dumps(body, allow_nan=False).encode()

        def read_success(answer: Response) -> _T:
            if answer.status // 100 != 2 and answer.status not in accept:
                raise SessionError(_complaint(answer), answer.status, answer.body)
            return read(answer)

        try:
            value = await self._in_thread(_Call(method, self._url + path, content, once), read_success)
        except SessionError as error:
            self._troubles.add(route, error)
            raise
        self._troubles.remove(route)
        return value

    async def _in_thread(self, call: "_Call", read: Callable[[Response], _T]) -> _T:
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._perform, call, read)
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                return await asyncio.shield(future)
        except TimeoutError:
            call.cut()
            await asyncio.wait([future], timeout=1)  # what has come of an answer may name a job
            raise SessionError(f"no answer within {CALL_TIMEOUT:g} s", 0, bytes(call.received)) from None
        finally:
            if not future.done():
                call.cut()
                future.cancel()
            elif not future.cancelled():
                future.exception()  # retrieved, for nobody waits for it any more

    def _perform(self, call: "_Call", read: Callable[[Response], _T]) -> _T:
        """Make the call, in a thread; the answer is read there, too, for a long queue's takes a while."""
        self._current.call = call
        try:
            try:
                answer = self._send(call)
            except (requests.ConnectionError, HTTPError) as error:
                if call.once or call.is_cut or call.received or not _is_dropped(error):
                    raise
                answer = self._send(call)  # the server had closed a connection that was kept open
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise SessionError(_reason(error), 0, bytes(call.received)) from error
        return read(answer)

    def _send(self, call: "_Call") -> Response:
        with self._session.request(
            call.method,
            call.url,
            data=call.content,
            headers={"Content-Type": "application/json"} if call.content is not None else None,
            timeout=(CONNECT_TIMEOUT, CALL_TIMEOUT),
            allow_redirects=False,  # a POST would become a GET, and the token would go elsewhere
            stream=True,
        ) as response:
            # Not `iter_content`: of an answer that is cut short it gives nothing (requests 2.34, urllib3 2.8).
            while data := response.raw.read1(1 << 16, decode_content=True):
                call.received += data
                if len(call.received) > MAX_ANSWER:
                    raise SessionError(f"an answer of more than {MAX_ANSWER >> 20} MiB")
            return Response(response.status_code, bytes(call.received))


class _Call:
    """One call: what is asked, what has come of the answer, and a way to cut it short from another thread."""

    def __init__(self, method: str, url: str, content: bytes | None, once: bool = False) -> None:
        self.method = method
        self.url = url
        self.content = content
        self.once = once
        self.received = bytearray()
        self.is_cut = False
        self.connection: HTTPConnection | None = None

    def cut(self) -> None:
        self.is_cut = True
        connection = self.connection
        with contextlib.suppress(OSError, AttributeError):  # no connection yet, or no more
            connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


class _AdapterByCall(requests.Session):
    """Uses the adapter `once` for calls that must not be repeated."""

    def __init__(self, current: threading.local, once: HTTPAdapter) -> None:
        super().__init__()
        self._current = current
        self._once = once

    def get_adapter(self, url: str) -> Any:
        return self._once if self._current.call.once else super().get_adapter(url)


class _Adapter(HTTPAdapter):
    """Makes connections that tell the call of their thread that they serve it, which is how it can be cut short."""

    def __init__(self, current: threading.local) -> None:
        def noting(base: type[HTTPConnection]) -> type[HTTPConnection]:
            class Noting(base):  # type: ignore[misc, valid-type]
                def request(self, *args: Any, **kwargs: Any) -> None:
                    current.call.connection = self
                    super().request(*args, **kwargs)

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


class OutageLog:
    """Logs each trouble with the server once when it begins and once when it ends, not at every call."""

    def __init__(self, server: str) -> None:
        self._server = f"The API server at {server}"
        self._since: dict[str, float] = {}
        self.answered = asyncio.Event()
        self.answered.set()

    def add(self, route: str | None, error: SessionError) -> None:
        if _is_unreachable(error.__cause__):
            self.answered.clear()
            self._begin(_ALL, f"{self._server} cannot be reached: {error}; trying until it can")
            return
        if error.status:
            self._end(_ALL, f"{self._server} can be reached again")
        if route:
            self._begin(route, f"{self._server} does not do {route}: {error}; trying again")

    def remove(self, route: str | None) -> None:
        self._end(_ALL, f"{self._server} can be reached again")
        if route:
            self._end(route, f"{self._server} does {route} again")

    def _begin(self, what: str, message: str) -> None:
        if what not in self._since:
            self._since[what] = time.monotonic()
            logger.warning("{}", message)

    def _end(self, what: str, message: str) -> None:
        if what == _ALL:
            self.answered.set()
        since = self._since.pop(what, None)
        if since is not None:
            logger.info("{}, after {:.0f} s", message, time.monotonic() - since)


_ALL = ""
"""The trouble that is not that of one route."""

_ONE_OF_MANY = re.compile(r"(?<=^/jobs)/[^/]+|(?<=^/workers)/[^/]+|(?<=^/data)/.*")
"""The part of a path that names one thing of many."""


class _Bearer(requests.auth.AuthBase):
    """Set as the session's authentication, or a `.netrc` of the machine would take its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _quoted(text: str) -> str:
    # A path of dots would be taken for a relative one, and disappear.
    quoted = quote(text, safe="", errors="surrogatepass")
    return quoted.replace(".", "%2E") if set(text) == {"."} else quoted


def _reading(kind: type[_T]) -> Callable[[Response], _T]:
    """Reads an answer as JSON of this form."""

    def read(answer: Response) -> _T:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(answer.body, type=kind)
        try:  # at half a character, such as a file name that is not UTF-8 has become, msgspec gives up
            return msgspec.convert(answer.json(), kind)
        except msgspec.ValidationError as error:
            raise SessionError(f"{NOT_JSON} of the expected form: {error}", answer.status, answer.body) from error

    return read


def _whole(answer: Response) -> Response:
    return answer


def _nothing(answer: Response) -> None:
    del answer


def _read_disabled(answer: Response) -> bool:
    if answer.status == requests.codes.not_found:
        return False
    attributes = _reading(_Disabled)(answer).attributes
    return attributes is not None and attributes.disabled


def _read_found(answer: Response) -> Response | None:
    return answer if answer.status == requests.codes.ok else None


def _read_given(answer: Response) -> PolledJob | None:
    if answer.status == requests.codes.not_found or answer.body.strip() == b"null":
        return None
    return PolledJob(_read_job_id(answer), answer.body.decode())


def _read_job_id(answer: Response) -> str:
    document = answer.json()
    job_id = document.get("job_id") if isinstance(document, dict) else None
    if not isinstance(job_id, str) or not job_id:
        raise SessionError("what it answers has no job_id", answer.status, answer.body)
    return job_id


def _complaint(answer: Response) -> str:
    """What a status that means failure says, with the server's own words if it has any."""
    words = ""
    with contextlib.suppress(SessionError):
        said = answer.json()
        words = str(said.get("message", "") if isinstance(said, dict) else "")[:300]
    hint = {
        requests.codes.unauthorized: "API_TOKEN is missing or wrong",
        requests.codes.forbidden: "API_TOKEN is not the right one",
    }.get(answer.status, "it redirects; API_URL must be its real address" if answer.status // 100 == 3 else "")
    return ": ".join(filter(None, (f"it answers with status {answer.status}", words, hint)))


def _reason(error: BaseException) -> str:
    """The innermost cause of a failed request, in words."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    innermost = list(_causes(error))[-1]
    return str(innermost) or type(innermost).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it is about: requests and urllib3 put that into `args`, `reason` or `__context__`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        error = next((one for one in inner if isinstance(one, BaseException) and id(one) not in seen), None)


def _is_unreachable(error: BaseException | None) -> bool:
    return any(isinstance(cause, NewConnectionError | ConnectTimeoutError) for cause in _causes(error))


def _is_dropped(error: BaseException) -> bool:
    """Whether the server closed the connection before it answered."""
    return any(isinstance(cause, ConnectionResetError | BrokenPipeError) for cause in _causes(error))
