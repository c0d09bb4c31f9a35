"""Output for a person: live bars on a terminal, plain lines elsewhere, the log, and tables of results."""

import os
import queue
import select
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click
from loguru import logger
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from app.config import SECRETS, SETTINGS, Client, Settings, is_set, shown_url
from ipc.messages import Inspection, StepName
from supervisor.isolation.limits import IoPriority, Limits
from supervisor.isolation.line_pipe import printable
from supervisor.isolation.sampler import Usage
from supervisor.jobs.job_run import JobRun, Verdict
from supervisor.jobs.record import Failure
from supervisor.jobs.task_run import JobObserver, TaskRun

if TYPE_CHECKING:
    from loguru import Logger, Message, Record

LINE_INTERVAL = 10.0
"""Seconds between two lines about a task's progress where there is no terminal."""

LINES_WAITING = 10_000
"""Lines of the log that wait for a slow reader. Further lines are dropped and counted."""

LOG_PATIENCE = 2.0
"""Seconds to wait at the end until the last lines are read."""

MAX_PHASE = 20
"""Characters of a module's phase that are shown beside its bar."""

STDERR = 2

NO_TERMINAL_WIDTH = 140
"""Columns of a table where there is no terminal: wide enough for paths on one line."""


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


@contextmanager
def logging_to(console: Console, level: str) -> Iterator[None]:
    """Log to `console`, above its live bars if it has any. Each line is marked with its job, task and pid."""

    def write(message: "Message") -> None:
        console.print(Text(str(message).rstrip("\n")), soft_wrap=True)

    logger.remove()
    handler = logger.add(write, level=level, format=_format, diagnose=False)
    try:
        yield
    finally:
        logger.remove(handler)


@contextmanager
def logging_in_background(level: str) -> Iterator[None]:
    """Log to standard error, in the same form, through a thread: a slow reader blocks only that thread."""
    lines: queue.Queue[str | None] = queue.Queue(LINES_WAITING)
    writer = threading.Thread(target=_write_lines, args=(lines,), name="log", daemon=True)
    writer.start()
    lost = 0

    def put(message: "Message") -> None:
        nonlocal lost
        try:
            if lost:
                lines.put_nowait(f"{lost} lines of the log were lost: they were not read in time\n")
                lost = 0
            lines.put_nowait(str(message))
        except queue.Full:
            lost += 1

    logger.remove()
    handler = logger.add(put, level=level, format=_format, diagnose=False)
    try:
        yield
    finally:
        logger.remove(handler)
        with suppress(queue.Full):
            lines.put(None, timeout=LOG_PATIENCE)
        writer.join(LOG_PATIENCE)


def _write_lines(lines: "queue.Queue[str | None]") -> None:
    while (line := lines.get()) is not None:
        data = line.encode("utf-8", "backslashreplace")
        while data:
            try:
                data = data[os.write(STDERR, data) :]
            except BlockingIOError:  # another user of the terminal made it non-blocking
                select.select([], [STDERR], [], 1.0)
            except OSError:
                break  # no reader any more


