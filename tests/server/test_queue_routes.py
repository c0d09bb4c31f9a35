"""Who is given which job, and when."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.server.postgresql import postgresql
from tests.support.api_server import BEAT, SOON, UNKNOWN, Api, connected, serving
from tests.support.waiting import until


def submit(api: Api, title: str, module: str = "ffmpeg", **more: Any) -> str:
    """Submit a job of one task; returns its id."""
    answer = api("POST", "/queue", {"job_title": title, "tasks": [{"module": module}], **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


def test_the_queue_has_an_order(api: Api) -> None:
    """Higher priorities come first, then the order of submission; the operator may change both."""
    a, b, c, d = (submit(api, name, priority=priority) for name, priority in (("a", 0), ("b", 5), ("c", 5), ("d", -1)))
    by_priority = api.queued()
    moved = [
        api("PATCH", f"/jobs/{c}", {"priority": -7}).json()["priority"],
        api.status("PATCH", f"/jobs/{d}", {"position": "head"}),
    ]
    again = api.queued()
    api.poll()
    wrong = [
        api.status("PATCH", f"/jobs/{a}", body)
        for body in ({}, {"priority": 1, "position": "head"}, {"priority": "1"}, {"position": 3}, {"priority": 2**40})
    ]
    not_queued = [api.status("PATCH", f"/jobs/{job}", {"priority": 1}) for job in (d, UNKNOWN)]

    assert by_priority == [b, c, a, d]
    assert moved == [-7, 200]
    assert again == [d, b, a, c]
    assert wrong == [400] * 5
    assert not_queued == [404, 404]


@pytest.mark.parametrize(
    ("ability", "given"),
    [
        ("", ["plain", "other"]),
        ("?modules=ffmpeg", ["plain"]),
        ("?modules=ffmpeg,other&tags=", ["plain", "other"]),
        ("?modules=&tags=gpu", []),
        ("?modules=ffmpeg,%20other&tags=gpu,fast", ["plain", "tagged", "other"]),
        ("?tags=gpu&something=else", ["plain", "tagged", "other"]),
    ],
)
def test_nobody_is_given_what_he_cannot_do(api: Api, ability: str, given: list[str]) -> None:
    """A worker gets jobs of its modules, and those whose tags it has all of; the rest stays for others."""
    submit(api, "plain")
    submit(api, "tagged", requires=["gpu"])
    submit(api, "both", requires=["gpu"], tasks=[{"module": "x", "requires": ["nvenc"]}])
    submit(api, "other", module="other")
    polled = []
    while (job := api("GET", f"/queue/poll{ability}").json()) is not None:
        polled.append(job["job_title"])

    assert polled == given
    assert len(api.queued()) == 4 - len(given)


def test_a_job_that_nobody_can_do_says_so(api: Api) -> None:
    """The record of a queued job tells which module or tag no live worker has, or who is disabled."""
    tagged = submit(api, "a", requires=["gpu"])
    other = submit(api, "b", module="other")
    plain = submit(api, "c")

    def why(job_id: str) -> str:
        return str(api("GET", f"/jobs/{job_id}/record").json()["why"])

    alone = why(tagged)
    api.beat("w")
    api("PATCH", "/queue", {"disabled": True})
    api("GET", "/queue/poll?worker_id=w&modules=ffmpeg&tags=cpu")
    disabled = why(plain)
    api("PATCH", "/queue", {"disabled": False})
    api("PATCH", "/workers/w", {"paused": True})
    told = [why(job_id) for job_id in (tagged, other, plain)]
    api("PATCH", "/workers/w", {"paused": False})
    told.append(why(plain))
    api("DELETE", "/workers/w")

    assert alone == "no worker is alive"
    assert disabled == "the queue is disabled"
    assert told == [
        "no live worker has the tag gpu",
        "no live worker has the module other",
        "every worker that can do it is disabled or paused",
        "waiting for a free worker",
    ]


def test_a_handed_back_job_keeps_its_place(api: Api) -> None:
    """A job that a worker posts again is at the head, with its tags, priority and attempts, and once, however often it
    is posted; both ids have a verdict."""
    job_id = submit(api, "a", requires=["gpu"], priority=3)
    other = submit(api, "b", priority=3)
    job = api("GET", "/queue/poll?tags=gpu&worker_id=w").json()
    again = _hand_back(api, job)
    twice = _post_again(api, job).json()["job_id"]
    record = api("GET", f"/jobs/{again}/record").json()
    queued = api.queued()
    former = api.status("GET", f"/jobs/{job_id}")
    api("PATCH", f"/jobs/{again}/completed", {"failed": False, "info": {}})

    assert queued == [again, other]
    assert (twice, former) == (again, 404)
    assert (record["requires"], record["priority"]) == (["gpu"], 3)
    assert [(each["worker_id"], each["result"]) for each in record["attempts"]] == [("w", "handed back")]
    assert api("GET", f"/jobs/{job_id}/completed").json()["job_id"] == again


def test_a_job_that_is_handed_back_again_is_known_by_all_its_ids(api: Api) -> None:
    """Its submitter knows the first id, and others may have seen one between: each leads to the job and its end."""
    first, polled = submit(api, "a"), api("GET", "/queue/poll").json()
    second = _hand_back(api, polled)
    third = _hand_back(api, again := api("GET", "/queue/poll").json())
    posted = _post_again(api, again).json()["job_id"]
    other = submit(api, "b")
    paths = [f"/jobs/{job_id}" for job_id in (first, second, third)]
    records = [api("GET", f"{path}/record").json()["job_id"] for path in paths]
    cancelled = [api.status("POST", f"{path}/cancel") for path in paths[:1]]
    verdicts = [api("GET", f"{path}/completed").json()["job_id"] for path in paths]
    api("PUT", f"/jobs/{third}/log", data="log")

    assert {third} == {posted, *records, *verdicts}
    assert cancelled == [200]
    assert [api("GET", f"{path}/log").text for path in paths] == ["log"] * 3
    assert [api.status("GET", path) for path in paths] == [404] * 3
    assert api.queued() == [other]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_cancelled_job_is_not_handed_back(api: Api, is_late: bool) -> None:
    """A job that its worker hands back ends if it is to be cancelled, whether the order comes before that or after."""
    job_id = submit(api, "a")
    job = api("GET", "/queue/poll").json()
    again = _hand_back(api, job) if is_late else ""
    state = api("POST", f"/jobs/{job_id}/cancel?by=anna").json()["state"]
    again = again or _hand_back(api, job)
    record = api("GET", f"/jobs/{again}/record").json()

    assert state == ("queued" if is_late else "running")
    assert (record["state"], record["cancelled_by"], record["message"]) == ("cancelled", "anna", "Cancelled by anna")
    assert api.queued() == []


@pytest.mark.parametrize("end", ["deleted", "cleared", "completed"])
def test_a_job_that_is_over_does_not_come_back(api: Api, end: str) -> None:
    """Neither a heartbeat that names it nor its worker's handing it back puts it into the queue; nor does a verdict."""
    job_id = submit(api, "a")
    job = api("GET", "/queue/poll?worker_id=w").json()
    ways = {"deleted": ("DELETE", f"/jobs/{job_id}", None), "cleared": ("DELETE", "/queue", None)}
    api(*ways.get(end, ("PATCH", f"/jobs/{job_id}/completed", {"failed": False, "info": {}})))
    api.beat("w", job_id)
    refused = _post_again(api, job)
    verdict = api.status("PATCH", f"/jobs/{job_id}/completed", {"failed": False, "info": {}})
    record = api.status("GET", f"/jobs/{job_id}/record")
    api("DELETE", "/workers/w")

    assert (refused.status_code, verdict) == (409, 404)
    assert "was completed or deleted meanwhile" in refused.json()["message"]
    assert record == (200 if end == "completed" else 404)
    assert (api.queued(), api.poll()) == ([], None)


