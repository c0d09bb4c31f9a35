"""Jobs in any state: lists, records, orders, logs; and how long they are kept."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from server.job_routes import MAX_LOG
from server.storage.database import ServerDatabase
from server.storage.history import EXPIRED_AT_ONCE, History
from server.storage.store import Store
from tests.server.conftest import make_database
from tests.support.api_server import BEAT, JOB, OUTCOME, SOON, UNKNOWN, Api, serving
from tests.support.waiting import until

KEPT = timedelta(days=1)


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        ({}, ["completed", "failed"]),
        ({"completed": KEPT, "failed": KEPT}, ["completed", "failed"]),
        ({"completed": timedelta()}, ["failed"]),
        ({"completed": KEPT, "failed": timedelta()}, ["completed"]),
    ],
)
def test_jobs_are_deleted_when_their_time_is_over(
    database: Path | str, retention: dict[str, timedelta], kept: list[str]
) -> None:
    """Each state has its own time, and what has not ended is never deleted."""
    with contextlib.closing(ServerDatabase(database)) as opened:
        store, history = Store(opened), History(opened)
        jobs = {state: store.submit(state, []) for state in ("completed", "failed", "running", "queued")}
        for state in ("completed", "failed", "running"):
            store.take()
            if state != "running":
                store.complete(jobs[state], state == "failed", {})
        deleted = history.expire(retention)
        found = [state for state in ("completed", "failed") if store.verdict(jobs[state])]

        assert deleted == 2 - len(kept)
        assert found == kept
        assert [store.job(jobs[state]) is not None for state in ("running", "queued")] == [True, True]


def test_a_server_deletes_in_small_steps(database: Path | str, logged: list[str]) -> None:
    """No step takes long, and a file shrinks."""
    with contextlib.closing(ServerDatabase(database)) as opened:
        store, history = Store(opened), History(opened)
        for _ in range(EXPIRED_AT_ONCE + 1):
            job_id = store.submit("a job", [{"module": "x" * 2000}])
            store.complete(job_id, False, {})
        full = Path(database).stat().st_size if isinstance(database, Path) else 0
        steps = [history.expire({"completed": timedelta()}) for _ in range(3)]
    shrunk = Path(database).stat().st_size if isinstance(database, Path) else -1

    assert steps == [EXPIRED_AT_ONCE, 1, 0]
    assert shrunk < full / 2


def test_a_server_keeps_jobs_as_long_as_it_was_told(database: Path | str) -> None:
    """A server deletes by itself what is over."""
    with serving(database, keep="1s", keep_failed="0") as api:
        first, second = api.submit(), api.submit()
        api("PATCH", f"/jobs/{second}/completed", OUTCOME | {"failed": True})
        api("PATCH", f"/jobs/{first}/completed", OUTCOME)
        until(lambda: api.status("GET", f"/jobs/{first}/completed") == 404, "the job to be deleted")
        failed = api.status("GET", f"/jobs/{second}/completed")

    assert failed == 200


def test_jobs_are_listed_newest_first_in_pages(database: Path | str) -> None:
    """Pages follow each other without a gap, whatever is filtered, and say when they are the last."""
    with serving(database) as api:
        ids = [api.submit(f"job {number}") for number in range(7)]
        first = api("GET", "/jobs?limit=3").json()
        second = api("GET", f"/jobs?limit=3&cursor={first['next']}").json()
        third = api("GET", f"/jobs?limit=3&cursor={second['next']}").json()

    pages = [[job["job_id"] for job in page["jobs"]] for page in (first, second, third)]
    assert pages == [ids[:3:-1], ids[3:0:-1], ids[:1]]
    assert "next" not in third
    assert "tasks" not in first["jobs"][0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "dcba"),
        ("state=queued", "d"),
        ("state=running", "c"),
        ("state=failed", "b"),
        ("state=completed", "a"),
        ("state=cancelled", ""),
        ("module=ffmpeg", "dba"),
        ("module=gpu", "c"),
        ("module=nope", ""),
        ("worker=w-1", "ba"),
        ("worker=encoder01", "ba"),
        ("worker=w-1&state=failed", "b"),
        ("q=FILM%20B", "b"),
        ("q=été", "dcba"),
        ("q=ÉTÉ:%20film", "dcba"),
        ("q=%25", ""),
        ("q=" + "film" * 15_000, ""),
        ("id=" + "a" * 60_000, ""),
        ("q=film", "dcba"),
        ("since=2026-01-01", "dcba"),
        ("before=2026-01-01T00:00:00Z", ""),
        ("since=2999-01-01&module=ffmpeg", ""),
    ],
)
def test_jobs_are_filtered(listed: Api, query: str, expected: str) -> None:
    """Each filter alone, and with another one."""
    found = listed("GET", f"/jobs?{query}").json()["jobs"]

    assert [job["job_title"][-1] for job in found] == list(expected)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def listed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with a job in each of four states."""
    info = {"worker_id": "w-1", "worker": "encoder01", "message": "no"}
    with serving(make_database(request.param, tmp_path_factory.mktemp("listed"))) as api:
        for name in "abcd":
            tasks = [{"module": "gpu" if name == "c" else "ffmpeg"}]
            api("POST", "/queue", {"job_title": f"ÉTÉ: Film {name}", "tasks": tasks})
            if name != "d":
                job_id = api.poll()
            if name in "ab":
                api("PATCH", f"/jobs/{job_id}/completed", {"failed": name == "b", "info": info})
        yield api


def test_a_search_goes_on_where_it_stopped(database: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search looks at some jobs at a time: a page may be empty, and the next one finds the job."""
    monkeypatch.setattr("server.storage.history.SEARCHED_AT_ONCE", 3)
    with serving(database) as api:
        wanted = api.submit("the needle")
        for _ in range(7):
            api.submit("hay")
        pages, cursor = [], ""
        while cursor is not None and len(pages) < 9:
            page = api("GET", f"/jobs?q=needle{cursor}").json()
            pages.append([job["job_id"] for job in page["jobs"]])
            cursor = f"&cursor={page['next']}" if "next" in page else None

    assert pages == [[], [], [wanted]]


def test_a_record_tells_everything(database: Path | str) -> None:
    """A job's tasks, times, attempts and verdict are there when it has ended; a copy of it names it."""
    with serving(database, vanished_after=SOON) as api:
        job_id = api.submit()
        waiting = api("GET", f"/jobs/{job_id}/record").json()
        api("GET", "/queue/poll?worker_id=w")
        until(api.queued, "the job to be put back")
        api("GET", "/queue/poll?worker_id=v")
        running = api("GET", f"/jobs/{job_id}/record").json()
        api("PATCH", f"/jobs/{job_id}/completed", {"failed": True, "info": {"message": "no", "worker_id": "v"}})
        ended = api("GET", f"/jobs/{job_id}/record").json()
        copy = api("POST", f"/jobs/{job_id}/retry").json()["job_id"]
        again = api("GET", f"/jobs/{copy}/record").json()
        missing = [api.status("GET", f"/jobs/{UNKNOWN}/record"), api.status("POST", f"/jobs/{copy}/retry")]

    assert (waiting["state"], waiting["why"], waiting["attempts"]) == ("queued", "no worker is alive", [])
    assert [(each["worker_id"], each["result"]) for each in running["attempts"]] == [("w", "lost"), ("v", "running")]
    assert [(each["worker_id"], each["result"]) for each in ended["attempts"]] == [("w", "lost"), ("v", "failed")]
    assert ended["attempts"][0]["started_at"] <= ended["attempts"][0]["ended_at"] <= ended["started_at"]
    assert (ended["state"], ended["message"], ended["info"]["worker_id"]) == ("failed", "no", "v")
    assert again["tasks"] == ended["tasks"] == JOB["tasks"]
    assert (again["state"], again["retry_of"]) == ("queued", job_id)
    assert missing == [404, 404]


def test_a_job_is_cancelled(database: Path | str) -> None:
    """A queued job ends at once; a running one when its worker, which hears of it at its next beat, says so."""
    asks = {"headers": {"Accept": "application/json"}}
    with serving(database, vanished_after=SOON) as api:
        running, queued, lost = (api.submit(name) for name in "abc")
        api("GET", "/queue/poll?worker_id=w")
        before = api("POST", "/workers/w", BEAT | {"job_id": running}, **asks)
        states = [api("POST", f"/jobs/{job}/cancel?by=anna").json()["state"] for job in (running, queued)]
        heard = api("POST", "/workers/w", BEAT | {"job_id": running}, **asks).json()
        api("PATCH", f"/jobs/{running}/completed", {"failed": True, "info": {"message": "stopped"}})
        polled = api("GET", "/queue/poll?worker_id=v").json()["job_id"]
        api("POST", f"/jobs/{lost}/cancel")
        until(lambda: api("GET", f"/jobs/{lost}/record").json()["state"] == "cancelled", "the lost job to end")
        records = [api("GET", f"/jobs/{job}/record").json() for job in (running, queued)]
        verdict = api("GET", f"/jobs/{queued}/completed").json()
        again = [api.status("POST", f"/jobs/{job}/cancel") for job in (running, queued, UNKNOWN)]

    assert before.json() == {"cancel": [], "paused": False, "disabled": False}
    assert states == ["running", "queued"]
    assert heard["cancel"] == [running]
    assert polled == lost
    assert [record["state"] for record in records] == ["cancelled", "cancelled"]
    assert [record["cancelled_by"] for record in records] == ["anna", "anna"]
    assert (verdict["failed"], verdict["info"]["message"]) == (True, "Cancelled by anna")
    assert again == [404, 404, 404]


def test_a_log_is_kept_with_its_job(database: Path | str) -> None:
    """A log comes back as it was sent; of a very long one the middle is left out."""
    text = "line 1\n\0ünï 😀\n"
    with serving(database) as api:
        job_id = api.submit()
        before = api.status("GET", f"/jobs/{job_id}/log")
        put = api("PUT", f"/jobs/{job_id}/log", data=text.encode()).status_code
        log = api("GET", f"/jobs/{job_id}/log")
        api("PUT", f"/jobs/{job_id}/log", data=b"begin" + b"x" * 2 * MAX_LOG + b"end")
        long = api("GET", f"/jobs/{job_id}/log").text
        unknown = api("PUT", f"/jobs/{UNKNOWN}/log", data=b"").status_code

    assert (before, put, unknown) == (404, 204, 404)
    assert log.content.decode() == text
    assert log.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert len(long) < MAX_LOG + 100
    assert (long[:5], long[-3:]) == ("begin", "end")
