"""What the views show, from the jobs, the workers and the orders."""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from server.job_routes import trouble_of, why_waiting
from server.services import Services
from server.storage.history import Place
from server.storage.needs import ANYTHING, Need

MAX_SHOWN = 2000
"""Running jobs and workers that a view shows."""

QUEUE_PAGE = 100

STATES = ("queued", "running", "completed", "failed", "cancelled")

OPTIONAL = {"hostname": "", "version": "", "online_at": "", "job_id": "", "job_title": "", "info": {}}
"""What the page shows of a heartbeat, and a heartbeat may lack. One of another version may lack anything."""

LOG_TAIL = 20_000
"""Characters of a log's end that a job's page shows."""

SOURCES = ("sources", "source", "delete", "move", "copy", "output_file")
"""Where the bundled modules' data names files, the most telling first."""


def list_running(services: Services, limit: int = MAX_SHOWN) -> list[dict[str, Any]]:
    """Return running jobs, each with the worker that names it, if there is one, and with its file."""
    by_job = {worker["job_id"]: worker for worker in list_workers(services)}
    jobs = services.history.running(limit)
    return [
        job | {"worker": by_job.get(job["job_id"]), "file": _file_of(job["tasks"], by_job.get(job["job_id"]))}
        for job in jobs
    ]


def _file_of(tasks: list[Any], worker: dict[str, Any] | None) -> str:
    """The file that a job works on, as well as its data tells."""
    module = (worker or {}).get("task")
    for task in sorted(tasks, key=lambda task: task["module"] != module):
        data = task.get("data", {})
        for key in SOURCES:
            if name := _first_name(data.get(key)):
                return name
    return ""


def _first_name(value: Any) -> str:
    match value:
        case str():
            return value
        case [first, *_]:
            return _first_name(first)
        case {"filename": name} | {"source": name}:
            return _first_name(name)
    return ""


def list_workers(services: Services) -> list[dict[str, Any]]:
    """Return all workers, live and lost, by host: the last heartbeat, the orders, what they can do, the state."""
    standing, known = services.orders.standing, services.workers
    live, seen = known.all(), known.seen()
    lost = {name: beat.status or {} for name, beat in known.lost().items()}
    workers = []
    for name, status in [*live.items(), *lost.items()]:
        ability = known.abilities.get(name, ANYTHING)
        worker = (
            OPTIONAL
            | status
            | {
                "worker_id": name,
                "is_lost": name not in live,
                "disabled": name in standing.disabled,
                "paused": name in standing.paused,
                "modules": None if ability.modules is None else sorted(ability.modules),
                "tags": sorted(ability.tags),
                "seen_at": seen.get(name, 0.0),
            }
        )
        workers.append(worker | {"state": _state(worker), "kind": _kind(worker)})
    slots = Counter(worker["hostname"] for worker in workers if not worker["is_lost"])
    workers.sort(key=lambda worker: (worker["hostname"], worker["worker_id"]))
    return [worker | {"slots": slots[worker["hostname"]]} for worker in workers]


def text_of(worker: dict[str, Any]) -> str:
    """Return what a search for workers looks at."""
    told = (worker["hostname"], worker["worker_id"], worker["state"], *worker["tags"])
    return "\n".join([*told, *(worker["modules"] or ())]).lower()


def _state(worker: dict[str, Any]) -> str:
    if worker["is_lost"]:
        return "lost"
    if worker["paused"] or worker["info"].get("paused") is True:
        return "paused"
    if worker["status"] == "idle" and trouble_of(worker):
        return "in trouble"
    state = {"in_progress": "running", "idle": "idle"}.get(worker["status"], "starting")
    return "disabled" if worker["disabled"] and state != "running" else state


def _kind(worker: dict[str, Any]) -> str:
    """What a row of the page depends on besides the progress; `progress.js` compares it."""
    info = worker["info"]
    status = "lost" if worker["is_lost"] else worker["status"]
    told = (status, worker["job_id"], worker["disabled"], worker["paused"], info.get("paused") is True)
    return json.dumps([*told, trouble_of(worker)], ensure_ascii=False, separators=(",", ":"))


def list_queue(services: Services, after: Place | None) -> tuple[list[dict[str, Any]], Place | None]:
    """Return a page of the queue, the next job first, each with why it waits; and where the next page begins."""
    jobs, following = services.history.queued(after, QUEUE_PAGE)
    return list(_with_reasons(services, jobs)), following


def _with_reasons(services: Services, jobs: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    reasons: dict[Need, str] = {}
    for job in jobs:
        need = Need(frozenset(job["modules"]), frozenset(job["requires"]))
        if need not in reasons:
            reasons[need] = why_waiting(services, need)
        yield job | {"why": reasons[need]}


def read_place(text: str) -> Place | None:
    """Read the place in the queue of a link to its next page; `None` for the head."""
    try:
        place = Place(*map(int, text.split(".")))
    except (TypeError, ValueError):
        return None
    return place if abs(place.priority) < 1 << 31 and max(map(abs, place)) < 1 << 62 else None


def show_job(services: Services, job_id: str) -> dict[str, Any] | None:
    """Return all that a job's page shows; `None` if there is no such job."""
    record = services.history.record(job_id)
    if record is None:
        return None
    job_id = record["job_id"]  # or it was handed back since
    log = services.history.log(job_id)
    info = record.get("info", {})
    again = {"job_title": record["job_title"], "tasks": record["tasks"]}
    again |= {key: record[key] for key in ("priority", "requires") if record[key]}
    if record["state"] == "queued":
        record |= next(iter(_with_reasons(services, [record])))
    worker = next((worker for worker in list_workers(services) if worker["job_id"] == job_id), None)
    return record | {
        "worker": worker if record["state"] == "running" else None,
        "results": [_checked_task(result) for result in _list(info.get("tasks"))],
        "error": _checked(info.get("error"), ("problems", "log", "stderr")),
        "log": None if log is None else log[-LOG_TAIL:],
        "log_is_cut": log is not None and len(log) > LOG_TAIL,
        "again": pretty(again),
        "data": [pretty(task) for task in record["tasks"]],
    }


def _checked(told: Any, lists: Collection[str]) -> dict[str, Any]:
    """What a worker told, without what is not of the form that a template expects."""
    known = told.items() if isinstance(told, dict) else ()
    return {key: value for key, value in known if (isinstance(value, list) if key in lists else not _is_nested(value))}


def _checked_task(told: Any) -> dict[str, Any]:
    """A task of the record. Its `results` are pairs of a name and a text."""
    task = _checked(told, ("inputs", "outputs", "warnings"))
    results = told.get("results") if isinstance(told, dict) else None
    task.pop("results", None)
    if isinstance(results, dict):
        task["results"] = [
            (name, value if isinstance(value, str) else json.dumps(value)) for name, value in results.items()
        ]
    return task


def _list(told: Any) -> list[Any]:
    return told if isinstance(told, list) else []


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def pretty(value: Any) -> str:
    """Return JSON for a person, who submits it again as it was."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value, indent=2)
    return text
