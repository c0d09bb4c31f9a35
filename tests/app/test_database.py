"""The SQLite file with one owner, by itself. What journal and server make of it is shown with these."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from app.database import Database, DatabaseFileError, Schema

SCHEMA = Schema(7, "CREATE TABLE things (name TEXT, size INTEGER);", ("ALTER TABLE things ADD COLUMN size INTEGER;",))


def open_database(directory: Path, schema: Schema = SCHEMA) -> Database:
    return Database(directory / "data.sqlite3", directory / "lock", schema, check=True)


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


def test_what_is_no_file_keeps_its_mode(tmp_path: Path) -> None:
    """A device that root names by mistake is not taken away from all other programs."""
    os.mkfifo(tmp_path / "data.sqlite3", 0o640)

    with pytest.raises(DatabaseFileError):
        open_database(tmp_path)
    assert (tmp_path / "data.sqlite3").stat().st_mode & 0o777 == 0o640
