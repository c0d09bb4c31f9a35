"""The store: nothing is lost or given twice, and one server has it."""

import contextlib
import resource
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from server.errors import ServerError
from server.storage.database import ServerDatabase
from server.storage.history import History
from server.storage.store import Store
from server.storage.tables import jobs, needs
from server.workers import Lost
from tests.server.traffic import Traffic, all_jobs
from tests.support.api_server import JOB, OUTCOME, SOON, Api, Process, connected, serving
from tests.support.waiting import until

# --- many at once ---


def test_each_job_is_given_exactly_once(api: Api) -> None:
    """Twenty clients that poll at once get five hundred jobs, none twice and none left over."""
    job_ids = {api.submit(str(number)) for number in range(500)}

    def take_all(_client: int) -> list[str]:
        with connected(api.url) as client:
            return list(iter(client.poll, None))

    with ThreadPoolExecutor(20) as pool:
        taken = [job_id for each in pool.map(take_all, range(20)) for job_id in each]

    assert len(taken) == len(job_ids) == 500
    assert set(taken) == job_ids


class Costs:
    """Counts what calls cost a database: SQLite's steps, or the rows that PostgreSQL reads."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._steps = 0

    def __call__(self, act: Callable[[], Any]) -> int:
        """The cost of a call."""
        before = self._count()
        act()
        return self._count() - before

    def _count(self) -> int:
        with self._database.begin() as db:
            if self._database.is_shared:
                db.exec_driver_sql("SELECT pg_stat_force_next_flush()")
            else:
                db.connection.driver_connection.set_progress_handler(self._step, 1)
        if not self._database.is_shared:
            return self._steps
        with self._database.begin() as db:
            query = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'jobs'"
            return int(db.exec_driver_sql(query).scalar_one())

    def _step(self) -> int:
        self._steps += 1
        return 0


def add_jobs(database: ServerDatabase, count: int) -> None:
    """Append jobs to the queue, faster than the store does."""
    with database.begin() as db:
        need = db.execute(select(needs.c.need)).scalars().first()
        now = datetime.now(UTC)
        row = {"state": "queued", "title": "a job", "document": "{}", "need": need, "added_at": now}
        db.execute(jobs.insert(), [row | {"job_id": str(uuid4())} for _ in range(count)])


def test_a_poll_costs_the_same_however_long_the_queue_is(database: Path | str) -> None:
    """To append a job and to take one costs no more with a queue of 5000 than with one of 10."""
    with contextlib.closing(ServerDatabase(database)) as opened:
        store, cost = Store(opened), Costs(opened)
        store.submit("a job", [])
        store.take()  # both statements are prepared now: from 3.41 on, SQLite counts the steps of that, too
        costs = []
        for length in (10, 5000):
            add_jobs(opened, length - len(store.queue()))
            costs.append((cost(store.take), cost(lambda: store.submit("a job", []))))

    assert costs[1][0] <= costs[0][0]
    assert costs[1][1] <= costs[0][1]


# --- starting and stopping ---


NO_DATABASE = {
    "text.db": r"the database cannot be used: file is not a database$",
    "foreign.db": r"the database cannot be used: it is a database of another program$",
    "text.db/jobs.db": r"the database cannot be written: .+$",
    ".": r"the database cannot be (opened|used|written): .+$",
}


@pytest.mark.parametrize("name", NO_DATABASE)
def test_a_database_that_is_none_is_left_alone(tmp_path: Path, name: str) -> None:
    """A file that is no database or another program's, a place below a file and a directory are refused in one line,
    and nothing is touched."""
    text, foreign = tmp_path / "text.db", tmp_path / "foreign.db"
    text.write_text("This is a letter, and somebody wants to keep it. " * 100)
    with contextlib.closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE songs (title)")
    before = text.read_bytes(), foreign.read_bytes()

    with pytest.raises(ServerError, match=f"^{tmp_path / name}: {NO_DATABASE[name]}"):
        ServerDatabase(tmp_path / name)

    assert (text.read_bytes(), foreign.read_bytes()) == before


@pytest.mark.parametrize("change", ["PRAGMA user_version = 99", "UPDATE alembic_version SET version_num = '99'"])
def test_a_newer_database_is_refused(database: Path | str, change: str) -> None:
    """A database with a version that this program does not know is refused with what to do."""
    with contextlib.closing(ServerDatabase(database)) as opened, opened.begin() as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '99'" if opened.is_shared else change)

    with pytest.raises(ServerError, match=r"was written by a newer version of this program .*99.* upgrade"):
        ServerDatabase(database)


def test_one_file_has_one_server(tmp_path: Path) -> None:
    """A second server is refused while the first has the file, in this process or another, and only so long."""
    file = tmp_path / "jobs.db"
    in_use = pytest.raises(ServerError, match=r"the database is in use by another server$")
    with serving(file) as api:
        api.submit()
        with in_use:
            ServerDatabase(file)
    with contextlib.closing(Process(tmp_path, file)) as process, connected(process.start()) as api:
        with in_use:
            ServerDatabase(file)
        queued = len(api.queued())
    ServerDatabase(file).close()

    assert queued == 1


def test_a_file_makes_its_directory(tmp_path: Path) -> None:
    """A database may lie where nothing is yet. Only its owner can read it; SQLite maps no file that others reach."""
    directory = tmp_path / "a" / "b"
    with serving(directory / "jobs.db") as api:
        assert api.poll() is None
        modes = {path.name: path.stat().st_mode & 0o777 for path in (directory, *directory.iterdir())}

    assert modes == {"b": 0o700, "jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db.lock": 0o600}


def test_a_file_that_is_removed_is_written_anew(tmp_path: Path, logged: list[str]) -> None:
    """Files that are removed while the server runs come back with the next change; the log says so."""
    with serving(tmp_path / "jobs.db") as api:
        first = api.submit()
        for file in tmp_path.glob("jobs.db*"):
            file.unlink()
        second = api.submit()
    with serving(tmp_path / "jobs.db") as api:
        queued = [api.poll(), api.poll(), api.poll()]

    assert queued == [first, second, None]
    assert [line for line in logged if "was removed while it was open, and has been written anew" in line]


FULL = {
    "sqlite": "CREATE TRIGGER full BEFORE UPDATE ON jobs WHEN EXISTS (SELECT * FROM orders)"
    " BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
    "postgresql": "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF EXISTS (SELECT FROM orders)"
    " THEN RAISE 'disk is full'; END IF; RETURN new; END$$;"
    "CREATE TRIGGER full_disk BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION fail()",
}
"""As good as full while the queue is disabled: then every change of a job fails with the database's own error."""


