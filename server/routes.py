"""The routes. A handler's docstring is the text of the OpenAPI page.

Handlers that use the database are plain functions: the framework runs them in threads, so the loop does not wait for
the disk.
"""

import platform
import sqlite3
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Request, Response
from loguru import logger

from app.config import VERSION
from server import models
from server.models import AttributesBody, HeartbeatBody, NewJobBody, Object, OutcomeBody
from server.store import Store
from server.transport import Json, Name, StrictRoute
from server.workers import Workers

NOTHING = 204

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": models.ProblemBody, "description": "There is none."}}


async def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def _workers(request: Request) -> Workers:
    workers: Workers = request.app.state.workers
    return workers


Stored = Annotated[Store, Depends(_store)]
Live = Annotated[Workers, Depends(_workers)]


def _nothing() -> Response:
    return Response(status_code=NOTHING)


def _found(text: str | None, problem: str) -> Json:
    if text is None:
        raise HTTPException(404, problem)
    return Json(text)


# --- the queue ---

queue = APIRouter(prefix="/queue", tags=["queue"], route_class=StrictRoute)


@queue.get("", response_model=models.QueueBody, summary="Show the queue")
def show_queue(store: Stored) -> Response:
    """Return every queued job in full, the head first. To take work, use `/queue/poll`."""
    jobs = store.queue()
    attributes = "true" if store.queue_disabled else "false"
    return Json(f'{{"queue":[{",".join(jobs)}],"entries":{len(jobs)},"attributes":{{"disabled":{attributes}}}}}')


@queue.post("", response_model=models.JobIdBody, summary="Submit a job")
def submit(job: NewJobBody, store: Stored) -> Response:
    """Append a job to the queue. When the response arrives, the job is on the disk."""
    job_id = store.submit(job.job_title, job.model_dump(exclude_unset=True)["tasks"])
    logger.info("Job {} is queued: {!a}", job_id, job.job_title)
    return Json({"job_id": job_id})


@queue.patch("", response_model=AttributesBody, summary="Disable or enable the queue")
def disable_queue(attributes: AttributesBody, store: Stored) -> Response:
    """Ask clients not to take jobs. Clients check this before they poll; `/queue/poll` itself does not."""
    store.disable_queue(attributes.disabled)
    logger.info("The queue is {}", "disabled" if attributes.disabled else "enabled")
    return Json(attributes.model_dump())


@queue.delete("", status_code=NOTHING, summary="Delete all jobs")
def clear(store: Stored) -> Response:
    """Delete all queued and running jobs."""
    logger.info("The queue is cleared: {} jobs deleted", store.clear())
    return _nothing()


@queue.get(
    "/poll",
    response_model=models.JobBody,
    responses={404: {"description": "The queue is empty; the body is `null`."}},
    summary="Take a job",
)
def poll(store: Stored) -> Response:
    """Take the job at the head of the queue: it runs from now on.

    The worker's heartbeats must name it; if they stop, the job goes back to the head of the queue.
    """
    job = store.take()
    return Json("null", 404) if job is None else Json(job)


# --- jobs ---

jobs = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], route_class=StrictRoute)


@jobs.get("", response_model=models.JobBody, responses=NOT_FOUND, summary="Show a job")
def show_job(job_id: Name, store: Stored) -> Response:
    """Return a queued or running job."""
    return _found(store.job(job_id), "No job with this id is queued or running.")


@jobs.delete("", status_code=NOTHING, responses=NOT_FOUND, summary="Delete a job")
def delete_job(job_id: Name, store: Stored) -> Response:
    """Delete a queued or running job."""
    if not store.delete_job(job_id):
        raise HTTPException(404, "No job with this id is queued or running.")
    logger.info("Job {!a} is deleted", job_id)
    return _nothing()


@jobs.get("/completed", response_model=models.VerdictBody, responses=NOT_FOUND, summary="Show how a job ended")
def show_verdict(job_id: Name, store: Stored) -> Response:
    """Return the verdict of a completed job."""
    return _found(store.verdict(job_id), "No job with this id has been completed.")


@jobs.patch("/completed", status_code=NOTHING, responses=NOT_FOUND, summary="Complete a job")
def complete(job_id: Name, outcome: OutcomeBody, store: Stored) -> Response:
    """Report how a job ended, which runs or went back to the queue meanwhile. The first verdict stands."""
    if not store.complete(job_id, outcome.failed, outcome.info):
        raise HTTPException(404, "No job with this id is queued or running.")
    logger.info("Job {} {}", job_id, "failed" if outcome.failed else "completed")
    return _nothing()


