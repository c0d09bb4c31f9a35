"""What operators of a farm rely on: names of jobs, the order of the queue, and numbers, whatever workers do."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from server.observe.metrics import MAX_MODULES
from server.storage.database import ServerDatabase
from server.storage.needs import Ability, Needs
from server.storage.store import Store
from tests.support.api_server import JOB, Api


def hand_back(api: Api) -> str:
    """Take the head of the queue and hand it back, as a worker does; returns its new id."""
    job = api("GET", "/queue/poll").json()
    tasks = [job["tasks"][0] | {"handed_back": job["job_id"]}]
    return str(api("POST", "/queue", JOB | {"tasks": tasks}).json()["job_id"])


@pytest.mark.parametrize("times", [1, 2])
def test_farm_orders_reach_a_job_by_the_id_that_its_submitter_knows(api: Api, times: int) -> None:
    """A job that was handed back is moved, listed and run again by its first id, too."""
    first, other = api.submit("a"), api.submit("b")
    ids = [first, *(hand_back(api) for _ in range(times))]
    api("PATCH", f"/jobs/{other}", {"position": "head"})
    before = api.queued()
    moved = [api("PATCH", f"/jobs/{job_id}", {"priority": 1}).json()["job_id"] for job_id in ids]
    after = api.queued()
    listed = [_ids(api, {"id": first[:8]}), _ids(api, {"q": first})]
    api("PATCH", f"/jobs/{ids[-1]}/completed", {"failed": True, "info": {}})
    copies = [api("POST", f"/jobs/{job_id}/retry").json()["job_id"] for job_id in ids]

    assert (before, after) == ([other, ids[-1]], [ids[-1], other])
    assert set(moved) == {ids[-1]}
    assert listed == [[ids[-1]]] * 2
    assert {api("GET", f"/jobs/{copy}/record").json()["retry_of"] for copy in copies} == {ids[-1]}


def test_farm_a_copy_that_is_handed_back_is_still_a_copy(api: Api) -> None:
    """Its record names the job of which it is a copy: else that job would be run again once more."""
    failed = api.submit("a")
    api("PATCH", f"/jobs/{failed}/completed", {"failed": True, "info": {}})
    api("POST", f"/jobs/{failed}/retry")
    copy = hand_back(api)

    assert api("GET", f"/jobs/{copy}/record").json()["retry_of"] == failed


def test_farm_a_poll_costs_as_much_however_many_needs_there_are(database: Path | str) -> None:
    """A worker that can do jobs with many different needs, but not all, gets the first one of those in a few steps."""
    tags = [f"tag {number}" for number in range(40)]
    worker, statements = Ability(None, frozenset(tags[1:])), list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    with contextlib.closing(ServerDatabase(database)) as opened:
        store = Store(opened)
        for number, tag in enumerate(tags):
            store.submit(tag, [], priority=number % 4 if number else 9, requires=[tag])
        store.take(worker)  # reads the needs
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
        try:
            taken = store.take(worker)
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)

    assert taken is not None
    assert '"job_title":"tag 7"' in taken.document, "the second one of the highest priority that it can do"
    assert len(statements) < 10


def _ids(api: Api, query: dict[str, Any]) -> list[str]:
    return [job["job_id"] for job in api("GET", "/jobs", params=query).json()["jobs"]]


def test_farm_needs_that_one_thread_goes_through_stay_as_they_are(database: Path | str) -> None:
    """New ones come meanwhile, which other threads read: a list of jobs by their module failed by that."""
    known = Needs()
    with contextlib.closing(ServerDatabase(database)) as opened:
        store, seen = Store(opened), []
        for module in ("a", "b"):
            store.submit("", [{"module": module}])
            with opened.begin() as connection:
                seen.append(known.read(connection))

    assert [len(needs) for needs in seen] == [1, 2]


def test_farm_counters_never_go_back(api: Api) -> None:
    """With more sets of modules than have a label, one that is in the queue again does not leave the others' label."""
    names = [f"module {MAX_MODULES - number:03}" for number in range(MAX_MODULES + 20)]
    seen: list[dict[str, float]] = [{}]
    for number, name in enumerate([*names, names[-1], names[0]]):
        body = {"job_title": "", "tasks": [{"module": name}]}
        job_id = api("POST", "/queue", body).json()["job_id"]
        if number >= MAX_MODULES - 2:
            seen.append(_counters(api))
        api("POST", f"/jobs/{job_id}/cancel")
    seen.append(_counters(api))

    pairs = itertools.pairwise(seen)
    assert [name for old, new in pairs for name in old if new.get(name, 0) < old[name]] == []
    assert len(seen[-1]) <= MAX_MODULES + 10


def _counters(api: Api) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in api("GET", "/metrics").text.splitlines()]
    return {name: float(value) for name, _, value in lines if name.startswith("sisyphus_jobs_ended_total")}
