"""The application: the routes on a store, and a watch that finds lost jobs."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from loguru import logger
from starlette.exceptions import HTTPException

from app.config import VERSION
from server import models, transport
from server.routes import ROUTERS
from server.store import Store
from server.workers import AwakeClock, Workers

WORKER_TTL = 30.0
"""Seconds after its last heartbeat during which a worker is shown."""

VANISHED_AFTER = 30.0
"""Seconds after a worker's last heartbeat until its job goes back to the queue."""


MAX_TAKES = 5
"""How often a job is given to a worker that vanishes. Then the job itself is held to be the cause, and fails."""


def create_app(
    store: Store, vanished_after: float = VANISHED_AFTER, worker_ttl: float = WORKER_TTL, token: str = ""
) -> FastAPI:
    """Make the application on an open store. With a token, every route but the pages and the health requires it."""
    look_every = min(1.0, vanished_after / 4)
    workers = Workers(worker_ttl, vanished_after, AwakeClock(longest_gap=2 * look_every))

    @contextlib.asynccontextmanager
    async def watch(_app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_watch(store, workers, look_every))
        yield
        task.cancel()
        await asyncio.wait([task])

    app = FastAPIOffline(
        title="Sisyphus",
        description="Gives jobs to workers and keeps their verdicts.",
        version=VERSION,
        docs_url="/doc/",
        redoc_url=None,
        static_url="/doc/static",
        openapi_url="/doc/openapi.json",
        swagger_ui_oauth2_redirect_url="/doc/oauth2-redirect",
        swagger_ui_parameters={"validatorUrl": None},  # or the page sends its address to a service that checks it
        redirect_slashes=False,
        lifespan=watch,
        responses={"4XX": {"model": models.ProblemBody, "description": "The request is wrong; the message says why."}},
    )
    app.state.store = store
    app.state.workers = workers
    app.state.vanished_after = vanished_after
    app.state.started_at = time.monotonic()
    # The gate checks the token. This dependency only puts a field for it on the OpenAPI page.
    dependencies = [Depends(HTTPBearer(auto_error=False))] if token else []
    for router in ROUTERS:
        app.include_router(router, dependencies=dependencies)
    app.add_api_route("/doc", _to_page, include_in_schema=False)
    app.add_middleware(transport.Gate, token=token)
    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, transport.on_wrong_body)
    app.add_exception_handler(HTTPException, _on_refusal)
    app.add_exception_handler(sqlite3.Error, _on_broken_database)
    app.add_exception_handler(Exception, _on_defect)


async def _to_page() -> Response:
    return RedirectResponse("/doc/", 308)


async def _watch(store: Store, workers: Workers, every: float) -> None:
    """Look for lost jobs until cancelled."""
    failing = False
    while True:
        await asyncio.sleep(every)
        try:
            await run_in_threadpool(_find_lost_jobs, store, workers)
            failing = False
        except Exception as error:  # noqa: BLE001 - the task's outermost frame, and the watch must go on
            if not failing:
                logger.opt(exception=error).error("Looking for lost jobs failed; next try in {:g} s", every)
            failing = True


def _find_lost_jobs(store: Store, workers: Workers) -> None:
    changes = workers.look(store.running)
    for job_id, why in changes.lost.items():
        if store.times_taken(job_id) >= MAX_TAKES and store.complete(job_id, True, _lost_record(why)):
            logger.error("Job {} fails: {} workers had it and vanished; the last: {}", job_id, MAX_TAKES, why)
    for job_id in store.put_back(list(changes.lost)) if changes.lost else ():
        logger.warning("Job {} goes back to the head of the queue: {}", job_id, changes.lost[job_id])
    for job_id in store.take_again(changes.returned) if changes.returned else ():
        logger.info("Job {} is out of the queue again: its worker is back", job_id)


def _lost_record(why: str) -> dict[str, Any]:
    message = f"the job was given to {MAX_TAKES} workers, and each of them vanished; the last: {why}"
    error = {"type": "RunError", "reason": "lost", "message": message}
    return {"completed": False, "message": message, "error": error, "tasks": []}


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return transport.problem(error.status_code, error.detail, **(error.headers or {}))


async def _on_broken_database(request: Request, error: Exception) -> Response:
    logger.error("{} {}: the database failed: {}", request.method, request.url.path, error)
    return transport.problem(503, f"The database failed: {error}. Nothing was changed; try again.")


async def _on_defect(_request: Request, _error: Exception) -> Any:
    return transport.problem(500, "The server has a defect; its log has the details.")
