"""The routes of jobs: in any state, and their history."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from loguru import logger

from server import models
from server.models import OutcomeBody, PlaceBody
from server.queue_routes import offer
from server.services import Served, Services
from server.storage.history import JobFilter
from server.storage.needs import ANYTHING, Need
from server.transport import NOT_FOUND, NOTHING, Json, Name, StrictRoute, found, nothing

UNFINISHED = "No job with this id is queued or running."
UNKNOWN = "There is no job with this id."

MAX_LOG = 1 << 20
"""Characters of a job's log that are kept; the middle is cut out."""

jobs = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], route_class=StrictRoute)
history = APIRouter(prefix="/jobs", tags=["jobs"], route_class=StrictRoute)


@history.get("", response_model=models.HistoryBody, summary="List jobs")
def list_jobs(
    served: Served,
    state: Annotated[Literal["", "queued", "running", "completed", "failed", "cancelled"], Query()] = "",
    module: Annotated[str, Query(description="A module that a task names.")] = "",
    worker: Annotated[str, Query(description="A worker's id or host name.")] = "",
    q: Annotated[str, Query(description="A part of the title, or a job's id.")] = "",
    beginning: Annotated[str, Query(alias="id", description="The beginning of a job's id.")] = "",
    since: Annotated[datetime | None, Query(description="The earliest time of submission, ISO 8601.")] = None,
    before: Annotated[datetime | None, Query(description="The time of submission, exclusive.")] = None,
    time: Annotated[Literal["added", "ended"], Query(description="What `since` and `before` are times of.")] = "added",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=0, le=2**62, description="`next` of the page before.")] = None,
) -> Response:
    """Return jobs in any state, the newest first, without their tasks.

    A page with `next` is not the last one, even if it is short: a search looks at some thousand jobs at a time.
    """
    wanted = JobFilter(state, module, worker, q, _in_utc(since), _in_utc(before), time == "ended", beginning)
    listed, following = served.history.page(wanted, cursor, limit)
    return Json({"jobs": listed} | ({"next": following} if following is not None else {}))


def _in_utc(time: datetime | None) -> datetime | None:
    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)


@jobs.get("", response_model=models.JobBody, responses=NOT_FOUND, summary="Show a job")
def show_job(job_id: Name, served: Served) -> Response:
    """Return a queued or running job."""
    return found(served.store.job(job_id), UNFINISHED)


@jobs.delete("", status_code=NOTHING, responses=NOT_FOUND, summary="Delete a job")
def delete_job(job_id: Name, served: Served) -> Response:
    """Delete a queued or running job. It leaves no record; to keep one, cancel it."""
    if not served.store.delete_job(job_id):
        raise HTTPException(404, UNFINISHED)
    served.waiting.touch(job_id)
    logger.info("Job {!a} is deleted", job_id)
    return nothing()


@jobs.patch("", response_model=models.RecordBody, responses=NOT_FOUND, summary="Move a job in the queue")
def move_job(job_id: Name, place: PlaceBody, served: Served) -> Response:
    """Give a queued job another priority (higher ones come first), or the head of the queue."""
    if (place.priority is None) == (place.position is None):
        raise HTTPException(400, "body: expected either priority or position")
    moved = served.store.prioritise(job_id, place.priority)
    if moved is None:
        raise HTTPException(404, "No job with this id is queued.")
    served.waiting.touch(moved)
    logger.info("Job {} moves in the queue: {}", moved, place.model_dump(exclude_none=True))
    return show_record(moved, served)


@jobs.get("/record", response_model=models.RecordBody, responses=NOT_FOUND, summary="Show everything of a job")
def show_record(job_id: Name, served: Served) -> Response:
    """Return a job in any state: tasks, times, attempts, how it ended, and why a queued one waits."""
    record = served.history.record(job_id)
    if record is None:
        raise HTTPException(404, UNKNOWN)
    if record["state"] == "queued":
        record["why"] = why_waiting(served, Need(frozenset(record["modules"]), frozenset(record["requires"])))
    return Json(record)


