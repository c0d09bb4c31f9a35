"""The database: SQLite in a file with one owner, or PostgreSQL, which any number of servers may share.

SQLite has one connection behind one lock: a transaction takes as long as one fsync, and SQLite has one writer anyway.
PostgreSQL has a pool. A connection that breaks fails the call that used it, and the next call makes a new one: calls go
on by themselves when PostgreSQL is back.
"""

import contextlib
import importlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, event, inspect
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from app import database as file_database
from app.database import DatabaseFileError, Schema
from server.config import is_postgresql
from server.errors import StoreError
from server.storage.hangs import HangGuard
from server.storage.tables import REVISION

SQLITE = Schema(
    application_id=0x53495359, tables="", upgrades=("",)
)  # reads SISY; Alembic makes and changes the tables

CONNECTIONS = 8
"""Connections to PostgreSQL of one server process, at most. Listening takes one more."""

HANG = 20.0
"""Seconds after which a transaction of PostgreSQL is given up: a server that is stopped never answers."""

PATIENCE = 10
"""Seconds that a call waits for a connection, for PostgreSQL to accept one, and for a lock."""

LOCK_KEY = 0x5349535950485553
"""The advisory lock of PostgreSQL under which servers bring the tables to the newest version."""

CONNECTION_DEFAULTS = {
    "application_name": "sisyphus-client serve",
    "connect_timeout": PATIENCE,
    # A host that is gone without a word is noticed by these.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 2 * PATIENCE * 1000,
}

SESSION_OPTIONS = {
    "statement_timeout": "15s",
    "lock_timeout": f"{PATIENCE}s",
    "idle_in_transaction_session_timeout": f"{PATIENCE}s",  # or a server that hangs would hold its locks for ever
    "default_transaction_isolation": "read\\ committed",
}


