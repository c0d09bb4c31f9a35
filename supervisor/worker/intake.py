"""Taking jobs from the server's queue: when a worker asks, and what it makes of a broken answer."""

import asyncio
import contextlib
import re

from loguru import logger

from supervisor.api.client import SHORTEST_WAIT, WAITING_POLLS, PolledJob, Request
from supervisor.api.errors import PollCutError, SessionError
from supervisor.worker.control import SlotStanding, Stage, WorkerContext

JOB_ID_KEY = re.compile(rb'"job_id"\s*:\s*"([^"\\]+)"')
"""Finds a job's id in a broken response, which need not be JSON."""


class Intake:
    """Takes jobs for one worker."""

    def __init__(self, context: WorkerContext, worker_id: str, standing: SlotStanding) -> None:
        self._context = context
        self._control = context.control
        self._worker_id = worker_id
        self._standing = standing
        self._interrupted = asyncio.Event()

    def interrupt(self) -> None:
        """End a poll that waits at the server: what it says of the worker is not right any more."""
        self._interrupted.set()

    async def take(self) -> PolledJob | None:
        """Wait for a job of the server; `None` when the client is told to stop."""
        settings, session = self._context.settings, self._context.session
        while self._control.stage is Stage.WORK:
            for needed in (self._standing.may_take, self._context.trouble.well):
                await self._control.stopping_or(needed)
            offered = session.offers
            try:
                if WAITING_POLLS in offered:
                    async with self._context.turn.lock:
                        polled, interval = await self._wait_for_job()
                else:
                    polled, interval = await self._poll(), settings.queue_poll_interval
            except SessionError:  # the session has logged it
                polled, interval = None, settings.network_retry_interval
            if polled:
                return polled
            if session.offers == offered:  # else a heartbeat has asked meanwhile, and the next poll may wait there
                await self._rest(interval)
        return None

    async def _rest(self, seconds: float) -> None:
        """Rest until the next poll: it comes sooner if it may wait at the server from now on."""
        session = self._context.session
        if not session.asked.is_set():
            sooner = session.asked
        elif WAITING_POLLS in session.offers and not session.reachable.is_set():
            sooner = session.reachable
        else:
            await self._control.rest(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._control.stopping_or(sooner)

    async def _may_poll(self) -> bool:
        ready = self._standing.may_take.is_set() and await self._context.trouble.is_well()
        return ready and self._control.stage is Stage.WORK

    async def _poll(self) -> PolledJob | None:
        if await self._context.flags.disabled(self._worker_id) or not await self._may_poll():
            return None
        try:
            return await self._context.session.poll()
        except SessionError as error:
            if polled := await self._salvage(error):
                return polled
            raise

    async def _wait_for_job(self) -> tuple[PolledJob | None, float]:
        """Let a poll wait at the server; returns the job that it gave, and the seconds until the next poll."""
        context, loop = self._context, asyncio.get_running_loop()
        self._interrupted.clear()
        if not await self._may_poll():
            return None, 0.0
        turn, modules = context.turn, tuple(context.runtime.client.modules)
        request = Request(self._worker_id, modules, context.settings.worker_tags, turn.wait)
        given_up = asyncio.ensure_future(self._control.stopping_or(context.trouble.noted, self._interrupted))
        began = loop.time()
        try:
            polled = await context.session.wait_for_job(request, given_up)
        except PollCutError:
            turn.note_cut(seconds := loop.time() - began)
            return None, max(0.0, SHORTEST_WAIT - seconds)
        except SessionError as error:
            if not (polled := await self._salvage(error)) and not given_up.done():
                raise
        else:
            turn.note_end()
        finally:
            given_up.cancel()
        is_early = loop.time() - began < SHORTEST_WAIT and not given_up.done()
        return polled, context.settings.queue_poll_interval if is_early else 0.0

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