def _hand_back(api: Api, job: dict[str, Any]) -> str:
    again = str(_post_again(api, job).json()["job_id"])
    assert api.status("DELETE", f"/jobs/{job['job_id']}") == 404  # its place is taken already
    return again


def _post_again(api: Api, job: dict[str, Any]) -> Any:
    tasks = [job["tasks"][0] | {"handed_back": job["job_id"]}]
    return api("POST", "/queue", {"job_title": job["job_title"], "tasks": tasks})


# --- waiting polls ---


@pytest.mark.parametrize("servers", [1, 2])
def test_waiting_polls_get_jobs_as_they_come(database: Path | str, servers: int) -> None:
    """Of many polls that wait, at one server or at two of one database, each gets one job, soon after it came."""
    if isinstance(database, Path) and servers == 2:
        servers = 1  # a file has one server
    with serving(database) as first, serving(database) if servers == 2 else connected(first.url) as second:
        given, submitted = wait_and_submit([first, second])

    assert sorted(given, key=str) == sorted(submitted)


def wait_and_submit(apis: list[Api]) -> tuple[list[str | None], list[str]]:
    """Eight polls that wait, and eight jobs: their ids, as given and as submitted."""

    def wait(number: int) -> str | None:
        with connected(apis[number % 2].url) as api:
            answer = api("GET", "/queue/poll?wait=30&worker_id=w")
            return answer.json() and str(answer.json()["job_id"])

    with ThreadPoolExecutor(8) as pool:
        polls = [pool.submit(wait, number) for number in range(8)]
        submitted = [apis[number % 2].submit() for number in range(8)]
        return [poll.result(30) for poll in polls], submitted


