"""The journal: jobs in hand and items for the server, on disk before the client relies on them.

A job is written down before it starts, each task when it is completed, and the verdict before it is sent. So a crash or
a power cut at any instant loses nothing and sends nothing twice. When a method returns, its change is on disk (fsync).
A thread of the journal's own does the writing, because disks are slow at times.

Acknowledged items are deleted in the next transaction. If that is lost in a crash, we only ask the server again.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from loguru import logger

from app.database import Database, DatabaseFileError, Schema
from ipc.threads import Threads

_TABLES = """
CREATE TABLE jobs (                       -- begun, and without a verdict
    job_id TEXT PRIMARY KEY,
    document TEXT NOT NULL,               -- as the server gave it
    began TEXT NOT NULL,
    starts INTEGER NOT NULL DEFAULT 1,    -- how often the supervisor has begun or resumed it
    running INTEGER,                      -- the index of the task that was run last
    saved_state TEXT NOT NULL DEFAULT '', -- for another attempt at that task
    verbatim INTEGER NOT NULL DEFAULT 0,  -- nothing in the document is escaped for HTML
    failure TEXT NOT NULL DEFAULT ''      -- the job has failed, and goes on with tasks that run after failures
);
CREATE TABLE tasks (                      -- those that have their results
    job_id TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE,
    task_index INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (job_id, task_index)
) WITHOUT ROWID;
CREATE TABLE workers (                    -- the ids that this client's workers have, or have had
    worker_id TEXT PRIMARY KEY
);
CREATE TABLE outbox (                     -- for the server, in this order
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: a late acknowledgement deletes no newer item
    job_id TEXT NOT NULL,
    kind TEXT NOT NULL,                   -- 'verdict'; 'return': the job goes back to the queue; 'log': its log is sent
    body TEXT NOT NULL,                   -- the verdict; the job as the server gave it; empty: the log is in a file
    doubtful INTEGER NOT NULL DEFAULT 0,  -- the server may have it already
    new_id TEXT                           -- a returned job is in the queue under this id
);
"""

_TO_VERSION_2 = """
ALTER TABLE debts RENAME TO outbox;
ALTER TABLE outbox RENAME COLUMN posting TO doubtful;
ALTER TABLE tasks RENAME COLUMN place TO task_index;
ALTER TABLE jobs ADD COLUMN saved_state TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN verbatim INTEGER NOT NULL DEFAULT 0;
"""

_TO_VERSION_3 = "ALTER TABLE jobs ADD COLUMN failure TEXT NOT NULL DEFAULT '';"

SCHEMA = Schema(
    application_id=0x5349534A,  # reads SISJ
    tables=_TABLES,
    upgrades=(_TO_VERSION_2, _TO_VERSION_3),
    unmarked_tables=frozenset({"jobs", "tasks", "workers", "debts"}),
)

PROBE = 64 << 10
"""Bytes that must find room in the state directory before jobs are taken again."""

_T = TypeVar("_T")


class JournalError(Exception):
    """The journal cannot be used; the text is one line for a person."""


class UnfinishedJob(msgspec.Struct, frozen=True):
    """A job that was begun and has no verdict."""

    job_id: str
    document: str
    """The job as the server gave it, as JSON text."""
    began: str
    """The time when it was first begun, ISO 8601."""
    starts: int
    """How often the supervisor has begun or resumed it."""
    tasks: tuple[dict[str, Any], ...] = ()
    """The records of the tasks that have their results."""
    running: int | None = None
    """The index of the task that was run last, completed or not."""
    saved_state: str = ""
    """The state that this task saved last, as JSON text; empty if it saved none."""
    verbatim: bool = False
    """The strings in `document` are as the submitter wrote them, and not escaped for HTML."""
    failure: str = ""
    """The failure of one of these tasks, as JSON text; empty if none has failed."""


OutboxKind = Literal["verdict", "return", "log"]


class OutboxItem(msgspec.Struct, eq=False):
    """A verdict, a returned job or a job's log that the server must still get."""

    number: int | None
    """Its row in the journal; `None` if it could not be written down."""
    job_id: str
    kind: OutboxKind
    body: str
    doubtful: bool = False
    """The server may have it already: ask the server before sending it."""
    new_id: str | None = None
    """A returned job's new id: it is in the queue again, and only its old record is left to delete."""


def verdict_items(job_id: str, verdict: dict[str, Any], with_log: bool) -> list[OutboxItem]:
    """What a verdict leaves to be sent, not written down yet: the verdict, and `with_log` the job's log."""
    items = [OutboxItem(None, job_id, "verdict", json.dumps(verdict, allow_nan=False))]
    return [*items, OutboxItem(None, job_id, "log", "")] if with_log else items


