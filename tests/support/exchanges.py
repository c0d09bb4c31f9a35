"""Exchanges between a module and the API server, and what answers them."""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

import requests

from app.config import load_client
from ipc.messages import Cause, Data, Failed, Get, Put, Ready, Start, Step
from supervisor.isolation.clock import Clock
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.limits import Duration
from supervisor.isolation.runtime import Runtime
from supervisor.isolation.task_process import Exchange, Sandbox, StepResult, TaskProcess, without_server
from tests.support.supervised import Supervised

TOKEN = "open sesame"

MINUTE = Duration(60.0, "1m")

STEPS: list[Any] = ["init", "validate", "run", "cleanup"]


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

    def __init__(self, supervised: Supervised) -> None:
        self.out = supervised.directory / "out"
        self.go = supervised.directory / "go"
        self._supervised = supervised
        self._shared: Runtime
        self._stack: contextlib.AsyncExitStack

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test's coroutine in the supervisor of the file."""

        async def main(runtime: Runtime) -> None:
            self._shared = runtime
            async with contextlib.AsyncExitStack() as self._stack:
                await test

        self._supervised.configure(modules={"clerk": "tests.hostile.Clerk"})
        self._supervised.supervisor.run(main, load_client(str(self._supervised.config), os.environ))

    async def start(self, exchange: Exchange | None, module: str = "clerk") -> TaskProcess:
        limits = self._shared.limits[module]
        confines = Sandbox(self._shared.zygote, None, limits, Clock())
        process = await TaskProcess.start(confines, module, "job", lambda raw: None, exchange or without_server)
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


def cancel(process: TaskProcess) -> None:
    process.stop(StopOrder(Cause("cancelled", "cancelled by a test")))


def reason(result: StepResult) -> str:
    """The reason of a failure."""
    assert isinstance(result, Failed)
    return result.cause.reason


async def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.002)