def test_a_waiting_poll_ends_without_a_job(api: Api) -> None:
    """It waits for its time, and gets what an empty queue answers."""
    began = time.monotonic()
    answer = api("GET", "/queue/poll?wait=0.3")
    waited = time.monotonic() - began

    assert (answer.status_code, answer.content) == (404, b"null")
    assert waited >= 0.3
    assert [api.status("GET", f"/queue/poll?wait={wrong}") for wrong in ("x", "-1", "nan")] == [400] * 3


def test_a_disabled_worker_waits_on(api: Api) -> None:
    """While it is disabled a poll with its id gets nothing; when it is enabled, it does."""
    job_id = api.submit()
    api("PATCH", "/workers/w", {"disabled": True})
    refused = api("GET", "/queue/poll?worker_id=w").json()
    result: list[Any] = []
    poll = threading.Thread(target=lambda: result.append(_poll_again(api.url)))
    poll.start()
    api("PATCH", "/workers/w", {"disabled": False})
    poll.join()

    assert refused is None
    assert result == [job_id]


def _poll_again(url: str) -> Any:
    with connected(url) as api:
        return api("GET", "/queue/poll?worker_id=w&wait=30").json()["job_id"]


def test_a_waiting_client_that_has_gone_gets_no_job(database: Path | str) -> None:
    """A job that comes after a waiting client went away is there for the next one."""
    with serving(database) as api:
        with pytest.raises(Exception, match="timed out"):
            api.session.get(f"{api.url}/queue/poll?wait=30", timeout=0.3)
        job_id = api.submit()
        polled = until(api.poll, "the job")

    assert polled == job_id