class Journal:
    """The journal in `directory`, which one supervisor at a time may use. Close it at the end.

    The coroutines raise `JournalError` if the change could not be written.
    """

    def __init__(self, directory: Path) -> None:
        """Open the journal, or make it.

        Raises:
            JournalError: another client uses it, or it cannot be used.
        """
        self._file = directory / "journal.sqlite3"
        self._database = _open(self._file)
        _make_private(directory)
        self._thread: ThreadPoolExecutor = Threads(1, "journal")
        self._acknowledged: list[int] = []

    def close(self) -> None:
        """Close it after the changes that are under way."""
        with contextlib.suppress(sqlite3.Error):
            self._thread.submit(self._database.close).result()
        self._thread.shutdown()

    async def remember_workers(self, workers: Iterable[str]) -> frozenset[str]:
        """Add ids of this client's workers; returns all ids that its workers have or have had."""

        def remember() -> frozenset[str]:
            with self._transaction() as connection:
                connection.executemany("INSERT OR IGNORE INTO workers VALUES (?)", [(worker,) for worker in workers])
                return frozenset(worker for (worker,) in connection.execute("SELECT worker_id FROM workers"))

        return await self._do(remember)

    async def check(self) -> None:
        """Make the journal's files anew, with all that they held, if somebody has removed them."""
        await self._do(self._database.check_files)

    async def probe(self) -> None:
        """Try whether there is room to write, and the journal takes a change, besides what `check` does."""
        await self._do(self._database.check_files)
        await self._do(self._write_probe)
        await self._write(f"PRAGMA user_version = {SCHEMA.version}")  # changes nothing, and is written all the same

    # --- jobs in hand ---

    async def unfinished(self) -> list[UnfinishedJob]:
        """Return the jobs that were begun and have no verdict, the oldest first."""
        return await self._do(self._read_jobs)

    async def begin(self, job_id: str, document: str, began: str, verbatim: bool = False) -> None:
        """A job is about to start."""
        statement = "INSERT INTO jobs (job_id, document, began, verbatim) VALUES (?, ?, ?, ?)"
        await self._write(statement, job_id, document, began, verbatim)

    async def resume(self, job_id: str) -> None:
        """A job is about to be resumed."""
        await self._write("UPDATE jobs SET starts = starts + 1 WHERE job_id = ?", job_id)

    async def uncount_start(self, job_id: str) -> None:
        """The job is interrupted on purpose: this start does not count against it."""
        await self._write("UPDATE jobs SET starts = starts - 1 WHERE job_id = ?", job_id)

    async def run_task(self, job_id: str, index: int) -> None:
        """A task is about to run. After a crash, files that it has written are known to be its own."""
        # A resumed task keeps its state until it saves another one.
        await self._write(
            "UPDATE jobs SET saved_state = CASE WHEN running = ?1 THEN saved_state ELSE '' END, running = ?1"
            " WHERE job_id = ?2",
            index,
            job_id,
        )

    async def save_state(self, job_id: str, state: str) -> None:
        """The task that runs has a new state for another attempt."""
        await self._write("UPDATE jobs SET saved_state = ? WHERE job_id = ?", state, job_id)

    async def finish_task(self, job_id: str, index: int, record: dict[str, Any], failure: str = "") -> None:
        """A task has its result. `failure` is that of the job, as JSON text, if the job has failed and goes on."""

        def finish() -> None:
            with self._transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?)", (job_id, index, json.dumps(record)))
                if failure:
                    connection.execute("UPDATE jobs SET failure = ? WHERE job_id = ?", (failure, job_id))

        await self._do(finish)

    async def drop(self, job_id: str) -> None:
        """A job is not this client's any more."""
        await self._write("DELETE FROM jobs WHERE job_id = ?", job_id)

    # --- the outbox ---

    async def outbox_items(self) -> list[OutboxItem]:
        """Return the items that are not acknowledged, the oldest first."""
        return await self._do(self._read_outbox)

    async def queue_verdict(self, job_id: str, verdict: dict[str, Any], with_log: bool = False) -> list[OutboxItem]:
        """Replace a job by its verdict, as the server is to get it; `with_log` also by an order to send its log."""
        return await self._queue(verdict_items(job_id, verdict, with_log))

    async def queue_return(self, job_id: str, document: str) -> OutboxItem:
        """Replace a job by an order to put it back into the server's queue."""
        (item,) = await self._queue([OutboxItem(None, job_id, "return", document)])
        return item

    async def mark_doubtful(self, item: OutboxItem) -> None:
        """A returned job is about to be posted: after a crash, the server may have it."""
        await self._write("UPDATE outbox SET doubtful = 1 WHERE number = ?", item.number)

    async def note_new_id(self, item: OutboxItem, new_id: str) -> None:
        """A returned job is in the queue; its old record is left to delete."""
        await self._write("UPDATE outbox SET new_id = ? WHERE number = ?", new_id, item.number)

    def acknowledge(self, item: OutboxItem) -> None:
        """The server has the item. The next change deletes it on disk."""
        if item.number is not None:
            self._acknowledged.append(item.number)

    async def flush(self) -> None:
        """Delete the acknowledged items on disk."""
        await self._write("")

    async def _queue(self, items: list[OutboxItem]) -> list[OutboxItem]:
        def queue() -> list[OutboxItem]:
            statement = "INSERT INTO outbox (job_id, kind, body) VALUES (?, ?, ?)"
            with self._transaction() as connection:
                connection.execute("DELETE FROM jobs WHERE job_id = ?", (items[0].job_id,))
                for item in items:
                    item.number = connection.execute(statement, (item.job_id, item.kind, item.body)).lastrowid
            return items

        return await self._do(queue)

    async def _write(self, statement: str, *values: Any) -> None:
        def write() -> None:
            with self._transaction() as connection:
                connection.execute(statement, values)

        await self._do(write)

    async def _do(self, work: Callable[[], _T]) -> _T:
        # Shielded: a change that has begun is written, even if the caller is cancelled meanwhile.
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except (sqlite3.Error, UnicodeEncodeError) as error:  # the latter: a lone surrogate, which JSON can hold
            raise JournalError(f"{self._file}: cannot be written: {error}") from error
        except OSError as error:
            raise JournalError(f"{self._file}: cannot be written: {error.strerror}") from error

    # --- in the journal's thread ---

    def _write_probe(self) -> None:
        probe = self._file.with_name("journal.probe")
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        acknowledged = self._acknowledged[:]
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in acknowledged])
            yield connection
        del self._acknowledged[: len(acknowledged)]

    def _read_jobs(self) -> list[UnfinishedJob]:
        tasks: dict[str, list[dict[str, Any]]] = {}
        for job_id, record in self._database.execute("SELECT job_id, record FROM tasks ORDER BY job_id, task_index"):
            tasks.setdefault(job_id, []).append(json.loads(record))
        rows = self._database.execute(
            # As an instant, not as text: the client's time zone may have changed meanwhile.
            "SELECT job_id, document, began, starts, running, saved_state, verbatim, failure FROM jobs"
            " ORDER BY julianday(began), rowid"
        )
        return [
            UnfinishedJob(
                job_id, document, began, starts, tuple(tasks.get(job_id, ())), at, state, bool(verbatim), failed
            )
            for job_id, document, began, starts, at, state, verbatim, failed in rows
        ]

    def _read_outbox(self) -> list[OutboxItem]:
        rows = self._database.execute("SELECT number, job_id, kind, body, doubtful, new_id FROM outbox ORDER BY number")
        return [
            OutboxItem(number, job_id, kind, body, bool(doubtful), new_id)
            for number, job_id, kind, body, doubtful, new_id in rows
        ]


