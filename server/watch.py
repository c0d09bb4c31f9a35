"""Looks after the database once a second: jobs whose worker has vanished, and jobs whose retention has ended.

Every server does this. Where several share a database, one at a time acts on what it finds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from loguru import logger
from sqlalchemy.exc import SQLAlchemyError

from server.notify.alarms import Alarms
from server.services import Services
from server.storage.database import reason

OUTCOMES = {
    "queued": "goes back to the head of the queue",
    "cancelled": "is cancelled, and its worker has vanished",
    "failed": "fails, since too many workers had it and vanished",
}
"""What becomes of a lost job, by its state then."""


class ServerWatch:
    """The watch of one server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._alarms = Alarms(services)
        self._retention = services.settings.retention()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look again and again. At the end no look is under way: the database can be closed."""
        stopped = asyncio.Event()
        task = asyncio.create_task(self._run(stopped))
        try:
            yield
        finally:
            stopped.set()  # cancelling would leave a look behind, in its thread
            await task

    async def _run(self, stopped: asyncio.Event) -> None:
        every, failing = self._services.look_every, False
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), every)
            try:
                await run_in_threadpool(self._look)
                self._services.waiting.wake()
                self._services.health.note_success()
                failing = False
            except SQLAlchemyError as error:  # an outage, which ends by itself
                if not failing:
                    logger.error("Looking for lost jobs failed: {}; next try in {:g} s", reason(error), every)
                failing = True
            except Exception as error:  # noqa: BLE001 - the task's outermost frame, and the watch must go on
                self._services.health.note_failure(reason(error))
                if not failing:
                    logger.opt(exception=error).error("Looking for lost jobs failed; next try in {:g} s", every)
                failing = True

    def _look(self) -> None:
        services = self._services
        if services.health.is_doubted:
            services.database.check_writable()
        services.beats.run()
        services.orders.refresh()
        changes = services.workers.look(services.store.running)
        for job_id, state in services.store.put_back(changes.lost).items() if changes.lost else ():
            logger.warning("Job {} {}: {}", job_id, OUTCOMES[state], changes.lost[job_id].reason)
        for job_id in services.store.take_again(changes.returned) if changes.returned else ():
            logger.info("Job {} is out of the queue again: its worker is back", job_id)
        self._alarms.look()
        if deleted := services.history.expire(self._retention):
            logger.info("Deleted {} jobs, whose time was over", deleted)