def test_a_job_that_meets_a_client_going_away_keeps_its_place() -> None:
    """A job that is given in the instant in which its client goes away is the next one's, and nobody has tried it."""
    database = postgresql().make_database()
    with serving(database) as api, psycopg.connect(database) as locking:
        first, second = api.submit(), api.submit()
        before = _row(locking, first)
        locking.execute("LOCK TABLE jobs IN EXCLUSIVE MODE")
        with socket.create_connection(("127.0.0.1", urlsplit(api.url).port)) as client:
            client.sendall(b"GET /queue/poll?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: _is_taking(locking), "the server to take a job")
        locking.rollback()
        until(lambda: (now := _row(locking, first)) != before and now[1] == "queued", "the job to be back")
        queued = api.queued()
        given = api("GET", "/queue/poll?worker_id=w").json()["job_id"]
        attempts = api("GET", f"/jobs/{first}/record").json()["attempts"]

    assert queued == [first, second]
    assert given == first
    assert [(each["worker_id"], each["result"]) for each in attempts] == [("w", "running")]


def _row(connection: "psycopg.Connection[Any]", job_id: str) -> Any:
    """Where the job's row is, which differs after each change, and the job's state."""
    return connection.execute("SELECT ctid, state FROM jobs WHERE job_id = %s", (job_id,)).fetchone()


def _is_taking(connection: "psycopg.Connection[Any]") -> bool:
    waiting = (
        "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND query LIKE '%SKIP LOCKED%'"
    )
    return connection.execute(f"{waiting} AND datname = current_database()").fetchone() is not None


# --- orders, and workers of several servers ---


def test_orders_reach_a_worker_by_its_heartbeat(api: Api) -> None:
    """Only who asks for it by its `Accept` is told; the attributes show the orders, and what it can do."""
    asks = {"headers": {"Accept": "application/json"}}
    plain = api("POST", "/workers/w", BEAT).status_code
    api("PATCH", "/workers/w", {"paused": True, "disabled": True})
    told = api("POST", "/workers/w", BEAT, **asks)
    api("GET", "/queue/poll?worker_id=w&modules=b,a&tags=gpu")
    shown = api("GET", "/workers/w").json()["attributes"]
    api("PATCH", "/workers/w", {"paused": False, "disabled": False})
    taken_back = api("POST", "/workers/w", BEAT, **asks).json()
    nothing = api.status("PATCH", "/workers/w", {})
    api("DELETE", "/workers/w")

    assert plain == 204
    assert (told.status_code, told.json()) == (200, {"cancel": [], "paused": True, "disabled": True})
    assert shown == {"disabled": True, "paused": True, "modules": ["a", "b"], "tags": ["gpu"]}
    assert taken_back == {"cancel": [], "paused": False, "disabled": False}
    assert nothing == 400


def test_orders_hold_from_the_first_call_of_a_server(database: Path | str) -> None:
    """Workers meet a server that was started anew at once: who is disabled or paused gets no job, and is told so."""
    with serving(database) as api:
        submit(api, "waits")
        api("PATCH", "/workers/disabled", {"disabled": True})
        api("PATCH", "/workers/paused", {"paused": True})
    with serving(database) as api:
        given = [api.status("GET", f"/queue/poll?worker_id={name}") for name in ("disabled", "paused")]
        told = api("POST", "/workers/paused", BEAT, headers={"Accept": "application/json"}).json()

    assert given == [404, 404]
    assert told["paused"]


def test_a_worker_that_vanished_is_listed_as_lost(database: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no live worker any more, but it is listed with its last job, also after a restart."""
    monkeypatch.setattr("server.services.WORKER_TTL", 0.2)
    with serving(database, vanished_after=SOON) as api:
        api("POST", "/workers/w", BEAT | {"job_id": "j"})
        lost = until(lambda: api("GET", "/workers").json()["lost"], "the worker to be lost")
        status = api.status("GET", "/workers/w")
        ruler = api.submit()
        api.poll()
        until(lambda: ruler in api.queued(), "the watch to have looked")
    with serving(database) as api:
        again = until(lambda: api("GET", "/workers").json()["lost"], "the worker to be known again")

    assert status == 404
    assert [(each["worker_id"], each["status"], each["job_id"]) for each in lost] == [("w", "lost", "j")]
    assert [each["worker_id"] for each in again] == ["w"]