def _open(file: Path) -> Database:
    """Open the journal. A damaged one is moved aside: it would keep the client from starting, again and again."""
    directory = file.parent
    try:
        return Database(
            file, directory / "lock", SCHEMA, check=True, move_aside=lambda problem: _move_aside(file, problem)
        )
    except DatabaseFileError as error:
        advice = error.advice or "to start with an empty one, move it away; the jobs and verdicts in it are lost"
        raise JournalError(f"{file}: the journal cannot be used: {error} ({advice})") from error
    except BlockingIOError as error:
        raise JournalError(
            f"{directory}: another client uses this state directory (for a second one, set SISYPHUS_STATE_DIR)"
        ) from error
    except OSError as error:
        raise JournalError(
            f"{error.filename or directory}: the state directory cannot be used: {error.strerror}"
            " (set SISYPHUS_STATE_DIR)"
        ) from error


def _move_aside(file: Path, problem: str) -> None:
    """Rename a damaged journal and its write-ahead log, and log which jobs they hold."""
    held = _held(file)
    names = (Path(f"{file}.damaged-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for end in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{file}{end}").rename(f"{aside}{end}")
    logger.error(
        "{}: the journal is damaged ({}) and is now {}; the client starts with an empty one. {}",
        file,
        problem,
        aside.name,
        f"Jobs in it: {', '.join(held)}" if held else "No job can be read in it",
    )


_SALVAGE = (
    "SELECT job_id FROM jobs NOT INDEXED ORDER BY rowid",
    "SELECT job_id FROM jobs NOT INDEXED ORDER BY rowid DESC",
    "SELECT job_id FROM jobs ORDER BY job_id",
    "SELECT job_id FROM outbox ORDER BY number",
    "SELECT job_id FROM outbox ORDER BY number DESC",
)
"""Each ends where the file is damaged: the other end, or the index, may be readable."""


def _held(file: Path) -> list[str]:
    """The ids of the jobs in a damaged journal, as far as they can be read."""
    held: dict[str, None] = {}
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:  # SQLite changes what it opens
        for end in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"{file}{end}", scratch)
        with contextlib.closing(sqlite3.connect(Path(scratch, file.name))) as database:
            database.execute("PRAGMA writable_schema = ON")  # else SQLite reads nothing of a file that is cut off
            for query in _SALVAGE:
                with contextlib.suppress(sqlite3.Error):
                    for (job_id,) in database.execute(query):
                        held[str(job_id)] = None
    return list(held)


_OUR_FILES = {"host_uuid", "jobs", "journal", "lock", "logs", "server"}
"""The beginnings of the names of our files in the state directory."""


def _make_private(directory: Path) -> None:
    """Let only its owner enter a state directory that holds nothing but our files."""
    if {name.partition(".")[0] for name in os.listdir(directory)} <= _OUR_FILES:
        with contextlib.suppress(OSError):
            if directory.stat().st_uid == os.geteuid():  # root may have been given another's
                directory.chmod(0o700)
