"""A SQLite file with one owner: the journal of a client, or the database of an API server.

The file's header names its owner (`application_id`) and the version of its tables (`user_version`). A file of another
program, a newer or a damaged one is refused and left as it is; an older one is upgraded in one transaction.

Durability comes before speed: `synchronous = FULL`, so that what was committed survives a power cut.

A client's tasks run as the same user and can reach the file. So it is locked for this process alone: SQLite then maps
no `-shm` file, which anybody who truncates it could end this process with (SIGBUS). A file that is removed while it is
open is written anew, from what SQLite still has.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DatabaseFileError(Exception):
    """The file cannot be used. The text says why, without the file's name.

    Attributes:
        damaged: It is nobody's: no database at all, or a broken one.
        advice: What to do for a file that is sound; else empty.
    """

    def __init__(self, message: str, damaged: bool = False, advice: str = "") -> None:
        super().__init__(message)
        self.damaged = damaged
        self.advice = advice


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


class Database:
    """An open file that this process alone uses. Any thread may use it, one at a time."""

    def __init__(
        self,
        file: Path,
        lock: Path,
        schema: Schema,
        *,
        check: bool,
        move_aside: Callable[[str], None] | None = None,
    ) -> None:
        """Open a file, or make it, while another one is locked. `check` reads all of it (0.8 s a GiB, cached).

        `move_aside` gets the problem of a damaged file, and makes room for a new one.

        The lock needs a file beside the database: closing any descriptor of the database would drop SQLite's own locks.

        Raises:
            DatabaseFileError: it belongs to another program, is newer or damaged, or cannot be opened or written.
            BlockingIOError: another process, or another part of this one, holds the lock.
            OSError: the file to lock cannot be made, opened or locked.
        """
        self.file, self._lock_file, self._schema = file, lock, schema
        self._lock = _lock(lock)
        try:
            try:
                self.connection = _open(file, schema, check)
            except DatabaseFileError as error:
                if not error.damaged or move_aside is None:
                    raise
                move_aside(str(error))
                self.connection = _open(file, schema, check)
        except BaseException:
            os.close(self._lock)
            raise
        self._identities = self._identify()

    def close(self) -> None:
        """Close it, and let others have it."""
        try:
            self.connection.close()
        finally:
            os.close(self._lock)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all changes inside to the disk at the end, or none of them.

        Raises:
            sqlite3.Error: they cannot be written.
        """
        self.check_files()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        finally:
            if self.connection.in_transaction:  # a full disk makes SQLite roll back by itself
                self.connection.execute("ROLLBACK")

    def execute(self, statement: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """Execute a statement: a query, or a part of a transaction."""
        return self.connection.execute(statement, tuple(values))

    def check_files(self) -> None:
        """Write the files anew if they were removed: SQLite goes on with what has no name, and a crash loses that.

        Raises:
            sqlite3.Error: they cannot be written, or another file has taken the database's place.
        """
        found = self._identify()
        if found == self._identities:
            return
        if found[0] not in (None, self._identities[0]):
            raise sqlite3.OperationalError("it was replaced while it was open: start the program again to use that one")
        try:
            self._write_anew()
        except OSError as error:
            raise sqlite3.OperationalError(
                f"it was removed while it was open, and cannot be made anew: {error}"
            ) from error
        logger.error("{} was removed while it was open, and has been written anew; nothing is lost", self.file)

    def _write_anew(self) -> None:
        lock = _lock(self._lock_file) if not self._lock_file.exists() else None
        fresh = self.file.with_name(f"{self.file.name}.new")
        fresh.unlink(missing_ok=True)
        _make_private(fresh)
        with contextlib.closing(sqlite3.connect(fresh)) as copy:
            self.connection.backup(copy)
        self.connection.close()
        _log_of(self.file).unlink(missing_ok=True)  # SQLite would take it for the new file's
        fresh.replace(self.file)
        self.connection = _open(self.file, self._schema, check=False)
        self._identities = self._identify()
        if lock is not None:
            os.close(self._lock)
            self._lock = lock

    def _identify(self) -> tuple[tuple[int, int] | None, ...]:
        """Device and inode of the file and its write-ahead log; `None` for one that is not there."""
        return tuple(map(_identity, (self.file, _log_of(self.file))))


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _log_of(file: Path) -> Path:
    return Path(f"{file}-wal")


def _make_private(file: Path) -> None:
    """Make the file, if it is missing, and let only its owner read it; its write-ahead log gets the same mode."""
    with contextlib.suppress(OSError):  # SQLite tells better what is wrong
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for path in filter(Path.is_file, (file, _log_of(file))):  # and no device, which others need
            path.chmod(0o600)


def _open(file: Path, schema: Schema, check: bool) -> sqlite3.Connection:
    if _size(file) == 0 and _size(_log_of(file)) > 0:
        raise DatabaseFileError("it is empty, and its write-ahead log is not", damaged=True)
    _make_private(file)
    try:
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise DatabaseFileError(str(error), advice=_advice(file, error.sqlite_errorcode & 0xFF)) from error
    try:
        _prepare(connection, schema, check)
    except sqlite3.Error as error:
        connection.close()
        code = error.sqlite_errorcode & 0xFF
        raise DatabaseFileError(str(error), code in _DAMAGE, _advice(file, code)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _advice(file: Path, code: int) -> str:
    if code == sqlite3.SQLITE_FULL:
        return "make room there"
    if code == sqlite3.SQLITE_BUSY:
        return "end the other program that has it open"
    if code == sqlite3.SQLITE_IOERR:
        return "look at its disk, and at the limit of file sizes, ulimit -f"
    is_closed = file.is_file() and not os.access(file, os.R_OK | os.W_OK)
    return "let this user read and write it" if is_closed else ""


def _size(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0


def _prepare(database: sqlite3.Connection, schema: Schema, check: bool) -> None:
    """Bring the file to the newest version. Nothing is written before the file has passed all checks."""
    database.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first read, or a -shm is made all the same
    version = _version(database, schema)
    if check:
        ((words,),) = database.execute("PRAGMA quick_check(1)")
        if words != "ok":
            raise DatabaseFileError(" ".join(words.split()), damaged=True)
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    if version != schema.version:
        steps = schema.upgrades[version - 1 :] if version else (schema.tables,)
        marks = f"PRAGMA application_id = {schema.application_id}; PRAGMA user_version = {schema.version}"
        database.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} {marks}; COMMIT;")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("SELECT * FROM sqlite_master")  # makes the write-ahead log


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


def _lock(file: Path) -> int:
    """Lock a file, which is made if it is missing; returns its descriptor. Closing that, or dying, unlocks it."""
    os.makedirs(os.path.realpath(file.parent), 0o700, exist_ok=True)  # a link may lead to one that is missing
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
