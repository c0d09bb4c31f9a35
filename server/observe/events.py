"""The changes of the farm as server-sent events, for `GET /events`.

| event | data |
| --- | --- |
| `reset` | `{}`: events may be missing: read `/jobs`, `/workers` and `/queue` again |
| `job` | a job as `GET /jobs` lists it; or its `job_id` and the state `deleted` |
| `worker` | a worker as `GET /workers` lists it, live or `lost`; or its `worker_id` and the status `gone` |
| `queue` | `{"entries": …, "running": …, "disabled": …}` |

Of the changes of `INTERVAL`, one event per job or worker tells the newest state. A heartbeat that says the same as the
one before is no event, and the end of a job's retention is none.

A stream begins with `reset`, unless it resumes: a browser reconnects by itself with the id of the last event that it
got (`Last-Event-ID`), and goes on there if this server still has the events after it.

One task watches for all readers, and only while there are any. They read from one buffer: a reader who falls behind it
gets `reset`. So a slow reader costs no memory.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from fastapi.concurrency import run_in_threadpool
from loguru import logger

from server.storage.changes import JobChanges
from server.storage.database import ServerDatabase, reason
from server.storage.settings import Orders
from server.storage.tables import to_text
from server.waiting import Waiting
from server.workers import Workers, describe_workers

INTERVAL = 0.5
"""Seconds of changes that become one event."""

MAX_BUFFER = 4 << 20
"""Characters of the events that are kept for readers who are behind."""

MAX_CHUNK = 64 << 10
"""Characters that a reader is sent at once, about."""

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment shows that the connection stands."""

RETRY = 2000
"""Milliseconds until a browser reconnects."""

LINGER = 30.0
"""Seconds for which the watching goes on without readers: they may reconnect."""


class Events:
    """The events of one server, and the task that watches for them. For the loop's thread alone."""

    def __init__(self, database: ServerDatabase, workers: Workers, orders: Orders, waiting: Waiting) -> None:
        self._database, self._known_workers, self._orders, self._waiting = database, workers, orders, waiting
        self._stream = secrets.token_hex(4)
        self._buffer: deque[tuple[int, str]] = deque()
        self._size = 0
        self._last = 0
        self._readers = 0
        self._unread = 0.0
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._news = asyncio.Event()
        self._end = asyncio.Event()
        self._changes = JobChanges(database)
        self._workers: dict[str, dict[str, Any]] = {}
        self._queue: dict[str, Any] = {}

    async def start(self) -> None:
        """Begin to watch, unless that is done already. What changes from now on becomes an event.

        Raises:
            SQLAlchemyError: the database failed.
        """
        self._unread = 0.0
        async with self._starting:
            if self._task is None or self._task.done():
                self._changes = JobChanges(self._database)
                await self._look()
                self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """End all streams."""
        self._end.set()
        self._news.set()

    async def wait_closed(self) -> None:
        """Stop watching. No look is under way then: the database can be closed."""
        self.close()
        if self._task:
            await self._task

    async def read(self, last_id: str) -> AsyncIterator[str]:
        """Yield the events after that id, and then each as it comes, as text."""
        stream, _, number = last_id.partition("-")
        known = stream == self._stream and number.isdecimal() and len(number) < 20
        position = int(number) if known else -1
        self._readers += 1
        try:
            yield f"retry: {RETRY}\n\n"
            while not self._end.is_set():
                news = self._news
                text, position = self._after(position)
                if not text:
                    await _wait(news, KEEP_ALIVE)
                if text or not news.is_set():
                    yield text or ": still here\n\n"
        finally:
            self._readers -= 1

    def _after(self, position: int) -> tuple[str, int]:
        """Some of the events after a position, as text, and the position after those."""
        if position == self._last:
            return "", position
        oldest = self._buffer[0][0] if self._buffer else self._last + 1
        if not oldest - 1 <= position <= self._last:
            return self._format(self._last, "reset", {}), self._last
        texts, size = [], 0
        for number, text in list(self._buffer)[position - oldest + 1 :]:
            texts.append(text)
            size += len(text)
            position = number
            if size >= MAX_CHUNK:
                break
        return "".join(texts), position

    def _format(self, number: int, event: str, data: Any) -> str:
        return f"id: {self._stream}-{number}\nevent: {event}\ndata: {to_text(data)}\n\n"

    def _append(self, event: str, data: Any) -> None:
        self._last += 1
        text = self._format(self._last, event, data)
        self._buffer.append((self._last, text))
        self._size += len(text)
        while self._size > MAX_BUFFER:
            self._size -= len(self._buffer.popleft()[1])

    async def _watch(self) -> None:
        failing = False
        while self._unread < LINGER and not await _wait(self._end, INTERVAL):
            self._unread = 0.0 if self._readers else self._unread + INTERVAL
            try:
                await self._look()
                failing = False
            except Exception as error:  # noqa: BLE001 - the task's outermost frame, and the watch must go on
                if not failing:
                    logger.warning("Looking for changes failed, so events are late: {}", reason(error))
                failing = True
                self._changes = JobChanges(self._database)  # whose first look leads to a `reset`

    async def _look(self) -> None:
        touched = self._waiting.take_touched()
        changes = await run_in_threadpool(self._changes.look, touched - {""})
        last = self._last
        if "" in touched or not changes.is_complete:
            self._append("reset", {})
        for job in changes.jobs:
            self._append("job", job)
        for worker in self._changed_workers():
            self._append("worker", worker)
        disabled = "" in self._orders.standing.disabled
        queue = {"entries": changes.queued, "running": changes.running, "disabled": disabled}
        if queue != self._queue:
            self._queue = queue
            self._append("queue", queue)
        if self._last > last:
            self._news.set()
            self._news = asyncio.Event()

    def _changed_workers(self) -> Iterable[dict[str, Any]]:
        live, lost = describe_workers(self._known_workers, self._orders.standing)
        before, self._workers = self._workers, {worker["worker_id"]: worker for worker in (*live, *lost)}
        for name in before.keys() - self._workers.keys():
            yield {"worker_id": name, "status": "gone"}
        for name, worker in self._workers.items():
            if before.get(name) != worker:
                yield worker


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, at most so long; returns whether it came."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
