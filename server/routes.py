"""The routes. A handler's docstring is the text of the OpenAPI page.

Handlers that use the database are plain functions: the framework runs them in threads, so the loop does not wait for
the disk.
"""

import platform
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, HTTPException, Request, Response
from loguru import logger
from starlette.responses import StreamingResponse

from app.config import VERSION
from server import models
from server.models import HeartbeatBody, Object, WorkerAttributesBody
from server.observe.metrics import CONTENT_TYPE
from server.services import Served
from server.transport import NOT_FOUND, NOTHING, Json, Name, NewName, StrictRoute, nothing
from server.workers import describe_worker, describe_workers

# --- workers ---

workers = APIRouter(prefix="/workers", tags=["workers"], route_class=StrictRoute)

SILENT = "No worker with this id has sent a heartbeat lately."


@workers.get("", response_model=models.WorkersBody, summary="Show the workers")
def show_workers(served: Served) -> Response:
    """Return the last heartbeat of every live worker; and of those that vanished in the last day, as `lost`."""
    live, lost = describe_workers(served.workers, served.orders.refresh())
    return Json({"workers": live, "count": len(live), "lost": lost})


@workers.get("/{worker_id}", response_model=models.WorkerBody, responses=NOT_FOUND, summary="Show a worker")
def show_worker(worker_id: Name, served: Served) -> Response:
    """Return the last heartbeat of a live worker."""
    status = served.workers.get(worker_id)
    if status is None:
        raise HTTPException(404, SILENT)
    return Json(describe_worker(worker_id, status, served.orders.refresh(), served.workers.abilities.get(worker_id)))


@workers.post(
    "/{worker_id}",
    status_code=NOTHING,
    responses={200: {"model": models.OrdersBody, "description": "To a worker that asks for it by its `Accept`."}},
    summary="Send a heartbeat",
)
async def beat(worker_id: NewName, status: HeartbeatBody, served: Served, request: Request) -> Response:
    """Report a worker's status. The job that it names stays with this worker.

    With `Accept: application/json`, the answer is 200 and holds the operator's orders.
    """
    served.workers.beat(worker_id, status.model_dump(exclude_unset=True))
    logger.debug("Worker {!a} is {}", worker_id, status.status)
    if "application/json" not in request.headers.get("accept", ""):
        return nothing()
    standing = served.orders.standing
    disabled = bool({"", worker_id} & standing.disabled)
    cancelled = [status.job_id] if status.job_id in standing.cancelled else []
    return Json({"cancel": cancelled, "paused": worker_id in standing.paused, "disabled": disabled})


@workers.patch("/{worker_id}", response_model=WorkerAttributesBody, summary="Disable, enable, pause or resume a worker")
def change_worker(worker_id: NewName, attributes: WorkerAttributesBody, served: Served) -> Response:
    """Ask a worker not to take jobs, or to pause. That stays until it is changed; the worker need not be known."""
    if attributes.disabled is None and attributes.paused is None:
        raise HTTPException(400, "disabled: missing key")
    if attributes.disabled is not None:
        served.orders.give("worker_disabled", attributes.disabled, worker_id)
        logger.info("Worker {!a} is {}", worker_id, "disabled" if attributes.disabled else "enabled")
    if attributes.paused is not None:
        served.orders.give("worker_paused", attributes.paused, worker_id)
        logger.info("Worker {!a} is {}", worker_id, "paused" if attributes.paused else "resumed")
    return Json(attributes.model_dump(exclude_none=True))


@workers.delete("/{worker_id}", status_code=NOTHING, responses=NOT_FOUND, summary="Forget a worker's status")
async def forget_worker(worker_id: Name, served: Served) -> Response:
    """Forget the status of a worker until its next heartbeat. A disabled worker stays disabled."""
    if not served.workers.forget(worker_id):
        raise HTTPException(404, SILENT)
    return nothing()


# --- named data ---

