"""`sisyphus-client run`, `validate` and `modules`: one job in the foreground, taken from no server."""

import asyncio
import contextlib
import functools
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click
import msgspec
import setproctitle
from loguru import logger

from app.config import Client, ConfigError, Settings
from ipc.messages import Cause, Data, Get, Put
from supervisor.commands import COMPLETED, FAILED, WRONG, display
from supervisor.commands.logs import STDERR, logging_to_stderr
from supervisor.commands.progress import Lines
from supervisor.isolation import signals
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.limits import Limits
from supervisor.isolation.runtime import start_runtime
from supervisor.isolation.task_process import ServerExchange
from supervisor.jobs.job_run import JobRun, Verdict
from supervisor.jobs.model import Job, JobError
from supervisor.jobs.record import Failure
from supervisor.jobs.task_state import JobObserver

if TYPE_CHECKING:
    from supervisor.commands.bars import Bars


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that stop a job. SIGHUP is among them: it comes when the terminal goes away."""

_NOTES = {"success": "", "failure": "# only after a failure:", "always": "# after a failure, too:"}
"""What a dry run says of a task, by its `when`."""


@contextlib.contextmanager
def lazy_exchange(settings: Settings) -> Iterator[ServerExchange]:
    """An exchange with the API server. Its session is made when a module first asks, and closed at the end.

    Importing `requests` takes 50 ms, and few jobs use server-side data.
    """
    with contextlib.ExitStack() as stack:

        @functools.cache
        def with_session() -> ServerExchange:
            from supervisor.api.client import Session

            return stack.enter_context(contextlib.closing(Session(settings))).exchange

        async def exchange(request: Get | Put) -> Data:
            try:
                return await with_session()(request)
            except ConfigError as error:  # of the proxy: most jobs need none
                return Data(0, error=str(error))

        yield exchange


@contextlib.contextmanager
def _showing(level: str) -> Iterator["Bars | Lines"]:
    """Log to standard error, and show there how the job proceeds: live bars on a terminal, lines elsewhere.

    Where only warnings are logged, as with -q, there are no bars.
    """
    if not os.isatty(STDERR) or level in ("WARNING", "ERROR", "CRITICAL"):
        with logging_to_stderr(level):
            yield Lines()
        return
    from supervisor.commands.bars import Bars, Terminal, logging_above

    console = Terminal(stderr=True, highlight=False)
    with logging_above(console, level):
        yield Bars(console)


class Foreground:
    """One command: a job, the name of its file, and the configuration to run it with."""

    def __init__(
        self,
        job: Job,
        job_file: str,
        settings: Settings,
        client: Client,
        limits: dict[str, Limits],
    ) -> None:
        self._job = job
        self._job_file = job_file
        self._settings = settings
        self._client = client
        self._limits = limits
        self._interrupted_by: signal.Signals | None = None
        self._paused = False
        self._pausing: asyncio.Future[None] | None = None  # kept: the loop's weak reference would not keep it alive

    async def run(self, as_json: bool) -> int:
        """Run the job and show how it proceeds and ends. Returns the exit status."""
        with _showing(self._settings.log_level) as observer:
            async with self._starting(observer) as job:
                with observer.showing(job):
                    verdict = await job.run()
        return self._show(verdict, as_json)

    async def plan(self) -> int:
        """Validate the job and print the command lines that it would run. Returns the exit status."""
        async with self._quiet() as job:
            failure, plans = await job.plan()
        if self._interrupted_by:
            return 128 + self._interrupted_by
        if failure and failure.cause.unusable:
            return self._complain(failure)
        if failure:
            display.say(failure.headline, err=True)
            return FAILED
        words: list[str] = []
        for task, lines in plans:
            words += [note] if (note := _NOTES[task.task.when]) else []
            words += lines or (f"# {task.task.module}: no command line; it works in its own process",)
        return self._print("\n".join(words), "the command lines", COMPLETED)

    async def validate(self, refused: Sequence[JobError]) -> int:
        """Validate every task and print what is wrong with each. Returns the exit status.

        `refused` are the errors of tasks that could not be read; the job is without these tasks.
        """
        async with self._quiet() as job:
            failures = await job.check()
        if self._interrupted_by:
            return 128 + self._interrupted_by
        reports: list[tuple[int, str, Sequence[str], Sequence[str]]] = [
            (error.task or 0, error.module or "?", (str(error),), ()) for error in refused
        ]
        # The tasks that were read keep the indexes that they have in the file.
        indexes = (index for index in itertools.count() if index not in {error.task for error in refused})
        for index, run, failure in zip(indexes, job.tasks, failures, strict=False):
            problems = (failure.cause.problems or (failure.cause.message,)) if failure else ()
            reports.append((index, run.task.module, problems, run.warnings))
        display.show_problems(sorted(reports, key=itemgetter(0)))
        return FAILED if any(problems for _, _, problems, _ in reports) else COMPLETED

    async def inspect(self, probe: bool) -> int:
        """Show the module of every task, its tools and limits. Returns the exit status."""
        async with self._quiet() as job:
            found = await job.inspect("probe" if probe else "inspect")
        if self._interrupted_by:
            return 128 + self._interrupted_by
        return COMPLETED if display.show_modules(self._client, self._limits, found) else FAILED

    async def schema(self) -> int:
        """Print the JSON schema of a job whose tasks name these modules. Returns the exit status."""
        from supervisor.commands.schema import job_schema

        async with self._quiet() as job:
            found = await job.inspect("schema")
        if self._interrupted_by:
            return 128 + self._interrupted_by
        schemas: dict[str, Any] = {}
        for run, each in zip(job.tasks, found, strict=True):
            if isinstance(each, Failure):
                display.say(each.cause.message, err=True)
                return FAILED
            schemas[run.task.module] = json.loads(each.schema) if each.schema else None
        return self._print(json.dumps(job_schema(schemas), indent=2), "the schema", COMPLETED)

    @contextlib.asynccontextmanager
    async def _quiet(self) -> AsyncIterator[JobRun]:
        """The job, to be inspected: only warnings are logged."""
        with logging_to_stderr("WARNING"):
            async with self._starting(JobObserver()) as job:
                yield job

    @contextlib.asynccontextmanager
    async def _starting(self, observer: JobObserver) -> AsyncIterator[JobRun]:
        """The job with a runtime, ready to run. Signals act on it."""
        setproctitle.setproctitle(f"sisyphus-client: supervisor, job {self._job.job_id[:36]}")
        async with start_runtime(self._client, self._settings, self._limits) as runtime:
            with lazy_exchange(self._settings) as exchange:
                job = JobRun(self._job, runtime, observer, exchange=exchange)
                with self._interruptible(job):
                    yield job

    def _interruptible(self, job: JobRun) -> contextlib.AbstractContextManager[None]:
        def act(number: signal.Signals) -> None:
            if number == signal.SIGUSR2:
                self._paused = not self._paused
                logger.info("SIGUSR2: {}", "pausing; again to go on" if self._paused else "going on")
                self._pausing = asyncio.ensure_future(job.pause() if self._paused else job.resume())
                return
            again = self._interrupted_by is not None
            logger.warning("{}: {}", number.name, "killing the job" if again else "stopping the job; again to kill it")
            self._interrupted_by = self._interrupted_by or number
            self._paused = False
            job.stop(StopOrder(Cause("cancelled", f"cancelled by {number.name}"), now=again))

        is_immune = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup(1): the job outlives its terminal
        stopping = [number for number in STOPPING if not (is_immune and number == signal.SIGHUP)]
        return signals.handling([*stopping, signal.SIGUSR2], act)

    def _show(self, verdict: Verdict, as_json: bool) -> int:
        failure = verdict.failure
        if failure and failure.cause.unusable:
            return self._complain(failure)
        status = FAILED if failure else COMPLETED
        if failure and failure.cause.trouble:
            if verdict.earlier:
                display.say(verdict.earlier.headline, err=True)
            display.say(f"the client cannot work: {failure.cause.message}", err=True)
            return WRONG
        if as_json:
            record = msgspec.json.format(msgspec.json.encode(verdict.info)).decode()
            status = self._print(record, "the record", status)
        else:
            display.show_verdict(verdict)
        return 128 + self._interrupted_by if failure and self._interrupted_by else status

    def _print(self, text: str, name: str, status: int) -> int:
        """Print what the command was for; returns `status`, or that of a failure if it cannot be printed."""
        try:
            click.echo(text)
            if sys.stdout:  # else the caller has closed it, and does not want to read anything
                sys.stdout.flush()
        except OSError as error:
            display.say(f"{name} cannot be written: {error.strerror}", err=True)
            return FAILED
        return status

    def _complain(self, failure: Failure) -> int:
        display.say(f"{self._job_file}: tasks[{failure.task}].module: {failure.cause.message}", err=True)
        return WRONG
