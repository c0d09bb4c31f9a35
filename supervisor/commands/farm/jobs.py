"""`jobs` and `show`: lists of jobs, and everything of one."""

import itertools
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from supervisor.api.errors import SessionError
from supervisor.commands import COMPLETED, FAILED
from supervisor.commands.display import describe_result, print_table, say, show_tasks
from supervisor.commands.farm.client import ENDED, FarmClient, farm_command, print_json, tell_none
from supervisor.commands.farm.follow import INTERVAL, LogReader, follow
from supervisor.commands.farm.tables import describe_task, find_beat, info_of, read_time, short, show_time

OVERLAP = timedelta(minutes=10)
"""By so much the clock of the server may be behind that of this machine."""

STATES = ("queued", "running", *ENDED)

since_option = click.option(
    "--since",
    metavar="TIME",
    callback=read_time,
    help='Only jobs from this time on: "2h" ago, "yesterday", "2026-01-31 22:00".',
)
before_option = click.option("--before", metavar="TIME", callback=read_time, help="Only jobs from before this time.")
module_option = click.option("--module", metavar="NAME", help="Only jobs with a task of this module.")
worker_option = click.option("--worker", metavar="NAME", help="Only jobs of this worker: its whole host name or id.")


@farm_command("jobs")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@module_option
@worker_option
@click.option("--text", metavar="TEXT", help="Only jobs with this in their title.")
@since_option
@before_option
@click.option("--limit", type=click.IntRange(1, 10**9), default=50, show_default=True, help="At most so many jobs.")
@click.option("--follow", "-f", "following", is_flag=True, help="Go on, and print each job that comes to the list.")
def jobs_command(
    farm: FarmClient, as_json: bool, text: str | None, limit: int, following: bool, **filters: str | None
) -> int:
    """Times are those of a job's end with --state completed, failed or cancelled, else those of its submission. The
    newest job comes first. Status 1 if there is none.
    """
    query = filters | {"q": text, "time": "ended" if filters["state"] in ENDED else None}
    if filters["state"] in ENDED or filters["since"] or filters["before"]:
        farm.need_ours("tell of jobs that have ended, or of times")
    begun = datetime.now(UTC)
    before = _recent(farm, query, begun) if following else []
    found = list(itertools.islice(farm.jobs(**query, limit=limit), limit))
    if as_json:
        print_json(found)
    else:
        _print_jobs(farm, found)
    if following:
        _follow_list(farm, query, begun, {job["job_id"] for job in (*before, *found)}, as_json)
    return COMPLETED if found else tell_none("There is no such job.")


def _follow_list(farm: FarmClient, query: dict[str, Any], looked: datetime, seen: set[str], as_json: bool) -> None:
    is_away = False
    while True:
        time.sleep(INTERVAL)
        now = datetime.now(UTC)
        try:
            new = [job for job in _recent(farm, query, looked) if job["job_id"] not in seen]
            if new and as_json:
                print_json(new)
            elif new:
                _print_jobs(farm, new)
        except SessionError as error:
            if not is_away:
                say(f"API server {farm.url}: {error}; asking again", err=True)
            is_away = True
            continue
        seen |= {job["job_id"] for job in new}
        is_away, looked = False, now


def _recent(farm: FarmClient, query: dict[str, Any], looked: datetime) -> list[dict[str, Any]]:
    """The jobs that may have come to a list since it was looked at, and not all of a long history."""
    if farm.is_ours and query["state"] != "running":  # a job may run long after the time that counts for it
        query = query | {"since": max(query["since"] or "", (looked - OVERLAP).isoformat())}
    return list(farm.jobs(**query))


def _print_jobs(farm: FarmClient, listed: Sequence[dict[str, Any]]) -> None:
    workers = farm.workers() if any(job["state"] == "running" for job in listed) else []
    rows, below = [], []
    for job in listed:
        when = job.get("ended_at") or job.get("started_at") or job.get("added_at")
        beat = find_beat(job, workers) if job["state"] == "running" else {}
        host = job.get("hostname") or beat.get("hostname", "")
        rows.append((short(job["job_id"]), job["state"], show_time(when), host, job["job_title"]))
        below.append(job.get("message", "") if job["state"] in ENDED else describe_task(beat))
    if rows:
        print_table(("id", "state", "since", "worker", "title"), rows, below)


@farm_command("show")
@click.argument("job", metavar="ID")
@click.option("--log", is_flag=True, help="Show the worker's log of the job, too.")
@click.option("--follow", "-f", "following", is_flag=True, help="Wait for the job's end, and show how it proceeds.")
def show_command(farm: FarmClient, as_json: bool, job: str, log: bool, following: bool) -> int:
    """ID is a job's id, or its beginning. Status 1 if the job failed or was cancelled, or there is none."""
    job_id = farm.find_job(job)
    if log:
        farm.need_ours("tell a job's log")
    reader = LogReader(farm) if log else None
    if following:
        job_id, _ = follow(farm, job_id, reader)
    record = farm.record(job_id)
    if record is None:
        known = "There is no job" if farm.is_ours else "No job is queued or running"
        return tell_none(f"{known} with the id {job_id}.")
    if as_json:
        print_json(record | ({"log": reader.read(job_id)} if reader else {}))
    else:
        _print_record(farm, record)
        if reader:
            reader.show_news(job_id)
    return FAILED if record["state"] in ("failed", "cancelled") else COMPLETED


def _print_record(farm: FarmClient, record: dict[str, Any]) -> None:
    say(f"{record['job_id']}  {record['state']}")
    for name, value in _facts(record):
        if value:
            say(f"{name:<9} {' '.join(value.split())}")
    info = info_of(record)
    if info["tasks"]:
        show_tasks(info["tasks"])
    else:
        modules = ", ".join(f"{index}:{task['module']}" for index, task in enumerate(record["tasks"]))
        say(f"{'tasks':<9} {modules}")
    if record["state"] == "running":
        say(f"{'now':<9} {describe_task(find_beat(record, farm.workers()))}")
    for line in describe_result(info):
        say(line)
    error = info["error"]
    for line in (*filter(None, [record.get("message")]), *error.get("stderr", error.get("log", ()))):
        say(line)


def _facts(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "title", record["job_title"]
    for name in ("added", "started", "ended"):
        yield name, show_time(record.get(f"{name}_at"))
    worker = record.get("worker_id", "")
    yield "worker", f"{record['hostname']} ({worker})" if record.get("hostname") else worker
    yield "priority", str(record.get("priority") or "")
    yield "requires", ", ".join(record.get("requires", ()))
    yield "retry of", record.get("retry_of", "")
    yield "cancelled", f"by {record['cancelled_by']}" if record.get("cancelled_by") else ""
    yield "waits", record.get("why", "")
    for attempt in record["attempts"][:-1]:
        lost_by = attempt.get("hostname") or attempt.get("worker_id", "a worker")
        yield "before", f"{show_time(attempt.get('started_at'))} {lost_by}: {attempt.get('result', '')}"
