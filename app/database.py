"""A SQLite file with one owner: the journal of a client, or the database of an API server.

The file's header names its owner (`application_id`) and the version of its tables (`user_version`). A file of another
program, a newer or a damaged one is refused and left as it is; an older one is upgraded in one transaction.

Durability comes before speed: `synchronous = FULL`, so that what was committed survives a power cut.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class DatabaseFileError(Exception):
    """The file cannot be used. The text says why, without the file's name."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The owner of a file and its tables."""

    application_id: int
    tables: str
    """SQL that makes the tables of the newest version in an empty file."""
    upgrades: tuple[str, ...] = ()
    """SQL from version 1 to 2, from 2 to 3, and so on."""
    unmarked_tables: frozenset[str] = frozenset()
    """The tables by which a file of version 1 is known that was written before there was an application id."""

    @property
    def version(self) -> int:
        """The newest version. Versions count from 1."""
        return 1 + len(self.upgrades)


def open_database(file: Path, schema: Schema, *, check: bool) -> sqlite3.Connection:
    """Open a file, or make it; any thread may use the connection. `check` reads all of it (0.8 s a GiB, cached).

    Raises:
        DatabaseFileError: it belongs to another program, is newer or damaged, or cannot be opened or written.
    """
    try:
        database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise DatabaseFileError(str(error)) from error
    try:
        _prepare(database, schema, check)
    except sqlite3.Error as error:
        database.close()
        raise DatabaseFileError(str(error)) from error
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, schema: Schema, check: bool) -> None:
    """Bring the file to the newest version. Nothing is written before the file has passed all checks."""
    version = _version(database, schema)
    if check:
        ((words,),) = database.execute("PRAGMA quick_check(1)")
        if words != "ok":
            raise DatabaseFileError(words)
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    if version != schema.version:
        steps = schema.upgrades[version - 1 :] if version else (schema.tables,)
        marks = f"PRAGMA application_id = {schema.application_id}; PRAGMA user_version = {schema.version}"
        database.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} {marks}; COMMIT;")
    database.execute("PRAGMA journal_mode = WAL")


def _version(database: sqlite3.Connection, schema: Schema) -> int:
    """Return the version of the file's tables; 0 for an empty file."""
    ((application_id,),) = database.execute("PRAGMA application_id")
    ((version,),) = database.execute("PRAGMA user_version")
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_master") if not name.startswith("sqlite_")}
    if (application_id, version, names) == (0, 0, set()):
        return 0
    is_unmarked = (application_id, version) == (0, 1) and names == schema.unmarked_tables
    if application_id != schema.application_id and not is_unmarked:
        raise DatabaseFileError("it is a database of another program")
    if version > schema.version:
        raise DatabaseFileError(
            f"it was written by a newer version of this program (its tables have version {version}, this program knows"
            f" {schema.version}): upgrade the program"
        )
    return int(version)


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Write all changes inside to the disk at the end, or none of them."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    finally:
        if database.in_transaction:  # a full disk makes SQLite roll back by itself
            database.execute("ROLLBACK")


def lock(file: Path) -> int:
    """Lock a file, which is made if it is missing; returns its descriptor. Closing that, or dying, unlocks it.

    The lock needs a file beside the database: closing any descriptor of the database would drop SQLite's own locks.

    Raises:
        BlockingIOError: another process, or another part of this one, holds the lock.
        OSError: the file cannot be made, opened or locked.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
