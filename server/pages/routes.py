"""The views of the page: a route for each, so that each has a link.

They take what they show from the services and send HTML. What a view changes, it changes by the calls of the API.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from server.job_routes import UNKNOWN
from server.pages import views
from server.pages.login import login
from server.pages.rendering import FOLDER, HEADERS, render
from server.pages.submission import submission
from server.pages.summary import farm_status, summarise
from server.services import Served
from server.storage.history import JobFilter
from server.transport import Name

HISTORY_PAGE = 50

SHOWN_NOW = 5
"""Jobs of each kind on the first view."""

pages = APIRouter(include_in_schema=False)


@pages.get("/")
def show_now(request: Request, served: Served) -> Response:
    """The whole farm at a glance."""
    farm = summarise(served)
    return render(
        request,
        "now.html",
        farm=farm,
        top=max(hour["completed"] + hour["failed"] for hour in farm["hours"]),
        running=views.list_running(served, SHOWN_NOW),
        failed=served.history.last_failed(datetime.now(UTC) - timedelta(days=1), SHOWN_NOW),
    )


@pages.get("/farm/running")
def show_running(request: Request, served: Served) -> Response:
    """What runs, how far it is, and where."""
    return render(request, "running.html", running=views.list_running(served), limit=views.MAX_SHOWN)


@pages.get("/farm/queue")
def show_queue(request: Request, served: Served, after: str = "") -> Response:
    """What waits, in its order, and why."""
    begin = views.read_place(after)
    place = served.history.count_until(begin) + 1 if begin else 1  # the queue moves on while somebody reads
    jobs, following = views.list_queue(served, begin)
    more = following and urlencode({"after": ".".join(map(str, following))})
    entries = summarise(served)["queue"]["entries"]
    return render(request, "queue.html", jobs=jobs, begin=begin, place=place, more=more, entries=entries)


@pages.get("/farm/history")
def show_history(
    request: Request,
    served: Served,
    state: str = "",
    module: str = "",
    worker: str = "",
    q: str = "",
    since: str = "",
    before: str = "",
    cursor: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """Jobs in any state, the newest first."""
    given = {"state": state, "module": module, "worker": worker, "q": q, "since": since, "before": before}
    problem = ""
    shown = given | {"since": "", "before": ""}
    try:
        wanted = JobFilter(_state(state), module, worker, q, _time("since", since), _time("before", before))
        jobs, following = served.history.page(wanted, cursor, HISTORY_PAGE)
        shown |= {"since": _field(wanted.since), "before": _field(wanted.before)}
    except ValueError as error:
        jobs, following, problem = [], None, str(error)
    link = {key: value for key, value in given.items() if value}
    return render(
        request,
        "history.html",
        jobs=jobs,
        given=shown,
        problem=problem,
        cursor=cursor,
        first=urlencode(link, errors="replace"),
        more=following and urlencode(link | {"cursor": following}, errors="replace"),
    )


def _state(text: str) -> str:
    if text not in ("", *views.STATES):
        raise ValueError(f"There is no state {text!r}.")
    return text


def _time(name: str, text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if text else None
        return time and (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: {text!r} is not a time such as 2026-01-31T22:00.") from None


def _field(time: datetime | None) -> str:
    """A time in UTC, as a field for one takes it: with three digits of a second at most."""
    return time.replace(tzinfo=None).isoformat()[:23] if time else ""


@pages.get("/farm/jobs/{job_id}")
def show_job(request: Request, job_id: Name, served: Served) -> Response:
    """Everything of one job."""
    job = views.show_job(served, job_id)
    if job is None:
        return _not_found(request, UNKNOWN)
    return render(request, "job.html", job=job)


@pages.get("/farm/workers")
def show_workers(request: Request, served: Served, q: str = "") -> Response:
    """The workers, live and lost, or those of whose host, id, modules, tags or state `q` is a part."""
    workers = views.list_workers(served)
    found = [worker for worker in workers if q.lower() in views.text_of(worker)]
    return render(request, "workers.html", workers=found[: views.MAX_SHOWN], total=len(workers), q=q)


@pages.get("/farm/data")
def show_data(request: Request, served: Served) -> Response:
    """The stored data of each module."""
    names = {module: served.data.names(module) for module in served.data.modules()}
    return render(request, "data.html", names=names)


@pages.get("/farm/data/{module}/{name}")
def show_document(request: Request, module: Name, name: Name, served: Served) -> Response:
    """One stored object, to edit, and the jobs that name it."""
    stored = served.data.get(module, name)
    if stored is None:
        return _not_found(request, "Nothing is stored for this module under this name.")
    document = views.pretty({key: value for key, value in stored.items() if key not in ("_id", "name")})
    uses = served.history.uses(module, name)
    return render(request, "document.html", module=module, name=name, document=document, uses=uses)


def _not_found(request: Request, message: str) -> Response:
    return render(request, "missing.html", 404, message=message)


class Static(StaticFiles):
    """The page's own style sheet and modules. A browser asks each time whether they changed: they are small."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS | {"Cache-Control": "no-cache"})
        return response


def add_pages(app: Any, dependencies: Any) -> None:
    """Add the page, and the calls that only it needs, to an application."""
    app.include_router(farm_status, dependencies=dependencies)
    for router in (login, submission, pages):
        app.include_router(router)
    app.mount("/farm/static", Static(directory=Path(FOLDER) / "static"))
