"""What changed since the last look at the jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.storage.changes import JobChanges
from server.storage.database import ServerDatabase
from server.storage.store import Store
from server.storage.tables import jobs
from server.workers import Lost

TASKS = [{"module": "ffmpeg", "data": {}}]


@pytest.fixture
def opened(database: Path | str) -> Iterator[ServerDatabase]:
    """An open database."""
    opened = ServerDatabase(database)
    yield opened
    opened.close()


def states(changes: JobChanges, *touched: str) -> list[tuple[str, str]]:
    """The ids and states that a look finds."""
    return [(job["job_id"], job["state"]) for job in changes.look(touched).jobs]


def test_each_change_is_found_once(opened: ServerDatabase) -> None:
    """The states of a job in turn; a look without a change finds nothing, and the first one never does."""
    store, changes = Store(opened), JobChanges(opened)
    old = store.submit("old", TASKS)
    found = [states(changes)]
    new = store.submit("new", TASKS)
    found.append(states(changes))
    store.take()
    found.append(states(changes))
    store.put_back({old: Lost(None, "silent", store.running()[old])})
    found.append(states(changes))
    store.prioritise(new, 3)
    found.append(states(changes, new))
    store.take()
    store.complete(new, False, {})
    found += [states(changes), states(changes)]
    quick = store.submit("quick", TASKS)
    store.cancel(quick, "")
    found.append(states(changes))

    assert found == [
        [],
        [(new, "queued")],
        [(old, "running")],
        [(old, "queued")],
        [(new, "queued")],
        [(new, "completed")],
        [],
        [(quick, "cancelled")],
    ]


def test_a_deleted_job_is_found(opened: ServerDatabase) -> None:
    """A running one is missed, a queued one if somebody touched it; with the newest one, a look is not complete."""
    store, changes = Store(opened), JobChanges(opened)
    running, queued = store.submit("a", TASKS), store.submit("b", TASKS)
    store.take()
    changes.look(())
    store.delete_job(running)
    store.delete_job(queued)

    found = changes.look([queued])
    newest = store.submit("c", TASKS)

    assert sorted(job["job_id"] for job in found.jobs) == sorted([running, queued])
    assert {job["state"] for job in found.jobs} == {"deleted"}
    assert not found.is_complete
    assert states(changes) == [(newest, "queued")]


def test_a_job_that_becomes_visible_late_is_found(opened: ServerDatabase) -> None:
    """Numbers of jobs are given before the commit: a lower one may come after a higher one."""
    store, changes = Store(opened), JobChanges(opened)
    changes.look(())
    late = store.submit("late", TASKS)
    with opened.begin() as db:
        row = dict(db.execute(jobs.select().where(jobs.c.job_id == late)).one()._mapping)
        db.execute(jobs.delete().where(jobs.c.job_id == late))
        db.execute(jobs.insert().values(row | {"number": row["number"] + 5, "job_id": "early"}))
    early = states(changes)
    with opened.begin() as db:
        db.execute(jobs.insert().values(row))

    assert early == [("early", "queued")]
    assert states(changes) == [(late, "queued")]
    assert states(changes) == []


def test_many_jobs_at_once_are_all_found(opened: ServerDatabase) -> None:
    """More than one look reads come with the next ones."""
    store, changes = Store(opened), JobChanges(opened)
    changes.look(())
    first = store.submit("first", TASKS)
    with opened.begin() as db:
        row = dict(db.execute(jobs.select().where(jobs.c.job_id == first)).one()._mapping)
        rows = [row | {"number": row["number"] + n, "job_id": f"job {n}"} for n in range(1, 2500)]
        db.execute(jobs.insert(), rows)
    looks = [states(changes) for _ in range(4)]

    assert len({job_id for look in looks for job_id, _ in look}) == 2500
    assert looks[3] == []