def _format(record: "Record") -> str:
    marks = "".join(f" {name}={{extra[{name}]}}" for name in ("job", "task", "pid") if name in record["extra"])
    return f"{{time:YYYY-MM-DD HH:mm:ss.SSS}} {{level:<7}}{marks} {{message}}\n{{exception}}"


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
        self._progress.update(bar, completed=run.status.progress, speed=_speed(run), left=_time_left(run))
        if phase := _phase(run):
            self._progress.update(bar, step=phase)

    def on_usage(self, run: TaskRun, usage: Usage) -> None:
        self._progress.update(self._bars[run.index], memory=decimal(usage.memory))

    async def on_task_finished(self, run: TaskRun) -> None:
        percent = 100.0 if run.result == "completed" else run.status.progress
        self._progress.update(self._bars[run.index], completed=percent, step=run.result, left="")


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

    def on_step_started(self, run: TaskRun, step: StepName) -> None:
        self._log(run).log("INFO" if step == "run" else "DEBUG", "Step {}", step)
        self._next_line = time.monotonic() + LINE_INTERVAL

    def on_status(self, run: TaskRun) -> None:
        if run.status.progress is None or time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + LINE_INTERVAL
        parts = [_phase(run), f"{run.status.progress:.1f} %", _speed(run), _time_left(run), decimal(self._memory)]
        self._log(run).info(", ".join(filter(None, parts)))

    def on_usage(self, run: TaskRun, usage: Usage) -> None:
        del run
        self._memory = usage.memory

    async def on_task_finished(self, run: TaskRun) -> None:
        self._log(run).info("Task {}", run.result)

    def _log(self, run: TaskRun) -> "Logger":
        return logger.bind(job=self._job_id, task=run.label)


def _phase(run: TaskRun) -> str:
    phase = run.status.info.get("phase")
    return _plain(phase[:MAX_PHASE]).plain if isinstance(phase, str) else ""


def _speed(run: TaskRun) -> str:
    speed = run.status.info.get("speed")
    return f"{speed:.2f}x" if isinstance(speed, (int, float)) else ""


def _time_left(run: TaskRun) -> str:
    seconds = run.status.info.get("eta_seconds")
    return f"{_clock(seconds)} left" if isinstance(seconds, (int, float)) and 0 <= seconds < 1e7 else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def show_verdict(verdict: Verdict) -> None:
    """Print the result of each task, the output files and the failure on standard output."""
    console = Terminal(highlight=False, soft_wrap=True)
    table = Table("task", "result", "wall time", "CPU time", "peak memory")
    for run in verdict.tasks:
        ran = run.seconds is not None
        table.add_row(
            Text(run.label),
            run.result,
            f"{run.seconds:.1f} s" if ran else "",
            f"{run.cpu_seconds:.1f} s" if ran else "",
            decimal(run.peak_memory) if ran else "",
        )
    console.print(table)
    for run in verdict.tasks:
        for warning in run.warnings:
            console.print(_plain(f"Warning of task {run.label}: {warning}"))
    for path, size in {output["path"]: output["bytes"] for run in verdict.tasks for output in run.outputs()}.items():
        console.print(_plain(f"Output: {path} ({decimal(size)})"))
    if verdict.failure:
        console.print(_plain(verdict.failure.headline))
        for line in verdict.failure.cause.stderr or verdict.failure.cause.log:
            console.print(_plain(f"    {line}"))


def show_problems(reports: Sequence[tuple[int, str, Sequence[str], Sequence[str]]]) -> None:
    """Print the problems of each task of a job: index, module, problems, warnings."""
    console = Terminal(highlight=False, soft_wrap=True)
    for index, module, problems, warnings in reports:
        count = len(problems)
        console.print(_plain(f"{index}:{module}: " + (f"{count} problem{'s' * (count > 1)}" if count else "ok")))
        for line in (*problems, *(f"warning: {warning}" for warning in warnings)):
            console.print(_plain(f"    {line}"))


def show_modules(client: Client, limits: Mapping[str, Limits], found: Sequence[Inspection | Failure]) -> bool:
    """Print a table of the enabled modules and their problems; returns whether there are no problems."""
    console = Terminal(highlight=False)
    if not console.is_terminal:
        console = Terminal(highlight=False, width=max(console.width, NO_TERMINAL_WIDTH))
    table = Table("module", "from", "tools", "limits", "state", show_lines=True)
    wrong: list[str] = []
    inspections = [each if isinstance(each, Inspection) else Inspection() for each in found]
    for (name, target), inspection, each in zip(client.modules.items(), inspections, found, strict=True):
        problems = [tool.problem for tool in inspection.tools if tool.problem]
        if isinstance(each, Failure):
            problems = [each.cause.message]
        elif inspection.encoders and all(encoder.problem for encoder in inspection.encoders):
            problems.append("none of its encoders works")
        wrong += [f"{name}: {problem}" for problem in problems]
        cells = name, f"{target}\n{inspection.file}", _tools(inspection), _limits(limits[name])
        table.add_row(*map(Text, (*cells, "cannot run" if problems else "ready")))
    console.print(table)
    for line in wrong:
        console.print(_plain(line), soft_wrap=True)
    for name, inspection in zip(client.modules, inspections, strict=True):
        _show_encoders(name, inspection)
    return not wrong


