"""Orders: `retry`, `cancel` and `move` for jobs; `workers`, and what they are told."""

import getpass
import os
import socket
from collections.abc import Callable
from typing import Any

import click
import requests

from app.formats import quote_part
from supervisor.commands import COMPLETED, FAILED
from supervisor.commands.display import print_table, say
from supervisor.commands.farm.client import FarmClient, farm_command, print_json, tell_none
from supervisor.commands.farm.jobs import before_option, module_option, since_option, worker_option
from supervisor.commands.farm.tables import describe_task, short, show_time

_ids = click.argument("jobs", metavar="ID...", nargs=-1)


@farm_command("retry")
@_ids
@click.option("--failed", is_flag=True, help="All failed jobs that the other options name, once each.")
@module_option
@worker_option
@since_option
@before_option
def retry_command(farm: FarmClient, as_json: bool, jobs: tuple[str, ...], failed: bool, **filters: str | None) -> int:
    """A copy of each job goes to the end of the queue; prints the copies' ids. With --failed, jobs count by the time of
    their end, and those of which there is a copy already are left out. Status 1 if there is no such job.
    """
    if bool(jobs) == failed or (jobs and any(filters.values())):
        raise click.UsageError("name jobs by their ids, or say --failed")
    farm.need_ours("run a job again")
    names = _failed(farm, filters) if failed else [farm.find_job(job) for job in jobs]
    return _for_each(names, as_json, lambda job_id: _retry(farm, job_id))


def _failed(farm: FarmClient, filters: dict[str, str | None]) -> list[str]:
    found = list(farm.jobs(state="failed", time="ended", **filters))
    if not found:
        return []
    copied = {job.get("retry_of") for job in farm.jobs(since=min(job["ended_at"] for job in found))}
    return [job["job_id"] for job in reversed(found) if job["job_id"] not in copied]


def _retry(farm: FarmClient, job_id: str) -> dict[str, str]:
    answer = farm.ask("POST", f"/jobs/{quote_part(job_id)}/retry", accept=(404, 409))
    return {"job_id": job_id} | ({"copy": answer["job_id"]} if answer.is_done else {"error": answer["message"]})


@farm_command("cancel")
@_ids
def cancel_command(farm: FarmClient, as_json: bool, jobs: tuple[str, ...]) -> int:
    """A job that waits ends at once, one that runs when its worker hears of it. Status 1 if one has ended already."""
    return _for_each([farm.find_job(job) for job in _named(jobs)], as_json, lambda job_id: _cancel(farm, job_id))


