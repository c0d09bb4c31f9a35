"""The application: the routes on a store, and a watch that finds lost jobs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from loguru import logger
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.config import VERSION
from server import models, transport
from server.job_routes import history, jobs
from server.notify.sender import NoticeSender
from server.observe.metrics import CountedRequests
from server.pages.rendering import render
from server.pages.routes import add_pages
from server.queue_routes import queue
from server.routes import ROUTERS
from server.services import Services
from server.storage.database import reason
from server.watch import ServerWatch


def create_app(services: Services) -> FastAPI:
    """Make the application. With a token, every route but the pages and the health requires it."""
    token = services.settings.token

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        notifier = NoticeSender(services.notices, services.notify)
        async with ServerWatch(services).running(), services.waiting.listening(), notifier.running():
            yield
        await services.events.wait_closed()

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
        lifespan=lifespan,
        responses={"4XX": {"model": models.ProblemBody, "description": "The request is wrong; the message says why."}},
    )
    app.state.services = services
    app.state.big_bodies = asyncio.Semaphore(transport.BIG_BODIES)
    # The gate checks the token. This dependency only puts a field for it on the OpenAPI page.
    dependencies = [Depends(HTTPBearer(auto_error=False))] if token else []
    for router in (queue, history, jobs, *ROUTERS):
        app.include_router(router, dependencies=dependencies)
    add_pages(app, dependencies)
    app.add_api_route("/doc", _to_page, include_in_schema=False)
    app.add_middleware(transport.Gate, settings=services.settings, tokens=services.tokens)
    if origins := services.settings.cors_origin:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(CountedRequests, metrics=services.metrics)
    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, _on_wrong_request)
    app.add_exception_handler(HTTPException, _on_refusal)
    app.add_exception_handler(SQLAlchemyError, _on_broken_database)
    app.add_exception_handler(Exception, _on_defect)


async def _to_page(request: Request) -> Response:
    return RedirectResponse(f"{request.scope['root_path']}/doc/", 308)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the framework names the methods of one route alone
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return _answer(request, error.status_code, error.detail, **headers)


async def _on_wrong_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, 400, transport.in_words(error.errors()))


def _answer(request: Request, status: int, message: str, **headers: str) -> Response:
    """Say what is wrong: to who looks at the page, in a view, which becomes the right one when all is well again."""
    if transport.is_page(request.scope, request.scope["path"].split("/")):
        view = render(request, "missing.html", status, message=message)
        view.headers.update(headers)
        return view
    return transport.problem(status, message, **headers)


def _methods(request: Request) -> set[str]:
    """The methods of all routes with the path of a request."""
    found = set[str]()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.router.routes):
            found.add(method)
    return found | ({"HEAD"} if "GET" in found and request.url.path != "/queue/poll" else set())


async def _on_broken_database(request: Request, error: Exception) -> Response:
    request.app.state.services.health.is_doubted = True
    logger.error("{} {}: the database failed: {}", request.method, request.url.path, reason(error))
    # A connection that breaks during the commit leaves open whether that was done.
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    outcome = "Perhaps the change was made; look, and try again." if lost else "Nothing was changed; try again."
    return _answer(request, 503, f"The database failed: {reason(error)}. {outcome}")


async def _on_defect(_request: Request, _error: Exception) -> Any:
    return transport.problem(500, "The server has a defect; its log has the details.")
