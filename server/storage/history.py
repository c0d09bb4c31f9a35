"""Jobs in any state: lists, records, logs, uses of stored data, and the end of their retention."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, or_, select, type_coerce
from sqlalchemy.types import Text

from server.storage.database import ServerDatabase, insert
from server.storage.needs import Need, Needs
from server.storage.rows import ORDER, find_known
from server.storage.tables import ENDED, QUEUED, RUNNING, jobs, logs, tasks_asked

EXPIRED_AT_ONCE = 500
"""Jobs that one step of the retention deletes, at most: a long deletion would hold up everything else."""

SEARCHED_AT_ONCE = 20_000
"""Jobs whose titles one page of a search looks at, at most; the next page goes on from there."""

MAX_SEARCHED = 1000
"""Characters of a text that is searched: SQLite takes no pattern of more than 50 000 bytes."""

LISTED = ("job_id", "state", "priority", "worker_id", "hostname", "message", "retry_of", "cancelled_by")
TIMES = ("added_at", "started_at", "ended_at")
COLUMNS = (jobs.c.number, jobs.c.title, jobs.c.need, *(jobs.c[name] for name in (*LISTED, *TIMES)))
"""What `describe` reads."""

USES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The jobs to list. What is empty does not count."""

    state: str = ""
    module: str = ""
    worker: str = ""
    """A worker's id or host name."""
    text: str = ""
    """A part of the title, in any case; or a job's id."""
    since: datetime | None = None
    """The time of the submission, or of the end."""
    before: datetime | None = None
    by_end: bool = False
    """`since` and `before` are times of the end."""
    beginning: str = ""
    """Of the job's id, or of the one that it had before a worker handed it back."""


class Place(NamedTuple):
    """A place in the queue: what the queue is sorted by."""

    priority: int
    position: int
    number: int


