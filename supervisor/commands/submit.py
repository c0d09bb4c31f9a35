"""`sisyphus-client submit`: puts a job into the queue and watches it to its end."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
from loguru import logger
from rich.filesize import decimal
from rich.status import Status

from app.config import Settings, shown_url
from supervisor.api.client import Session
from supervisor.api.errors import SessionError
from supervisor.commands import job_files
from supervisor.commands.bars import Terminal
from supervisor.commands.shared import read_settings, run_to_end
from supervisor.worker.outbox import find_posted

COMPLETED, FAILED, UNKNOWN = 0, 1, 3
"""Exit statuses: the job completed; it failed, or was cancelled or deleted; nobody tells how it ended."""

WATCH_INTERVAL = 1.0
"""Seconds between two requests for the state of a job."""

LOOKS = 5
"""Looks for a job that is gone. A worker that has just taken it under its new id tells that with its next heartbeat."""

MOST_WORKERS = 20
"""Workers that are asked whether they are disabled. With more of them, one is likely to be enabled."""


async def submit(settings: Settings, job: Mapping[str, Any], wait: bool) -> int:
    """Post a job and print its id, with `wait` also its result. Returns the exit status."""
    with contextlib.closing(Session(settings)) as session:
        try:
            job_id = await session.post(job)
        except SessionError as error:
            click.echo(f"API server {shown_url(settings.api_url)} has not taken the job: {error}", err=True)
            return FAILED
        click.echo(job_id)
        return await _watch(session, job_id) if wait else COMPLETED


async def _watch(session: Session, job_id: str) -> int:
    """Follow a job to its end, through all the ids that it gets; print the result and return the exit status."""
    looks = 0
    while True:
        await _show_states(session, job_id)
        try:
            is_embedded = await session.is_embedded_server()  # another server does not keep verdicts
            if is_embedded and (verdict := await session.completed(job_id)) is not None:
                return _show_result(verdict)
            new_id = await find_posted(session, job_id)
        except SessionError as error:
            click.echo(f"The job has ended. The API server does not tell the result: {error}", err=True)
            return UNKNOWN
        looks = looks + 1 if new_id is None else 0
        if looks == LOOKS:
            return _show_no_result(is_embedded)
        if new_id is None:
            await asyncio.sleep(WATCH_INTERVAL)
            continue
        click.echo(f"handed back to the queue, as {new_id}", err=True)
        job_id = new_id


async def _show_states(session: Session, job_id: str) -> None:
    console = Terminal(stderr=True, highlight=False)
    shown = ""
    with Status("", console=console) if console.is_terminal else contextlib.nullcontext() as status:
        while (state := await _state(session, job_id)) is not None:
            if status:
                status.update(state)
            elif state != shown:
                click.echo(state, err=True)
            shown = state
            await asyncio.sleep(WATCH_INTERVAL)


async def _state(session: Session, job_id: str) -> str | None:
    """Return the state of a job, for a person; `None` when it has ended."""
    try:
        if await session.job(job_id) is None:
            return None
        workers = await session.workers()
        for worker in workers:
            if worker.job_id == job_id:
                percent = "" if worker.progress is None else f", {worker.progress:.0f} %"
                return f"{worker.hostname}: {worker.task or 'begins'}{percent}"
        return "in the queue" + await _obstacle(session, [worker.worker_id for worker in workers])
    except SessionError as error:
        return f"the API server does not tell: {error}"


async def _obstacle(session: Session, workers: list[str]) -> str:
    """Tell why nobody will take a job; empty if somebody may."""
    if await session.queue_disabled():
        return ", which is disabled"
    if not workers:
        return "; no worker is alive"
    if len(workers) <= MOST_WORKERS and all(await asyncio.gather(*map(session.worker_disabled, workers))):
        return "; all workers are disabled"
    return ""


def _show_no_result(is_embedded: bool) -> int:
    if is_embedded:
        click.echo("deleted: the API server has neither the job nor a result of it", err=True)
        return FAILED
    click.echo("The job has ended. This server does not tell the result; see the worker's log.", err=True)
    return UNKNOWN


def _show_result(verdict: Any) -> int:
    info = verdict.get("info") if isinstance(verdict, dict) else None
    if not isinstance(info, dict):
        click.echo("The job has ended. The API server's record of it has another form than expected.", err=True)
        return UNKNOWN
    failed = bool(verdict.get("failed"))
    for line in _describe(verdict.get("job_title"), info):
        click.echo(line)
    click.echo(info.get("message", "failed") if failed else f"completed in {info.get('seconds')} s")
    return FAILED if failed else COMPLETED


def _describe(title: Any, info: Mapping[str, Any]) -> Iterator[str]:
    """The title, outputs and warnings of a job, a line each."""
    yield f"{title}"
    for index, task in enumerate(info.get("tasks", ())):
        for output in task.get("outputs", ()):
            yield f"Output: {output['path']} ({decimal(output['bytes'])})"
        for warning in task.get("warnings", ()):
            yield f"Warning of task {index}:{task.get('module')}: {warning}"


@click.command("submit")
@click.argument("job_file", metavar="JOB.json")
@click.option("--wait", is_flag=True, help="Wait for the end; status 0 if completed, 1 if not, 3 if unknown.")
def submit_command(job_file: str, wait: bool) -> None:
    settings = read_settings()
    document = job_files.read_document(job_file)
    job = job_files.read_job_of(job_file, document, job_files.modules_of(document))
    logger.remove()  # `submit` prints its errors itself; the session would log them, too
    body = {"job_title": job.job_title, "tasks": document["tasks"]}
    sys.exit(run_to_end(submit(settings, body, wait)))
