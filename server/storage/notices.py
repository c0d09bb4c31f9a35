"""What people and programs are to be told, until they have been: a row for each event and target.

The end of a job and its notice are one transaction. So a notice is neither lost with a crash nor made twice, whichever
server of the database writes it. Told ones are kept for a while: they keep the same event from being told again.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from server.notify.targets import Event, NotifySettings, Target
from server.storage.database import ServerDatabase, insert
from server.storage.tables import notices, to_text

SETTLE = timedelta(seconds=2)
"""What comes within this time after the first event is told with it."""

LEASE = timedelta(minutes=2)
"""The time that one server has to send. If it dies meanwhile, another one sends again."""

SHORTEST_RETRY, LONGEST_RETRY = timedelta(seconds=5), timedelta(minutes=10)
"""Bounds of the time between two attempts; it is half of the time for which they have failed."""

GIVE_UP = timedelta(days=1)
"""A notice that could not be sent for so long is dropped: by then somebody has looked."""

KEEP = timedelta(days=2)
"""The time that told ones are kept: longer than a lost worker is listed."""

MAX_FIRST = 100
"""Events that one message holds. Of the others it tells how many there are."""


@dataclass(frozen=True)
class Bundle:
    """The events of one message, which this server is to send before its lease ends."""

    target: str
    lease: datetime
    oldest: datetime
    count: int
    counts: dict[str, int]
    """How many there are of each event."""
    first: list[dict[str, Any]]


class Notices:
    """The notices of a database. Any thread may call the methods."""

    def __init__(self, database: ServerDatabase, settings: NotifySettings) -> None:
        self._database = database
        self._settings = settings

    def add(self, db: Connection, event: Event, key: str, **facts: Any) -> None:
        """Note an event for all targets that want it, in the transaction of `db`. `key` tells it from others like it.

        An event that was noted before changes nothing.
        """
        now = datetime.now(UTC)
        known = {name: value for name, value in facts.items() if value}
        document = to_text({"id": f"{event} {key}", "event": event, "at": now.isoformat(), **known})
        row = {"id": f"{event} {key}", "event": event, "at": now, "document": document}
        rows = [{**row, "target": target.name} for target in self._settings.targets if event in target.events]
        if rows:
            db.execute(insert(db.dialect.name, notices).on_conflict_do_nothing(), rows)

    def note(self, event: Event, key: str, **facts: Any) -> None:
        """Note an event in a transaction of its own."""
        with self._database.begin() as db:
            self.add(db, event, key, **facts)

    def take(self, target: Target) -> Bundle | None:
        """Return what is to be sent to a target now. Other servers leave that alone until the lease ends."""
        now, lease = datetime.now(UTC), datetime.now(UTC) + LEASE
        unsent = (notices.c.target == target.name, notices.c.sent_at.is_(None))
        with self._database.begin() as db:
            if not self._database.is_watch(db):  # asked first: what is read before may be another server's meanwhile
                return None
            oldest, due = db.execute(select(func.min(notices.c.at), func.max(notices.c.due_at)).where(*unsent)).one()
            if oldest is None:
                return None
            told = db.execute(select(func.max(notices.c.sent_at)).where(notices.c.target == target.name)).scalar()
            # A time that is too far ahead is that of a clock which was wrong, and counts as past.
            waits = ((oldest, SETTLE), (told or oldest, self._settings.every if told else SETTLE))
            if any(timedelta() <= now - begin < wait for begin, wait in waits) or (due and now < due <= now + MAX_WAIT):
                return None
            # Rows that become visible from here on are not in this bundle: the lease tells them from those that are.
            db.execute(update(notices).where(*unsent).values(due_at=lease))
            leased = (*unsent, notices.c.due_at == lease)
            counts = select(notices.c.event, func.count().label("entries")).where(*leased).group_by(notices.c.event)
            numbers = {row.event: int(row.entries) for row in db.execute(counts)}
            first = select(notices.c.document).where(*leased).order_by(notices.c.number).limit(MAX_FIRST)
            documents = [json.loads(text) for text in db.execute(first).scalars()]
        return Bundle(target.name, lease, oldest, sum(numbers.values()), numbers, documents)

    def settle(self, bundle: Bundle, is_sent: bool) -> datetime:
        """Note that a bundle was sent, or when to try again; returns that time."""
        now = datetime.now(UTC)
        retry = now + min(max((now - bundle.oldest) / 2, SHORTEST_RETRY), LONGEST_RETRY)
        mine = (notices.c.target == bundle.target, notices.c.sent_at.is_(None), notices.c.due_at == bundle.lease)
        with self._database.begin() as db:
            db.execute(update(notices).where(*mine).values({"sent_at": now} if is_sent else {"due_at": retry}))
        return retry

    def expire(self) -> int:
        """Delete what was told long ago, and what could not be; returns how many of the latter."""
        now = datetime.now(UTC)
        with self._database.begin() as db:
            db.execute(delete(notices).where(notices.c.sent_at < now - KEEP))
            return db.execute(delete(notices).where(notices.c.sent_at.is_(None), notices.c.at < now - GIVE_UP)).rowcount


MAX_WAIT = max(LEASE, LONGEST_RETRY)
