"""What all measurements share: the client that is measured, how much of it, and how costs become tables.

What is compared is taken in turns: its ratios then hold on a machine whose speed drifts.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.config import Client
from supervisor.isolation.runtime import Runtime
from supervisor.jobs.job_run import JobRun
from supervisor.jobs.model import read_job
from supervisor.jobs.task_state import JobObserver

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


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int
    rounds: int
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
    runs=200, rounds=2, video_seconds=(10, 600), pairs=5, megabytes=1000, calls=1_000_000, jobs=1000,
    queue=10_000, tasks=(10, 100, 1000), idle_seconds=60, kills=20, rows=(10_000, 1_000_000), workers=1000, seconds=60,
)  # fmt: skip
QUICK = Size(
    runs=20, rounds=1, video_seconds=(2, 60), pairs=3, megabytes=50, calls=100_000, jobs=50,
    queue=200, tasks=(10, 50), idle_seconds=5, kills=3, rows=(1000,), workers=50, seconds=2,
)  # fmt: skip


UNITS = {"ms": 1e3, "µs": 1e6, "s": 1.0, "%": 100.0, "MB": 1e-6, "": 1.0}


@dataclass(frozen=True)
class Report:
    """A table of costs beside the first of them: seconds, bytes, shares or numbers, shown in a unit of `UNITS`."""

    title: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    """By their names, which are unique within a part. Of each cost, several were measured, which tells the noise."""
    goals: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield name, runs, median, p95, p99; difference to the first and ratio, turn by turn; and goal."""
        scale, first = UNITS[self.unit], next(iter(self.samples.values()))
        for name, values in self.samples.items():
            ordered = sorted(values)
            shown = (statistics.median(values), *(ordered[int(len(values) * share)] for share in (0.95, 0.99)))
            pairs = list(zip(values, first, strict=False))
            more = statistics.median(own - other for own, other in pairs)
            ratio = statistics.median(own / other for own, other in pairs) if all(first) else 0.0
            figures = (f"{value * scale:.4g}" for value in shown)
            yield name, str(len(values)), *figures, f"{more * scale:+.4g}", f"{ratio:.3f}", self.goals.get(name, "")


@dataclass(frozen=True)
class Bench:
    """A client in a directory of its own, and how much is to be measured with it."""

    size: Size
    directory: Path
    runtime: Runtime

    @property
    def client(self) -> Client:
        return self.runtime.client

    @property
    def configuration(self) -> str:
        return str(self.client.file)

    async def job(self, *tasks: tuple[str, dict[str, Any]], observer: JobObserver | None = None) -> None:
        document = {"job_title": "bench", "tasks": [{"module": module, "data": data} for module, data in tasks]}
        run = JobRun(read_job(document, self.client.modules), self.runtime, observer or JobObserver())
        verdict = await run.run()
        if verdict.failure:
            raise SystemExit(verdict.failure.headline)

    def command_line(self, tasks: list[dict[str, Any]], *options: str) -> list[str]:
        """`sisyphus-client run` of a job."""
        file = self.directory / "job.json"
        file.write_text(json.dumps({"job_title": "bench", "tasks": tasks}), encoding="utf-8")
        program = os.path.join(os.path.dirname(sys.executable), "sisyphus-client")
        return [program, "run", str(file), "--config", self.configuration, *options]


async def in_turns(variants: Mapping[str, Callable[[], Awaitable[object]]], turns: int) -> dict[str, list[float]]:
    """The seconds of each of `turns` runs of each variant, after one that does not count. Another one begins each
    time."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants.items())
    for turn in range(-1, turns):
        at = turn % len(order)
        for name, one in order[at:] + order[:at]:
            began = time.perf_counter()
            await one()
            if turn >= 0:
                taken[name].append(time.perf_counter() - began)
    return taken


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(argv)} ended with status {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout
