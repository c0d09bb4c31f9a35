"""The heartbeat: what the server is told of a worker, and when."""

import asyncio
import collections
import contextlib
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from app.config import VERSION, Settings
from ipc.messages import StepName
from supervisor.api.client import Session
from supervisor.api.errors import SessionError
from supervisor.jobs.model import Job
from supervisor.jobs.task_run import TaskRun

JITTER = 0.15
"""The share by which an interval may be shorter, so that a thousand workers do not beat as one."""

IN_FLIGHT = 4
"""Beats of one worker that a slow server may have left unanswered; the oldest is given up for a new one."""


class Heartbeat:
    """One worker's heartbeat: says every interval what its slot is doing, however slow the server and busy the tasks.

    A beat does not wait for the answer to the one before it. A state is sent as it is when the beat is due.
    """

    def __init__(self, session: Session, settings: Settings, worker_id: str, accepted: Callable[[], None]) -> None:
        self.worker_id = worker_id
        self.paused = False
        self.is_known = asyncio.Event()
        """Set once the server has accepted a beat, and told of the record that this makes: only then can an operator
        disable this worker there."""
        self._session = session
        self._interval = settings.heartbeat_interval
        self._accepted = accepted
        self._online_at = datetime.now(tz=ZoneInfo(settings.api_timezone)).isoformat()
        self._hostname = settings.hostname
        self._job: Job | None = None
        self._task: TaskRun | None = None
        self._idle = False
        self._in_flight: collections.deque[asyncio.Task[None]] = collections.deque()

    def set_idle(self) -> None:
        """Nothing is under way."""
        self._idle, self._job, self._task = True, None, None

    def set_job(self, job: Job) -> None:
        """A job is under way, and as yet none of its tasks."""
        self._job, self._task = job, None

    def set_task(self, task: TaskRun, step: StepName) -> None:
        """A step of a task begins. Only a task that runs is shown: others are initialised and validated meanwhile."""
        if step in ("run", "cleanup"):
            self._task = task

    def message(self) -> dict[str, Any]:
        """What there is to say now."""
        message: dict[str, Any] = {
            "status": "in_progress" if self._job else "idle" if self._idle else "startup",
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
            info |= status.info
        if self.paused:
            info["paused"] = True
        return message | ({"info": info} if info else {})

    async def keep_beating(self) -> None:
        """Beat until cancelled."""
        try:
            while True:
                self._beat()
                await asyncio.sleep(self._interval * random.uniform(1 - JITTER, 1))  # noqa: S311 - no secret
        finally:
            for beat in self._in_flight:
                beat.cancel()

    def _beat(self) -> None:
        while self._in_flight and self._in_flight[0].done():
            self._in_flight.popleft()
        if len(self._in_flight) >= IN_FLIGHT:
            self._in_flight.popleft().cancel()
        self._in_flight.append(asyncio.create_task(self._send(self.message())))

    async def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(SessionError):  # the session has logged it, and the next beat is the retry
            await self._session.beat(self.worker_id, message)
            self._accepted()
            if not self.is_known.is_set():
                await self._session.worker_disabled(self.worker_id)
                self.is_known.set()
