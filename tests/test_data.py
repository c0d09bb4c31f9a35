"""Server-side data: modules read and write it through the supervisor, which nothing that they send can harm."""

import asyncio
import contextlib
import json
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import psutil
import pytest
import requests

from app.config import Config, load_client, load_settings
from app.exceptions import ClientError
from ipc.messages import MAX_BODY, MAX_NAME, Data, Done, Get, Put, Ready, Start, Step
from ipc.queue import MAX_FRAME, MAX_REQUEST
from modules.base import BaseModule
from modules.data import ServerData
from supervisor.isolation.clock import Clock
from supervisor.isolation.failure import Failure
from supervisor.isolation.limits import Duration, load_limits
from supervisor.isolation.runtime import Runtime, start_runtime
from supervisor.isolation.task_process import Exchange, Sandbox, StepResult, Stop, TaskProcess
from tests.media import make_clip
from tests.supervised import Supervised

TOKEN = "open sesame"

MINUTE = Duration(60.0, "1m")

STEPS: list[Any] = ["init", "validate", "run", "cleanup"]

HOSTILE = {
    # act: what the record says
    "flood_of_gets": "sent more than 400 messages at once|before it had its last answer",
    "gets_without_reading": "asked for server-side data (Get) before it had its last answer",
    "two_gets": "asked for server-side data (Get) before it had its last answer",
    "put_after_get": "asked for server-side data (Put) before it had its last answer",
    "get_with_a_huge_name": "sent what is no message: Expected `str` of length <= 1000",
    "get_of_another_path": "sent what is no message: Expected `str` matching regex",
    "put_of_another_path": "sent what is no message: Expected `str` matching regex",
    "put_of_a_huge_body": "sent what is no message: Expected `str` of length <= 4194304",
    "get_after_the_answer": "asked for server-side data (Get) without having a step to do",
    "half_a_get": "closed its queue without an answer",
    "get_and_close": "closed its queue without an answer",
}


class Server(ThreadingHTTPServer):
    """An API server that keeps data, for those who have the token if it asks for one."""

    daemon_threads = True

    def __init__(self, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Server.Handler)
        self.token = token
        self.kept: dict[str, Any] = {}
        self.seen: list[str] = []
        """Method, path and token of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    class Handler(BaseHTTPRequestHandler):
        server: "Server"

        def do_GET(self) -> None:
            odd = {"text": b"<html>", "list": b"[1]", "latin": b'{"a": "\xe4"}', "deep": b"[" * 100_000}
            name = unquote(self.path.split("/")[-1])
            if name in odd:
                self.answer(200, odd[name])
            elif name.isdigit():
                self.answer(int(name), b"")
            elif self.path in self.server.kept:
                self.answer(200, json.dumps(self.server.kept[self.path] | {"_id": "1", "name": name}).encode())
            else:
                self.answer(404, b"null")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.split("/")[-1].isdigit():
                self.answer(int(self.path.split("/")[-1]), b"")
            elif self.headers["Content-Type"] != "application/json":
                self.answer(415, b"")
            else:
                self.server.kept[self.path] = json.loads(body)
                self.answer(204, b"")

        def answer(self, status: int, body: bytes) -> None:
            token = self.headers.get("Authorization", "")
            self.server.seen.append(f"{self.command} {self.path} {token}".strip())
            if self.server.token and token != f"Bearer {self.server.token}":
                status, body = 401, b""
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass


@contextlib.contextmanager
def serving(token: str = "") -> Iterator[Server]:
    with Server(token) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that wants no token, at the address that modules outside the client know."""
    with serving() as server:
        monkeypatch.setattr(Config, "API_URL", server.url)
        yield server


def asking(server: Server) -> Exchange:
    """An exchange with a real server, as the supervisor has one, which knows the token."""

    def ask(request: Get | Put) -> Data:
        url = f"{server.url}/data/{quote(request.module, safe='')}/{quote(request.name, safe='')}"
        headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
        if isinstance(request, Get):
            answer = requests.get(url, headers=headers, timeout=30)
        else:
            answer = requests.post(url, request.body, headers=headers, timeout=30)
        return Data(answer.status_code, answer.text)

    async def exchange(request: Get | Put) -> Data:
        return await asyncio.to_thread(ask, request)

    return exchange