def _cancel(farm: FarmClient, job_id: str) -> dict[str, str]:
    path = f"/jobs/{quote_part(job_id)}"
    if not farm.is_ours:  # it knows no more than to delete; workers with CANCEL_DELETED_JOBS stop then
        found = farm.call("DELETE", path, accept=(404,)).status != requests.codes.not_found
        return {"job_id": job_id} | ({"done": "deleted"} if found else {"error": "No job with this id waits or runs."})
    answer = farm.ask("POST", f"{path}/cancel", accept=(404,), by=f"{_user()}@{socket.gethostname()}")
    if not answer.is_done:
        return {"job_id": job_id, "error": answer["message"]}
    return {"job_id": job_id, "done": "cancelled" if answer["state"] == "queued" else "its worker is told to stop"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have no name; OSError since Python 3.13
        return str(os.getuid())


@farm_command("move")
@_ids
@click.option("--priority", type=int, metavar="N", help="Give this priority: higher ones come first, 0 is the default.")
def move_command(farm: FarmClient, as_json: bool, jobs: tuple[str, ...], priority: int | None) -> int:
    """Without --priority to the head, the first one foremost. Status 1 if one does not wait."""
    farm.need_ours("change the order of its queue")
    names = [farm.find_job(job) for job in _named(jobs)]
    body = {"position": "head"} if priority is None else {"priority": priority}

    def move(job_id: str) -> dict[str, str]:
        answer = farm.ask("PATCH", f"/jobs/{quote_part(job_id)}", body, accept=(404,))
        if not answer.is_done:
            return {"job_id": job_id, "error": answer["message"]}
        return {"job_id": job_id, "done": "is the next one" if priority is None else f"has the priority {priority}"}

    return _for_each(names[::-1], as_json, move)


def _named(jobs: tuple[str, ...]) -> tuple[str, ...]:
    if not jobs:
        raise click.UsageError("Missing argument 'ID...'.")
    return jobs


def _for_each(names: list[str], as_json: bool, order: Callable[[str], dict[str, str]]) -> int:
    """Give an order for each job and print what came of it; returns the exit status."""
    done: list[dict[str, str]] = []
    try:
        for name in names:
            done.append(order(name))
            if not as_json and "error" in done[-1]:
                say(f"{name}: {done[-1]['error']}", err=True)
            elif not as_json:
                click.echo(done[-1].get("copy") or f"{name}: {done[-1]['done']}")
    finally:
        if as_json:
            print_json(done)  # what was done before the server went away, too
    if not done:
        return tell_none("There is no such job.")
    return FAILED if any("error" in each for each in done) else COMPLETED


@farm_command("workers")
def workers_command(farm: FarmClient, as_json: bool) -> int:
    """A machine has a worker for each of its slots. Status 1 if no worker is alive."""
    answer = farm.get("/workers")
    if as_json:
        print_json(answer)
    elif rows := [_row(worker) for worker in (*(answer["workers"] or ()), *answer.get("lost", ()))]:
        print_table(("id", "host", "version", "tags", "state", "since", "job", "doing"), rows)
    return COMPLETED if answer["workers"] else tell_none("No worker is alive.")


def _row(worker: dict[str, Any]) -> tuple[str, ...]:
    attributes = worker.get("attributes") or {}
    states = {"in_progress": "works", "idle": "idle", "startup": "starts"}
    state = [states.get(worker.get("status", ""), worker.get("status", ""))]
    state += [name for name in ("disabled", "paused") if attributes.get(name)]
    return (
        short(worker["worker_id"]),
        worker.get("hostname", ""),
        worker.get("version", ""),
        ", ".join(attributes.get("tags") or ()),
        ", ".join(state),
        show_time(worker.get("seen_at") or worker.get("online_at")),
        short(worker.get("job_id", "")),
        describe_task(worker),
    )


def _order(name: str, words: str, setting: tuple[str, bool]) -> click.Command:
    """Make the command that gives a machine's workers, or the queue, a setting."""

    @farm_command(name)
    @click.argument("worker", required=False)
    @click.option("--queue", is_flag=True, help="All workers: the queue gives no jobs, or gives them again.")
    def command(farm: FarmClient, as_json: bool, worker: str | None, queue: bool) -> int:
        """WORKER is a machine's host name, a worker's id, or the beginning of one."""
        if (worker is None) != queue:
            raise click.UsageError("name a worker, or say --queue")
        names = ["queue"] if worker is None else farm.find_workers(worker)
        if setting[0] == "paused" and not queue:
            farm.need_ours("pause a worker")
        for each in names:
            _set(farm, each if worker else "", setting)
        if as_json:
            print_json([{"name": each, "done": words} for each in names])
        else:
            click.echo("\n".join(f"{each}: {words}" for each in names))
        return COMPLETED

    return command


def _set(farm: FarmClient, worker: str, setting: tuple[str, bool]) -> None:
    """Give a worker a setting; with "", the queue, which knows only one."""
    if not worker:
        farm.call("PATCH", "/queue", {"disabled": setting[1]})
        return
    path = f"/workers/{quote_part(worker)}"
    farm.find(path)  # sisyphus-server 1.3.3 fails at a worker whose record was never read
    farm.call("PATCH", path, {setting[0]: setting[1]})


pause_command = _order("pause", "paused", ("paused", True))
resume_command = _order("resume", "resumed", ("paused", False))
disable_command = _order("disable", "disabled", ("disabled", True))
enable_command = _order("enable", "enabled", ("disabled", False))
