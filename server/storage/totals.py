"""How many jobs have ended in what time, since the tables exist: for metrics.

Totals are counted as jobs end: the jobs themselves are deleted in time, and counting a million of them would take long.
"""

import functools
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from server.storage.database import insert
from server.storage.tables import totals

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
    row = {"state": state, "need": need, "bucket": bucket, "ended": 1, "milliseconds": milliseconds}
    db.execute(_adding(db.dialect.name), row)


@functools.cache
def _adding(dialect: str) -> Any:
    statement = insert(dialect, totals)
    changed = {name: totals.c[name] + statement.excluded[name] for name in ("ended", "milliseconds")}
    return statement.on_conflict_do_update(index_elements=["state", "need", "bucket"], set_=changed)


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