class ServerDatabase:
    """An open database with tables of the newest version. Any thread may use it.

    Attributes:
        name: The database for a person, without a password.
        software: Its kind and version.
        is_shared: Other server processes may use it, too.
    """

    def __init__(self, place: Path | str) -> None:
        """Open or make the file `place`, or connect to the PostgreSQL of that URL.

        Raises:
            StoreError: it cannot be used.
        """
        self.is_shared = is_postgresql(place)
        if "://" in str(place) and not self.is_shared:
            scheme = str(place).partition(":")[0]
            raise StoreError(
                f"{scheme}: no such database is known; expected a file or postgresql://USER:PASSWORD@HOST/NAME"
            )
        self._mutex = threading.Lock()
        self._hangs = HangGuard(HANG)
        self._file: file_database.Database | None = None
        if self.is_shared:
            self.parameters = _parse(str(place))
            self.name = "PostgreSQL, {dbname} on {host}".format(**{"host": "this machine", **self.parameters})
            self._engine = _connect(self.parameters)
        else:
            self.name = str(place)
            self._file = _open(Path(place))
            self._engine = _make_engine(self._file)
        try:
            self.software = self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections, and let another server have the file."""
        self._hangs.close()
        with self._mutex:
            self._engine.dispose()
            if self._file:
                self._file.close()

    @contextlib.contextmanager
    def begin(self, patient: bool = False) -> Iterator[Connection]:
        """Make all changes inside at the end, or none of them. They are on the disk then. A patient one may take long.

        Raises:
            SQLAlchemyError: the database failed.
        """
        if self._file is None:
            with (
                self._hangs.admitted(),
                self._engine.connect() as connection,
                contextlib.nullcontext() if patient else self._hangs.watching(_descriptor(connection)),
                connection.begin(),
            ):
                yield connection
        else:
            with self._mutex:
                self._check_file(self._file)
                with self._engine.begin() as connection:
                    yield connection

    def _check_file(self, file: file_database.Database) -> None:
        before = file.connection
        try:
            file.check_files()
        except sqlite3.Error as error:
            raise OperationalError("", None, error) from error
        if file.connection is not before:
            self._engine.dispose()

    def is_watch(self, connection: Connection) -> bool:
        """Try to become the only server that watches, until the transaction ends; returns whether that succeeded."""
        if not self.is_shared:
            return True
        return bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({LOCK_KEY + 1})").scalar())

    def check_writable(self) -> None:
        """Write what changes nothing: a look only reads, which a full disk allows. Others write with each look.

        Raises:
            SQLAlchemyError: the database cannot be written.
        """
        if self._file:
            with self.begin() as connection:
                connection.exec_driver_sql(f"PRAGMA user_version = {SQLITE.version}")

    def shrink(self) -> None:
        """Give room that deleted rows had back to the file system. PostgreSQL does that by itself."""
        if self._file:
            with self._mutex:
                self._file.connection.executescript("PRAGMA incremental_vacuum(2000)")  # `execute` would free one page

    def _prepare(self) -> str:
        try:
            with self.begin(patient=True) as connection:
                if self.is_shared:
                    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
                _migrate(connection)
                version = ".".join(map(str, connection.dialect.server_version_info or ()))
            if self._file:
                _let_shrink(self._file.connection)
        except SQLAlchemyError as error:
            raise StoreError(f"{self.name}: the database cannot be used: {reason(error)}") from error
        return f"{'PostgreSQL' if self.is_shared else 'SQLite'} {version}"


def insert(dialect: str, table: Table) -> Any:
    """Return an INSERT that can say what to do `ON CONFLICT`: each database has its own."""
    return importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


def reason(error: Exception) -> str:
    """Say why the database failed, without the statement and its values."""
    words = str(error.orig if isinstance(error, DBAPIError) and error.orig else error)
    return " ".join(words.split()).rstrip(".") or type(error).__name__


# --- SQLite ---


def _open(path: Path) -> file_database.Database:
    try:
        # Not checked: that would take minutes where the verdicts of years are kept. A damaged one is not moved aside,
        # as a client's journal is: the farm's queue would be empty, and nobody would notice. Its operator has a copy.
        file = file_database.Database(path, Path(f"{path}.lock"), SQLITE, check=False)
    except DatabaseFileError as error:
        raise StoreError(f"{path}: the database cannot be used: {error}") from error
    except BlockingIOError as error:
        raise StoreError(f"{path}: the database is in use by another server") from error
    except OSError as error:
        raise StoreError(f"{path}: the database cannot be written: {error.strerror}") from error
    try:
        # A write that changes nothing: where the file cannot be written this fails now, and not at the first job.
        with file.transaction() as connection:
            connection.execute(f"PRAGMA user_version = {SQLITE.version}")
    except sqlite3.Error as error:
        file.close()
        raise StoreError(f"{path}: the database cannot be written: {error}") from error
    return file


def _let_shrink(connection: sqlite3.Connection) -> None:
    """Have SQLite note which pages may move, once: that takes a copy of the whole file."""
    if connection.execute("PRAGMA auto_vacuum").fetchall() != [(2,)]:
        with contextlib.suppress(sqlite3.OperationalError):  # no room: the next start tries again
            connection.executescript("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")


def _make_engine(file: file_database.Database) -> Engine:
    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: file.connection, poolclass=StaticPool)
    # The connection is in autocommit mode: SQLite's driver would begin only before the first change.
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


# --- PostgreSQL ---


def _parse(url: str) -> dict[str, Any]:
    """Return the parameters of a URL, completed by ours. No message repeats a part of it, which may be the password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        given = {"host": "@"}
    if "@" in str(given.get("host", "")):
        raise StoreError(
            "the database's URL is wrong: expected postgresql://USER:PASSWORD@HOST:PORT/NAME, with special characters"
            " of the password as %XX"
        )
    ours = " ".join(f"-c {name}={value}" for name, value in SESSION_OPTIONS.items())
    options = f"{ours} {given.get('options', '')}".strip()
    return {"dbname": given.get("user", ""), **CONNECTION_DEFAULTS, **given, "options": options}


def _connect(parameters: dict[str, Any]) -> Engine:
    import psycopg

    return sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(**parameters),
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=PATIENCE,
    )


def _descriptor(connection: Connection) -> int:
    import psycopg

    driver: Any = connection.connection.driver_connection
    try:
        return int(driver.fileno())
    except psycopg.Error as error:  # it broke while nobody used it
        connection.invalidate(error)
        raise OperationalError("", None, error, connection_invalidated=True) from error


# --- the tables ---


def _migrate(connection: Connection) -> None:
    """Bring the tables to the newest version, within the transaction of `connection`."""
    version = None
    if inspect(connection).has_table("alembic_version"):
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if version == REVISION:
        return
    from alembic import command  # slow to import, and rarely needed
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    try:
        command.upgrade(config, REVISION)
    except CommandError as error:
        raise StoreError(
            f"the database was written by a newer version of this program (its tables have version {version}, this"
            f" program knows {REVISION}): upgrade the program"
        ) from error