# --- workers ---

workers = APIRouter(prefix="/workers", tags=["workers"], route_class=StrictRoute)


def _worker(worker_id: str, status: dict[str, Any], disabled: bool) -> dict[str, Any]:
    return {**status, "worker_id": worker_id, "attributes": {"disabled": disabled}}


@workers.get("", response_model=models.WorkersBody, summary="Show the workers")
def show_workers(store: Stored, live: Live) -> Response:
    """Return the last heartbeat of every live worker."""
    disabled = store.disabled_workers
    listed = [_worker(name, status, name in disabled) for name, status in live.all().items()]
    return Json({"workers": listed, "count": len(listed)})


@workers.get("/{worker_id}", response_model=models.WorkerBody, responses=NOT_FOUND, summary="Show a worker")
def show_worker(worker_id: Name, store: Stored, live: Live) -> Response:
    """Return the last heartbeat of a live worker."""
    status = live.get(worker_id)
    if status is None:
        raise HTTPException(404, "No worker with this id has sent a heartbeat lately.")
    return Json(_worker(worker_id, status, worker_id in store.disabled_workers))


@workers.post("/{worker_id}", status_code=NOTHING, summary="Send a heartbeat")
async def beat(worker_id: Name, status: HeartbeatBody, live: Live) -> Response:
    """Report a worker's status. The job that it names stays with this worker."""
    live.beat(worker_id, status.model_dump(exclude_unset=True))
    logger.debug("Worker {!a} is {}", worker_id, status.status)
    return _nothing()


@workers.patch("/{worker_id}", response_model=AttributesBody, summary="Disable or enable a worker")
def disable_worker(worker_id: Name, attributes: AttributesBody, store: Stored) -> Response:
    """Ask a worker not to take jobs. The setting stays until it is changed; the worker need not be known."""
    store.disable_worker(worker_id, attributes.disabled)
    logger.info("Worker {!a} is {}", worker_id, "disabled" if attributes.disabled else "enabled")
    return Json(attributes.model_dump())


@workers.delete("/{worker_id}", status_code=NOTHING, responses=NOT_FOUND, summary="Forget a worker's status")
async def forget_worker(worker_id: Name, live: Live) -> Response:
    """Forget the status of a worker until its next heartbeat. A disabled worker stays disabled."""
    if not live.forget(worker_id):
        raise HTTPException(404, "No worker with this id has sent a heartbeat lately.")
    return _nothing()


# --- named data ---

data = APIRouter(prefix="/data/{module}/{name}", tags=["data"], route_class=StrictRoute)


@data.get("", response_model=dict[str, Any], responses=NOT_FOUND, summary="Show stored data")
def show_data(module: Name, name: Name, store: Stored) -> Response:
    """Return the object stored for a module under a name, plus `_id` and `name`."""
    stored = store.data(module, name)
    if stored is None:
        raise HTTPException(404, "Nothing is stored for this module under this name.")
    return Json(stored)


@data.post("", status_code=NOTHING, summary="Store data")
def put_data(module: Name, name: Name, document: Annotated[Object, Body()], store: Stored) -> Response:
    """Store an object for a module under a name; it replaces the former one."""
    store.put_data(module, name, document)
    return _nothing()


@data.delete("", status_code=NOTHING, responses=NOT_FOUND, summary="Delete stored data")
def delete_data(module: Name, name: Name, store: Stored) -> Response:
    """Delete the object stored for a module under a name."""
    if not store.delete_data(module, name):
        raise HTTPException(404, "Nothing is stored for this module under this name.")
    return _nothing()


# --- the server itself ---

status = APIRouter(prefix="/status", tags=["status"], route_class=StrictRoute)


@status.get("/config", response_model=models.ConfigurationBody, summary="Show the server's software")
async def show_configuration(request: Request) -> Response:
    """Return the server's version, the software that it uses, its uptime, and how long a worker may be silent."""
    backend = {"database": f"SQLite {sqlite3.sqlite_version}", "python": platform.python_version()}
    uptime = round(time.monotonic() - request.app.state.started_at, 3)
    patience = request.app.state.vanished_after
    return Json({"backend": backend, "version": VERSION, "uptime": uptime, "vanished_after": patience})


@status.get("/health", response_model=models.HealthBody, summary="Check the server's health")
async def show_health() -> Response:
    """Respond, to show that the server is up. Needs no token."""
    return Json({"status": "online"})


ROUTERS = (queue, jobs, workers, data, status)
