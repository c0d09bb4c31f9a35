"""The routes of the queue: submitting, polling, and its switch."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from loguru import logger
from starlette.background import BackgroundTask

from server import models
from server.models import AttributesBody, NewJobBody
from server.services import Served, Services
from server.storage.needs import Ability, Need
from server.storage.store import Taken
from server.transport import NOTHING, Json, NewKey, StrictRoute, nothing

MAX_WAIT = 30.0
"""Seconds that a poll may wait."""

GONE = "The job that is handed back (`handed_back` in its first task) was completed or deleted meanwhile."

queue = APIRouter(prefix="/queue", tags=["queue"], route_class=StrictRoute)


@queue.get("", response_model=models.QueueBody, summary="Show the queue")
def show_queue(served: Served) -> Response:
    """Return every queued job in full, the head first. To take work, use `/queue/poll`."""
    jobs = served.store.queue()
    attributes = "true" if "" in served.orders.refresh().disabled else "false"
    return Json(f'{{"queue":[{",".join(jobs)}],"entries":{len(jobs)},"attributes":{{"disabled":{attributes}}}}}')


@queue.post("", response_model=models.JobIdBody, summary="Submit a job")
async def submit(job: NewJobBody, served: Served, request: Request) -> Response:
    """Append a job to the queue. When the response arrives, the job is on the disk."""
    tasks = job.model_dump(exclude_unset=True)["tasks"]
    if getattr(request.state, "role", "") == "worker" and not await run_in_threadpool(served.store.returns, tasks):
        raise HTTPException(403, "The token for workers is only for jobs that a worker hands back.")
    try:
        job_id = await run_in_threadpool(served.store.submit, job.job_title, tasks, job.priority, job.tags)
    except LookupError:
        raise HTTPException(409, GONE) from None
    logger.info("Job {} is queued: {!a}", job_id, job.job_title)
    return Json({"job_id": job_id}, background=offer(served, Need(job.modules, job.tags)))


def offer(served: Services, need: Need) -> BackgroundTask | None:
    """Wake a poll that waits for such a job here, or else at another server."""
    if served.waiting.wake(need) or not served.database.is_shared:
        return None
    return BackgroundTask(served.waiting.announce, need)


@queue.patch("", response_model=AttributesBody, summary="Disable or enable the queue")
def disable_queue(attributes: AttributesBody, served: Served) -> Response:
    """Ask clients not to take jobs. Clients check this before they poll; a poll without a worker's id does not."""
    served.orders.give("queue_disabled", attributes.disabled)
    logger.info("The queue is {}", "disabled" if attributes.disabled else "enabled")
    return Json(attributes.model_dump())


@queue.delete("", status_code=NOTHING, summary="Delete all jobs")
def clear(served: Served) -> Response:
    """Delete all queued and running jobs."""
    logger.info("The queue is cleared: {} jobs deleted", served.store.clear())
    served.waiting.touch("")
    return nothing()


@queue.get(
    "/poll",
    response_model=models.JobBody,
    responses={404: {"description": "There is no job for this worker; the body is `null`."}},
    summary="Take a job",
)
async def poll(
    request: Request,
    served: Served,
    worker_id: Annotated[
        NewKey, Query(description="The worker; with it, what is disabled or paused gets no job.")
    ] = "",
    modules: Annotated[str | None, Query(description="The worker's modules, separated by commas.")] = None,
    tags: Annotated[str, Query(description="The worker's tags, separated by commas.")] = "",
    wait: Annotated[float, Query(ge=0, description="Seconds to wait until there is a job, at most 30.")] = 0,
) -> Response:
    """Take the first job of the queue that this worker can do: it runs from now on.

    The worker's heartbeats must name it; if they stop, the job goes back to the head of the queue.
    """
    ability = Ability(None if modules is None else _split(modules), _split(tags))
    if worker_id:
        served.workers.set_ability(worker_id, ability)
    if wait:
        taken = await _wait_for_job(request, served, worker_id, ability, min(wait, MAX_WAIT))
    else:
        taken = await _take(served, worker_id, ability)
    if taken and await request.is_disconnected():  # or the job would wait for its worker to be missed
        await run_in_threadpool(served.store.untake, taken)
        served.waiting.wake()
        taken = None
    return Json(taken.document) if taken else Json("null", 404)


async def _wait_for_job(
    request: Request, served: Services, worker_id: str, ability: Ability, seconds: float
) -> Taken | None:
    deadline = asyncio.get_running_loop().time() + seconds
    with served.waiting.joined(ability) as event:
        # Joined before the first look: no job comes unnoticed between that and the waiting.
        while (taken := await _take(served, worker_id, ability)) is None:
            if not await served.waiting.sleep(event, deadline) or await request.is_disconnected():
                break
    served.waiting.wake()  # the next one: there may be more jobs, or this poll was woken at its very end
    return taken


async def _take(served: Services, worker_id: str, ability: Ability) -> Taken | None:
    standing = served.orders.standing
    if worker_id and ({"", worker_id} & standing.disabled or worker_id in standing.paused):
        return None
    return await run_in_threadpool(served.store.take, ability, worker_id or None)


def _split(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())
