"""`sisyphus-client submit`: puts a job into the queue and watches it to its end."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import click
from rich.status import Status

from app.config import Settings, shown_url
from supervisor.api.client import Session
from supervisor.api.errors import SessionError
from supervisor.commands.display import Terminal

WATCH_INTERVAL = 1.0
"""Seconds between two requests for the state of a job."""


async def submit(settings: Settings, job: Mapping[str, Any], wait: bool) -> bool:
    """Post a job and print its id, with `wait` also its result. Returns whether all succeeded."""
    with contextlib.closing(Session(settings)) as session:
        try:
            job_id = await session.post(job)
        except SessionError as error:
            click.echo(f"API server {shown_url(settings.api_url)} has not taken the job: {error}", err=True)
            return False
        click.echo(job_id)
        if not wait:
            return True
        await _show_states(session, job_id)
        return await _show_result(session, job_id)


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


async def _show_result(session: Session, job_id: str) -> bool:
    try:
        verdict = await session.completed(job_id)
    except SessionError as error:
        click.echo(f"The job has ended. The API server does not tell the result: {error}", err=True)
        return False
    if not isinstance(verdict, dict) or not isinstance(verdict.get("info"), dict):
        click.echo("The job has ended. This server does not tell the result; see the worker's log.", err=True)
        return True
    info = verdict["info"]
    click.echo(info.get("message", "failed") if verdict.get("failed") else f"completed in {info.get('runtime')} s")
    return not verdict.get("failed")


async def _state(session: Session, job_id: str) -> str | None:
    """Return the state of a job, for a person; `None` when it has ended."""
    try:
        if await session.job(job_id) is None:
            return None
        for worker in await session.workers():
            if worker.job_id == job_id:
                percent = "" if worker.progress is None else f", {worker.progress:.0f} %"
                return f"{worker.hostname}: {worker.task or 'begins'}{percent}"
    except SessionError as error:
        return f"the API server does not tell: {error}"
    return "in the queue"
