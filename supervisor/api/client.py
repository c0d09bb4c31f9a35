"""The API client: a method per route, and the forms of the server's responses.

This copes with the server (sisyphus-server 1.3.3 was observed) as far as one call goes. What an uncertain outcome means
for a job is decided in `worker.outbox` and `worker.slot`.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
import requests

from app.config import Settings, shown_url
from app.formats import quote_part
from ipc.messages import Data, Get, Put
from supervisor.api.errors import PollCutError, SessionError, is_unreachable
from supervisor.api.outages import OutageLog, route_of
from supervisor.api.transport import NOT_JSON, Call, Response, Transport

MAX_SHOWN = 300
"""Characters of the server's own message that an error repeats."""

WAITING_POLLS, ORDERS, LOGS = "waiting polls", "orders", "logs"
"""What the embedded server offers: see `Configuration`."""

SHORTEST_WAIT = 1.0
"""Seconds between two polls of which the first was cut, at least."""

_CUT = {0, requests.codes.request_timeout, requests.codes.bad_gateway, requests.codes.gateway_timeout}

QUEUE_ENDS = 256 << 10
"""Bytes at each end of `GET /queue` in which its `attributes` are looked for: the jobs between may be any size."""

_FIRST_ATTRIBUTES = re.compile(rb'\s*\{\s*"attributes"\s*:\s*(\{[^{}]*\})')
_LAST_ATTRIBUTES = re.compile(rb'"attributes"\s*:\s*(\{[^{}]*\})\s*(?:,\s*"entries"\s*:\s*(?:\d+|null)\s*)?\}\s*\Z')
"""The `attributes` of the whole response, and not of something in a job: those end in more brackets."""

_T = TypeVar("_T")


class _Attributes(msgspec.Struct):
    disabled: bool = False


class _WithAttributes(msgspec.Struct):
    """The one part of `GET /queue` and `GET /workers/{id}` that `*_disabled` needs, however long the rest is."""

    attributes: _Attributes | None = None


class WorkerStatus(msgspec.Struct):
    """A worker's last heartbeat, as far as this client needs it."""

    worker_id: str = ""
    job_id: str | None = None


class _WorkersResponse(msgspec.Struct):
    workers: list[WorkerStatus] | None = None


class QueuedJob(msgspec.Struct):
    """A job in the queue, as far as this client needs it."""

    job_id: str = ""
    tasks: Any = None


class _QueueResponse(msgspec.Struct):
    queue: list[QueuedJob | None] | None = None
    """Null stands for a job whose id is queued and which is not stored: not yet, or not any more."""


class Configuration(msgspec.Struct, frozen=True):
    """What a worker must know of the server. Only the embedded server tells any of it."""

    vanished_after: float | None = None
    """After so many seconds of silence the server gives a worker's job away."""
    offers: frozenset[str] = frozenset()
    """What workers may use beyond the calls of `sisyphus-server`, such as `WAITING_POLLS`."""


class WorkerOrders(msgspec.Struct, frozen=True):
    """What the operator wants of a worker."""

    cancel: tuple[str, ...] = ()
    """The ids of jobs to cancel."""
    paused: bool = False
    disabled: bool = False


class Request(msgspec.Struct, frozen=True):
    """A request for a job that waits until there is one."""

    worker_id: str
    modules: tuple[str, ...]
    tags: tuple[str, ...]
    wait: float
    """Seconds to wait at most."""

    @property
    def path(self) -> str:
        fields = {"worker_id": self.worker_id, "tags": ",".join(self.tags), "wait": f"{self.wait:g}"}
        if not any("," in name for name in self.modules):  # the server would split such a name: then any job may come
            fields["modules"] = ",".join(self.modules)
        return f"/queue/poll?{urlencode(fields)}"


class PolledJob(msgspec.Struct, frozen=True):
    """A job that the server has given to this client."""

    job_id: str
    document: str
    """The whole response, as JSON text."""
    verbatim: bool = False
    """The strings are as the submitter wrote them: the server is the embedded one, whose submitters escape nothing."""


