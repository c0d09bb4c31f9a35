"""The database: jobs, verdicts, named data, and what is disabled. It knows nothing of HTTP.

Every change is one transaction that is on the disk when the method returns, so an acknowledged change survives SIGKILL
and a power cut. A job is one row from its submission to its verdict, so it cannot be lost between a queue and a record.
Its `position` is its place in the queue, or NULL while it runs. Two partial indexes keep taking a job, appending one
and finding the running ones at the same cost however many jobs there are.

Documents are JSON text in ASCII, because SQLite's text cannot hold the lone surrogates that JSON strings can. They are
sent as they are stored, without decoding.

One connection behind one lock is enough: a transaction takes as long as one fsync, and SQLite has one writer anyway.
"""

import contextlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.database import Database, DatabaseFileError, Schema
from server.errors import StoreError

_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,  -- in the order of submission
    job_id TEXT NOT NULL UNIQUE,
    position INTEGER,            -- in the queue; NULL while it runs
    taken INTEGER NOT NULL,      -- how many times it was handed out
    title TEXT NOT NULL,         -- as JSON
    document TEXT NOT NULL
);
CREATE UNIQUE INDEX queued ON jobs (position) WHERE position IS NOT NULL;
CREATE INDEX running ON jobs (number) WHERE position IS NULL;
CREATE TABLE verdicts (job_id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE data (
    module TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (module, name)
);
CREATE TABLE disabled (what TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (what, id)) WITHOUT ROWID;
"""

SCHEMA = Schema(application_id=0x53495359, tables=_TABLES)  # reads SISY


def to_text(value: Any) -> str:
    """Encode `value` as JSON in ASCII.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


class Store:
    """One server's database. Any thread may call the methods.

    Every method raises `sqlite3.Error` if the disk is full or broken; then nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, or make it.

        Raises:
            StoreError: it cannot be written, is not a database of this program, or another server uses it.
        """
        self._mutex = threading.Lock()
        self._database = _open(path)

    def close(self) -> None:
        """Close the database and let another server have it."""
        with self._mutex:
            self._database.close()

    # --- the queue ---

    def submit(self, title: str, tasks: Sequence[Any]) -> str:
        """Append a job to the queue; returns its id."""
        job_id = str(uuid.uuid4())
        job = {"job_id": job_id, "job_title": title, "tasks": tasks, "added": _now()}
        row = (job_id, to_text(title), to_text(job))
        with self._transaction() as db:
            db.execute(
                "INSERT INTO jobs (job_id, position, taken, title, document)"
                " SELECT ?, ifnull(max(position), 0) + 1, 0, ?, ? FROM jobs WHERE position IS NOT NULL",
                row,
            )
        return job_id

    def take(self) -> str | None:
        """Take the job at the head of the queue: it runs from now on. Returns its document; `None` if there is none."""
        with self._transaction() as db:
            head = db.execute(
                "SELECT number, document FROM jobs WHERE position IS NOT NULL ORDER BY position LIMIT 1"
            ).fetchone()
            if head is None:
                return None
            db.execute("UPDATE jobs SET position = NULL, taken = taken + 1 WHERE number = ?", (head[0],))
        return str(head[1])

    def queue(self) -> list[str]:
        """Return the documents of all queued jobs, the head first."""
        return self._rows("SELECT document FROM jobs WHERE position IS NOT NULL ORDER BY position")

    def clear(self) -> int:
        """Delete all queued and running jobs; returns how many there were."""
        with self._transaction() as db:
            return db.execute("DELETE FROM jobs").rowcount

    # --- jobs ---

    def job(self, job_id: str) -> str | None:
        """Return the document of a queued or running job."""
        return self._text("SELECT document FROM jobs WHERE job_id = ?", job_id)

    def delete_job(self, job_id: str) -> bool:
        """Delete a queued or running job; returns whether there was such a job."""
        with self._transaction() as db:
            return db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,)).rowcount > 0

    def complete(self, job_id: str, failed: bool, info: dict[str, Any]) -> bool:
        """Keep the verdict of a job and delete the job, which runs or went back to the queue.

        Returns whether there was such a job: of two verdicts for one job, the first stands. The verdict of a job that a
        worker had handed back, under a new id, is also kept under its former id, which its submitter knows.
        """
        verdict = {"job_id": job_id, "job_title": None, "failed": failed, "info": info, "completed_at": _now()}
        with self._transaction() as db:
            row = db.execute("SELECT title, document FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
            if row is None:
                return False
            verdict["job_title"] = json.loads(row[0])
            for each in (job_id, *_former_ids(row[1])):
                db.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", (each, to_text(verdict)))
            db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
        return True

    def verdict(self, job_id: str) -> str | None:
        """Return the verdict of a completed job, as JSON."""
        return self._text("SELECT document FROM verdicts WHERE job_id = ?", job_id)

    def running(self) -> list[str]:
        """Return the ids of all running jobs, in the order of their submission."""
        return self._rows("SELECT job_id FROM jobs WHERE position IS NULL ORDER BY number")

    def times_taken(self, job_id: str) -> int:
        """Return how often a queued or running job was given to a worker."""
        return next(iter(self._rows("SELECT taken FROM jobs WHERE job_id = ?", job_id)), 0)

    def put_back(self, job_ids: Sequence[str]) -> list[str]:
        """Put running jobs back at the head of the queue, the first one first; returns those that were running."""
        with self._transaction() as db:
            (head,) = db.execute("SELECT min(position) FROM jobs WHERE position IS NOT NULL").fetchone()
            done = []
            for position, job_id in enumerate(job_ids, (head or 0) - len(job_ids)):
                change = "UPDATE jobs SET position = ? WHERE job_id = ? AND position IS NULL"
                if db.execute(change, (position, job_id)).rowcount:
                    done.append(job_id)
            return done

    def take_again(self, job_ids: Sequence[str]) -> list[str]:
        """Take jobs that were put back out of the queue again; returns those that were queued."""
        change = "UPDATE jobs SET position = NULL WHERE job_id = ? AND position IS NOT NULL AND taken > 0"
        with self._transaction() as db:
            return [job_id for job_id in job_ids if db.execute(change, (job_id,)).rowcount]

    # --- the operator's settings ---

    @property
    def queue_disabled(self) -> bool:
        """The operator has disabled the queue."""
        return bool(self._disabled("queue"))

    @property
    def disabled_workers(self) -> set[str]:
        """The ids of the workers that the operator has disabled."""
        return self._disabled("worker")

    def disable_queue(self, disabled: bool) -> None:
        """Disable or enable the queue."""
        self._disable("queue", "", disabled)

    def disable_worker(self, worker_id: str, disabled: bool) -> None:
        """Disable or enable a worker, known or not."""
        self._disable("worker", worker_id, disabled)

    def _disabled(self, what: str) -> set[str]:
        return set(self._rows("SELECT id FROM disabled WHERE what = ?", what))

    def _disable(self, what: str, name: str, disabled: bool) -> None:
        with self._transaction() as db:
            if disabled:
                db.execute("INSERT OR IGNORE INTO disabled VALUES (?, ?)", (what, name))
            else:
                db.execute("DELETE FROM disabled WHERE what = ? AND id = ?", (what, name))

    # --- named data ---

    def data(self, module: str, name: str) -> dict[str, Any] | None:
        """Return the object stored under a name, plus `_id` and `name`."""
        with self._mutex:
            query = "SELECT id, document FROM data WHERE module = ? AND name = ?"
            row = self._database.execute(query, (module, name)).fetchone()
        return None if row is None else {**json.loads(row[1]), "_id": row[0], "name": name}

    def put_data(self, module: str, name: str, document: dict[str, Any]) -> None:
        """Store an object under a name; it replaces the former one."""
        row = (module, name, str(uuid.uuid4()), to_text(document))
        with self._transaction() as db:
            db.execute(
                "INSERT INTO data VALUES (?, ?, ?, ?)"
                " ON CONFLICT (module, name) DO UPDATE SET document = excluded.document",
                row,
            )

    def delete_data(self, module: str, name: str) -> bool:
        """Delete the object stored under a name; returns whether there was one."""
        with self._transaction() as db:
            return db.execute("DELETE FROM data WHERE module = ? AND name = ?", (module, name)).rowcount > 0

    # --- the connection ---

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._database.transaction() as connection:
            yield connection

    def _text(self, query: str, *values: str) -> str | None:
        return next(iter(self._rows(query, *values)), None)

    def _rows(self, query: str, *values: str) -> list[Any]:
        with self._mutex:
            return [row[0] for row in self._database.execute(query, values)]


def _former_ids(document: str) -> list[str]:
    """The id that a job had before it was handed back, if it was: workers leave it in the first task."""
    match json.loads(document):
        case {"tasks": [{"handed_back": str(former)}, *_]}:
            return [former]
    return []


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _open(path: Path) -> Database:
    try:
        # Not checked: that would take minutes where the verdicts of years are kept. A damaged one is not moved aside,
        # as a client's journal is: the farm's queue would be empty, and nobody would notice. Its operator has a copy.
        database = Database(path, Path(f"{path}.lock"), SCHEMA, check=False)
    except DatabaseFileError as error:
        raise StoreError(f"{path}: the database cannot be used: {error}") from error
    except BlockingIOError as error:
        raise StoreError(f"{path}: the database is in use by another server") from error
    except OSError as error:
        raise StoreError(f"{path}: the database cannot be written: {error.strerror}") from error
    try:
        # A write that changes nothing: where the file cannot be written this fails now, and not at the first job.
        with database.transaction() as connection:
            connection.execute(f"PRAGMA user_version = {SCHEMA.version}")
    except sqlite3.Error as error:
        database.close()
        raise StoreError(f"{path}: the database cannot be written: {error}") from error
    return database
