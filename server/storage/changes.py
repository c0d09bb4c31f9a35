"""The jobs that changed since the last look, whichever server of the database changed them.

A look costs the running jobs and what is new, not the queue or the history. Nothing is written for it: a trigger or a
NOTIFY in every transaction would keep PostgreSQL from committing several at once.
"""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, func, select, type_coerce

from server.storage.database import ServerDatabase
from server.storage.history import COLUMNS, describe
from server.storage.needs import Needs
from server.storage.tables import ENDED, QUEUED, RUNNING, jobs

OVERLAP = 10.0
"""Seconds that are looked at again: changes do not become visible in the order of their times and numbers."""

MAX_CHANGES = 1000
"""Rows of one kind that one look reads."""

_mark = select(
    jobs.c.number,
    jobs.c.job_id,
    jobs.c.state,
    jobs.c.priority,
    jobs.c.cancelled_by.is_not(None),
    *(type_coerce(jobs.c[name], BigInteger) for name in ("started_at", "ended_at")),  # not decoded: thousands are read
)


@dataclass(frozen=True, slots=True)
class ChangedJobs:
    """What one look found."""

    jobs: list[dict[str, Any]]
    """As lists show them, in the order of their submission; of a deleted one only its id, and the state `deleted`."""
    is_complete: bool
    """False if there may be more: at the first look, after the newest job's deletion, and if there was too much."""
    queued: int
    running: int


class JobChanges:
    """Compares the jobs with the last look. For one thread at a time."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._needs = Needs()
        self._marks: dict[int, Any] | None = None  # of running jobs and of recent ones, by their numbers
        self._newest, self._newest_id = -1, ""
        self._gaps: dict[int, float] = {}  # numbers that were not visible yet, and until when to look for them
        self._read_at = datetime.now(UTC)

    def look(self, touched: Collection[str]) -> ChangedJobs:
        """Return what changed since the last look; the first one finds nothing. `touched` are ids to look at besides.

        Without them, two changes go unnoticed: of a queued job's priority, and its deletion.
        """
        now, is_first = datetime.now(UTC), self._marks is None
        with self._database.begin() as db:
            is_complete = self._has_newest(db)
            if not is_complete:
                newest = db.execute(_mark.order_by(jobs.c.number.desc()).limit(1)).first()
                self._newest, self._newest_id = (newest.number, newest.job_id) if newest else (0, "")
            running = {mark.number: mark for mark in db.execute(_mark.where(RUNNING))}
            new = self._read_new(db)
            recent = jobs.c.ended_at > self._read_at - timedelta(seconds=OVERLAP)
            done = jobs.c.state.in_(("completed", "failed", "cancelled"))
            ended = db.execute(_mark.where(ENDED, done, recent).limit(MAX_CHANGES)).all()
            marks = running | {mark.number: mark for mark in (*new, *ended)}
            before = self._marks or {}
            # A running job that is not among these was put back, deleted, or ended by a server whose clock is late.
            gone = [number for number, mark in before.items() if mark.state == "running" and number not in marks]
            marks |= {mark.number: mark for mark in _in_parts(db, _mark, jobs.c.number, gone)}
            touched_marks = list(_in_parts(db, _mark, jobs.c.job_id, touched))
            marks |= {mark.number: mark for mark in touched_marks}
            changed = {number for number, mark in marks.items() if before.get(number) != mark}
            changed |= {mark.number for mark in touched_marks}
            listed = [] if is_first else self._describe(db, changed)
            queued = db.execute(select(func.count()).select_from(jobs).where(QUEUED)).scalar_one()
        deleted = {before[number].job_id for number in gone if number not in marks}
        deleted |= set(touched) - {mark.job_id for mark in touched_marks}
        listed += [{"job_id": job_id, "state": "deleted"} for job_id in sorted(deleted)]
        self._marks, self._read_at = marks, now
        return ChangedJobs(listed, is_complete and len(ended) < MAX_CHANGES, queued, len(running))

    def _has_newest(self, db: Connection) -> bool:
        """Return whether the newest job is still there: if not, SQLite gives its number again."""
        if self._newest <= 0:
            return self._newest == 0
        query = select(jobs.c.number).where(jobs.c.number == self._newest, jobs.c.job_id == self._newest_id)
        return db.execute(query).first() is not None

    def _read_new(self, db: Connection) -> list[Any]:
        """Read the jobs submitted since the last look, as far as they are visible; the others as soon as they are."""
        now = time.monotonic()
        self._gaps = {number: until for number, until in self._gaps.items() if until > now}
        late = list(_in_parts(db, _mark, jobs.c.number, self._gaps))
        query = _mark.where(jobs.c.number > self._newest).order_by(jobs.c.number).limit(MAX_CHANGES)
        new = db.execute(query).all()
        if new:
            first, self._newest, self._newest_id = self._newest + 1, new[-1].number, new[-1].job_id
            missing = set(range(max(first, self._newest - 2 * MAX_CHANGES), self._newest)) - {row.number for row in new}
            self._gaps |= dict.fromkeys(missing, now + OVERLAP)
        for mark in late:
            del self._gaps[mark.number]
        return [*late, *new]

    def _describe(self, db: Connection, numbers: Iterable[int]) -> list[dict[str, Any]]:
        rows = list(_in_parts(db, select(*COLUMNS), jobs.c.number, numbers))
        needs = self._needs.read(db)
        return [describe(row, needs[row.need]) for row in sorted(rows, key=lambda row: row.number)]


def _in_parts(db: Connection, query: Any, column: Any, values: Iterable[Any]) -> Iterable[Any]:
    """The rows with these values, some hundred at a time: a statement has room for so many."""
    wanted = list(values)
    for start in range(0, len(wanted), MAX_CHANGES):
        yield from db.execute(query.where(column.in_(wanted[start : start + MAX_CHANGES])))
