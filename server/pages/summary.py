"""`GET /status/farm`: the whole farm in one cheap call, for the first view of the page and for the command line."""

from collections import Counter
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from server.job_routes import why_waiting
from server.services import Served, Services
from server.transport import Json, StrictRoute

STATES = ("completed", "failed", "cancelled")


class QueueSummaryBody(BaseModel):
    """The queue in numbers."""

    entries: int
    disabled: bool
    head_added_at: str = Field(default="", description="When its first job was submitted, ISO 8601; missing if empty.")


class WorkersSummaryBody(BaseModel):
    """The workers in numbers. One that is paused or disabled counts as working, too, while it has a job."""

    live: int
    working: int
    paused: int
    disabled: int
    lost: int = Field(description="Vanished in the last day.")


class WaitBody(BaseModel):
    """Queued jobs that wait for the same reason."""

    why: str
    entries: int


class HourBody(BaseModel):
    """How many jobs ended in the hour that began then."""

    begin: str
    completed: int
    failed: int
    cancelled: int


class FarmBody(BaseModel):
    """The farm at one instant."""

    queue: QueueSummaryBody
    running: int
    workers: WorkersSummaryBody
    waits: list[WaitBody] = Field(description="Why the queued jobs wait, the most frequent reason first.")
    hours: list[HourBody] = Field(description="The last 24 hours, the oldest first; the last one ends now.")
    day: dict[str, int] = Field(description="How many jobs ended in these 24 hours, by their state.")


farm_status = APIRouter(prefix="/status", tags=["status"], route_class=StrictRoute)


@farm_status.get("/farm", response_model=FarmBody, summary="Show the farm in numbers")
def show_farm(served: Served) -> Response:
    """Return the length of the queue and why its jobs wait, what runs, the workers, and what ended in the last day."""
    return Json(summarise(served))


def summarise(services: Services) -> dict[str, Any]:
    """Return the farm as `FarmBody` describes it."""
    counts = services.summary.count()
    waits = Counter[str]()
    for waiting in counts.waiting:
        waits[why_waiting(services, waiting.need)] += waiting.entries
    queue: dict[str, Any] = {"entries": waits.total(), "disabled": "" in services.orders.standing.disabled}
    if counts.head_added_at:
        queue["head_added_at"] = counts.head_added_at.isoformat()
    return {
        "queue": queue,
        "running": counts.running,
        "workers": _count_workers(services),
        "waits": [{"why": why, "entries": entries} for why, entries in waits.most_common()],
        "hours": [
            {"begin": hour.begin.isoformat()} | {state: hour.ended.get(state, 0) for state in STATES}
            for hour in counts.hours
        ],
        "day": {state: sum(hour.ended.get(state, 0) for hour in counts.hours) for state in STATES},
    }


def _count_workers(services: Services) -> dict[str, int]:
    live, standing = services.workers.all(), services.orders.standing
    return {
        "live": len(live),
        "working": sum(status.get("status") == "in_progress" for status in live.values()),
        "paused": len(live.keys() & standing.paused),
        "disabled": len(live.keys() & standing.disabled),
        "lost": len(services.workers.lost()),
    }
