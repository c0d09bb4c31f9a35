"""What `watch` has submitted for a directory, and what its jobs write there: kept in the state directory."""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from app.config import ConfigError
from app.database import Database, DatabaseFileError, Schema

SCHEMA = Schema(
    application_id=0x53495357,  # reads SISW
    tables="""
    CREATE TABLE files (
        path BLOB NOT NULL, size INTEGER NOT NULL, changed INTEGER NOT NULL, inode INTEGER NOT NULL,
        job_id TEXT NOT NULL, PRIMARY KEY (path, size, changed)
    );
    CREATE INDEX files_by_inode ON files (inode, size, changed);
    CREATE TABLE named (path BLOB PRIMARY KEY) WITHOUT ROWID;
    """,
)


class Version(NamedTuple):
    """A file at one time: it counts as the same while its size and its time stay, even under another name."""

    path: str
    size: int
    changed: int
    """Nanoseconds."""
    inode: int


def open_memory(state: Path, directory: str) -> Database:
    """Open the memory of a watched directory; nobody else watches it then.

    Raises:
        ConfigError: it cannot be opened, or another process has it.
    """
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    file = state / f"watch-{name}.sqlite3"
    try:
        return Database(file, file.with_suffix(".lock"), SCHEMA, check=True)
    except BlockingIOError:
        raise ConfigError(f"{directory}: another process watches it already") from None
    except (DatabaseFileError, OSError) as error:
        raise ConfigError(f"{file}: cannot be used: {error}") from error


def job_of(memory: Database, version: Version) -> str | None:
    """Return the job of this version of a file; "" if nobody knows whether it was submitted, `None` if it was not."""
    same = "(path = ? OR inode = ?) AND size = ? AND changed = ?"
    values = (os.fsencode(version.path), version.inode, version.size, version.changed)
    row = memory.execute(f"SELECT job_id FROM files WHERE {same}", values).fetchone()  # noqa: S608 - no value in it
    return None if row is None else str(row[0])


def last_job_of(memory: Database, path: str) -> str | None:
    """Return the job of the last version of the file at this path that was submitted."""
    query = "SELECT job_id FROM files WHERE path = ? AND job_id != '' ORDER BY rowid DESC"
    row = memory.execute(query, (os.fsencode(path),)).fetchone()
    return None if row is None else str(row[0])


def remember(memory: Database, version: Version, job_id: str, document: Any = None) -> None:
    """Write down a job, or with "" that one is about to be submitted; and the paths that its document names.

    Raises:
        ConfigError: the disk is full, or broken.
    """
    named = [(os.fsencode(path),) for path in _paths_of(document, version.path)]
    row = (os.fsencode(version.path), version.size, version.changed, version.inode, job_id)
    with _writing(memory) as db:
        db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)
        db.executemany("INSERT OR IGNORE INTO named VALUES (?)", named)


@contextlib.contextmanager
def _writing(memory: Database) -> Iterator[sqlite3.Connection]:
    try:
        with memory.transaction() as db:
            yield db
    except sqlite3.Error as error:
        raise ConfigError(f"{memory.file}: what was submitted cannot be written down: {error}") from error


def forget(memory: Database, version: Version) -> None:
    """Take back that a file's job is about to be submitted; the errors are those of `remember`."""
    with _writing(memory) as db:
        place = (os.fsencode(version.path), version.size, version.changed)
        db.execute("DELETE FROM files WHERE path = ? AND size = ? AND changed = ?", place)


def is_named(memory: Database, path: str) -> bool:
    """Return whether a job names this path, beside its own source."""
    return memory.execute("SELECT 1 FROM named WHERE path = ?", (os.fsencode(path),)).fetchone() is not None


def knows_job(memory: Database, job_id: str) -> bool:
    """Return whether a file has this job."""
    return memory.execute("SELECT 1 FROM files WHERE job_id = ?", (job_id,)).fetchone() is not None


def _paths_of(document: Any, source: str) -> set[str]:
    """The absolute paths in a job; and for a directory among them, each file of the job by its name in there."""
    texts = {text for text in _texts(document) if text.startswith("/")}
    files = {os.path.normpath(text) for text in texts}
    directories = {os.path.normpath(text) for text in texts if text.endswith("/") or os.path.isdir(text)}
    inside = {os.path.join(directory, os.path.basename(file)) for directory in directories for file in files}
    return (files | inside) - {source}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
