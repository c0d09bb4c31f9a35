"""Shared by the slots of a worker: the operator's orders, from here and from the server, and their `WorkerContext`."""

import asyncio
import contextlib
import dataclasses
import enum
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from loguru import logger

from app.config import Settings
from supervisor.api.client import SHORTEST_WAIT, Session, WorkerOrders
from supervisor.api.errors import SessionError
from supervisor.isolation.runtime import Runtime
from supervisor.worker.heartbeat import JITTER
from supervisor.worker.journal import Journal, OutboxItem, UnfinishedJob
from supervisor.worker.outbox import Outbox
from supervisor.worker.trouble import Trouble

LONGEST_WAIT = 30.0
"""Seconds that a poll waits for a job: as long as the embedded server allows, and less than proxies do."""


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
        self.closed = ""
        """Why no job is taken now, while it is outside of WORK_HOURS."""
        self.pauses_when_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what an order asks for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop holds only a weak reference: the task could be collected half-way
        task.add_done_callback(self._tasks.discard)

    async def stopping_or(self, *events: asyncio.Event) -> None:
        """Wait for one of `events`, but not longer than until the client is told to stop."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self.stopping, *events)]
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


class SlotStanding:
    """What operators want of one worker: by signals and hours (`Control`), and by orders of a server that offers them.

    A worker is paused while one of them wants it. Only a signal pauses one that was told to stop: it could not end.
    """

    def __init__(self, control: Control, worker_id: str) -> None:
        self._control = control
        self._worker_id = worker_id
        self._orders = WorkerOrders()
        self.may_take = asyncio.Event()
        """Set while the worker may take jobs. `update` sets it."""
        self.is_cancelled = asyncio.Event()
        """Set when the job in hand is to be cancelled."""
        self.update()

    @property
    def is_paused(self) -> bool:
        """The worker's job is to stand still."""
        control = self._control
        is_closed = bool(control.closed) and control.pauses_when_closed
        return not control.going.is_set() or (control.stage is Stage.WORK and (self._orders.paused or is_closed))

    def obey(self, orders: WorkerOrders, job_id: str | None) -> bool:
        """Take orders of the server for a worker with this job; returns whether they change anything."""
        before, self._orders = self._orders, orders
        name = f"Worker {self._worker_id}"
        if orders.paused != before.paused:
            logger.info("{} is {} by the server", name, "paused" if orders.paused else "not paused any more")
        if orders.disabled != before.disabled:
            log_disabled(f"{name} or the queue", orders.disabled)  # the answer does not tell which
        is_new = job_id in orders.cancel and not self.is_cancelled.is_set()
        if is_new:
            self.is_cancelled.set()
        return is_new or (orders.paused, orders.disabled) != (before.paused, before.disabled)

    def update(self) -> None:
        """Signals, orders or the hours have changed."""
        if self.is_paused or self._orders.disabled or self._control.closed:
            self.may_take.clear()
        else:
            self.may_take.set()


class PollTurn:
    """The turn to wait at the server for a job, which one of the idle slots has: so slots cost no connections.

    Attributes:
        wait: Seconds that a poll may wait.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wait = LONGEST_WAIT
        self._cut_after: float | None = None

    def note_end(self) -> None:
        """A poll ended as it should."""
        self._cut_after = None

    def note_cut(self, seconds: float) -> None:
        """A poll was cut after so many seconds. If that happens twice in a row, they shall wait for less."""
        before, self._cut_after = self._cut_after, seconds
        if before and seconds > SHORTEST_WAIT and abs(seconds - before) < before / 4 and self.wait > SHORTEST_WAIT:
            self.wait = max(SHORTEST_WAIT, 0.8 * min(seconds, before))
            words = "Polls are cut after {:.0f} s, perhaps by a proxy: from now on they wait for {:.1f} s"
            logger.warning(words, seconds, self.wait)


def log_disabled(name: str, disabled: bool) -> None:
    words = "disabled on the server: no jobs are taken" if disabled else "enabled again"
    logger.info("{} is {}", name[0].upper() + name[1:], words)


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
            log_disabled(name, disabled)
        return disabled


@dataclasses.dataclass(slots=True)
class WorkerContext:
    """Shared by the slots of a client."""

    session: Session
    journal: Journal
    outbox: Outbox
    log_outbox: Outbox
    """That of logs: no verdict waits for them."""
    results: Counter[str]
    """How many jobs were completed, failed, cancelled or returned to the queue, since the start."""
    control: Control
    flags: DisabledFlags
    trouble: Trouble
    turn: PollTurn
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

    def owe(self, item: OutboxItem) -> None:
        """Have the outbox send what is left of a job, which is no longer in hand."""
        self.outbox.add(item)
        self.in_hand.discard(item.job_id)
