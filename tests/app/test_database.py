"""The SQLite file with one owner, by itself. What journal and server make of it is shown with these."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from app.database import Database, DatabaseFileError, Schema

SCHEMA = Schema(7, "CREATE TABLE things (name TEXT, size INTEGER);", ("ALTER TABLE things ADD COLUMN size INTEGER;",))


def open_database(directory: Path, schema: Schema = SCHEMA) -> Database:
    return Database(directory / "data.sqlite3", directory / "lock", schema, check=True)


def test_its_files_are_private(tmp_path: Path) -> None:
    """Only the owner reads the file and its log, and there is no memory shared with others."""
    with contextlib.closing(open_database(tmp_path)) as database, database.transaction() as connection:
        connection.execute("INSERT INTO things VALUES ('a', 1)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    assert modes == {"data.sqlite3": 0o600, "data.sqlite3-wal": 0o600, "lock": 0o600}


def test_it_has_one_owner(tmp_path: Path) -> None:
    """It cannot be opened twice, and it can be opened again after it is closed."""
    with contextlib.closing(open_database(tmp_path)), pytest.raises(BlockingIOError):
        open_database(tmp_path)

    open_database(tmp_path).close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA application_id = 8", "of another program"),
        ("PRAGMA application_id = 7; PRAGMA user_version = 9", "upgrade the program"),
        ("CREATE TABLE theirs (x)", "of another program"),
    ],
)
def test_a_strangers_file_is_left_as_it_is(tmp_path: Path, statement: str, words: str) -> None:
    """A file of another program or of a newer version is refused, and nothing in it changes."""
    file = tmp_path / "data.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as theirs:
        theirs.executescript(statement)
    before = file.read_bytes()

    with pytest.raises(DatabaseFileError, match=words):
        open_database(tmp_path)
    assert file.read_bytes() == before