def _plain(text: str) -> Text:
    """Return `text` without control characters, which could steer a terminal: it may come from jobs and files."""
    return Text(printable(text.encode("utf-8", "backslashreplace")))


def _tools(inspection: Inspection) -> str:
    return "\n".join(f"{tool.name} {tool.version}\n{tool.path}".rstrip() for tool in inspection.tools) or "-"


def _limits(limits: Limits) -> str:
    values = {field: _limit(getattr(limits, field)) for field in Limits.__struct_fields__}
    return "\n".join(f"{field} {value}" for field, value in values.items() if value != "off")


def _show_encoders(name: str, inspection: Inspection) -> None:
    """Print the encoders of a tool that work here, and why the others do not, if they were tried."""
    if not inspection.encoders:
        return
    working = [encoder.name for encoder in inspection.encoders if not encoder.problem]
    click.echo(f"\n{name}: {len(working)} of {len(inspection.encoders)} encoders work here:")
    click.echo(textwrap.fill(", ".join(working), 110, initial_indent="    ", subsequent_indent="    "))
    if len(working) < len(inspection.encoders):
        click.echo("and these do not:")
    for encoder in inspection.encoders:
        if encoder.problem:
            click.echo(f"    {encoder.name}: {encoder.problem}")


def show_configuration(
    settings: Settings, client: Client, limits: Mapping[str, Limits], environ: Mapping[str, str]
) -> None:
    """Print all settings and limits, each with its source. Secrets are not shown."""
    rows = [
        (setting.name, _setting(setting.name, getattr(settings, field)), _source(setting.name, environ))
        for field, setting in SETTINGS.items()
    ]
    rows.append(("SISYPHUS_STATE_DIR", settings.state_directory, _source("SISYPHUS_STATE_DIR", environ)))
    rows.append(("SISYPHUS_CONFIG", str(client.file), client.chosen_by))
    _show_rows("Settings", rows)
    _show_rows("Directories to import modules from", [(path, "", "configuration file") for path in client.paths])
    for name, target in client.modules.items():
        own = client.limits.get(name, {})
        _show_rows(
            f"Module {name}: {target}, and its limits",
            [
                (field, _limit(getattr(limits[name], field)), _limit_source(field, name, own, client.limits))
                for field in Limits.__struct_fields__
            ],
        )


def _show_rows(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    if not rows:
        return
    click.echo(f"{title}:")
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        click.echo(f"  {name:<{width}}  {value or '-'}  ({source})")


def _setting(name: str, value: object) -> str:
    if name in SECRETS:
        return "set, not shown" if value else ""
    if name == "API_URL":
        return shown_url(str(value))
    if isinstance(value, bool):
        return str(int(value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _source(name: str, environ: Mapping[str, str]) -> str:
    if is_set(name, environ):
        return "environment"
    return "kept in the state directory" if name == "HOST_UUID" else "default"


def _limit(value: object) -> str:
    if value is None:
        return "off"
    if isinstance(value, IoPriority):
        return value.io_class if value.level is None else f"{value.io_class}:{value.level}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(getattr(value, "text", value))


def _limit_source(field: str, name: str, own: Mapping[str, object], general: Mapping[str, object]) -> str:
    if field in own:
        return f"configuration file, for {name}"
    return "configuration file" if field in general else "default"
