"""Following a job to its end, through all the ids that it gets: `show --follow` and `submit --wait`."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import click
import requests
from rich.status import Status
from rich.text import Text

from app.formats import quote_part
from supervisor.api.errors import SessionError
from supervisor.commands.bars import Terminal
from supervisor.commands.display import plain, say
from supervisor.commands.farm.client import ENDED, FarmClient
from supervisor.commands.farm.tables import describe_task, find_beat

INTERVAL = 1.0
"""Seconds between two requests for the state of a job."""

LOOKS = 5
"""Looks for a job that is gone. A worker that has just taken it under its new id tells that with its next heartbeat."""

MOST_WORKERS = 20
"""Workers that are asked whether they are disabled. With more of them, one is likely to be enabled."""


class LogReader:
    """Prints a job's log as it grows."""

    def __init__(self, farm: FarmClient) -> None:
        self._farm = farm
        self._shown = ""

    def read(self, job_id: str) -> str:
        """Return the log; empty if there is none."""
        log = self._farm.call("GET", f"/jobs/{quote_part(job_id)}/log", accept=(404,))
        return "" if log.status == requests.codes.not_found else log.body.decode(errors="replace")

    def show_news(self, job_id: str) -> None:
        """Print what is new. Of a log whose middle was cut out meanwhile, print all."""
        text = self.read(job_id)
        new = text.removeprefix(self._shown)
        self._shown = text
        for line in new.splitlines():
            say(line)


def follow(farm: FarmClient, job_id: str, log: LogReader | None = None) -> tuple[str, dict[str, Any] | None]:
    """Wait for a job's end; returns its last id, and its record if the server still has one.

    The state is told on standard error: in one line on a terminal, in a line for each change elsewhere.
    """
    console = Terminal(stderr=True, highlight=False)
    shown, looks = "", 0
    with Status("", console=console) if console.is_terminal else contextlib.nullcontext() as status:
        while looks < LOOKS:
            try:
                record = farm.record(job_id)
                if log and record:
                    log.show_news(job_id)
                if record and record["state"] in ENDED:
                    return job_id, record
                new_id = record["job_id"] if record else farm.posted_again(job_id)
                state = _describe_state(farm, record) if record else ""
                looks = 0 if record or new_id else looks + 1
            except SessionError as error:
                new_id, state = None, f"the API server does not tell: {error}"
            if new_id and new_id != job_id:
                click.echo(f"handed back to the queue, as {new_id}", err=True)
                job_id = new_id
                continue
            if status:
                status.update(Text(plain(state)))
            elif state and state != shown:
                say(state, err=True)
            shown = state
            time.sleep(INTERVAL)
    return job_id, None


def _describe_state(farm: FarmClient, record: Mapping[str, Any]) -> str:
    workers = farm.workers()
    if beat := find_beat(record, workers):
        return f"{beat['hostname']}: {describe_task(beat) or 'begins'}"
    if record["state"] == "running":
        return "given to a worker"
    if "why" in record:
        return f"in the queue: {record['why']}"
    return "in the queue" + _obstacle(farm, [worker["worker_id"] for worker in workers])


def _obstacle(farm: FarmClient, workers: list[str]) -> str:
    """Tell why nobody will take a job of another server than ours; empty if somebody may."""
    if farm.get("/queue")["attributes"]["disabled"]:
        return ": the queue is disabled"
    if not workers:
        return ": no worker is alive"
    records = (farm.find(f"/workers/{quote_part(worker)}") or {} for worker in workers)
    if len(workers) <= MOST_WORKERS and all(record.get("attributes", {}).get("disabled") for record in records):
        return ": all workers are disabled"
    return ""
