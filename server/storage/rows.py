"""The rows of jobs: found and changed by statements that are made once, which takes longer than to execute them."""

import functools
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, select, update

from server.storage.tables import QUEUED, jobs

ORDER = (jobs.c.priority.desc(), jobs.c.position, jobs.c.number)
"""Of the queue, the head first."""

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


def change(db: Connection, job: Any, values: Mapping[str, Any]) -> None:
    """Change columns of a job's row."""
    db.execute(_CHANGE, {"of_number": job.number, **values})
