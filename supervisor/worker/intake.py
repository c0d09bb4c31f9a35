"""Taking jobs from the server's queue: when a worker asks, and what it makes of a broken answer."""

import re

from loguru import logger

from supervisor.api.client import PolledJob
from supervisor.api.errors import SessionError
from supervisor.worker.control import Stage, WorkerContext

JOB_ID_KEY = re.compile(rb'"job_id"\s*:\s*"([^"\\]+)"')
"""Finds a job's id in a broken response, which need not be JSON."""


class Intake:
    """Takes jobs for one worker."""

    def __init__(self, context: WorkerContext, worker_id: str) -> None:
        self._context = context
        self._control = context.control
        self._worker_id = worker_id

    async def take(self) -> PolledJob | None:
        """Wait for a job of the server; `None` when the client is told to stop."""
        settings = self._context.settings
        while self._control.stage is Stage.WORK:
            interval = settings.queue_poll_interval
            for needed in (self._control.going, self._context.trouble.well):
                await self._control.stopping_or(needed)
            try:
                if self._control.going.is_set() and (polled := await self._poll()):
                    return polled
            except SessionError:  # the session has logged it
                interval = settings.network_retry_interval
            await self._control.rest(interval)
        return None

    async def _poll(self) -> PolledJob | None:
        if await self._context.flags.disabled(self._worker_id) or not await self._context.trouble.is_well():
            return None
        if self._control.stage is not Stage.WORK:
            return None
        try:
            return await self._context.session.poll()
        except SessionError as error:
            if polled := await self._salvage(error):
                return polled
            raise

    async def _salvage(self, error: SessionError) -> PolledJob | None:
        """Recover a job from a broken poll response: if the part that came holds its id, fetch it by that."""
        found = JOB_ID_KEY.search(error.partial)
        if not found:
            return None
        job_id = found[1].decode("utf-8", "replace")
        log = logger.bind(job=job_id)
        log.warning("The response that gave the job was broken: fetching the job again")
        while self._control.stage is Stage.WORK:
            try:
                response = await self._context.session.job(job_id)
            except SessionError:
                await self._control.rest(self._context.settings.network_retry_interval)
            else:
                if response is None:
                    return None
                document = response.body.decode("utf-8", "replace")
                return PolledJob(job_id, document, response.from_embedded_server)
        log.error("The job may be lost: the server has given it, and it could not be fetched before the client stops")
        return None
