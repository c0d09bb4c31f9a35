"""How many jobs there are, and how many have ended in what time, since the tables exist: for metrics.

Totals are counted as jobs end: the jobs themselves are deleted in time, and counting a million of them would take long.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, func, select

from server.storage.database import ServerDatabase, insert
from server.storage.needs import Needs
from server.storage.tables import QUEUED, RUNNING, jobs, totals

BOUNDS = (1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600, 86400)
"""Upper bounds of a histogram of durations, in seconds. There is one more bucket above."""

NOT_STARTED = -1
"""The bucket of jobs that ended without a start."""


def count_ended(db: Connection, need: int, state: str, started_at: datetime | None, ended_at: datetime) -> None:
    """Count a job that ends. It comes last in its transaction: others wait for this row until the commit."""
    bucket, milliseconds = NOT_STARTED, 0
    if started_at:
        seconds = max(0.0, (ended_at - started_at).total_seconds())
        bucket, milliseconds = bisect_left(BOUNDS, seconds), round(seconds * 1000)
    statement = insert(db, totals).values(state=state, need=need, bucket=bucket, ended=1, milliseconds=milliseconds)
    changed = {name: totals.c[name] + statement.excluded[name] for name in ("ended", "milliseconds")}
    db.execute(statement.on_conflict_do_update(index_elements=["state", "need", "bucket"], set_=changed))


@dataclass
class Ended:
    """The jobs of one kind that have ended."""

    count: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Of those that had been started, by their durations."""
    seconds: float = 0.0

    def add(self, other: "Ended") -> None:
        """Add those of another kind."""
        self.count += other.count
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds


@dataclass(frozen=True)
class Totals:
    """The jobs by their state and modules."""

    unfinished: dict[tuple[str, frozenset[str]], int]
    ended: dict[tuple[str, frozenset[str]], Ended]
    head_added_at: datetime | None
    """The time of submission of the queue's head."""


class JobTotals:
    """Reads the totals. Any thread may do that."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._needs = Needs()

    def read(self) -> Totals:
        """Read all, in the same time however many jobs have ended."""
        unfinished: dict[tuple[str, frozenset[str]], int] = {}
        ended: dict[tuple[str, frozenset[str]], Ended] = {}
        order = (jobs.c.priority.desc(), jobs.c.position, jobs.c.number)
        with self._database.begin() as db:
            counted = list(_count_unfinished(db))
            rows = db.execute(select(totals)).all()
            head = db.execute(select(jobs.c.added_at).where(QUEUED).order_by(*order).limit(1)).scalar()
            needs = self._needs.read(db)
        for state, need, count in counted:
            key = state, needs[need].modules
            unfinished[key] = unfinished.get(key, 0) + count
        for row in rows:
            kind = ended.setdefault((row.state, needs[row.need].modules), Ended())
            kind.count += row.ended
            if row.bucket != NOT_STARTED:
                kind.buckets[row.bucket] += row.ended
                kind.seconds += row.milliseconds / 1000
        return Totals(unfinished, ended, head)


def _count_unfinished(db: Connection) -> Iterator[tuple[str, int, int]]:
    for state, condition in (("queued", QUEUED), ("running", RUNNING)):
        for need, count in db.execute(select(jobs.c.need, func.count()).where(condition).group_by(jobs.c.need)):
            yield state, need, count
