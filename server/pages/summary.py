"""`GET /status/farm`: the whole farm in one cheap call, for the first view of the page and for the command line."""

from collections import Counter
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from server.job_routes import trouble_of, why_waiting
from server.services import Served, Services
from server.transport import Json, StrictRoute

STATES = ("completed", "failed", "cancelled")


class FarmBody(BaseModel):
    """The farm at one instant."""

    queue: dict[str, Any] = Field(
        description="`entries`, `disabled`; `head_added_at` of the first job, if there is one."
    )
    running: int
    workers: dict[str, int] = Field(
        description="`live`; of these `working`, `paused`, `disabled`, `in trouble`; `lost`: vanished in the last day."
    )
    waits: list[dict[str, Any]] = Field(description="`why` queued jobs wait, how many `entries`; the most first.")
    hours: list[dict[str, Any]] = Field(
        description="The last 24 hours, the oldest first: when each `begin`s, and the jobs that ended in it by state."
    )
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
    for need, entries in counts.waiting.items():
        waits[why_waiting(services, need)] += entries
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
        "in trouble": sum(bool(trouble_of(status)) for status in live.values()),
        "lost": len(services.workers.lost()),
    }
