"""An encoding farm's API server on loopback: it answers as the reference server does, or misbehaves as it is told.

A handful of sockets and threads instead of `http.server`, since half of what it has to do is not HTTP any more: cutting
an answer in the middle, dribbling it, closing the door and opening it again. It is as strict as the reference server,
and remembers in `violations` what a client did that it must never do.
"""

import contextlib
import http.client
import itertools
import json
import math
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, BinaryIO, Literal
from urllib.parse import unquote

from tests.support.waiting import until

WORKER_LIFETIME = 30.0
"""Seconds for which the server knows a worker after its last heartbeat."""

REQUIRED = {"status": str, "online_at": str, "hostname": str, "version": str}
OPTIONAL = {"task": str, "job_id": str, "job_title": str, "progress": (int, float), "info": dict}


@dataclass(frozen=True)
class Request:
    """A request that arrived. `time` is that of its first line, on the monotonic clock."""

    time: float
    connection: int
    method: str
    path: str
    headers: http.client.HTTPMessage = field(repr=False)
    body: bytes

    @property
    def call(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"

    @property
    def json(self) -> Any:
        """The body, decoded; `ValueError` if it holds what JSON does not know, such as NaN."""
        return json.loads(self.body, parse_constant=_refuse)


@dataclass(frozen=True)
class Answer:
    """What the server means to say."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Fault:
    """How the server misbehaves. Where it `acts`, it does what it was asked to do all the same."""

    acts: bool = True
    status: int | None = None
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    """Seconds before the first byte of the answer."""
    pace: float = 0.0
    """Seconds between two bytes of the answer's `dribbles`."""
    dribbles: Literal["headers", "body"] = "headers"
    length: int = 0
    """What the Content-Length says too much, or too little."""
    cut: Literal["before", "headers", "reset"] | int | None = None
    """Where the connection is closed. A number is that of the body's bytes, counted from its end if it is negative."""

    def spoil(self, answer: Answer) -> Answer:
        """The answer that is given instead."""
        if self.status is None and self.body is None:
            return answer
        body = answer.body if self.body is None else self.body
        return replace(answer, status=self.status or answer.status, body=body, headers=self.headers)


def status(code: int, *, acts: bool = False, **headers: str) -> Fault:
    """An answer with another status."""
    return Fault(acts, code, b"<h1>Spam</h1>", headers=tuple(headers.items()))


def says(body: str | bytes) -> Fault:
    """A 200 that says something else, and nothing was done."""
    return Fault(False, 200, body.encode() if isinstance(body, str) else body)


SILENCE = Fault(delay=math.inf)
LOST = Fault(cut="before")
GOOD = Fault()


@dataclass(frozen=True)
class Verdict:
    """How a job ended, as it was recorded."""

    job_id: str
    failed: bool
    info: dict[str, Any]


@dataclass
class _Order:
    route: str
    fault: Fault
    times: float
    when: Callable[[Request], bool]


class Farm:
    """The server. It listens from the start, until `close`.

    Attributes:
        url: Where it is.
        requests: All that arrived.
        verdicts: How jobs ended, in the order in which that was recorded.
        taken: The ids of jobs that were polled, in that order.
        violations: What a client must never do, and did.
        disabled: The queue's flag.
        disabled_workers: The ids of workers that are disabled.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self.verdicts: list[Verdict] = []
        self.taken: list[str] = []
        self.violations: list[str] = []
        self.disabled = False
        self.disabled_workers: set[str] = set()
        self.queue: dict[str, dict[str, Any]] = {}
        self.running: dict[str, dict[str, Any]] = {}
        self._workers: dict[str, tuple[float, dict[str, Any]]] = {}
        self._read_workers: set[str] = set()
        self._data: dict[tuple[str, str], dict[str, Any]] = {}
        self._orders: list[_Order] = []
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._numbers = itertools.count()
        self._connections: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._place = socket.socket()  # bound and never listening: keeps the port while the door is closed
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind((host, 0))
        self.url = "http://{}:{}".format(*self._place.getsockname())
        self.come_up()

    # --- what tests do with it ---

    def post(self, job: dict[str, Any]) -> str:
        """Put a job into the queue, as it is, sound or not; returns its id, which is made up unless it has one."""
        queued = {"job_id": str(uuid.uuid4())} | job
        queued = queued | {"job_id": queued.pop("job_id"), "added": "2026-01-01T10:00:00+00:00"}  # in this order
        with self._lock:
            self.queue[queued["job_id"]] = queued
        return queued["job_id"]

    def delete(self, job_id: str) -> None:
        """Delete a job, as an operator does."""
        with self._lock:
            assert self.queue.pop(job_id, None) or self.running.pop(job_id, None)

    def operate(self, method: str, path: str, body: Any = None) -> int:
        """Make a call as an operator, which is not among the `requests`; returns the status."""
        with self._lock:
            headers = http.client.HTTPMessage()
            headers["Content-Type"] = "application/json"
            return self._act(Request(0, -1, method, path, headers, json.dumps(body).encode())).status

    def misbehave(
        self, route: str, how: Fault, times: float = math.inf, when: Callable[[Request], bool] = lambda _: True
    ) -> None:
        """Misbehave in answers to `route` (such as `POST /workers/*`) so many times. The first order counts."""
        with self._lock:
            self._orders.append(_Order(route, how, times, when))

    def behave(self) -> None:
        """Misbehave no more."""
        with self._lock:
            self._orders.clear()

    def calls(self, route: str, since: float = 0.0) -> list[Request]:
        """The requests for a route, such as `GET /jobs/*`, since an instant."""
        return [each for each in list(self.requests) if each.time >= since and fnmatchcase(each.call, route)]

    def beats(self, worker: str = "*", since: float = 0.0) -> list[dict[str, Any]]:
        """The heartbeats of a worker."""
        return [request.json for request in self.calls(f"POST /workers/{worker}", since)]

    def await_verdict(self, job_id: str) -> Verdict:
        """Wait until it is recorded how a job ended."""

        def find() -> Verdict | None:
            return next((verdict for verdict in list(self.verdicts) if verdict.job_id == job_id), None)

        verdict: Verdict = until(find, f"the verdict of {job_id}", 60)
        return verdict

    def go_down(self) -> None:
        """Close the door and all connections: whoever knocks is refused."""
        listener, self._listener = self._listener, None
        if listener:
            listener.shutdown(socket.SHUT_RDWR)  # wakes up who accepts
            listener.close()
        self.hang_up()

    def come_up(self) -> None:
        """Listen, at the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._place.getsockname())
        listener.listen(100)
        self._listener = listener
        self._start(self._accept, listener)

    def hang_up(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it all."""
        self._closing.set()
        self.go_down()
        for thread in self._threads:
            thread.join()
        self._place.close()

    # --- how it talks ---

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = listener.accept()
                number = next(self._numbers)
                with self._lock:
                    self._connections[number] = connection
                    if self._listener is not listener:
                        connection.shutdown(socket.SHUT_RDWR)
                self._start(self._converse, number, connection)

    def _converse(self, number: int, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            while request := _read(stream, number):
                with self._lock:
                    self.requests.append(request)
                    fault = self._fault(request)
                    answer = self._act(request) if fault.acts else Answer(200)
                if not self._deliver(connection, fault.spoil(answer), fault):
                    break
        with self._lock:
            del self._connections[number]

    def _fault(self, request: Request) -> Fault:
        for order in self._orders:
            if order.times > 0 and fnmatchcase(request.call, order.route) and order.when(request):
                order.times -= 1
                return order.fault
        return GOOD

    def _deliver(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Give an answer, or what a fault makes of it. Returns whether the connection is still of use."""
        self._closing.wait(min(fault.delay, threading.TIMEOUT_MAX))
        lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, 'Spam')}", "Server: farm"]
        if answer.status != 204:
            length = len(answer.body) + fault.length
            lines += [f"Content-Type: {answer.content_type}", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        head = "\r\n".join([*lines, "\r\n"]).encode()
        body = answer.body if answer.status != 204 else b""
        match fault.cut:
            case "before":
                return False
            case "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            case "headers":
                head, body = head[: len(head) // 2], b""
            case int(end):
                body = body[:end]
        if not fault.pace:
            connection.sendall(head + body)  # in one: a server that goes down does not tear its answer
        for data, name in ((head, "headers"), (body, "body")) if fault.pace else ():
            if fault.dribbles == name:
                self._dribble(connection, data, fault.pace)
            else:
                connection.sendall(data)
        return fault.cut is None and not fault.length

    def _dribble(self, connection: socket.socket, data: bytes, pace: float) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            if self._closing.wait(pace):
                return

    # --- what the reference server does ---

    def _act(self, request: Request) -> Answer:  # noqa: C901 - a table of routes
        sent: Any = None
        if request.method in ("POST", "PATCH"):
            if request.headers.get_content_type() != "application/json":
                return self._violated(415, f"{request.call}: a body that is not called JSON")
            try:
                sent = request.json
            except ValueError as error:
                return self._violated(400, f"{request.call}: {error}: {request.body[:1000]!r}")
        match request.method, *(unquote(step) for step in request.path.split("/")[1:]):
            case "GET", "queue", "poll":
                return replace(self._poll(), content_type="text/html; charset=utf-8")
            case "GET", "queue":
                return _says(200, self._queue())
            case "POST", "queue":
                if wrong := _wrong_job(sent):
                    return self._violated(400, f"{request.call}: {wrong}")
                return _says(200, {"job_id": self.post(sent)})
            case "PATCH", "queue":
                self.disabled = sent["disabled"]
                return _says(200, {"disabled": self.disabled})
            case "GET", "jobs", job_id:
                job = self.queue.get(job_id) or self.running.get(job_id)
                return _says(200, job) if job else _says(404, None)
            case "DELETE", "jobs", job_id:
                gone = self.queue.pop(job_id, None) or self.running.pop(job_id, None)
                return Answer(204) if gone else _says(404, None)
            case "PATCH", "jobs", job_id, "completed":
                return self._complete(request, job_id, sent)
            case "GET", "workers":
                known = [record for worker in self._workers if (record := self._worker(worker))]
                return _says(200, {"workers": known, "count": len(known)})
            case method, "workers", worker:
                return self._act_on_worker(request, method, worker, sent)
            case method, "data", module, name:
                return self._act_on_data(method, (module, name), sent)
            case "GET", "status", "health":
                return _says(200, {"status": "online"})
            case "GET", "status", "config":
                return _says(200, {"backend": {}, "version": "1.3.3", "uptime": 1})
        return self._violated(404, f"{request.call}: no such route")

    def _queue(self) -> dict[str, Any]:
        jobs = list(self.queue.values())
        return {"queue": jobs, "entries": len(jobs) or None, "attributes": {"disabled": self.disabled}}

    def _poll(self) -> Answer:
        if not self.queue:
            return _says(404, None)
        job_id = next(iter(self.queue))
        self.running[job_id] = self.queue.pop(job_id)
        self.taken.append(job_id)
        return _says(200, self.running[job_id])

    def _complete(self, request: Request, job_id: str, sent: Any) -> Answer:
        if wrong := _wrong_verdict(sent):
            return self._violated(400, f"{request.call}: {wrong}: {request.body[:1000]!r}")
        if self.running.pop(job_id, None) is None:
            return Answer(500, b"<h1>Internal Server Error</h1>", "text/html")
        self.verdicts.append(Verdict(job_id, sent["failed"], sent["info"]))
        return Answer(204)

    def _act_on_worker(self, request: Request, method: str, worker: str, sent: Any) -> Answer:
        record = self._worker(worker)
        if method == "POST":
            wrong = "a colon in the id" if ":" in worker else _wrong_beat(sent)
            if wrong:
                return self._violated(400, f"{request.call}: {wrong}: {request.body[:1000]!r}")
            self._workers[worker] = (time.monotonic(), sent)
            return Answer(204)
        if method == "PATCH" and worker not in self._read_workers:
            return Answer(500, b"<h1>Internal Server Error</h1>", "text/html")
        if record is None:
            return _says(404, None)
        match method:
            case "GET":
                self._read_workers.add(worker)
                return _says(200, record)
            case "PATCH":
                change = self.disabled_workers.add if sent["disabled"] else self.disabled_workers.discard
                change(worker)
                return _says(200, sent)
        del self._workers[worker]
        return Answer(204)

    def _worker(self, worker: str) -> dict[str, Any] | None:
        at, record = self._workers.get(worker, (-math.inf, {}))
        if time.monotonic() > at + WORKER_LIFETIME:
            return None
        return record | {"worker_id": worker, "attributes": {"disabled": worker in self.disabled_workers}}

    def _act_on_data(self, method: str, key: tuple[str, str], sent: Any) -> Answer:
        if method == "POST":
            self._data[key] = sent
            return Answer(204)
        if key not in self._data:
            return _says(404, None)
        return _says(200, self._data[key] | {"_id": str(uuid.uuid4()), "name": key[1]})

    def _violated(self, code: int, what: str) -> Answer:
        self.violations.append(what)
        return _says(code, {"error": what})


def _read(stream: BinaryIO, number: int) -> Request | None:
    """The next request of a connection, or `None` at its end."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    at = time.monotonic()
    method, path, _ = line.decode("latin-1").split()
    headers = http.client.parse_headers(stream)
    length = int(headers.get("Content-Length", "0"))
    body = stream.read(length)
    if len(body) < length:
        return None  # the client was killed in the middle of it
    return Request(at, number, method, path, headers, body)


def _says(code: int, body: Any) -> Answer:
    return Answer(code, json.dumps(body).encode())


def _wrong_job(sent: Any) -> str:
    if not isinstance(sent, dict) or set(sent) != {"job_title", "tasks"}:
        return "a job has the keys job_title and tasks, and no others"
    if not isinstance(sent["job_title"], str) or not isinstance(sent["tasks"], list) or not sent["tasks"]:
        return "a title or tasks of another type"
    if not all(isinstance(task, dict) and isinstance(task.get("module"), str) for task in sent["tasks"]):
        return "a task without a module"
    return ""


def _wrong_verdict(sent: Any) -> str:
    if not isinstance(sent, dict) or set(sent) != {"failed", "info"}:
        return "a verdict has the keys failed and info, and no others"
    if not isinstance(sent["failed"], bool) or not isinstance(sent["info"], dict):
        return "failed or info of another type"
    return "a null" if None in _leaves(sent) else ""


def _wrong_beat(sent: Any) -> str:
    if not isinstance(sent, dict) or not set(REQUIRED) <= set(sent) <= set(REQUIRED | OPTIONAL):
        return "a heartbeat with keys that it may not have, or without those that it must have"
    for key, value in sent.items():
        if isinstance(value, bool) or not isinstance(value, (REQUIRED | OPTIONAL)[key]):
            return f"{key} of another type"
    if sent["status"] not in ("startup", "idle", "in_progress"):
        return "an unknown status"
    if not 0 <= sent.get("progress", 0) <= 100:
        return "a progress that is no percentage"
    return "a null" if None in _leaves(sent) else ""


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
