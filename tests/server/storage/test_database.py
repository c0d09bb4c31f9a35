"""The tables: made, taken over from an older version, and brought to the newest one under a lock."""

import contextlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from server.storage.database import ServerDatabase
from server.storage.tables import metadata
from tests.support.api_server import UNKNOWN, serving

VERSION_1 = """
PRAGMA application_id = 0x53495359;
PRAGMA user_version = 1;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE, position INTEGER, taken INTEGER NOT NULL,
    title TEXT NOT NULL, document TEXT NOT NULL
);
CREATE UNIQUE INDEX queued ON jobs (position) WHERE position IS NOT NULL;
CREATE INDEX running ON jobs (number) WHERE position IS NULL;
CREATE TABLE verdicts (job_id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE data (
    module TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (module, name)
);
CREATE TABLE disabled (what TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (what, id)) WITHOUT ROWID;
INSERT INTO data VALUES ('a/b', 'nul' || char(0), 'x', '{"y":1}');
INSERT INTO disabled VALUES ('queue', ''), ('worker', 'w"1');
"""

NOON = "2026-01-01T12:00:00.000007+00:00"


def test_the_migrations_make_the_tables_that_the_code_uses(database: Path | str) -> None:
    """A database that was migrated from nothing has exactly these tables and columns."""
    with contextlib.closing(ServerDatabase(database)) as opened, opened.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        differences = compare_metadata(context, metadata)

    assert [found for found in differences if found[0] != "remove_index"] == []  # the code does without their names


def test_servers_that_start_together_make_the_tables_once(database: Path | str) -> None:
    """Several servers may start on an empty database of PostgreSQL; a file is for one after the other."""
    servers = 4 if isinstance(database, str) else 1

    with ThreadPoolExecutor(servers) as pool:
        opened = list(pool.map(lambda _: ServerDatabase(database), range(servers)))
    for each in opened:
        each.close()

    assert len({each.software for each in opened}) == 1


def test_a_file_of_version_1_is_taken_over(tmp_path: Path) -> None:
    """The queue keeps its order, jobs run on, verdicts are found, under a former id too; data and settings stay."""
    title = '\ud800 " \u0000'
    jobs = {name: {"job_id": name, "job_title": title, "tasks": [{"module": name}], "added": NOON} for name in "abcd"}
    jobs["d"]["tasks"] = [{"module": "d", "handed_back": UNKNOWN}]
    verdict = {"job_id": "v", "job_title": title, "failed": True, "info": {"x": [1]}, "completed_at": NOON}
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as db, db:
        db.executescript(VERSION_1)
        for name, position, taken in (("a", 3, 0), ("b", None, 1), ("c", -7, 2), ("d", None, 1)):
            row = (name, position, taken, json.dumps(title), json.dumps(jobs[name]))
            db.execute("INSERT INTO jobs (job_id, position, taken, title, document) VALUES (?, ?, ?, ?, ?)", row)
        for name in ("v", "former"):
            db.execute("INSERT INTO verdicts VALUES (?, ?)", (name, json.dumps(verdict)))

    with serving(tmp_path / "jobs.db") as api:
        running = [api("GET", f"/jobs/{name}").json() for name in "bd"]
        verdicts = [api("GET", f"/jobs/{name}/completed").json() for name in ("v", "former")]
        new = api.submit()
        queued = api.queued()
        page = api.status("GET", "/farm/jobs/c")
        first = api("GET", "/queue/poll").json()
        api("PATCH", "/jobs/d/completed", {"failed": False, "info": {}})
        former = api("GET", f"/jobs/{UNKNOWN}/completed").json()
        disabled = [
            api("GET", "/queue").json()["attributes"],
            api("PATCH", "/workers/w%221", {"disabled": True}).json(),
        ]
        data = api("GET", "/data/a%2Fb/nul%00").json()
    with serving(tmp_path / "jobs.db") as api:
        again = api.queued()

    assert running == [jobs["b"], jobs["d"]]
    assert verdicts == [verdict, verdict]
    assert queued == ["c", "a", new]
    assert (page, first) == (200, jobs["c"])
    assert former["job_id"] == "d"
    assert disabled == [{"disabled": True}] * 2
    assert data == {"y": 1, "_id": "x", "name": "nul\0"}
    assert again == ["a", new]
