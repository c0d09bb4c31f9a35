"""The command line, `sisyphus-client`.

Exit statuses: 0 the job completed, 1 it failed, 2 the file, the arguments or the settings are wrong, 128 + n it was
interrupted by signal n (130 for Ctrl-C).
"""

import asyncio
import io
import json
import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
import platformdirs
import setproctitle
from loguru import logger

from app.config import VERSION, Client, ConfigError, Settings, load_client, load_settings
from supervisor import display, signals
from supervisor.failure import Failure
from supervisor.job import Job, JobError, JobRun, Verdict, Watcher, read_job
from supervisor.limits import Limits, load_limits
from supervisor.means import means
from supervisor.task_process import Stop

COMPLETED, FAILED, WRONG = 0, 1, 2

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What stops a job, a terminal that goes away among it."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sisyphus-client")
def main() -> None:
    """The worker of the Sisyphus video-encoding farm."""
    _open_standard_streams()


@main.command()
@click.argument("job_file", metavar="JOB.json")
@click.option("--config", metavar="FILE", help="The configuration file (default: see the README).")
@click.option("--json", "as_json", is_flag=True, help="Print the job's record on standard output, and nothing else.")
@click.option("--dry-run", is_flag=True, help="Print the exact command lines and run nothing.")
def run(job_file: str, config: str | None, as_json: bool, dry_run: bool) -> None:
    """Run one job from a file, without a server."""
    try:
        settings, client, limits = _configure(config)
        job = _read_job_file(job_file, client)
    except (ConfigError, JobError) as error:
        _give_up(str(error))
    try:
        status = asyncio.run(_Run(job, job_file, settings, client, limits).main(as_json, dry_run))
        _let_go_of_standard_streams()
        sys.exit(status)
    except OSError as error:  # no temporary directory, no process to be had: what a job itself meets is on its record
        _give_up(f"the client cannot start: {error}")


class _Run:
    """One `run` command."""

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


def _open_standard_streams() -> None:
    """Fill what the caller has closed, or the next pipe or socket would become what modules print to."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path that the locale cannot show is no error


def _let_go_of_standard_streams() -> None:
    """Flush them now: what fails when the interpreter does it at its end makes the exit status 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, AttributeError):
            setattr(sys, name, None)


def _configure(config: str | None) -> tuple[Settings, Client, dict[str, Limits]]:
    try:
        state = os.environ.get("SISYPHUS_STATE_DIR", "").strip() or platformdirs.user_state_path("sisyphus-client")
    except RuntimeError as error:  # no HOME, and no such user
        raise ConfigError(f"SISYPHUS_STATE_DIR: is not set, and there is no place for state: {error}") from error
    settings = load_settings(os.environ, Path(state))
    client = load_client(config, os.environ)
    return settings, client, load_limits(client)


def _read_job_file(name: str, client: Client) -> Job:
    try:
        document = json.loads(
            Path(name).read_bytes(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates
        )
    except OSError as error:
        raise JobError(f"{name}: cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise JobError(f"{name}: line {error.lineno}, column {error.colno}: is not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{name}: byte {error.start}: is not JSON: not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise JobError(f"{name}: is not JSON: {error}") from error
    try:
        return read_job(document, client.modules, default_title=Path(name).stem)
    except JobError as error:
        raise JobError(f"{name}: {error}") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _outputs(verdict: Verdict) -> list[tuple[str, int]]:
    """The files that completed tasks wrote and that are still there."""
    found: dict[str, int] = {}
    for run in verdict.tasks:
        for name in run.ready.outputs if run.result == "completed" else ():
            path = os.fsdecode(name)
            if os.path.isfile(path):
                found[path] = os.path.getsize(path)
    return list(found.items())


def _give_up(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(WRONG)
