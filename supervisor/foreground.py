"""`sisyphus-client run`: one job in the foreground, without a server."""

import asyncio
import os
import signal
import sys
from contextlib import AbstractContextManager

import click
import msgspec
import setproctitle
from loguru import logger

from app.config import Client, Settings
from supervisor import display, signals
from supervisor.failure import Failure
from supervisor.job import Job, JobRun, Verdict, Watcher
from supervisor.limits import Limits
from supervisor.means import means
from supervisor.task_process import Stop

COMPLETED, FAILED, WRONG = 0, 1, 2
"""Exit statuses."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What stops a job, a terminal that goes away among it."""


class Foreground:
    """One `run` command: a job, its file's name, and how it is to be run."""

    def __init__(self, job: Job, job_file: str, settings: Settings, client: Client, limits: dict[str, Limits]) -> None:
        self._job = job
        self._job_file = job_file
        self._settings = settings
        self._client = client
        self._limits = limits
        self._interrupted_by: signal.Signals | None = None
        self._paused = False
        self._pausing: asyncio.Future[None] | None = None  # kept, or it could be collected half-way

    async def main(self, as_json: bool, dry_run: bool) -> int:
        """Run the job and show it; returns the exit status."""
        setproctitle.setproctitle(f"sisyphus-client: supervisor, job {self._job.job_id[:36]}")
        console = display.Terminal(stderr=True, highlight=False)
        with display.logging_to(console, "WARNING" if dry_run else self._settings.log_level):
            watcher = display.Bars(console) if console.is_terminal else display.Lines()
            async with means(self._client, self._settings, self._limits) as shared:
                if dry_run:
                    return await self._plan(JobRun(self._job, shared, Watcher()))
                job = JobRun(self._job, shared, watcher)
                with watcher.showing(job), self._interruptible(job):
                    verdict = await job.run()
        return self._show(verdict, as_json)

    def _interruptible(self, job: JobRun) -> AbstractContextManager[None]:
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
            job.stop(Stop("cancelled", f"cancelled by {number.name}", now=again))

        return signals.handling([*STOPPING, signal.SIGUSR2], act)

    async def _plan(self, job: JobRun) -> int:
        with self._interruptible(job):
            failure, plans = await job.plan()
        if self._interrupted_by:
            return 128 + self._interrupted_by
        if failure and failure.unusable:
            return self._complain(failure)
        if failure:
            click.echo(failure.headline, err=True)
            return FAILED
        for task, lines in plans:
            for line in lines or (f"# {task.task.module}: no command line; it works in its own process",):
                click.echo(line)
        return COMPLETED

    def _show(self, verdict: Verdict, as_json: bool) -> int:
        failure = verdict.failure
        if failure and failure.unusable:
            return self._complain(failure)
        if as_json:
            try:
                click.echo(msgspec.json.format(msgspec.json.encode(verdict.info)))
                sys.stdout.flush()
            except OSError as error:
                click.echo(f"the record cannot be written: {error.strerror}", err=True)
                return FAILED
        else:
            display.show_verdict(verdict, _outputs(verdict))
        if failure and self._interrupted_by:
            return 128 + self._interrupted_by
        return FAILED if failure else COMPLETED

    def _complain(self, failure: Failure) -> int:
        click.echo(f"{self._job_file}: tasks[{failure.task}].module: {failure.message}", err=True)
        return WRONG


def _outputs(verdict: Verdict) -> list[tuple[str, int]]:
    """The files that completed tasks wrote and that are still there."""
    found: dict[str, int] = {}
    for run in verdict.tasks:
        for name in run.ready.outputs if run.result == "completed" else ():
            path = os.fsdecode(name)
            if os.path.isfile(path):
                found[path] = os.path.getsize(path)
    return list(found.items())
