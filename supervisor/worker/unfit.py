"""Jobs that this worker cannot do and another one may: a module that is not enabled, a missing tool, encoder or device.

Such a job goes back to the queue. A mark in its first task, which the server keeps as it is, tells on which workers it
was tried. When `MAX_WORKERS` have tried it, or no other is alive, it fails.
"""

import json
from typing import Any

import msgspec

from supervisor.api.client import Session
from supervisor.api.errors import SessionError
from supervisor.jobs.record import Failure

MARK = "unfit"
"""Key of the first task; holds an entry for each client that could not do the job."""

MAX_WORKERS = 3
"""After so many different clients the job fails."""


def is_marked(document: str, ours: frozenset[str]) -> bool:
    """Return whether the client with these worker ids has tried the job already."""
    return any(_ids(entry) & ours for entry in _entries(json.loads(document)))


def tried_on(document: str) -> list[str]:
    """Return the host names of the clients that have tried the job."""
    return [str(entry.get("worker", "?")) for entry in _entries(json.loads(document))]


def marked(document: str, hostname: str, workers: tuple[str, ...], why: str) -> str:
    """Return a job's document with the mark of the client that has these worker ids."""
    job = json.loads(document)
    entries = _entries(job)
    if not any(_ids(entry) & set(workers) for entry in entries):
        entries.append({"worker": hostname, "worker_ids": list(workers), "message": why})
    match job:
        case {"tasks": [dict(first), *_]}:
            first[MARK] = entries
    return json.dumps(job)


def explained(document: str, hostname: str, failure: Failure) -> Failure:
    """The failure of a job that no worker is left for, with the names of those that have tried."""
    hosts = dict.fromkeys([*tried_on(document), hostname])
    words = f"{failure.cause.message} (tried on {', '.join(hosts)}; no other worker is left to try)"
    return msgspec.structs.replace(failure, cause=msgspec.structs.replace(failure.cause, message=words))


async def may_go_on(session: Session, document: str) -> bool:
    """Return whether another worker is left to try a job that bears the marks of those that have."""
    entries = _entries(json.loads(document))
    if not entries or len(entries) >= MAX_WORKERS:
        return False
    tried = set[str]().union(*map(_ids, entries))
    try:
        return any(worker.worker_id not in tried for worker in await session.workers())
    except SessionError:
        return True  # the server does not tell: another may be left


async def is_all_for_others(session: Session, ours: frozenset[str]) -> bool:
    """Return whether the queue holds nothing but jobs that this client has tried and another live worker has not."""
    try:
        queued = [_entries({"tasks": job.tasks}) for job in await session.queued()]
        alive = {worker.worker_id for worker in await session.workers()}
    except SessionError:
        return False
    tried = [set[str]().union(*map(_ids, entries)) for entries in queued]
    return bool(tried) and all(ids & ours and alive - ids for ids in tried)


def _entries(job: Any) -> list[dict[str, Any]]:
    match job:
        case {"tasks": [{"unfit": list(entries)}, *_]}:
            return [entry for entry in entries if isinstance(entry, dict)]
    return []


def _ids(entry: dict[str, Any]) -> set[str]:
    ids = entry.get("worker_ids")
    return {one for one in ids if isinstance(one, str)} if isinstance(ids, list) else set()
