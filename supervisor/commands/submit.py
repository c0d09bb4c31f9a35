"""`sisyphus-client submit`: put a job into the queue, and watch it to its end."""

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

LOOK_INTERVAL = 1.0
"""Seconds between two looks at a job that is watched."""


async def submit(settings: Settings, job: Mapping[str, Any], wait: bool) -> bool:
    """Post a job and print its id, and with `wait` how it ended. Returns whether all went well."""
    session = Session(settings)
    try:
        job_id = await session.post(job)
        click.echo(job_id)
        return not wait or await _watch(session, job_id)
    except SessionError as error:
        click.echo(f"the API server at {shown_url(settings.api_url)} does not take the job: {error}", err=True)
        return False
    finally:
        session.close()


async def _watch(session: Session, job_id: str) -> bool:
    console = Terminal(stderr=True, highlight=False)
    said = ""
    with Status("", console=console) if console.is_terminal else contextlib.nullcontext() as status:
        while (state := await _state(session, job_id)) is not None:
            if status:
                status.update(state)
            elif state != said:
                click.echo(state, err=True)
            said = state
            await asyncio.sleep(LOOK_INTERVAL)
    verdict = await session.completed(job_id)
    if not isinstance(verdict, dict) or not isinstance(verdict.get("info"), dict):
        click.echo("It has ended; this server does not tell how. The worker's log does.", err=True)
        return True
    info = verdict["info"]
    click.echo(info.get("message", "failed") if verdict.get("failed") else f"completed in {info.get('runtime')} s")
    return not verdict.get("failed")


async def _state(session: Session, job_id: str) -> str | None:
    """What has become of a job, in words; `None` when it has ended."""
    try:
        if await session.job(job_id) is None:
            return None
        for worker in await session.workers():
            if worker.job_id == job_id:
                percent = "" if worker.progress is None else f", {worker.progress:.0f} %"
                return f"{worker.hostname}: {worker.task or 'begins'}{percent}"
    except SessionError as error:
        return f"the API server does not answer: {error}"
    return "in the queue"
