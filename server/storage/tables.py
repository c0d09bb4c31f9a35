"""The tables, for SQLite and for PostgreSQL.

Text from outside may hold what neither database can: lone surrogates, and in PostgreSQL NUL. It is stored escaped, as
JSON writes it in ASCII. Documents are stored as JSON text and sent as they are stored, without decoding.

The indexes are in `migrations/versions`: no query names one, and to declare those that hold only some rows takes both
databases' dialects, which are slow to import.
"""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeDecorator

REVISION = "0003"
"""The newest revision in `migrations/versions`."""

MAX_KEY = 1250
"""Characters that a text may have, as JSON, by which rows are found: PostgreSQL's index holds 2704 of two of them."""


class Escaped(TypeDecorator[str]):
    """Any text, stored in ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Return `value` as it is stored."""
        return None if value is None else json.dumps(value)[1:-1]

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Return the text that was stored."""
        return None if value is None else str(json.loads(f'"{value}"'))


class Instant(TypeDecorator[datetime]):
    """An instant, stored in microseconds since 1970: exact, and sorted the same in both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Return `value` as it is stored."""
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Return the instant that was stored, in UTC."""
        return None if value is None else datetime.fromtimestamp(value // 10**6, UTC).replace(microsecond=value % 10**6)


def to_microseconds(instant: datetime) -> int:
    """Return the microseconds since 1970."""
    return round(instant.replace(microsecond=0).timestamp()) * 10**6 + instant.microsecond


def to_text(value: Any) -> str:
    """Encode `value` as JSON in ASCII.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def tasks_asked(document: str) -> list[dict[str, Any]]:
    """Return the tasks of a job's document as they were submitted, without the marks of workers that gave it back."""
    tasks = json.loads(document)["tasks"]
    return [{key: value for key, value in task.items() if key not in ("handed_back", "unfit")} for task in tasks]


_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True),  # in the order of submission
    Column("job_id", Escaped, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False, default=0),  # higher ones first
    # In the queue, the lowest of a priority first, and then the lowest number: 0 for a job that came at the end, less
    # for each that was put at the head.
    Column("position", BigInteger, nullable=False, default=0),
    Column("title", Escaped, nullable=False),
    Column("document", Text, nullable=False),  # as a poll returns it
    Column("need", Integer, nullable=False),  # a row of `needs`
    Column("former_id", Escaped),  # of a job that a worker handed back: its submitter knows only this id
    Column("retry_of", Escaped),
    Column("added_at", Instant, nullable=False),
    Column("started_at", Instant),  # the last time that it was taken
    Column("ended_at", Instant),
    Column("worker_id", Escaped),  # who took it last, once that is known
    Column("hostname", Escaped),
    Column(
        "attempts", Text, nullable=False, default="[]"
    ),  # those that have ended, without the one that gave a verdict
    Column("cancelled_by", Escaped),  # an order to end it, until its worker has heard of it; "" for a nameless operator
    Column("message", Escaped),  # of the record: why it failed
    Column("info", Text),  # the record, as the worker wrote it
)

# No parameters: with them, SQLite would not use the indexes that hold only some rows. An index of all rows by their
# state would hide those from its planner.
QUEUED = jobs.c.state == text("'queued'")
RUNNING = jobs.c.state == text("'running'")
ENDED = jobs.c.ended_at.is_not(None)


needs = Table(
    "needs",
    metadata,
    # What a worker must have to do a job. Many jobs share a row: a poll looks at a few rows and not at all jobs.
    Column("need", _Number, primary_key=True),
    Column("modules", Text, nullable=False),  # sorted, as JSON
    Column("tags", Text, nullable=False),
)

totals = Table(
    "totals",
    metadata,
    # How many jobs have ended, for metrics; `server.storage.totals` has the buckets.
    Column("state", Text, primary_key=True),
    Column("need", Integer, primary_key=True, autoincrement=False),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("ended", BigInteger, nullable=False),
    Column("milliseconds", BigInteger, nullable=False),
)

logs = Table(
    "logs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),  # of the job
    Column("log", Escaped, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    # Events that a target is to be told of, and has been; `server.storage.notices` has the rules.
    Column("number", _Number, primary_key=True),
    Column("target", Escaped, nullable=False),
    Column("id", Escaped, nullable=False),  # of the event
    Column("event", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("due_at", Instant),  # until then, a server sends it, or waits to try again
    Column("sent_at", Instant),
)

data = Table(
    "data",
    metadata,
    Column("module", Escaped, primary_key=True),
    Column("name", Escaped, primary_key=True),
    Column("id", Text, nullable=False),
    Column("document", Text, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    # The operator's orders that hold now: `queue_disabled` (id ""), `worker_disabled`, `worker_paused`.
    Column("kind", Text, primary_key=True),
    Column("id", Escaped, primary_key=True),
)

workers = Table(
    "workers",
    metadata,
    # The last heartbeats, for the other servers of the same database and for the next start.
    Column("worker_id", Escaped, primary_key=True),
    Column("beat", Text, nullable=False),  # differs from beat to beat
    Column("beat_at", Instant, nullable=False),  # by the database's clock
    Column("status", Text, nullable=False),  # the heartbeat; "null" for a worker that took its leave
    Column("abilities", Text, nullable=False),
)
