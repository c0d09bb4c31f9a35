"""Counts of the whole farm, from indexes and totals alone: what waits and for what, what runs, what has ended."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, Connection, func, select, type_coerce

from server.storage.database import ServerDatabase
from server.storage.needs import Need, Needs
from server.storage.rows import ORDER
from server.storage.tables import ENDED, QUEUED, RUNNING, jobs, to_microseconds, totals
from server.storage.totals import NOT_STARTED, Ended

HOUR = 3_600_000_000
"""In microseconds."""

HOURS = 24


@dataclass(frozen=True, slots=True)
class OldestWait:
    """The oldest of the queued jobs that need the same of a worker, and how many they are."""

    need: Need
    entries: int
    job_id: str
    title: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour in the past, and how many jobs ended in it, by their state."""

    begin: datetime
    ended: dict[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """The farm at one instant."""

    waiting: Mapping[Need, int]
    """How many jobs wait, by what they need of a worker."""
    head_added_at: datetime | None
    """When the first job of the queue was submitted."""
    running: int
    hours: Sequence[Hour]
    """The last `HOURS` hours, the oldest first; the last one ends now."""


@dataclass(frozen=True)
class Totals:
    """The jobs by their state and modules."""

    unfinished: dict[tuple[str, frozenset[str]], int]
    ended: dict[tuple[str, frozenset[str]], Ended]
    head_added_at: datetime | None
    """The time of submission of the queue's head."""
    modules: list[frozenset[str]]
    """All sets of modules, in the order in which they came; some of them twice."""


class Summary:
    """Counts the jobs of a database. Any thread may call the methods."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._needs = Needs()

    def count(self) -> Counts:
        """Return the counts now."""
        now = datetime.now(UTC)
        with self._database.begin() as db:
            head, waiting, running = _head_added_at(db), _count(db, QUEUED), _count(db, RUNNING)
            needs = self._needs.read(db) if waiting else {}
            hours = _count_ended(db, now)
        return Counts({needs[need]: entries for need, entries in waiting.items()}, head, sum(running.values()), hours)

    def totals(self) -> Totals:
        """Return the jobs by state and modules, in the same time however many have ended."""
        unfinished = Counter[tuple[str, frozenset[str]]]()
        ended: dict[tuple[str, frozenset[str]], Ended] = {}
        with self._database.begin() as db:
            counted = {"queued": _count(db, QUEUED), "running": _count(db, RUNNING)}
            rows = db.execute(select(totals)).all()
            head, needs = _head_added_at(db), self._needs.read(db)
        for state, entries in counted.items():
            for need, count in entries.items():
                unfinished[state, needs[need].modules] += count
        for row in rows:
            kind = ended.setdefault((row.state, needs[row.need].modules), Ended())
            kind.count += row.ended
            if row.bucket != NOT_STARTED:
                kind.buckets[row.bucket] += row.ended
                kind.seconds += row.milliseconds / 1000
        return Totals(unfinished, ended, head, [need.modules for _, need in sorted(needs.items())])

    def oldest(self) -> dict[int, OldestWait]:
        """Return the job that waits longest for each need, by the need's number."""
        oldest = select(func.min(jobs.c.number).label("number"), func.count().label("entries"))
        oldest_of = oldest.where(QUEUED).group_by(jobs.c.need).subquery()
        columns = (jobs.c.need, jobs.c.job_id, jobs.c.title, jobs.c.added_at, oldest_of.c.entries)
        with self._database.begin() as db:
            rows = db.execute(select(*columns).join(oldest_of, jobs.c.number == oldest_of.c.number)).all()
            needs = self._needs.read(db) if rows else {}
        return {row.need: OldestWait(needs[row.need], row.entries, row.job_id, row.title, row.added_at) for row in rows}


def _head_added_at(db: Connection) -> datetime | None:
    return db.execute(select(jobs.c.added_at).where(QUEUED).order_by(*ORDER).limit(1)).scalar()


def _count(db: Connection, condition: ColumnElement[bool]) -> dict[int, int]:
    """How many jobs fulfil a condition, by the number of their need."""
    grouped = select(jobs.c.need, func.count()).where(condition).group_by(jobs.c.need)
    return dict(db.execute(grouped).all())


def _count_ended(db: Connection, now: datetime) -> list[Hour]:
    hour = (to_microseconds(now) - type_coerce(jobs.c.ended_at, BigInteger)) // HOUR
    recent = jobs.c.ended_at > now - timedelta(hours=HOURS)
    query = select(jobs.c.state, hour, func.count()).group_by(jobs.c.state, hour)
    states = jobs.c.state.in_(("completed", "failed", "cancelled"))  # the first column of the index by end
    hours = [Hour(now - timedelta(hours=HOURS - number), {}) for number in range(HOURS)]
    for state, age, entries in db.execute(query.where(ENDED, states, recent)):
        counts = hours[HOURS - 1 - max(age, 0)].ended  # another server's clock may be ahead
        counts[state] = counts.get(state, 0) + entries
    return hours