def why_waiting(served: Services, need: Need) -> str:
    """Say why a job waits."""
    standing, live = served.orders.standing, served.workers.all()
    abilities = {name: served.workers.abilities.get(name, ANYTHING) for name in live}
    able = [name for name, ability in abilities.items() if ability.suffices(need)]
    if not live:
        return "no worker is alive"
    if not able:
        lacking = [f"the module {name}" for name in sorted(need.modules) if not _has_module(abilities.values(), name)]
        tags = frozenset[str]().union(*(ability.tags for ability in abilities.values()))
        lacking += [f"the tag {name}" for name in sorted(need.tags - tags)]
        return f"no live worker has {' and '.join(lacking) or 'all modules and tags that it needs'}"
    if "" in standing.disabled:
        return "the queue is disabled"
    resting = {name: why for name in able if (why := _why_resting(live[name]))}
    if all(name in standing.disabled | standing.paused | resting.keys() for name in able):
        why = next(iter(resting.values()), "")
        return "every worker that can do it is disabled or paused" + (f", or {why}" if why else "")
    return "waiting for a free worker"


def trouble_of(status: dict[str, Any]) -> str:
    """Return why a worker takes no jobs by itself, as its heartbeat tells; empty if it does."""
    return str((status.get("info") or {}).get("trouble", ""))


def _why_resting(status: dict[str, Any]) -> str:
    trouble = trouble_of(status)
    return f"in trouble: {trouble}" if trouble else str((status.get("info") or {}).get("hours", ""))


def _has_module(abilities: Any, module: str) -> bool:
    return any(ability.modules is None or module in ability.modules for ability in abilities)


@jobs.post("/retry", response_model=models.JobIdBody, responses=NOT_FOUND, summary="Run a job again")
async def retry(job_id: Name, served: Served) -> Response:
    """Append a copy of a job that has ended to the queue; returns the copy's id. Its record names this one."""
    try:
        copy = await run_in_threadpool(served.store.retry, job_id)
    except LookupError:
        raise HTTPException(409, "The tasks of this job are not known: only its verdict was kept.") from None
    if copy is None:
        raise HTTPException(404, "No job with this id has ended.")
    logger.info("Job {} is queued: {} again", copy, job_id)
    need = await run_in_threadpool(served.store.need, copy)
    return Json({"job_id": copy}, background=offer(served, need) if need else None)


@jobs.post("/cancel", response_model=models.StateBody, responses=NOT_FOUND, summary="Cancel a job")
def cancel(
    job_id: Name, served: Served, by: Annotated[str, Query(description="Who does it, for the record.")] = ""
) -> Response:
    """End a queued job at once, a running one as soon as its worker hears of it. Returns the state that it had."""
    state = served.store.cancel(job_id, by)
    if state is None:
        raise HTTPException(404, UNFINISHED)
    served.orders.refresh()
    logger.info("Job {} is cancelled{}", job_id, f" by {by!a}" if by else "")
    return Json({"state": state})


@jobs.get("/completed", response_model=models.VerdictBody, responses=NOT_FOUND, summary="Show how a job ended")
def show_verdict(job_id: Name, served: Served) -> Response:
    """Return the verdict of a completed job."""
    return found(served.store.verdict(job_id), "No job with this id has been completed.")


@jobs.patch("/completed", status_code=NOTHING, responses=NOT_FOUND, summary="Complete a job")
def complete(job_id: Name, outcome: OutcomeBody, served: Served) -> Response:
    """Report how a job ended, which runs or went back to the queue meanwhile. The first verdict stands."""
    if not served.store.complete(job_id, outcome.failed, outcome.info):
        raise HTTPException(404, UNFINISHED)
    logger.info("Job {} {}", job_id, "failed" if outcome.failed else "completed")
    return nothing()


@jobs.get("/log", responses=NOT_FOUND, summary="Show a job's log")
def show_log(job_id: Name, served: Served) -> Response:
    """Return the log of a job as its worker sent it."""
    log = served.history.log(job_id)
    if log is None:
        raise HTTPException(404, "There is no log of a job with this id.")
    return Response(log, media_type="text/plain; charset=utf-8")


@jobs.put("/log", status_code=NOTHING, responses=NOT_FOUND, summary="Store a job's log")
async def put_log(job_id: Name, request: Request, served: Served) -> Response:
    """Keep the log of a job, in any state. Of more than a mebibyte the middle is left out."""
    log = (await request.body()).decode(errors="replace")
    if len(log) > MAX_LOG:
        log = f"{log[: MAX_LOG // 2]}\n… {len(log) - MAX_LOG} characters are left out …\n{log[-MAX_LOG // 2 :]}"
    if not await run_in_threadpool(served.history.put_log, job_id, log):
        raise HTTPException(404, UNKNOWN)
    return nothing()
