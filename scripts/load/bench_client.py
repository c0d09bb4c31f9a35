"""The client that is measured: its modules, its configuration, and how a task, a job or a command of it is run.

And how measurements become tables, and are taken in turns: their ratios then hold on a machine whose speed drifts.
"""

import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
cleanup = "modules.cleanup.Cleanup"
"""

STEPS = (Step("validate"), Step("run"), Step("cleanup"))


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int
    rounds: int
    warm_up: int
    video_seconds: tuple[int, int]
    """A clip's, and a film's, which shows what grows with the length."""
    pairs: int
    """How often each of the long commands runs, in turns."""
    megabytes: int
    calls: int
    jobs: int
    queue: int
    tasks: tuple[int, ...]
    idle_seconds: float
    kills: int
    rows: tuple[int, ...]
    workers: int
    seconds: float

    def of(self, runs: int) -> int:
        """The share of a round in `runs`, which is meant for 200 of ours."""
        return max(3, runs * self.runs // 200 // self.rounds)


FULL = Size(
    runs=200, rounds=2, warm_up=10, video_seconds=(10, 600), pairs=5, megabytes=1000, calls=1_000_000, jobs=1000,
    queue=10_000, tasks=(10, 100, 1000), idle_seconds=60, kills=20, rows=(10_000, 1_000_000), workers=1000, seconds=60,
)  # fmt: skip
QUICK = Size(
    runs=20, rounds=1, warm_up=3, video_seconds=(2, 60), pairs=3, megabytes=50, calls=100_000, jobs=50,
    queue=200, tasks=(10, 50), idle_seconds=5, kills=3, rows=(1000,), workers=50, seconds=2,
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """One table."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    """What `--compare` compares: costs, by their names. Of each, several were measured, which tells the noise."""


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

    async def job(self, *tasks: tuple[str, dict[str, Any]]) -> Verdict:
        document = {"job_title": "bench", "tasks": [{"module": module, "data": data} for module, data in tasks]}
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


async def in_turns(variants: Mapping[str, Callable[[], Awaitable[object]]], turns: int) -> dict[str, list[float]]:
    """The seconds of each of `turns` runs of each variant. Another one begins each time."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants.items())
    for turn in range(turns):
        at = turn % len(order)
        for name, one in order[at:] + order[:at]:
            began = time.perf_counter()
            await one()
            taken[name].append(time.perf_counter() - began)
    return taken


def beside(
    title: str, first: str, taken: Mapping[str, list[float]], goals: Mapping[str, str], notes: Sequence[str] = ()
) -> Report:
    """A table of seconds beside those of `first`: medians of all, and of the differences and ratios turn by turn."""
    rows = []
    for name, seconds in taken.items():
        pairs = list(zip(seconds, taken[first], strict=True))
        more = "" if name == first else f"{statistics.median(own - other for own, other in pairs):+.3f}"
        ratio = f"{statistics.median(own / other for own, other in pairs):.3f}"
        median = f"{statistics.median(seconds):.3f}"
        rows.append((name, str(len(seconds)), median, f"{min(seconds):.3f}", more, ratio, goals.get(name, "")))
    columns = ("", "runs", "median s", "least s", "more s", "ratio", "goal")
    return Report(title, columns, rows, tuple(notes), dict(taken))


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(argv)} ended with status {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)]


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
