"""Lists for the page that `History` has not: what runs, the queue in its order, and the uses of stored data."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, func, or_, select

from server.storage.database import ServerDatabase
from server.storage.history import LISTED, SEARCHED_AT_ONCE, TIMES, describe
from server.storage.needs import Needs
from server.storage.store import ORDER
from server.storage.tables import QUEUED, RUNNING, jobs

USES_SHOWN = 20

_COLUMNS = (jobs.c.number, jobs.c.title, jobs.c.need, *(jobs.c[name] for name in (*LISTED, *TIMES)))


class Place(NamedTuple):
    """A place in the queue: what the queue is sorted by."""

    priority: int
    position: int
    number: int


class Lists:
    """Reads the jobs of a database. Any thread may call the methods."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._needs = Needs()

    def running(self, limit: int) -> list[dict[str, Any]]:
        """Return running jobs with their tasks, the ones that were taken first at the top."""
        query = select(*_COLUMNS, jobs.c.document).where(RUNNING).order_by(jobs.c.started_at, jobs.c.number)
        rows = self._read(query.limit(limit))
        return [job | {"tasks": json.loads(row.document)["tasks"]} for row, job in rows]

    def queued(self, after: Place | None, limit: int) -> tuple[list[dict[str, Any]], Place | None]:
        """Return queued jobs, the next one first, without tasks; and the place of the last one, if more follow."""
        query = select(*_COLUMNS, jobs.c.position).where(QUEUED).order_by(*ORDER).limit(limit + 1)
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

    def uses(self, module: str, name: str) -> list[dict[str, Any]]:
        """Return the newest jobs that name stored data, of the newest `SEARCHED_AT_ONCE` jobs: `USES_SHOWN` at most."""
        text = json.dumps(name)
        with self._database.begin() as db:
            needs = [number for number, need in self._needs.read(db).items() if module in need.modules]
            newest = db.execute(select(func.max(jobs.c.number))).scalar() or 0
        query = select(*_COLUMNS, jobs.c.document).where(
            jobs.c.number > newest - SEARCHED_AT_ONCE,
            jobs.c.need.in_(needs),
            jobs.c.document.contains(text, autoescape=True),
        )
        rows = self._read(query.order_by(jobs.c.number.desc()).limit(USES_SHOWN))
        # LIKE ignores case in SQLite, and the text may stand in the title or in another module's task.
        return [job for row, job in rows if _names(json.loads(row.document)["tasks"], module, name)]

    def _read(self, query: Any) -> Sequence[tuple[Any, dict[str, Any]]]:
        with self._database.begin() as db:
            found = db.execute(query).all()
            needs = self._needs.read(db)
        return [(row, describe(row, needs[row.need])) for row in found]


def _names(tasks: Sequence[Any], module: str, name: str) -> bool:
    return any(task["module"] == module and _holds(task.get("data"), name) for task in tasks)


def _holds(value: Any, name: str) -> bool:
    if isinstance(value, dict | list):
        return any(_holds(item, name) for item in (value.values() if isinstance(value, dict) else value))
    return bool(value == name)