class Session:
    """Talks to the API server at `settings.api_url`. Close it at the end.

    Every method raises `SessionError` if the call fails.

    Attributes:
        offers: What the server offers, as `configuration` was last told.
        asked: Set once `configuration` was told it.
        doubts: How many calls had no response: after each, the server may be another, or have another configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self.offers: frozenset[str] = frozenset()
        self.asked = asyncio.Event()
        self.doubts = 0
        self._cut_early = False
        self._transport = Transport(settings)
        self._outages = OutageLog(shown_url(settings.api_url))

    @property
    def reachable(self) -> asyncio.Event:
        """Set while the server can be reached."""
        return self._outages.reachable

    def close(self) -> None:
        """Close all connections. Calls in flight fail."""
        self._transport.close()

    # --- the queue ---

    async def poll(self) -> PolledJob | None:
        """Take a job from the queue; `None` if the queue is empty. If this fails, the server may have given a job."""
        return await self._call("GET", "/queue/poll", _read_polled_job, accept=(404,), idempotent=False)

    async def wait_for_job(self, request: Request, given_up: "asyncio.Future[None]") -> PolledJob | None:
        """Take a job as soon as there is one; `None` if none came in the time, or `given_up` is done before.

        Raises:
            PollCutError: something cut the poll while it waited.
        """
        path, wait = request.path, request.wait
        return await self._call(
            "GET", path, _read_polled_job, accept=(404,), idempotent=False, wait=wait, given_up=given_up
        )

    async def post(self, job: Mapping[str, Any]) -> str:
        """Put a job into the queue; returns its id. If this fails, the job may be in the queue all the same."""
        return await self._call("POST", "/queue", _read_job_id, job, idempotent=False)

    async def queued(self) -> list[QueuedJob]:
        """Return the jobs in the queue. The cost grows with the queue."""
        queue = (await self._call("GET", "/queue", _reader_of(_QueueResponse))).queue or []
        return [job for job in queue if job]

    async def queue_disabled(self) -> bool:
        """Return whether the operator has disabled the queue."""
        return await self._call("GET", "/queue", _read_queue_disabled, ends=QUEUE_ENDS)

    # --- jobs ---

    async def job(self, job_id: str) -> Response | None:
        """Return a job that is queued or running; `None` for one that is completed, deleted or unknown."""
        path = f"/jobs/{quote_part(job_id)}"
        response = await self._call("GET", path, _read_found, accept=(404,))
        if response.is_doubtful:
            await self.queue_disabled()  # which fails while a proxy answers for a server that it has lost
            response = await self._call("GET", path, _read_found, accept=(404,))
        return None if response.status == requests.codes.not_found else response

    async def delete(self, job_id: str) -> None:
        """Delete a job and its record, if the server has it."""
        await self._call("DELETE", f"/jobs/{quote_part(job_id)}", _read_nothing, accept=(404,))

    async def complete(self, job_id: str, verdict: Mapping[str, Any]) -> None:
        """Report how a job ended. If this fails, `job` tells whether the server has recorded the verdict.

        Failures are not logged: the caller finds out what they mean.
        """
        path = f"/jobs/{quote_part(job_id)}/completed"
        await self._call("PATCH", path, _read_nothing, verdict, idempotent=False, log=False)

    async def put_log(self, job_id: str, log: bytes) -> None:
        """Store the log of a job, if the server still has that job. Failures are not logged."""
        path, headers = f"/jobs/{quote_part(job_id)}/log", {"Content-Type": "text/plain; charset=utf-8"}
        await self._call("PUT", path, _read_nothing, log, accept=(404,), headers=headers, log=False)

    # --- workers ---

    async def beat(self, worker_id: str, message: Mapping[str, Any]) -> WorkerOrders | None:
        """Send a heartbeat; returns the operator's orders if the server offers them."""
        path = f"/workers/{quote_part(worker_id)}"
        if ORDERS not in self.offers:
            return await self._call("POST", path, _read_nothing, message)
        return await self._call("POST", path, _read_orders, message, headers={"Accept": "application/json"})

    async def worker_disabled(self, worker_id: str) -> bool:
        """Return whether the operator has disabled this worker. A worker that the server does not know is enabled."""
        return await self._call("GET", f"/workers/{quote_part(worker_id)}", _read_disabled, accept=(404,))

    async def configuration(self) -> Configuration:
        """Ask what a worker must know of the server; from now on, what it offers is used."""
        configuration = await self._call("GET", "/status/config", _reader_of(Configuration), log=False)
        self.offers = configuration.offers
        self.asked.set()
        return configuration

    async def workers(self) -> list[WorkerStatus]:
        """Return the live workers."""
        return (await self._call("GET", "/workers", _reader_of(_WorkersResponse))).workers or []

    # --- data of modules ---

    async def exchange(self, request: Get | Put) -> Data:
        """Fetch or store server-side data for a module. Never raises; the module gets any status as it is."""
        path = f"/data/{quote_part(request.module)}/{quote_part(request.name)}"
        method, content = ("POST", request.body.encode()) if isinstance(request, Put) else ("GET", None)
        try:
            response = await self._transport.perform(Call(method, path, content), _read_whole)
        except SessionError as error:
            return Data(0, error=str(error))
        return Data(response.status, response.body.decode("utf-8", "replace"))

    async def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Response], _T],
        body: Mapping[str, Any] | bytes | None = None,
        *,
        accept: tuple[int, ...] = (),
        idempotent: bool = True,
        log: bool = True,
        headers: Mapping[str, str] | None = None,
        ends: int | None = None,
        wait: float = 0.0,
        given_up: "asyncio.Future[None] | None" = None,
    ) -> _T:
        """Make a call; returns what `read` makes of a response with a 2xx status or one of `accept`."""

        def read_success(response: Response) -> _T:
            if response.status // 100 != 2 and response.status not in accept:
                raise SessionError(describe_refusal(response), response.status, response.body)
            return read(response)

        route = route_of(method, path) if log else None
        content = json.dumps(body, allow_nan=False).encode() if isinstance(body, Mapping) else body
        call = Call(
            method, path, content, headers=headers, idempotent=idempotent, ends=ends, wait=wait, given_up=given_up
        )
        began = time.monotonic()
        try:
            value = await self._transport.perform(call, read_success)
        except SessionError as error:
            if given_up and given_up.done():
                raise
            self.doubts += not error.status
            if wait and self._is_cut(error, time.monotonic() - began, wait):
                raise PollCutError(str(error), error.status) from error
            self._outages.note_failure(route, error, began)
            raise
        self._outages.note_success(route, began)
        return value

    def _is_cut(self, error: SessionError, seconds: float, wait: float) -> bool:
        """Return whether a poll was cut though nothing was wrong with it. Two in a row at once are a failure."""
        if error.status not in _CUT or error.partial or is_unreachable(error.__cause__) or seconds >= wait:
            return False
        before, self._cut_early = self._cut_early, seconds < SHORTEST_WAIT
        return not (before and self._cut_early)