class Desk:
    """An exchange that answers with the name it is asked for; to `slow` when it is told, to `large` at length."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self.requests: list[Get | Put] = []
        self.cancelled: list[str] = []
        self.busy = 0
        self.busiest = 0

    async def __call__(self, request: Get | Put) -> Data:
        self.requests.append(request)
        self.begun.set()
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await asyncio.sleep(0)
            if request.name == "slow":
                self.asked.set()
                await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.name)
            raise
        finally:
            self.busy -= 1
        size = 1 << 25 if request.name == "large" else 0
        return Data(200, json.dumps({"for": request.name}) + " " * size)


class Tasks:
    """Starts task processes, and takes them through steps."""

    def __init__(self, shared: Runtime, stack: contextlib.AsyncExitStack, directory: Path) -> None:
        self.out = directory / "out"
        self.go = directory / "go"
        self._shared = shared
        self._stack = stack

    async def start(self, exchange: Exchange | None, module: str = "clerk") -> TaskProcess:
        limits = self._shared.limits[module]
        confines = Sandbox(self._shared.zygote, None, limits, Clock())
        process = await TaskProcess.start(confines, module, "job", lambda raw: None, exchange)
        self._stack.push_async_callback(process.close)
        return process

    def start_message(self, module: str = "clerk", resumed: bool = False, **data: Any) -> Start:
        client = self._shared.client
        data = {"out": str(self.out), "go": str(self.go)} | data
        target = client.modules[module]
        return Start("j", "t", 0, module, target, json.dumps(data), client.paths, {}, None, {}, resumed)

    async def serve(self, exchange: Exchange | None, module: str = "clerk", **data: Any) -> TaskProcess:
        """A task process whose module is initialised."""
        process = await self.start(exchange, module)
        answer = await process.step("init", self.start_message(module, **data), MINUTE, 10.0)
        assert isinstance(answer, Ready), answer
        return process

    def noted(self) -> list[Any]:
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []


async def step(process: TaskProcess, name: Any = "run", timeout: Duration = MINUTE, grace: float = 30.0) -> StepResult:
    return await process.step(name, Step(name), timeout, grace)


async def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.002)


@pytest.fixture
def supervise(supervised: Supervised, tmp_path: Path) -> Callable[[Callable[[Tasks], Awaitable[None]]], None]:
    """Runs a test's coroutine in a supervisor, which is this process."""
    supervised.configure(modules={"clerk": "tests.hostile.Clerk"})
    client = load_client(str(supervised.config), os.environ)

    @contextlib.asynccontextmanager
    async def tasks() -> AsyncIterator[Tasks]:
        settings = load_settings(os.environ, tmp_path / "state")
        async with (
            start_runtime(client, settings, load_limits(client), False) as shared,
            contextlib.AsyncExitStack() as stack,
        ):
            yield Tasks(shared, stack, tmp_path)

    def supervise(test: Callable[[Tasks], Awaitable[None]]) -> None:
        async def main() -> None:
            async with tasks() as started:
                await test(started)

        asyncio.run(main())

    return supervise


Supervise = Callable[[Callable[[Tasks], Awaitable[None]]], None]


# --- in a task process ---


def test_data_is_kept_and_found(supervise: Supervise) -> None:
    """What a module stores it finds again, in every step; the supervisor shows the token, and the module needs none."""

    async def test(tasks: Tasks) -> None:
        with serving(TOKEN) as server:
            data = {"put": {"ä": [1.5, None, "\udcff"]}}
            calls = {"init": [["put", "a/b c", data]], **{name: [["get", "a/b c"]] for name in STEPS[1:]}}
            process = await tasks.serve(asking(server), **calls)
            answers = [await step(process, name) for name in STEPS[1:]]

            assert answers == [Done()] * 3
            assert tasks.noted() == [data] * 3
            assert server.seen[0] == f"POST /data/clerk/a%2Fb%20c Bearer {TOKEN}"
            assert server.seen[1:] == [f"GET /data/clerk/a%2Fb%20c Bearer {TOKEN}"] * 3

    supervise(test)


