"""The heartbeat of a worker: the messages to the server, and their timing."""

import asyncio
import collections
import contextlib
import math
import os
import random
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from loguru import logger

from app.config import VERSION, Settings
from ipc.messages import StepName
from supervisor.api.client import ORDERS, Session, WorkerOrders
from supervisor.api.errors import SessionError
from supervisor.jobs.model import Job
from supervisor.jobs.record import field_time, now
from supervisor.jobs.task_state import TaskState
from supervisor.worker.trouble import Trouble

JITTER = 0.15
"""The largest share by which an interval is shortened, at random, so that a thousand workers do not beat as one."""

BEATS = 3
"""Heartbeats within the server's patience, so that one may be lost."""

IN_FLIGHT = 4
"""Heartbeats of one worker without a response yet. When the next one is due, the oldest is given up."""


class WorkerHeartbeat:
    """Sends a worker's heartbeat every interval, however slow the server is and however busy the tasks are.

    A heartbeat does not wait for the response to the one before it. It shows the state at the instant of sending.
    `trouble` is shown in each heartbeat, while there is some.

    Attributes:
        paused: An operator has paused the worker.
        closed: Why no job is taken now, while it is outside of WORK_HOURS.
        on_orders: Called with the operator's orders after each heartbeat; without any if the server offers none.
        is_known: Set once the server knows this worker: before that an operator cannot disable it.
    """

    def __init__(
        self,
        session: Session,
        settings: Settings,
        worker_id: str,
        trouble: Trouble,
    ) -> None:
        self.worker_id = worker_id
        self.paused = False
        self.closed = ""
        self.on_orders: Callable[[WorkerOrders], None] = lambda _: None
        self.is_known = asyncio.Event()
        self._session = session
        self._interval = self._wanted = settings.heartbeat_interval
        self._trouble = trouble
        self._online_at = field_time(now(settings))
        self._hostname = settings.hostname
        self._adapted = asyncio.Event()
        self._settled: int | None = None  # of the session's doubts, those before the server was asked last
        self._sent = self._heard = 0
        self._has_started = False
        self._job: Job | None = None
        self._task: TaskState | None = None
        self._in_flight: collections.deque[asyncio.Task[None]] = collections.deque()

    @property
    def job_id(self) -> str | None:
        """The job that heartbeats name."""
        return self._job.job_id if self._job else None

    def set_idle(self) -> None:
        """The worker has no job. Until the first call the status is `startup`."""
        self._has_started, self._job, self._task = True, None, None

    def set_job(self, job: Job) -> None:
        """The worker has a job, and none of its tasks runs yet."""
        self._job, self._task = job, None

    def set_task(self, task: TaskState, step: StepName) -> None:
        """A step of a task begins. Only `run` and `cleanup` show a task: all tasks of a job are initialised at once."""
        if step in ("run", "cleanup"):
            self._task = task

    def message(self) -> dict[str, Any]:
        """Return the heartbeat's message for the state now."""
        message: dict[str, Any] = {
            "status": "in_progress" if self._job else "idle" if self._has_started else "startup",
            "online_at": self._online_at,
            "hostname": self._hostname,
            "version": VERSION,
        }
        info: dict[str, Any] = {}
        if self._job:
            message |= {"job_id": self._job.job_id, "job_title": self._job.job_title}
        if self._task:
            status = self._task.status
            message["task"] = self._task.task.module
            if status.progress is not None:
                message["progress"] = status.progress
            info |= {"memory": self._task.memory} | status.info if self._task.memory else status.info
        if ORDERS in self._session.offers:  # our server, whose page shows it
            info["load"] = round(os.getloadavg()[0], 2)
        if self.paused:
            info["paused"] = True
        if self.closed:
            info["hours"] = self.closed
        if self._trouble.why:
            info["trouble"] = self._trouble.why
        return message | ({"info": info} if info else {})

    async def keep_beating(self) -> None:
        """Send heartbeats until cancelled."""
        try:
            while True:
                self._beat()
                await self._rest()
        finally:
            for beat in self._in_flight:
                beat.cancel()

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval * random.uniform(1 - JITTER, 1)):  # noqa: S311 - no secret
                await self._adapted.wait()
        self._adapted.clear()  # an interval that has become shorter begins with a heartbeat

    async def _ask(self) -> None:
        """Ask what the server offers, and how often it wants heartbeats: else it gives the worker's job to another."""
        doubts = self._session.doubts
        try:
            configuration = await self._session.configuration()
        except SessionError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                self._settled = doubts
            return
        self._settled = doubts  # only now: before the server has told what it offers, no other heartbeat may go on
        patience = configuration.vanished_after or math.inf
        before, self._interval = self._interval, min(self._wanted, patience / BEATS)
        if self._interval < before:
            words = "HEARTBEAT_INTERVAL: {:g} s is too long for the server, whose patience is {:g} s: now {:g} s"
            logger.warning(words, before, patience, self._interval)
            self._adapted.set()
        if ORDERS in configuration.offers:
            self._adapted.set()  # the next heartbeat brings the orders

    def _beat(self) -> None:
        while self._in_flight and self._in_flight[0].done():
            self._in_flight.popleft()
        if len(self._in_flight) >= IN_FLIGHT:
            self._in_flight.popleft().cancel()
        self._sent += 1
        self._in_flight.append(asyncio.create_task(self._send(self._sent, self.message())))

    async def _send(self, number: int, message: dict[str, Any]) -> None:
        offered = ORDERS in self._session.offers
        try:
            orders = await self._session.beat(self.worker_id, message)
            if not self.is_known.is_set():
                # The server can disable a worker only after its record was read once (sisyphus-server 1.3.3).
                await self._session.worker_disabled(self.worker_id)
        except SessionError:  # the session has logged it, and the next heartbeat is the retry
            return
        if self._settled != self._session.doubts or (offered and orders is None):
            await self._ask()
        self.is_known.set()
        if number > self._heard:  # of answers that overtake each other, the newest counts
            self._heard = number
            self.on_orders(orders or WorkerOrders())
