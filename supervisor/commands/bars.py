"""Live bars on a terminal, with the log above them. Imported only where they are needed: `rich` takes 50 ms."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from ipc.messages import StepName
from supervisor.commands.logs import logging_to
from supervisor.commands.progress import phase, speed, time_left
from supervisor.isolation.sampler import Usage
from supervisor.jobs.job_run import JobRun
from supervisor.jobs.task_run import JobObserver, TaskRun


class Terminal(Console):
    """A console that ignores write errors: nobody reading is no reason to end a job."""

    def on_broken_pipe(self) -> None:
        """Forget what could not be written, where rich would exit."""
        self._buffer.clear()  # rich would keep it, and render and write all of it again with each later line

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, and ignore write errors."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()


def logging_above(console: Console, level: str) -> AbstractContextManager[None]:
    """Log to `console`, above its live bars."""
    return logging_to(lambda message: console.print(Text(message.rstrip("\n")), soft_wrap=True), level)


class Bars(JobObserver):
    """Shows a live bar for each task: percent, phase, speed, time left, memory of the process tree."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[step]}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[memory]}"),
            console=console,
        )
        self._bars: dict[int, TaskID] = {}

    @contextmanager
    def showing(self, job: JobRun) -> Iterator[None]:
        """Show the bars of `job`."""
        for run in job.tasks:
            self._bars[run.index] = self._progress.add_task(run.label, total=100, step="", speed="", left="", memory="")
        with self._progress:
            yield

    def on_step_started(self, run: TaskRun, step: StepName) -> None:
        self._progress.update(self._bars[run.index], step=step)
        for index, bar in self._bars.items():
            if step == "run" and index > run.index:
                self._progress.update(bar, step="waiting")

    def on_status(self, run: TaskRun) -> None:
        bar = self._bars[run.index]
        self._progress.update(bar, completed=run.status.progress, speed=speed(run), left=time_left(run))
        if shown := phase(run):
            self._progress.update(bar, step=shown)

    def on_usage(self, run: TaskRun, usage: Usage) -> None:
        self._progress.update(self._bars[run.index], memory=decimal(usage.memory))

    async def on_task_finished(self, run: TaskRun) -> None:
        percent = 100.0 if run.result == "completed" else run.status.progress
        self._progress.update(self._bars[run.index], completed=percent, step=run.result, left="")
