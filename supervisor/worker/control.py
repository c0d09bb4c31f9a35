"""Shared by the slots of a worker: the operator's orders, from here and from the server, and their `WorkerContext`."""

import asyncio
import contextlib
import dataclasses
import enum
import random
from collections import deque
from collections.abc import Awaitable, Callable

from loguru import logger

from app.config import Settings
from supervisor.api.client import Session
from supervisor.api.errors import SessionError
from supervisor.isolation.runtime import Runtime
from supervisor.worker.heartbeat import JITTER
from supervisor.worker.journal import Journal, UnfinishedJob
from supervisor.worker.outbox import Outbox
from supervisor.worker.trouble import Trouble


class Stage(enum.IntEnum):
    """How far the client was told to stop. A stage is never taken back."""

    WORK = 0
    DRAIN = 1
    """Take no new job, finish those in hand."""
    CANCEL = 2
    """Stop those in hand, and return them to the queue."""
    KILL = 3
    """Kill everything. The journal keeps the jobs for the next start."""


class Control:
    """The operator's signals, as far as they are for all slots. Only code in the event loop changes it."""

    def __init__(self) -> None:
        self.stage = Stage.WORK
        self.stopping = asyncio.Event()
        """Set in every stage but the first."""
        self.going = asyncio.Event()
        """Cleared while paused."""
        self.going.set()

    async def stopping_or(self, event: asyncio.Event) -> None:
        """Wait for `event`, but not longer than until the client is told to stop."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self.stopping, event)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def rest(self, seconds: float) -> None:
        """Sleep `seconds` with jitter; return early on shutdown."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(1 - JITTER, 1)):  # noqa: S311 - no secret
                await self.stopping.wait()


class DisabledFlags:
    """The flags on the server that disable the queue or a worker. Each is read once per `interval`, in seconds."""

    def __init__(self, session: Session, interval: float) -> None:
        self._session = session
        self._interval = interval
        self._flags: dict[str, tuple[float, bool]] = {}
        """For each name in the log: when the flag was read, and its value."""
        self._reading = asyncio.Lock()

    async def disabled(self, worker_id: str) -> bool:
        """True if this worker must take no jobs.

        Raises:
            SessionError: the server does not tell.
        """
        async with self._reading:  # the slots share one flag of the queue: the first of them reads it
            queue = await self._read("the queue", self._session.queue_disabled)
            return await self._read(f"worker {worker_id}", lambda: self._session.worker_disabled(worker_id)) or queue

    async def _read(self, name: str, ask: Callable[[], Awaitable[bool]]) -> bool:
        now = asyncio.get_running_loop().time()
        read_at, before = self._flags.get(name, (float("-inf"), False))
        if now - read_at < self._interval:
            return before
        try:
            disabled = await ask()
        except SessionError as error:
            if error.status or not error.partial or name not in self._flags:
                raise
            disabled = before  # the response had begun, and is too long for its time: a huge queue
        self._flags[name] = now, disabled
        if disabled != before:
            words = "disabled on the server: no jobs are taken" if disabled else "enabled again"
            logger.info("{} is {}", name[0].upper() + name[1:], words)
        return disabled


@dataclasses.dataclass(slots=True)
class WorkerContext:
    """Shared by the slots of a client."""

    session: Session
    journal: Journal
    outbox: Outbox
    control: Control
    flags: DisabledFlags
    trouble: Trouble
    runtime: Runtime
    """Replaced when the operator has the configuration read again. Jobs under way keep the one they began with."""
    settings: Settings
    unfinished: deque[UnfinishedJob]
    """Jobs that an earlier run of the client left."""
    in_hand: set[str]
    """The ids of the unfinished jobs, and of those that run."""
    workers: tuple[str, ...]
    """The ids of all slots' workers."""
    ours: frozenset[str]
    """These, and the ids that this client's workers had before: with more slots, or another HOST_UUID."""