def test_a_database_that_fails_is_told_to_the_client(database: Path | str, logged: list[str]) -> None:
    """When the disk is full a call is a 503 that says so, nothing is half done, and the server recovers."""
    with contextlib.closing(ServerDatabase(database)) as opened, opened.begin() as db:
        db.exec_driver_sql(FULL["postgresql" if opened.is_shared else "sqlite"])
    with serving(database) as api:
        job_id = api.submit()
        api("PATCH", "/queue", {"disabled": True})
        answer = api("PATCH", f"/jobs/{job_id}/completed", OUTCOME)
        verdict = api.status("GET", f"/jobs/{job_id}/completed")
        api("PATCH", "/queue", {"disabled": False})
        again = api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME)

    assert answer.status_code == 503
    assert "disk is full" in answer.json()["message"]
    assert verdict == 404
    assert again == 204
    assert any("the database failed: disk is full" in line for line in logged)


def test_health_tells_of_a_disk_that_is_full(tmp_path: Path) -> None:
    """As soon as a call could not write; and that it can again."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(tmp_path / "jobs.db", vanished_after=SOON) as api:
        full = (tmp_path / "jobs.db-wal").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, former[1]))
            refused = api.status("POST", "/queue", JOB | {"job_title": "x" * full})
            until(lambda: api.status("GET", "/status/health") == 503, "the health to tell")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, former)
        until(lambda: api.status("GET", "/status/health") == 200, "the health to tell that all is well")

    assert refused == 503


# --- killed ---


@pytest.mark.parametrize("done", [0, 5, 60])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(process: Process, done: int) -> None:
    """After SIGKILL amid traffic every job is in one place, as the clients were told, and none is given twice."""
    traffic = Traffic(process.start())
    with traffic.running():
        until(lambda: len(traffic.completed) >= done, "traffic")
        process.send(signal.SIGKILL)
        process.wait()
    with connected(process.start()) as api:
        jobs = all_jobs(api)
        queued = api.queued()
        again = list(iter(api.poll, None))

    of = {state: {job["job_title"] for job in jobs if job["state"] == state} for state in ("completed", "queued")}
    titles = [job["job_title"] for job in jobs]
    assert traffic.broken
    assert len(set(titles)) == len(titles)
    assert set(traffic.submitted) <= set(titles) <= set(traffic.asked)
    assert len(set(traffic.taken)) == len(traffic.taken)
    assert set(traffic.completed) <= of["completed"] <= set(traffic.taken)
    assert not of["queued"] & set(traffic.taken)
    assert again == queued


def test_a_lost_job_is_put_back_once(database: Path | str) -> None:
    """Who finds it lost when another server has put it back and given it to somebody leaves it there."""
    with contextlib.closing(ServerDatabase(database)) as opened:
        store = Store(opened)
        job_id = store.submit("a", [{"module": "x"}])
        store.take()
        lost = {job_id: Lost("w", "silent", store.running()[job_id])}
        first = store.put_back(lost)
        store.take()
        second, running = store.put_back(lost), [*store.running()]

    assert (first, second, running) == ({job_id: "queued"}, {}, [job_id])


def test_a_job_that_is_handed_back_twice_is_one_job(database: Path | str) -> None:
    """A worker whose answer was lost hands it back again, when the first one is done already."""
    with contextlib.closing(ServerDatabase(database)) as opened:
        store = Store(opened)
        former = store.submit("a", [{"module": "x"}])
        store.take()
        returned = [{"module": "x", "handed_back": former, "unfit": [{"worker": "w"}]}]
        first = store.submit("a", returned)
        store.take()
        store.complete(first, False, {})
        again, running = store.submit("a", returned), [*store.running()]
        record = History(opened).record(first)

    assert (again, running) == (first, [])

    assert record
    assert record["tasks"] == [{"module": "x"}]
