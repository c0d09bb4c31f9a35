"""The rows of jobs: found and changed by statements that are made once, which takes longer than to execute them."""

import functools
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, or_, select, update

from server.storage.tables import QUEUED, jobs, to_text

ORDER = (jobs.c.priority.desc(), jobs.c.position, jobs.c.number)
"""Of the queue, the head first."""

MAX_MARK = 100
"""Characters of a former id that are looked for: ours have 36."""

UNFINISHED = jobs.c.state.in_(("queued", "running"))
WAS_STARTED = jobs.c.started_at.is_not(None)

INSERT = jobs.insert()

HEAD = (
    select(jobs.c.number, jobs.c.document, jobs.c.started_at)
    .where(QUEUED)
    .order_by(*ORDER)
    .limit(1)
    .with_for_update(skip_locked=True)
)
"""The queue's first job; locked, where several servers share the database."""

_CHANGE = update(jobs).where(jobs.c.number == bindparam("of_number"))


def find(db: Connection, job_id: str, *conditions: ColumnElement[bool]) -> Any:
    """Return a job that fulfils the conditions, which are constants. Where servers share the database, it is locked."""
    return db.execute(_finding(*conditions), {"of_id": job_id}).first()


@functools.cache
def _finding(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(jobs).where(jobs.c.job_id == bindparam("of_id"), *conditions).with_for_update()


def find_known(db: Connection, job_id: str, query: Select[Any]) -> Any:
    """Return a job of a query that has this id, or had it before a worker handed it back, once or again and again."""
    ways = (jobs.c.job_id == job_id, jobs.c.former_id == job_id)
    for way in ways:
        if row := db.execute(query.where(way)).first():
            return row
    if db.execute(select(jobs.c.number).where(or_(*ways)).limit(1)).first():
        return None  # the query wants another state
    # Of an id between the first and the last one, only the mark tells. Few jobs are handed back: an index finds those.
    mark = jobs.c.document.contains(f'"handed_back":{to_text(job_id[:MAX_MARK])}', autoescape=True)
    return db.execute(query.where(jobs.c.former_id > "", mark)).first()


def change(db: Connection, job: Any, values: Mapping[str, Any]) -> None:
    """Change columns of a job's row."""
    db.execute(_CHANGE, {"of_number": job.number, **values})
