"""The client that is measured: its modules, its configuration, and how a task, a job or a command of it is run."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from app.config import Client
from ipc.messages import Done, Ready, Start, Step
from supervisor.isolation.clock import Clock
from supervisor.isolation.runtime import Runtime
from supervisor.isolation.task_process import Sandbox, TaskProcess
from supervisor.jobs.job_run import JobRun, Verdict
from supervisor.jobs.model import read_job
from supervisor.jobs.task_run import JobObserver

MODULES = '''
import os
import time

from modules.base import BaseModule


class Empty(BaseModule):
    def validate(self):
        pass

    def run(self):
        pass


class Waiting(Empty):
    """Says that it runs, and waits to be stopped."""

    def run(self):
        now = time.monotonic()
        with open(self.task["started"], "w") as file:
            file.write(f"[{os.getpid()}, {now}]")
        time.sleep(600)


class Talking(Empty):
    def run(self):
        began = time.perf_counter()
        for number in range(self.task["calls"]):
            self.heartbeat.set_data({"status": "in_progress", "task": "talking", "progress": number % 100})
        with open(self.task["report"], "w") as file:
            file.write(str(time.perf_counter() - began))
'''

CONFIGURATION = """
[tool.client.modules]
paths = ["."]

[tool.client.modules.enabled]
empty = "bench_modules.Empty"
waiting = "bench_modules.Waiting"
talking = "bench_modules.Talking"
ffmpeg = "modules.ffmpeg.Ffmpeg"
"""

STEPS = (Step("validate"), Step("run"), Step("cleanup"))


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int
    rounds: int
    warm_up: int
    video_seconds: int
    encodes: int
    calls: int
    jobs: int
    idle_seconds: float
    kills: int
    rows: tuple[int, ...]
    workers: int
    seconds: float

    def of(self, runs: int) -> int:
        """The share of a round in `runs`, which is meant for 200 of ours."""
        return max(3, runs * self.runs // 200 // self.rounds)


FULL = Size(200, 2, 10, 60, 3, 1_000_000, 1000, 60, 20, (10_000, 1_000_000), 1000, 60)
QUICK = Size(20, 1, 3, 10, 1, 100_000, 50, 5, 3, (1000,), 50, 2)


@dataclass(frozen=True)
class Report:
    """One table."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """A client in a directory of its own, and how much is to be measured with it."""

    size: Size
    directory: Path
    runtime: Runtime
    beside: Path | None
    """Another checkout, whose server is measured, too."""

    @property
    def client(self) -> Client:
        return self.runtime.client

    @property
    def configuration(self) -> str:
        return str(self.client.file)

    def start_message(self, module: str, data: dict[str, Any]) -> Start:
        return Start(
            job_id="bench",
            job_title="bench",
            task=0,
            module=module,
            target=self.client.modules[module],
            data=json.dumps(data),
            paths=self.client.paths,
            modules=self.client.modules,
            open_files=None,
            environment={},
        )

    async def step(self, process: TaskProcess, request: Start | Step) -> None:
        name = "init" if isinstance(request, Start) else request.step
        answer = await process.step(name, request, self.runtime.limits["empty"].run_timeout, 10.0)
        if not isinstance(answer, Ready | Done):
            raise SystemExit(f"{name} failed: {answer}")

    @contextlib.asynccontextmanager
    async def initialized(self, module: str, data: dict[str, Any], said: Callable[..., None]) -> AsyncIterator[Any]:
        confines = Sandbox(self.runtime.zygote, self.runtime.cgroups, self.runtime.limits[module], Clock())
        process = await TaskProcess.start(confines, module, "bench", said)
        try:
            await self.step(process, self.start_message(module, data))
            yield process
        finally:
            await process.close()

    async def job(self, module: str, data: dict[str, Any]) -> Verdict:
        document = {"job_title": "bench", "tasks": [{"module": module, "data": data}]}
        verdict = await JobRun(read_job(document, self.client.modules), self.runtime, JobObserver()).run()
        if verdict.failure:
            raise SystemExit(verdict.failure.headline)
        return verdict

    def command_line(self, tasks: list[dict[str, Any]], *options: str) -> list[str]:
        """`sisyphus-client run` of a job."""
        file = self.directory / "job.json"
        file.write_text(json.dumps({"job_title": "bench", "tasks": tasks}), encoding="utf-8")
        program = os.path.join(os.path.dirname(sys.executable), "sisyphus-client")
        return [program, "run", str(file), "--config", self.configuration, *options]


async def empty_task(bench: Bench) -> None:
    async with bench.initialized("empty", {}, ignore) as process:
        for step in STEPS:
            await bench.step(process, step)


def ignore(status: msgspec.Raw) -> None:
    del status


async def repeat(one: Callable[[], Awaitable[object]], count: int, warm_up: int) -> list[float]:
    for _ in range(warm_up):
        await one()
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await one()
        taken.append(time.perf_counter() - began)
    return taken


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(argv)} ended with status {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)]


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