names = APIRouter(prefix="/data", tags=["data"], route_class=StrictRoute)
data = APIRouter(prefix="/data/{module}/{name}", tags=["data"], route_class=StrictRoute)


@names.get("", response_model=models.NamesBody, summary="List modules with stored data")
def list_modules(served: Served) -> Response:
    """Return the names of the modules for which something is stored."""
    return Json({"names": served.data.modules()})


@names.get("/{module}", response_model=models.NamesBody, summary="List stored data")
def list_names(module: Name, served: Served) -> Response:
    """Return the names under which something is stored for a module."""
    return Json({"names": served.data.names(module)})


@data.get("", response_model=dict[str, Any], responses=NOT_FOUND, summary="Show stored data")
def show_data(module: Name, name: Name, served: Served) -> Response:
    """Return the object stored for a module under a name, plus `_id` and `name`."""
    stored = served.data.get(module, name)
    if stored is None:
        raise HTTPException(404, "Nothing is stored for this module under this name.")
    return Json(stored)


@data.post("", status_code=NOTHING, summary="Store data")
def put_data(module: NewName, name: NewName, document: Annotated[Object, Body()], served: Served) -> Response:
    """Store an object for a module under a name; it replaces the former one."""
    served.data.put(module, name, document)
    return nothing()


@data.delete("", status_code=NOTHING, responses=NOT_FOUND, summary="Delete stored data")
def delete_data(module: Name, name: Name, served: Served) -> Response:
    """Delete the object stored for a module under a name."""
    if not served.data.delete(module, name):
        raise HTTPException(404, "Nothing is stored for this module under this name.")
    return nothing()


# --- the server itself ---

OFFERS = ["waiting polls", "orders", "logs"]
"""`GET /queue/poll` with `wait`; orders in the answer of a heartbeat; `PUT /jobs/{id}/log`."""

status = APIRouter(prefix="/status", tags=["status"], route_class=StrictRoute)


@status.get("/config", response_model=models.ConfigurationBody, summary="Show the server's software")
async def show_configuration(served: Served) -> Response:
    """Return the server's version, the software that it uses, its uptime, and what a worker must know of it."""
    backend = {"database": served.database.software, "python": platform.python_version()}
    uptime = round(time.monotonic() - served.started_at, 3)
    for_workers = {"vanished_after": served.settings.vanished_after, "offers": OFFERS}
    return Json({"backend": backend, "version": VERSION, "uptime": uptime} | for_workers)


@status.get(
    "/health",
    response_model=models.HealthBody,
    responses={503: {"model": models.HealthBody, "description": "The database cannot be used; `message` says why."}},
    summary="Check the server's health",
)
async def show_health(served: Served) -> Response:
    """Tell that the server is up, and whether its database is. Needs no token."""
    if message := served.health.problem():
        return Json({"status": "online", "database": "offline", "message": message}, 503)
    return Json({"status": "online", "database": "online"})


# --- watching ---

observe = APIRouter(tags=["status"], route_class=StrictRoute)

STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}

PROMETHEUS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

NOT_KEPT = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # by proxies, which would hold events back


@observe.get("/events", response_class=Response, responses=STREAM, summary="Watch the farm")
async def show_events(
    served: Served, last_event_id: Annotated[str, Header(description="Where to go on, if possible.")] = ""
) -> Response:
    """Send the changes of jobs, workers and the queue, as they come: server-sent events.

    A stream begins with `reset`: read `/jobs`, `/workers` and `/queue` then. `job` and `worker` have what those list,
    `queue` has `entries`, `running` and `disabled`.
    """
    await served.events.start()
    return StreamingResponse(served.events.read(last_event_id), headers=NOT_KEPT, media_type="text/event-stream")


@observe.get("/metrics", response_class=Response, responses=PROMETHEUS, summary="Show metrics")
def show_metrics(served: Served) -> Response:
    """Return jobs, workers and requests in numbers, in the format of Prometheus."""
    return Response(served.metrics.text(), media_type=CONTENT_TYPE)


ROUTERS = (workers, names, data, status, observe)