def test_what_is_not_there_is_none(supervise: Supervise) -> None:
    """A name under which the server keeps nothing gives None, which is no error."""

    async def test(tasks: Tasks) -> None:
        with serving() as server:
            process = await tasks.serve(asking(server), run=[["get", "spam"]])

            assert await step(process) == Done()
            assert tasks.noted() == [None]

    supervise(test)


BAD_EXCHANGES: dict[str, tuple[Data | BaseException | None, str]] = {
    # name: (what the exchange does, what the message says)
    "none": (None, "http://localhost:5000 does not answer: the client runs without an API server"),
    "no answer": (Data(0, error="Connection refused"), "http://localhost:5000 does not answer: Connection refused"),
    "status": (Data(500, "oops"), "http://localhost:5000/data/clerk/x answers with status 500"),
    "text": (Data(200, "<html>"), "http://localhost:5000/data/clerk/x does not answer with JSON: Expecting value"),
    "list": (Data(200, "[1]"), "http://localhost:5000/data/clerk/x does not answer with a JSON object"),
    "too large": (Data(200, "x" * (MAX_REQUEST + 1)), "more than a task process can take (64 MiB)"),
    "too large on its way": (Data(200, '"' * (MAX_REQUEST // 2)), "more than a task process can take (64 MiB)"),
    "no UTF-8": (Data(200, "\ud800"), "does not answer: asking it failed: UnicodeEncodeError"),
    "error": (ZeroDivisionError(), "does not answer: asking it failed: ZeroDivisionError"),
    "cancelled": (asyncio.CancelledError(), "does not answer: asking it failed: CancelledError"),
}


@pytest.mark.parametrize("name", BAD_EXCHANGES)
def test_failure_is_explained(supervise: Supervise, name: str) -> None:
    """What the server does not give fails the step with a message that says why, and the process lives on."""
    exchange, message = BAD_EXCHANGES[name]

    async def answer(request: Get | Put) -> Data:
        if isinstance(exchange, BaseException):
            raise exchange
        assert exchange is not None
        return exchange

    async def test(tasks: Tasks) -> None:
        process = await tasks.serve(answer if exchange else None, run=[["get", "x"]], cleanup=[["try_to_get", "x"]])
        failure, after = await step(process), await step(process, "cleanup")

        assert isinstance(failure, Failure)
        assert (failure.reason, failure.step) == ("exception", "run")
        assert message in failure.message
        assert after == Done()
        assert tasks.noted() == [failure.message]

    supervise(test)


def test_threads_wait_for_each_other(supervise: Supervise) -> None:
    """Threads of a module may ask at once: each gets its own answer, and the server is asked one thing at a time."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, run=[["get_in_threads", 5]])

        assert await step(process) == Done()
        assert len(desk.requests) == 6 * 20
        assert desk.busiest == 1

    supervise(test)


def test_asking_in_a_loop_is_no_flood(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that asks as fast as it gets answers is slowed down, and not ended for sending too much."""
    for name, count in {"BURST": 40, "KEPT": 20, "PER_SECOND": 1000}.items():
        monkeypatch.setattr(f"supervisor.isolation.task_process.MESSAGES_{name}", count)

    async def test(tasks: Tasks) -> None:
        process = await tasks.serve(Desk(), run=[["get_many", 300]])

        assert await step(process) == Done()

    supervise(test)


def test_large_data(supervise: Supervise) -> None:
    """As much as may be goes either way; more, or what would take too much on the way, is refused in the module."""
    quotes = '"' * (MAX_BODY // 2 - 10)

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        calls = [["put", "x", {"x": "y" * (MAX_BODY - 9)}], ["get", "large"]]
        process = await tasks.serve(desk, run=calls, validate=[["put", "x", {"x": quotes}]])
        refused, done = await step(process, "validate"), await step(process)
        put = desk.requests[0]

        assert isinstance(put, Put)
        assert len(put.body) == MAX_BODY
        assert done == Done()
        assert tasks.noted() == [{"for": "large"}]
        assert isinstance(refused, Failure)
        assert "too many bytes to be sent" in refused.message
        assert MAX_BODY * 2 + 50 > MAX_FRAME

    supervise(test)


def test_task_process_does_without_http(supervise: Supervise) -> None:
    """The task process imports no HTTP library for it, and starts no thread before it asks."""

    async def test(tasks: Tasks) -> None:
        process = await tasks.serve(Desk(), init=[["tell"]], run=[["get", "x"], ["tell"]])

        assert await step(process) == Done()
        before, _, after = tasks.noted()
        assert (before["requests"], before["threads"]) == (False, 1)
        assert (after["requests"], after["threads"]) == (False, 2)

    supervise(test)


@pytest.mark.parametrize("resumed", [True, False])
def test_resumed(supervise: Supervise, resumed: bool) -> None:
    """A module knows from its initialisation on whether an earlier attempt may have done a part of its work."""

    async def test(tasks: Tasks) -> None:
        process = await tasks.start(None)
        message = tasks.start_message(resumed=resumed, init=[["tell"]], run=[["tell"]])
        await process.step("init", message, MINUTE, 10.0)
        await step(process)

        assert [note["resumed"] for note in tasks.noted()] == [resumed] * 2

    supervise(test)


def test_fork_of_a_module_asks_by_itself(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that the module forked, the server is asked from there, and the supervisor's queue is left alone."""

    async def test(tasks: Tasks) -> None:
        process = await tasks.serve(Desk(), run=[["get", "x"], ["get_in_fork", "x"], ["get", "y"]])

        assert await step(process) == Done()
        assert tasks.noted() == [{"for": "x"}, {"from": "afar"}, {"for": "y"}]
        assert server.seen == ["GET /data/clerk/x"]

    with serving() as server:
        server.kept["/data/clerk/x"] = {"from": "afar"}
        monkeypatch.setenv("API_URL", server.url)
        supervise(test)


def test_option_set_comes_through_the_supervisor(supervise: Supervise, tmp_path: Path) -> None:
    """The ffmpeg module's option sets are asked of the supervisor, under the name that all clients share."""
    source = make_clip(tmp_path / "source.mkv")
    data = {
        "sources": [str(source)],
        "source_maps": [{"source": 0}],
        "output_maps": [{"stream": 0, "option_set": "good"}, {"stream": 1, "option_set": "bad"}],
        "output_file": str(tmp_path / "out.mkv"),
    }

    async def exchange(request: Get | Put) -> Data:
        asked.append(request)
        return Data(200, json.dumps({"options": {"codec": "copy"}})) if request.name == "good" else Data(404)

    asked: list[Get | Put] = []

    async def test(tasks: Tasks) -> None:
        process = await tasks.start(exchange, "ffmpeg")
        message = Start("j", "t", 0, "encoder", "modules.ffmpeg.Ffmpeg", json.dumps(data), (), {}, None, {})
        await process.step("init", message, MINUTE, 10.0)
        failure = await step(process, "validate")

        assert asked == [Get("ffmpeg", "good"), Get("ffmpeg", "bad")]
        assert isinstance(failure, Failure)
        assert failure.message == (
            "output_maps[1].option_set: option set 'bad': there is none at http://localhost:5000/data/ffmpeg/bad"
        )

    supervise(test)


# --- stopped in the middle of it ---


def test_stop_during_an_exchange(supervise: Supervise) -> None:
    """A module that waits for the server can be stopped; its cleanup in the same process gets its own answers."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, run=[["get", "slow"]], cleanup=[["get", "own"], ["get", "other"]])
        running = asyncio.create_task(step(process))
        await desk.asked.wait()
        process.stop(Stop("cancelled", "cancelled by a test"))
        failure = await running
        desk.release.set()

        assert isinstance(failure, Failure)
        assert failure.reason == "cancelled"
        assert process.alive
        assert await step(process, "cleanup") == Done()
        assert tasks.noted() == [{"for": "own"}, {"for": "other"}]
        assert desk.cancelled == ["slow"]

    supervise(test)


@pytest.mark.parametrize("asks_again", [True, False])
def test_late_answer_is_nobodys(supervise: Supervise, asks_again: bool) -> None:
    """An answer that comes when the module has been stopped is not taken for that to what it asks afterwards."""
    run = ["get_when_asked_to_stop", "slow", "other"] if asks_again else ["wait_when_asked_to_stop", "slow"]

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, run=[run], cleanup=[["get", "own"]])
        running = asyncio.create_task(step(process))
        await desk.asked.wait()
        process.stop(Stop("cancelled", "cancelled by a test"))
        await eventually(lambda: tasks.noted() == ["unwinding"], "the module to be stopped")
        desk.release.set()
        await eventually(lambda: not desk.busy, "the late answer")
        tasks.go.touch()
        failure = await running

        assert isinstance(failure, Failure)
        assert failure.reason == "cancelled"
        assert await step(process, "cleanup") == Done()
        assert tasks.noted()[1:] == ([{"for": "other"}] if asks_again else []) + [{"for": "own"}]
        assert desk.cancelled == []

    supervise(test)


def test_request_behind_an_abandoned_one_waits(supervise: Supervise) -> None:
    """What a stopped module asks while its first request is not answered yet waits its turn: no protocol is broken."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, run=[["get_when_asked_to_stop", "slow", "other"]])
        tasks.go.touch()
        running = asyncio.create_task(step(process))
        await desk.asked.wait()
        process.stop(Stop("cancelled", "cancelled by a test"))
        await eventually(lambda: tasks.noted() == ["unwinding"], "the module to be stopped")
        desk.release.set()
        failure = await running

        assert isinstance(failure, Failure)
        assert failure.reason == "cancelled"
        assert tasks.noted() == ["unwinding", {"for": "other"}]

    supervise(test)


def test_stop_at_any_instant(supervise: Supervise) -> None:
    """Wherever in an exchange the request to stop falls, no answer goes astray, and cleanup works."""

    async def test(tasks: Tasks) -> None:
        chance = random.Random(20260101)
        for _ in range(60):
            desk = Desk()
            process = await tasks.serve(desk, run=[["get_for_ever"]], cleanup=[["get", "own"]])
            running = asyncio.create_task(step(process))
            await desk.begun.wait()
            await asyncio.sleep(chance.random() / 200)
            process.stop(Stop("cancelled", "cancelled by a test"))
            failure = await running
            cleaned = await step(process, "cleanup")

            assert isinstance(failure, Failure)
            assert failure.reason == "cancelled"
            assert cleaned == Done()
        assert tasks.noted() == [{"for": "own"}] * 60

    supervise(test)


def test_stop_before_any_instruction(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with SIGTERM before each single instruction of an exchange: none leaves anything half done."""
    monkeypatch.setattr("supervisor.isolation.task_process.MESSAGES_PER_SECOND", 1_000_000)

    async def test(tasks: Tasks) -> None:
        process = await tasks.serve(Desk(), validate=[["get", "own"]], run=[["get_interrupted", "other"]])
        await step(process, "validate")
        failures = 0
        while isinstance(failure := await step(process), Failure):
            assert "SIGTERM" in failure.message
            assert await step(process, "validate") == Done()
            failures += 1

        assert failures > 300
        assert tasks.noted() == [{"for": "own"}] * (failures + 1) + ["through"]

    supervise(test)


def test_stop_before_any_instruction_of_the_first_exchange(supervise: Supervise) -> None:
    """The same for the first exchange of a process, which does more; not before each, for it takes a process."""

    async def test(tasks: Tasks) -> None:
        done, instruction = False, 0
        while not done:
            instruction += 13
            calls = {"run": [["get_interrupted", "other", instruction]], "cleanup": [["get", "own"]]}
            process = await tasks.serve(Desk(), **calls)
            done = await step(process) == Done()

            assert await step(process, "cleanup") == Done()
        assert instruction > 600
        assert tasks.noted() == [{"for": "own"}] * (instruction // 13 - 1) + ["through", {"for": "own"}]

    supervise(test)


@pytest.mark.parametrize("now", [True, False], ids=["kill", "timeout"])
def test_exchange_ends_with_its_process(supervise: Supervise, now: bool) -> None:
    """A timeout, or a kill, ends the step while the server keeps silent, and what was asked of it is dropped."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, run=[["get", "slow"]])
        running = asyncio.create_task(step(process, timeout=MINUTE if now else Duration(0.5, "500ms")))
        await desk.asked.wait()
        if now:
            process.stop(Stop("cancelled", "killed by a test", now=True))
        failure = await running
        await eventually(lambda: desk.cancelled == ["slow"], "the exchange to be cancelled")

        assert isinstance(failure, Failure)
        assert failure.reason == ("cancelled" if now else "timeout")

    supervise(test)


# --- threads that outlive a step ---


def test_step_ends_while_a_thread_waits(supervise: Supervise) -> None:
    """A thread that waits when its step ends is told so, and the next step has exchanges of its own."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        calls = {"validate": [["leave_thread_asking", "slow"]], "run": [["join_thread"], ["get", "x"]]}
        process = await tasks.serve(desk, **calls)
        validating = asyncio.create_task(step(process, "validate"))
        await desk.asked.wait()
        tasks.go.touch()
        validated, done = await validating, await step(process)

        assert (validated, done) == (Done(), Done())
        assert tasks.noted() == ["http://localhost:5000 does not answer: the step ended before", {"for": "x"}]
        assert desk.cancelled == ["slow"]

    supervise(test)


def test_thread_that_asks_between_steps(supervise: Supervise) -> None:
    """A thread that asks when no step is under way gets an error, and no protocol is broken."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(
            desk, validate=[["leave_thread_asking_later", "x"]], run=[["join_thread"], ["get", "y"]]
        )
        validated = await step(process, "validate")
        tasks.go.touch()
        await eventually(tasks.noted, "the thread to be answered")
        done = await step(process)

        assert (validated, done) == (Done(), Done())
        first, second = tasks.noted()
        assert "it can be asked only during a step" in first
        assert second == {"for": "y"}
        assert desk.requests == [Get("clerk", "y")]

    supervise(test)


# --- hostile modules ---


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("act", HOSTILE)
def test_hostile_requests_end_the_task(supervise: Supervise, act: str, name: str) -> None:
    """Floods, second requests, odd names and torn frames are breaches of the protocol, and nothing else is harmed."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.start(desk, "hostile")
        answer: StepResult = Done()
        for each in STEPS[: STEPS.index(name) + 1]:
            start = tasks.start_message("hostile", step=name, act=act)
            answer = await process.step(each, start if each == "init" else Step(each), MINUTE, 10.0)
        after = await tasks.serve(Desk(), run=[["get", "x"]])

        assert isinstance(answer, Failure)
        assert (answer.reason, answer.step) == ("protocol", name)
        assert any(part in answer.message for part in HOSTILE[act].split("|")), answer.message
        assert len(desk.requests) <= 400
        assert not desk.busy
        assert await step(after) == Done()

    supervise(test)


def test_death_during_an_exchange(supervise: Supervise) -> None:
    """A process that dies while its request is under way is reported with how it died."""

    async def test(tasks: Tasks) -> None:
        process = await tasks.serve(Desk(), "hostile", step="run", act="get_and_die")
        failure = await step(process)

        assert isinstance(failure, Failure)
        assert (failure.reason, failure.signal) == ("signal", "SIGKILL")

    supervise(test)


def test_answer_that_nobody_takes(supervise: Supervise) -> None:
    """An answer that is half sent when its step ends is sent to its end: the next step's request comes after it."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, "hostile", step="run", act="get_and_return")
        done, cleaned = await step(process), await step(process, "cleanup")

        assert (done, cleaned) == (Done(), Done())
        assert desk.requests == [Get("hostile", "large")]

    supervise(test)


def test_large_answers_do_not_pile_up(supervise: Supervise) -> None:
    """A module that takes no answers has at most one of them kept for it."""

    async def test(tasks: Tasks) -> None:
        own = psutil.Process()
        before = own.memory_info().rss
        for _ in range(5):
            desk = Desk()
            process = await tasks.serve(desk, "hostile", step="run", act="gets_without_reading")
            await step(process)

            assert desk.requests == [Get("hostile", "large")]
        assert own.memory_info().rss - before < 3 << 25

    supervise(test)


# --- outside the client ---


class Archive(BaseModule):
    """A module that an author tests by calling it."""


def test_outside_the_client(server: Server) -> None:
    """Called by an author's test, a module reaches the server by plain HTTP, under its class's name."""
    module = Archive({})
    module.put_data("a/b c", {"options": [1]})

    assert module.get_data("a/b c") == {"options": [1]}
    assert module.get_data("spam") is None
    assert server.kept == {"/data/archive/a%2Fb%20c": {"options": [1]}}
    assert server.seen[0] == "POST /data/archive/a%2Fb%20c"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("500", "/data/m/500 answers with status 500"),
        ("302", "/data/m/302 answers with status 302"),
        ("text", "/data/m/text does not answer with JSON: "),
        ("latin", "/data/m/latin does not answer with JSON: "),
        ("deep", "/data/m/deep does not answer with JSON: "),
        ("list", "/data/m/list does not answer with a JSON object"),
    ],
)
def test_bad_answers(server: Server, name: str, reason: str) -> None:
    """What is not an object, or not given, is an error that names the address."""
    with pytest.raises(ClientError) as caught:
        ServerData().get("m", name)

    assert caught.value.message.startswith(server.url + reason)


@pytest.mark.parametrize("status", ["404", "500", "302"])
def test_refused_by_the_server(server: Server, status: str) -> None:
    """An object that the server does not take is an error, 404 too."""
    with pytest.raises(ClientError, match=f"/data/m/{status} answers with status {status}"):
        ServerData().put("m", status, {})

    assert len(server.seen) == 1


def test_no_server(server: Server) -> None:
    """A server that is not there is named."""
    server.shutdown()
    server.server_close()

    with pytest.raises(ClientError, match=rf"^{server.url} does not answer: .*refused"):
        ServerData().get("m", "x")


CYCLE: dict[str, Any] = {}
CYCLE["cycle"] = CYCLE


@pytest.mark.parametrize(
    ("object", "reason"),
    [
        ({"x": float("nan")}, "can keep only what JSON can hold: Out of range float values are not JSON compliant"),
        ({"x": b"bytes"}, "can keep only what JSON can hold: Object of type bytes is not JSON serializable"),
        ({"x": {1}}, "can keep only what JSON can hold: Object of type set is not JSON serializable"),
        ({(1, 2): 3}, "can keep only what JSON can hold: keys must be str"),
        (CYCLE, "can keep only what JSON can hold: Circular reference"),
        ([1], "can keep an object (a dict), not a list"),
        ("text", "can keep an object (a dict), not a str"),
        (None, "can keep an object (a dict), not a NoneType"),
        ({"name": 1}, "cannot keep the key 'name': it is the server's own"),
        ({"_id": 1}, "cannot keep the key '_id': it is the server's own"),
        ({"x": "y" * MAX_BODY}, f"cannot be sent {MAX_BODY + 9} bytes of JSON; at most {MAX_BODY} can be"),
    ],
)
def test_what_cannot_be_kept(server: Server, object: Any, reason: str) -> None:
    """What JSON cannot hold, no object, and too much of it is refused before anybody is asked."""
    with pytest.raises(ClientError) as caught:
        ServerData().put("m", "x", object)

    assert caught.value.message.startswith(f"{server.url}/data/m/x {reason}")
    assert server.seen == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * (MAX_NAME + 1), "the name 'xxx"),
        ("", "'' cannot be a name of server-side data"),
        (".", "'.' cannot be a name of server-side data"),
        ("..", "'..' cannot be a name of server-side data"),
        ("\udcff", "'\\udcff' cannot be a name of server-side data: it is no UTF-8"),
        (7, "the name of server-side data must be text, not int"),
    ],
)
def test_what_cannot_be_a_name(server: Server, name: Any, reason: str) -> None:
    """A name that is too long, or would lead elsewhere, is refused before anybody is asked."""
    for module, data_name in ((name, "x"), ("m", name)):
        with pytest.raises(ClientError) as caught:
            ServerData().get(module, data_name)
        assert caught.value.message.startswith(reason)
        with pytest.raises(ClientError):
            ServerData().put(module, data_name, {})

    assert server.seen == []


def test_fork_does_not_use_its_parents_exchange(server: Server) -> None:
    """An exchange belongs to the process that connected it; a fork of it asks the server itself."""
    server.kept["/data/m/x"] = {"from": "afar"}
    data = ServerData()
    data.connect(lambda request: Data(200, '{"from": "here"}'))
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.write(writer, json.dumps(data.get("m", "x")).encode())
        finally:
            os._exit(0)
    os.wait()

    assert data.get("m", "x") == {"from": "here"}
    assert json.loads(os.read(reader, 1000)) == {"from": "afar"}
    os.close(reader)
    os.close(writer)
