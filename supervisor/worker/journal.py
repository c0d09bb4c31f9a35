"""The journal: what the client must not forget, on disk before it counts on it.

A job is written down before it starts, each task when it is finished, and the verdict before it is sent, so that a
crash or a power cut at any instant loses nothing and sends nothing twice. SQLite does it, with `synchronous=FULL`: a
method that returns has its change on disk (fsync). It is done by one thread of its own, for disks are slow at times.

What is acknowledged is forgotten together with the next change: if that is lost, it is only asked for once more.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ipc.threads import started_threads

_SCHEMA = """
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    document TEXT NOT NULL,               -- as the server gave it
    began TEXT NOT NULL,
    starts INTEGER NOT NULL DEFAULT 1,    -- how often the supervisor has begun or resumed it
    running INTEGER                       -- the place of the task that was run last
);
CREATE TABLE tasks (                      -- those that are completed
    job_id TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE,
    place INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (job_id, place)
) WITHOUT ROWID;
CREATE TABLE workers (                    -- the ids that this client's workers have, or have had
    worker_id TEXT PRIMARY KEY
);
CREATE TABLE debts (                      -- what the server is to be told, in this order
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL,
    kind TEXT NOT NULL,                   -- 'verdict', or 'return': the job goes back to the queue
    body TEXT NOT NULL,                   -- the verdict, or the job as the server gave it
    posting INTEGER NOT NULL DEFAULT 0,   -- a return may have been posted already
    new_id TEXT                           -- a return has been posted, under this id
);
"""
_VERSION = 1

_T = TypeVar("_T")


class JournalError(Exception):
    """The journal cannot be used; the text is one line for a person."""


class UnfinishedJob(msgspec.Struct, frozen=True):
    """A job that was begun and has no verdict."""

    job_id: str
    document: str
    """The job as the server gave it, as JSON text."""
    began: str
    starts: int
    tasks: tuple[dict[str, Any], ...] = ()
    """The records of the tasks that are completed."""
    running: int | None = None
    """The place of the task that was run last, completed or not."""


class OutboxItem(msgspec.Struct, eq=False):
    """Something that the server is still to be told, and how far that has come."""

    number: int | None
    job_id: str
    kind: Literal["verdict", "return"]
    body: str
    posting: bool = False
    """It may have been told already: that is to be found out first."""
    new_id: str | None = None


class Journal:
    """The journal in `directory`, which one supervisor at a time may use. Close it at the end.

    Its coroutines raise `JournalError` if what they are to write could not be written.
    """

    def __init__(self, directory: Path) -> None:
        """Open the journal, or make it.

        Raises:
            JournalError: another client uses it, or it cannot be used.
        """
        self._file = directory / "journal.sqlite3"
        self._lock = _lock(directory)
        self._thread: ThreadPoolExecutor = started_threads(1, "journal")
        self._acknowledged: list[int] = []
        try:
            self._database = self._thread.submit(_open, self._file).result()
        except (sqlite3.Error, _NewerError) as error:
            self.close()
            raise JournalError(
                f"{self._file}: the journal cannot be used: {error} (move it away to begin anew; what it knows is lost)"
            ) from error

    def close(self) -> None:
        """Close it, when what is under way is written."""
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._thread.submit(self._database.close).result()
        self._thread.shutdown()
        os.close(self._lock)

    async def remember_workers(self, workers: Iterable[str]) -> frozenset[str]:
        """These are ids of this client's workers. Returns those and all that they were before."""

        def know() -> frozenset[str]:
            with self._transaction() as database:
                database.executemany("INSERT OR IGNORE INTO workers VALUES (?)", [(worker,) for worker in workers])
                return frozenset(worker for (worker,) in database.execute("SELECT worker_id FROM workers"))

        return await self._do(know)

    async def begin(self, job_id: str, document: str, began: str) -> None:
        """A job is about to be started."""
        await self._write("INSERT INTO jobs (job_id, document, began) VALUES (?, ?, ?)", job_id, document, began)

    async def resume(self, job_id: str) -> None:
        """A job is about to be resumed."""
        await self._write("UPDATE jobs SET starts = starts + 1 WHERE job_id = ?", job_id)

    async def uncount_start(self, job_id: str) -> None:
        """The job is interrupted on purpose: this start does not count against it."""
        await self._write("UPDATE jobs SET starts = starts - 1 WHERE job_id = ?", job_id)

    async def run_task(self, job_id: str, index: int) -> None:
        """A task is about to be run: what it does is not to be taken for another's work after a crash."""
        await self._write("UPDATE jobs SET running = ? WHERE job_id = ?", index, job_id)

    async def finish_task(self, job_id: str, index: int, record: dict[str, Any]) -> None:
        """A task is completed."""
        await self._write("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?)", job_id, index, json.dumps(record))

    async def queue_verdict(self, job_id: str, verdict: dict[str, Any]) -> OutboxItem:
        """A job has ended, and the server is to be told. `verdict` is what to tell it."""
        return await self._queue(job_id, "verdict", json.dumps(verdict, allow_nan=False))

    async def queue_return(self, job_id: str, document: str) -> OutboxItem:
        """A job goes back to the queue."""
        return await self._queue(job_id, "return", document)

    async def drop(self, job_id: str) -> None:
        """A job is not ours any more."""
        await self._write("DELETE FROM jobs WHERE job_id = ?", job_id)

    async def begin_posting(self, item: OutboxItem) -> None:
        """The job is about to be posted."""
        await self._write("UPDATE debts SET posting = 1 WHERE number = ?", item.number)

    async def has_posted(self, item: OutboxItem, new_id: str) -> None:
        """The job is posted; what is left is to delete its old record."""
        await self._write("UPDATE debts SET new_id = ? WHERE number = ?", new_id, item.number)

    def acknowledge(self, item: OutboxItem) -> None:
        """The server has been told. Is on disk with the next change."""
        if item.number is not None:
            self._acknowledged.append(item.number)

    async def flush(self) -> None:
        """Write down what is acknowledged."""
        await self._write("")

    async def unfinished(self) -> list[UnfinishedJob]:
        """The jobs that were begun and have no verdict, the oldest first."""
        return await self._do(self._read_jobs)

    async def outbox_items(self) -> list[OutboxItem]:
        """What the server is to be told."""
        return await self._do(self._read_outbox)

    async def _queue(self, job_id: str, kind: Literal["verdict", "return"], body: str) -> OutboxItem:
        def owe() -> int:
            with self._transaction() as database:
                database.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
                statement = "INSERT INTO debts (job_id, kind, body) VALUES (?, ?, ?)"
                return database.execute(statement, (job_id, kind, body)).lastrowid or 0

        return OutboxItem(await self._do(owe), job_id, kind, body)

    async def _write(self, statement: str, *values: Any) -> None:
        def write() -> None:
            with self._transaction() as database:
                database.execute(statement, values)

        await self._do(write)

    async def _do(self, work: Callable[[], _T]) -> _T:
        # Shielded: what has been begun is written whoever gives up waiting for it.
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except (sqlite3.Error, UnicodeEncodeError) as error:  # the latter: half a character, which JSON can hold
            raise JournalError(f"{self._file}: cannot be written: {error}") from error

    # --- in the journal's thread ---

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        acknowledged = self._acknowledged[:]
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany("DELETE FROM debts WHERE number = ?", [(number,) for number in acknowledged])
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._database.execute("ROLLBACK")
            raise
        del self._acknowledged[: len(acknowledged)]

    def _read_jobs(self) -> list[UnfinishedJob]:
        tasks: dict[str, list[dict[str, Any]]] = {}
        for job_id, record in self._database.execute("SELECT job_id, record FROM tasks ORDER BY job_id, place"):
            tasks.setdefault(job_id, []).append(json.loads(record))
        rows = self._database.execute(
            "SELECT job_id, document, began, starts, running FROM jobs ORDER BY julianday(began), rowid"
        )
        return [
            UnfinishedJob(job_id, document, began, starts, tuple(tasks.get(job_id, ())), running)
            for job_id, document, began, starts, running in rows
        ]

    def _read_outbox(self) -> list[OutboxItem]:
        rows = self._database.execute("SELECT number, job_id, kind, body, posting, new_id FROM debts ORDER BY number")
        return [
            OutboxItem(number, job_id, kind, body, bool(posting), new)
            for number, job_id, kind, body, posting, new in rows
        ]


class _NewerError(Exception):
    """The journal is that of a newer version."""


def _open(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    """Make it a journal. One that cannot be used, or is something else, is left as it is."""
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    ((version,),) = database.execute("PRAGMA user_version")
    if version > _VERSION:
        raise _NewerError("it was written by a newer version of this program")
    if version < _VERSION:
        database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
    ((words,),) = database.execute("PRAGMA quick_check(1)")
    if words != "ok":
        raise sqlite3.DatabaseError(words)
    database.execute("PRAGMA journal_mode = WAL")


def _lock(directory: Path) -> int:
    file = directory / "lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(
            f"{directory}: the state directory cannot be used: {error.strerror} (set SISYPHUS_STATE_DIR)"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise JournalError(
                f"{directory}: another client uses this state directory (for a second one, set SISYPHUS_STATE_DIR)"
            ) from error
        raise JournalError(f"{file}: cannot be locked: {error.strerror}") from error
    return descriptor
