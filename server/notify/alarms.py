"""Finds what no call tells of: workers that have vanished, and a queue that nobody serves."""

import time
from datetime import UTC, datetime
from typing import Any

from server.job_routes import why_waiting
from server.services import Services
from server.storage.needs import ANYTHING, Need

QUEUE_LOOK = 5.0
"""Seconds between two looks at the queue, at most."""


class Alarms:
    """Looks after workers and queue. For one thread at a time.

    Every server finds the same: the notices tell which of it is new. How long no worker has been at work is known since
    this server's start, so after that the queue takes its time anew to be stuck.
    """

    def __init__(self, services: Services) -> None:
        self._services, self._notices, self._stuck_after = services, services.notices, services.notify.stuck_after
        self._wanted = {event for target in services.notify.targets for event in target.events}
        self._noted = set[str]()
        self._idle_since: dict[int, float] = {}
        self._look_every = min(QUEUE_LOOK, self._stuck_after.total_seconds() / 4)
        self._looked_at = -QUEUE_LOOK

    def look(self) -> None:
        """Note what is new.

        Raises:
            SQLAlchemyError: the database failed.
        """
        if "worker lost" in self._wanted:
            self._look_at_workers()
        if "queue stuck" in self._wanted and time.monotonic() - self._looked_at >= self._look_every:
            self._looked_at = time.monotonic()
            self._look_at_queue()

    def _look_at_workers(self) -> None:
        vanished = {f"{name} {beat.number}": (name, beat) for name, beat in self._services.workers.vanished().items()}
        for key in vanished.keys() - self._noted:
            name, beat = vanished[key]
            known: dict[str, Any] = {key: (beat.status or {}).get(key) for key in ("hostname", "job_id")}
            seen_at = datetime.fromtimestamp(beat.seen_at, UTC).isoformat(timespec="seconds")
            self._notices.note("worker lost", key, worker_id=name, seen_at=seen_at, **known)
        self._noted = set(vanished)

    def _look_at_queue(self) -> None:
        now, patience = time.monotonic(), self._stuck_after
        waiting = self._services.summary.oldest()
        idle = {number: waits for number, waits in waiting.items() if not self._is_served(waits.need)}
        self._idle_since = {number: self._idle_since.get(number, now) for number in idle}
        for number, waits in idle.items():
            since = datetime.now(UTC) - patience
            if now - self._idle_since[number] < patience.total_seconds() or waits.added_at > since:
                continue
            facts = {"job_id": waits.job_id, "job_title": waits.title, "entries": waits.entries}
            why = why_waiting(self._services, waits.need)
            added_at = waits.added_at.isoformat(timespec="seconds")
            self._notices.note("queue stuck", waits.job_id, why=why, added_at=added_at, **facts)

    def _is_served(self, need: Need) -> bool:
        """A worker that could do it is at work, or will be: it is outside of its hours."""
        workers = self._services.workers
        gone, abilities = workers.vanished(), workers.abilities
        return any(
            status.get("status") == "in_progress" or "hours" in (status.get("info") or {})
            for name, status in workers.all().items()
            if name not in gone and abilities.get(name, ANYTHING).suffices(need)
        )