class History:
    """The jobs of a database, and what became of them. Any thread may call the methods."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._needs = Needs()

    def page(self, wanted: JobFilter, cursor: int | None, limit: int) -> tuple[list[dict[str, Any]], int | None]:
        """Return jobs, the newest first, without their tasks; and where the next page begins, if there may be one.

        A page of a search by title may be short, or even empty, though there are more.
        """
        with self._database.begin() as db:
            found = self._read_in(db, self._select(db, wanted, cursor, limit))
            last = self._first_unsearched(db, cursor) if wanted.text else None
        return [job for _, job in found], found[-1][0].number if len(found) == limit else last

    def running(self, limit: int) -> list[dict[str, Any]]:
        """Return running jobs with their tasks, the ones that were taken first at the top."""
        query = select(*COLUMNS, jobs.c.document).where(RUNNING).order_by(jobs.c.started_at, jobs.c.number)
        rows = self._read(query.limit(limit))
        return [job | {"tasks": json.loads(row.document)["tasks"]} for row, job in rows]

    def last_failed(self, since: datetime, limit: int) -> list[dict[str, Any]]:
        """Return jobs that failed since then, without their tasks, the last one first."""
        query = select(*COLUMNS).where(*STATES["failed"], jobs.c.ended_at > since).limit(limit)
        return [job for _, job in self._read(query.order_by(jobs.c.ended_at.desc(), jobs.c.number.desc()))]

    def queued(self, after: Place | None, limit: int) -> tuple[list[dict[str, Any]], Place | None]:
        """Return queued jobs, the next one first, without tasks; and the place of the last one, if more follow."""
        query = select(*COLUMNS, jobs.c.position).where(QUEUED).order_by(*ORDER).limit(limit + 1)
        if after:
            behind = or_(
                jobs.c.position > after.position,
                and_(jobs.c.position == after.position, jobs.c.number > after.number),
            )
            # The first condition lets the index skip what comes before; alone, OR would not.
            query = query.where(
                jobs.c.priority <= after.priority,
                or_(jobs.c.priority < after.priority, behind),
            )
        rows = self._read(query)
        last = rows[limit - 1][0] if len(rows) > limit else None
        return [job for _, job in rows[:limit]], Place(last.priority, last.position, last.number) if last else None

    def count_until(self, place: Place) -> int:
        """Return how many queued jobs come before what follows a place."""
        first = or_(
            jobs.c.position < place.position,
            and_(jobs.c.position == place.position, jobs.c.number <= place.number),
        )
        is_before = or_(jobs.c.priority > place.priority, and_(jobs.c.priority == place.priority, first))
        with self._database.begin() as db:
            return int(db.execute(select(func.count()).where(QUEUED, is_before)).scalar_one())

    def uses(self, module: str, name: str) -> list[dict[str, Any]]:
        """Return the newest jobs that name stored data, of the newest `SEARCHED_AT_ONCE` jobs: `USES_SHOWN` at most."""
        text = json.dumps(name)
        with self._database.begin() as db:
            needs = [number for number, need in self._needs.read(db).items() if module in need.modules]
            newest = db.execute(select(func.max(jobs.c.number))).scalar() or 0
        query = select(*COLUMNS, jobs.c.document).where(
            jobs.c.number > newest - SEARCHED_AT_ONCE,
            jobs.c.need.in_(needs),
            jobs.c.document.contains(text, autoescape=True),
        )
        rows = self._read(query.order_by(jobs.c.number.desc()).limit(USES_SHOWN))
        # LIKE ignores case in SQLite, and the text may stand in the title or in another module's task.
        return [job for row, job in rows if _names(json.loads(row.document)["tasks"], module, name)]

    def record(self, job_id: str) -> dict[str, Any] | None:
        """Return everything of a job, in any state."""
        with self._database.begin() as db:
            row = find_known(db, job_id, select(jobs))
            if row is None:
                return None
            need = self._needs.read(db)[row.need]
        record = describe(row, need) | {
            "tasks": tasks_asked(row.document),
            "attempts": json.loads(row.attempts),
        }
        if row.started_at and row.state != "queued":
            attempt = {key: record[key] for key in ("worker_id", "hostname", "started_at", "ended_at") if key in record}
            record["attempts"].append(attempt | {"result": row.state})
        return record | ({"info": json.loads(row.info)} if row.info else {})

    def put_log(self, job_id: str, log: str) -> bool:
        """Keep a job's log; returns whether there is such a job."""
        with self._database.begin() as db:
            number = db.execute(select(jobs.c.number).where(jobs.c.job_id == job_id)).scalar()
            if number is None:
                return False
            statement = insert(db.dialect.name, logs).values(number=number, log=log)
            changed = {"log": statement.excluded.log}
            db.execute(statement.on_conflict_do_update(index_elements=["number"], set_=changed))
        return True

    def log(self, job_id: str) -> str | None:
        """Return a job's log."""
        with self._database.begin() as db:
            row = find_known(db, job_id, select(logs.c.log).join(jobs, jobs.c.number == logs.c.number))
        return row and str(row.log)

    def expire(self, retention: Mapping[str, timedelta]) -> int:
        """Delete some of the jobs that ended so long ago, by their state. Returns how many were deleted.

        One server at a time does this; for the others the answer is 0.
        """
        now, deleted = datetime.now(UTC), 0
        with self._database.begin() as db:
            if not self._database.is_watch(db):
                return 0
            for state, kept in retention.items():
                old = select(jobs.c.number).where(ENDED, jobs.c.state == state, jobs.c.ended_at < now - kept)
                numbers = list(db.execute(old.order_by(jobs.c.ended_at).limit(EXPIRED_AT_ONCE)).scalars())
                if numbers:
                    db.execute(delete(logs).where(logs.c.number.in_(numbers)))
                    deleted += db.execute(delete(jobs).where(jobs.c.number.in_(numbers))).rowcount
        if deleted:
            self._database.shrink()
        return deleted

    def _read(self, query: Select[Any]) -> Sequence[tuple[Any, dict[str, Any]]]:
        with self._database.begin() as db:
            return self._read_in(db, query)

    def _read_in(self, db: Connection, query: Select[Any]) -> Sequence[tuple[Any, dict[str, Any]]]:
        found = db.execute(query).all()
        needs = self._needs.read(db)
        return [(row, describe(row, needs[row.need])) for row in found]

    def _select(self, db: Connection, wanted: JobFilter, cursor: int | None, limit: int) -> Select[Any]:
        # Few jobs have not ended. `+ 0` has SQLite look for those by their index, and not at all jobs in order.
        newest = (jobs.c.number + 0 if wanted.state in ("queued", "running") else jobs.c.number).desc()
        query = select(*COLUMNS).order_by(newest).limit(limit)
        if cursor is not None:
            query = query.where(jobs.c.number < cursor)
        if wanted.state:
            query = query.where(*STATES[wanted.state])
        if wanted.module:
            needs = self._needs.read(db)
            query = query.where(
                jobs.c.need.in_([number for number, need in needs.items() if wanted.module in need.modules])
            )
        if wanted.worker:
            query = query.where(_done_by(db, wanted.worker))
        if wanted.text:
            query = query.where(_matches(wanted.text), jobs.c.number >= (self._first_unsearched(db, cursor) or 0))
        if wanted.beginning:
            ids, beginning = (jobs.c.job_id, jobs.c.former_id), wanted.beginning[:MAX_SEARCHED]
            query = query.where(or_(*(each.startswith(beginning, autoescape=True) for each in ids)))
        if wanted.by_end:
            after = [jobs.c.ended_at >= wanted.since] if wanted.since else []
            return query.where(*after, *([jobs.c.ended_at < wanted.before] if wanted.before else []))
        # Bounds by number, which the indexes are sorted by: jobs are numbered in the order of their submission.
        if wanted.since:
            first = (
                select(jobs.c.number).where(jobs.c.added_at >= wanted.since).order_by(jobs.c.added_at, jobs.c.number)
            )
            query = query.where(jobs.c.added_at >= wanted.since, jobs.c.number >= _scalar(first))
        if wanted.before:
            last = select(jobs.c.number).where(jobs.c.added_at < wanted.before)
            last = last.order_by(jobs.c.added_at.desc(), jobs.c.number.desc())
            query = query.where(jobs.c.added_at < wanted.before, jobs.c.number <= _scalar(last))
        return query

    def _first_unsearched(self, db: Connection, cursor: int | None) -> int | None:
        """The number up to which one page of a search looks; `None` if it looks at all that there are."""
        end = cursor or (db.execute(select(func.max(jobs.c.number))).scalar() or 0) + 1
        first = db.execute(select(func.min(jobs.c.number))).scalar() or 0
        return end - SEARCHED_AT_ONCE if end - SEARCHED_AT_ONCE > first else None


