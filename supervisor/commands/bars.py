"""Live bars on a terminal, with the log above them. Imported only where they are needed: `rich` takes 50 ms."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from ipc.messages import StepName
from supervisor.commands.logs import logging_to
from supervisor.commands.progress import phase, speed, time_left
from supervisor.isolation.line_pipe import printable
from supervisor.isolation.sampler import Usage
from supervisor.jobs.job_run import JobRun
from supervisor.jobs.task_state import JobObserver, TaskState

MAX_NAME = 32
"""Columns of a task's label and file."""


class Terminal(Console):
    """A console that ignores write errors: nobody reading is no reason to end a job."""

    def on_broken_pipe(self) -> None:
        """Forget what could not be written, where rich would exit."""
        self._buffer.clear()  # rich would keep it, and render and write all of it again with each later line

    def __exit__(self, *exception: Any) -> None:
        """Write what was rendered, and ignore write errors. All that rich writes passes here, the bars' end too."""
        try:
            super().__exit__(*exception)
        except OSError:  # such as EIO: the terminal is gone
            self.on_broken_pipe()


def logging_above(console: Console, level: str) -> AbstractContextManager[None]:
    """Log to `console`, above its live bars."""
    return logging_to(lambda message: console.print(Text.from_ansi(message.rstrip("\n")), soft_wrap=True), level)


class Bars(JobObserver):
    """Shows live bars: one for the job, and one for each task around the running one, as many as there is room for.

    A task's bar shows percent, phase, speed, time left, and the memory of its tree: at its end, the most that it used.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn(
                "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=MAX_NAME)
            ),
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn("{task.fields[step]}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[memory]}"),
            console=console,
        )
        self._whole: TaskID | None = None
        self._bars: dict[int, TaskID] = {}

    @contextmanager
    def showing(self, job: JobRun) -> Iterator[None]:
        """Show the bars of `job`."""
        nothing: dict[str, Any] = {"step": "", "speed": "", "left": "", "memory": ""}
        if len(job.tasks) > 1:
            self._whole = self._progress.add_task(
                escape(printable(job.job.job_title.encode(errors="replace"))), **nothing
            )
        for run in job.tasks:
            self._bars[run.index] = self._progress.add_task(run.label, total=100, **nothing)
        self._show_around(0)
        with self._progress:
            yield

    def _show_around(self, index: int) -> None:
        """Show the bars of the tasks around this one, as many as fit below the log."""
        room = max(1, min(len(self._bars), self._progress.console.height // 2))
        first = min(max(0, index - room // 3), len(self._bars) - room)
        for each, bar in self._bars.items():
            self._progress.update(bar, visible=first <= each < first + room)

    def on_step_started(self, run: TaskState, step: StepName) -> None:
        self._progress.update(self._bars[run.index], step=step)
        if step != "run":
            return
        self._show_around(run.index)
        files = run.ready.outputs[:1] or run.ready.removes[:1]
        name = "".join(f" {printable(os.path.basename(file))}" for file in files)
        self._progress.update(self._bars[run.index], description=escape(run.label + name))
        for index, bar in self._bars.items():
            if index > run.index:
                self._progress.update(bar, step="waiting")

    def on_status(self, run: TaskState) -> None:
        bar = self._bars[run.index]
        self._progress.update(bar, completed=run.status.progress, speed=speed(run), left=time_left(run))
        self._show_whole(run.index + (run.status.progress or 0) / 100)
        if shown := phase(run):
            self._progress.update(bar, step=escape(shown))

    def on_usage(self, run: TaskState, usage: Usage) -> None:
        self._progress.update(self._bars[run.index], memory=decimal(usage.memory))

    async def on_task_finished(self, run: TaskState) -> None:
        completed = run.result in ("completed", "skipped")
        memory = f"at most {decimal(run.peak_memory)}"
        percent = 100.0 if completed else run.status.progress
        self._progress.update(self._bars[run.index], completed=percent, step=run.result, left="", memory=memory)
        if completed:
            self._show_whole(run.index + 1)

    def _show_whole(self, tasks: float) -> None:
        if self._whole is not None:
            count = f"{min(int(tasks) + 1, len(self._bars))} of {len(self._bars)}"
            self._progress.update(self._whole, completed=100 * tasks / len(self._bars), step=f"task {count}")
