"""How a job in the foreground proceeds: what is told of a task, and the lines of it where there is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loguru import logger
from rich.filesize import decimal

from ipc.messages import StepName
from supervisor.isolation.line_pipe import printable
from supervisor.isolation.sampler import Usage
from supervisor.jobs.job_run import JobRun
from supervisor.jobs.task_state import JobObserver, TaskState

if TYPE_CHECKING:
    from loguru import Logger

LINE_INTERVAL = 10.0
"""Seconds between two lines about a task's progress where there is no terminal."""

MAX_PHASE = 20
"""Characters of a module's phase that are shown."""


class Lines(JobObserver):
    """Logs a line for each step of a task, and at most every `LINE_INTERVAL` one for its progress."""

    def __init__(self) -> None:
        self._job_id = ""
        self._memory = 0
        self._next_line = 0.0

    @contextmanager
    def showing(self, job: JobRun) -> Iterator[None]:
        """Show the lines of `job`."""
        self._job_id = job.job.job_id
        yield

    def on_step_started(self, run: TaskState, step: StepName) -> None:
        self._log(run).log("INFO" if step == "run" else "DEBUG", "Step {}", step)
        self._next_line = time.monotonic() + LINE_INTERVAL

    def on_status(self, run: TaskState) -> None:
        if run.status.progress is None or time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + LINE_INTERVAL
        parts = [phase(run), f"{run.status.progress:.1f} %", speed(run), time_left(run), decimal(self._memory)]
        self._log(run).info(", ".join(filter(None, parts)))

    def on_usage(self, run: TaskState, usage: Usage) -> None:
        del run
        self._memory = usage.memory

    async def on_task_finished(self, run: TaskState) -> None:
        self._log(run).info("Task {}", run.described())

    def _log(self, run: TaskState) -> "Logger":
        return logger.bind(job=self._job_id, task=run.label)


def phase(run: TaskState) -> str:
    """The phase that the module tells; empty if it tells none."""
    told = run.status.info.get("phase")
    return printable(told[:MAX_PHASE].encode("utf-8", "backslashreplace")) if isinstance(told, str) else ""


def speed(run: TaskState) -> str:
    """The speed, as `1.50x` of the source's length; empty if it is not known."""
    told = run.status.info.get("speed")
    return f"{told:.2f}x" if isinstance(told, (int, float)) else ""


def time_left(run: TaskState) -> str:
    """The time left, as `1:02:03 left`; empty if it is not known."""
    seconds = run.status.info.get("eta_seconds")
    return f"{_clock(seconds)} left" if isinstance(seconds, (int, float)) and 0 <= seconds < 1e7 else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
