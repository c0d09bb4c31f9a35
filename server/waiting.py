"""Polls that wait for a job, and the calls that wake them; and what servers of one database tell each other.

One poll is woken for a job, not all: it takes the job, and wakes the next one in case there are more. Where several
servers share a database, a job that nobody waits for here is announced to the others (NOTIFY). An announcement that
gets lost costs a second: the watch wakes a poll every second.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator

from loguru import logger
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from server.storage.database import ServerDatabase, reason
from server.storage.needs import Ability, Need
from server.storage.tables import to_text

CHANNEL = "sisyphus_queue"
"""Of announcements of jobs."""

TOUCHED = "sisyphus_touched"
"""Of the ids of jobs that an operator moved or deleted."""

RETRY = 1.0
"""Seconds until a broken connection is replaced."""

MAX_TOUCHED = 1000

MAX_PAYLOAD = 7999
"""Bytes of an announcement, at most: PostgreSQL's limit."""


class Waiting:
    """The polls that wait at this server. For the loop's thread alone."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._wakers: dict[asyncio.Event, Ability] = {}
        self._closed = False
        self._touched: deque[str] = deque(maxlen=MAX_TOUCHED)

    @contextlib.contextmanager
    def joined(self, ability: Ability) -> Iterator[asyncio.Event]:
        """Let a poll wait: the event is set when it should look. Who asks last is woken last."""
        event = asyncio.Event()
        self._wakers[event] = ability
        try:
            yield event
        finally:
            del self._wakers[event]

    async def sleep(self, event: asyncio.Event, deadline: float) -> bool:
        """Wait to be woken; returns whether it is worth looking again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await event.wait()
        event.clear()
        self._wakers[event] = self._wakers.pop(event)  # behind the others
        return not self._closed and asyncio.get_running_loop().time() < deadline

    def wake(self, need: Need | None = None) -> bool:
        """Wake one poll, whose worker can do such a job; returns whether there is one."""
        for event, ability in self._wakers.items():
            if not event.is_set() and (need is None or ability.suffices(need)):
                event.set()
                return True
        return False

    def close(self) -> None:
        """Let all polls end at once, without a job."""
        self._closed = True
        for event in self._wakers:
            event.set()

    def announce(self, need: Need) -> None:
        """Tell the other servers of a job. Any thread may call this."""
        self._notify(CHANNEL, to_text([sorted(need.modules), sorted(need.tags)]))

    def touch(self, job_id: str) -> None:
        """Note that a job was moved or deleted, or with "" any number of them. Any thread may call this."""
        self._touched.append(job_id)
        if self._database.is_shared:
            self._notify(TOUCHED, to_text(job_id))

    def take_touched(self) -> set[str]:
        """Return what was noted since the last call; with "" there may be more."""
        full = {""} if len(self._touched) == MAX_TOUCHED else set()
        return full | {self._touched.popleft() for _ in range(len(self._touched))}

    def _notify(self, channel: str, payload: str) -> None:
        known = payload if len(payload) <= MAX_PAYLOAD else ""
        try:
            with self._database.begin() as db:
                db.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": known})
        except SQLAlchemyError as error:  # the change itself is made: the call that made it must not fail
            logger.warning("Other servers are not told of a change: {}", reason(error))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear the other servers' announcements."""
        task = asyncio.create_task(self._listen()) if self._database.is_shared else None
        try:
            yield
        finally:
            if task:
                task.cancel()
                await asyncio.wait([task])

    async def _listen(self) -> None:
        import psycopg

        failing = False
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **self._database.parameters, autocommit=True
                ) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    await connection.execute(f"LISTEN {TOUCHED}")
                    failing = False
                    self._touched.append("")  # nothing was heard until now
                    async for notification in connection.notifies():
                        self._hear(notification.channel, notification.payload)
            except psycopg.Error as error:
                if not failing:
                    logger.warning("Other servers cannot be heard: {}", " ".join(str(error).split()))
                failing = True
                await asyncio.sleep(RETRY)

    def _hear(self, channel: str, payload: str) -> None:
        if channel == CHANNEL:
            self.wake(_need(payload))
        else:
            self._touched.append(json.loads(payload) if payload else "")


def _need(payload: str) -> Need | None:
    if not payload:
        return None
    modules, tags = json.loads(payload)
    return Need(frozenset(modules), frozenset(tags))