# --- reading a response; each raises SessionError if the response has another form ---


def _reader_of(kind: type[_T]) -> Callable[[Response], _T]:
    """Return a function that decodes a response's JSON as `kind`."""

    def read(response: Response) -> _T:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(response.body, type=kind)
        try:  # msgspec refuses lone surrogates: a submitter's file name that was not UTF-8
            return msgspec.convert(response.json(), kind)
        except msgspec.ValidationError as error:
            message = f"{NOT_JSON} of the expected form: {error}"
            raise SessionError(message, response.status, response.body) from error

    return read


def _read_whole(response: Response) -> Response:
    return response


def _read_nothing(response: Response) -> None:
    if not response.body or response.status == requests.codes.not_found:
        return
    # What is no JSON is a page of a proxy, and the server has not heard of the call. A long one is not decoded.
    if len(response.body) <= MAX_SHOWN:
        response.json()
    elif not response.body[:MAX_SHOWN].lstrip().startswith((b"{", b"[")):
        raise SessionError(NOT_JSON, response.status)


def _read_orders(response: Response) -> WorkerOrders | None:
    return _reader_of(WorkerOrders)(response) if response.status == requests.codes.ok and response.body else None


def _read_disabled(response: Response) -> bool:
    if response.status == requests.codes.not_found:
        return False
    attributes = _reader_of(_WithAttributes)(response).attributes
    return attributes is not None and attributes.disabled


def _read_queue_disabled(response: Response) -> bool:
    if not response.is_shortened:
        return _read_disabled(response)
    found = _FIRST_ATTRIBUTES.match(response.body) or _LAST_ATTRIBUTES.search(response.body)
    if not found:
        raise SessionError("the response is too long to look for `attributes` in it", response.status)
    attributes = Response(response.status, b'{"attributes":' + found[1] + b"}")
    return _read_disabled(attributes)


def _read_found(response: Response) -> Response:
    if response.status != requests.codes.not_found and not response.body.lstrip().startswith(b"{"):
        raise SessionError(f"{NOT_JSON} of a job", response.status)
    return response


def _read_polled_job(response: Response) -> PolledJob | None:
    if response.status == requests.codes.not_found or response.body.strip() == b"null":
        return None
    return PolledJob(_read_job_id(response), response.body.decode(), response.from_embedded_server)


def _read_job_id(response: Response) -> str:
    document = response.json()
    job_id = document.get("job_id") if isinstance(document, dict) else None
    if not isinstance(job_id, str) or not job_id:
        raise SessionError("the response has no job_id", response.status, response.body)
    return job_id


def describe_refusal(response: Response) -> str:
    """Describe a status that means failure, with the server's own message and what to do, as far as known."""
    words = ""
    with contextlib.suppress(SessionError):
        document = response.json()
        words = str(document.get("message", "") if isinstance(document, dict) else "")[:MAX_SHOWN]
    hint = {
        requests.codes.unauthorized: "set API_TOKEN, to the one of the server",
        requests.codes.forbidden: "" if words else "API_TOKEN is not the right one",
        requests.codes.not_found: "no Sisyphus server is there; look at API_URL" if response.is_doubtful else "",
    }.get(response.status, "API_URL redirects; set it to the final address" if response.status // 100 == 3 else "")
    return ": ".join(filter(None, (f"status {response.status}{response.through}", words.rstrip("."), hint)))