STATES: dict[str, tuple[ColumnElement[bool], ...]] = {
    "queued": (QUEUED,),
    "running": (RUNNING,),
    **{state: (ENDED, jobs.c.state == state) for state in ("completed", "failed", "cancelled")},
}
"""All states, and the conditions for them."""


def describe(row: Any, need: Need) -> dict[str, Any]:
    """A row of `jobs` as JSON shows it, without tasks. What is not known is left out."""
    described = {name: value for name in LISTED if (value := getattr(row, name)) is not None}
    described |= {name: value.isoformat() for name in TIMES if (value := getattr(row, name))}
    return {"job_title": row.title, **described, "modules": sorted(need.modules), "requires": sorted(need.tags)}


def _scalar(query: Select[tuple[int]]) -> Any:
    return query.limit(1).scalar_subquery()


def _done_by(db: Connection, worker: str) -> ColumnElement[bool]:
    """Jobs of a worker: by one of both indexes, since an OR would sort all jobs that it finds."""
    by_id = jobs.c.worker_id == worker
    return by_id if db.execute(select(jobs.c.number).where(by_id).limit(1)).scalar() else jobs.c.hostname == worker


def _matches(text: str) -> ColumnElement[bool]:
    title, text = func.lower(type_coerce(jobs.c.title, Text)), text[:MAX_SEARCHED]
    # The stored text is ASCII, in which databases cannot tell that é and É are one letter: \u00e9 and \u00c9.
    spellings = {json.dumps(word)[1:-1].lower() for word in (text, text.lower(), text.upper(), text.title())}
    ids = (jobs.c.job_id == text, jobs.c.former_id == text)
    return or_(*ids, *(title.contains(word, autoescape=True) for word in sorted(spellings)))


def _names(tasks: Sequence[Any], module: str, name: str) -> bool:
    return any(task["module"] == module and _holds(task.get("data"), name) for task in tasks)


def _holds(value: Any, name: str) -> bool:
    if isinstance(value, dict | list):
        return any(_holds(item, name) for item in (value.values() if isinstance(value, dict) else value))
    return bool(value == name)
