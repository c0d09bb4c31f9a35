"""The contract of the routes, over HTTP."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import randrange
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote

import pytest
import requests

from server.storage.tables import MAX_KEY
from tests.support.api_server import BEAT, FULL_BEAT, JOB, OUTCOME, UNKNOWN, Api, connected, serving


def test_a_job_goes_from_the_queue_to_its_verdict(api: Api) -> None:
    """A job is queued, taken, shown while it runs, completed, and gone."""
    job_id = api.submit("täst")
    queue = api("GET", "/queue").json()
    queued = api("GET", f"/jobs/{job_id}").json()
    polled = api("GET", "/queue/poll")
    running = api("GET", f"/jobs/{job_id}")
    unfinished = api.status("GET", f"/jobs/{job_id}/completed")
    completed = api("PATCH", f"/jobs/{job_id}/completed", OUTCOME)
    verdict = api("GET", f"/jobs/{job_id}/completed")

    assert queue == {"queue": [queued], "entries": 1, "attributes": {"disabled": False}}
    assert queued == JOB | {"job_title": "täst", "job_id": job_id, "added": queued["added"]}
    assert polled.status_code == 200
    assert polled.headers["Content-Type"] == "application/json"
    assert polled.json() == queued == running.json()
    assert unfinished == 404
    assert (completed.status_code, completed.content) == (204, b"")
    assert api.status("GET", f"/jobs/{job_id}") == 404
    assert verdict.status_code == 200
    assert verdict.json() == OUTCOME | {
        "job_id": job_id,
        "job_title": "täst",
        "completed_at": verdict.json()["completed_at"],
    }


def test_an_empty_queue_answers_null(api: Api) -> None:
    """An empty queue shows no entries, and a poll of it is 404 with `null`."""
    answer = api("GET", "/queue/poll")

    assert (answer.status_code, answer.content) == (404, b"null")
    assert answer.headers["Content-Type"] == "application/json"
    assert api("GET", "/queue").json() == {"queue": [], "entries": 0, "attributes": {"disabled": False}}


def test_a_task_keeps_what_it_carries(api: Api) -> None:
    """Task objects may carry more keys, of any kind, and everything comes back as it was posted; that there are none is
    the worker's to refuse."""
    tasks = [
        {
            "module": "a",
            "data": {"x": [1, 2.5, -0.0, 1e300, True, None, "", {"": {}}]},
            "note": None,
            "priority": 2**70,
        },
        {"module": "<b> & ünï 😀 \u0000", "data": {}},
        {"module": "without data"},
    ]
    for posted in (tasks, []):
        api("POST", "/queue", {"job_title": "", "tasks": posted})

        assert api("GET", "/queue/poll").json()["tasks"] == posted


def test_the_queue_can_be_disabled(api: Api) -> None:
    """`disabled` is shown with the queue, and `/queue/poll` does not look at it."""
    job_id = api.submit()
    answer = api("PATCH", "/queue", {"disabled": True})

    assert (answer.status_code, answer.json()) == (200, {"disabled": True})
    assert api("GET", "/queue").json()["attributes"] == {"disabled": True}
    assert api.poll() == job_id
    assert api("PATCH", "/queue", {"disabled": False}).json() == {"disabled": False}
    assert api("GET", "/queue").json()["attributes"] == {"disabled": False}


def test_deleting_the_queue_deletes_running_jobs_too(api: Api) -> None:
    """`DELETE /queue` leaves neither queued nor running jobs."""
    running, queued = api.submit(), api.submit()
    api.poll()

    assert api.status("DELETE", "/queue") == 204
    assert api.poll() is None
    assert [api.status("GET", f"/jobs/{job_id}") for job_id in (running, queued)] == [404, 404]
    assert api.status("PATCH", f"/jobs/{running}/completed", OUTCOME) == 404


def test_a_job_can_be_deleted(api: Api) -> None:
    """A queued or running job is deleted once; after that it is unknown."""
    running, queued = api.submit(), api.submit()
    api.poll()

    for job_id in (running, queued):
        assert api.status("DELETE", f"/jobs/{job_id}") == 204
        assert api.status("DELETE", f"/jobs/{job_id}") == 404
        assert api.status("GET", f"/jobs/{job_id}") == 404
    assert api.poll() is None


def test_an_unknown_job_is_not_found(api: Api) -> None:
    """No route of a job it does not know is a 500."""
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("GET", "/completed", None),
        ("PATCH", "/completed", OUTCOME),
    ):
        answer = api(method, f"/jobs/{UNKNOWN}{path}", body)

        assert answer.status_code == 404
        assert "No job with this id" in answer.json()["message"]


def test_one_verdict_is_kept(api: Api) -> None:
    """Of many verdicts at once for one job exactly one is accepted, and that one is stored."""
    job_id = api.submit()
    api.poll()

    def complete(number: int) -> int:
        with connected(api.url) as other:
            return other.status("PATCH", f"/jobs/{job_id}/completed", {"failed": True, "info": {"number": number}})

    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(complete, range(10)))

    assert sorted(statuses) == [204] + [404] * 9
    assert api("GET", f"/jobs/{job_id}/completed").json()["info"] == {"number": statuses.index(204)}


def test_a_worker_beats_and_is_shown(api: Api) -> None:
    """A worker's record is its last heartbeat, its id and its attributes; there is none before the first."""
    before = api.status("GET", "/workers/w-shown")
    api.beat("w-shown")
    answer = api("POST", "/workers/w-shown", FULL_BEAT)
    shown = FULL_BEAT | {"worker_id": "w-shown", "attributes": {"disabled": False}}
    workers = api("GET", "/workers").json()

    assert before == 404
    assert (answer.status_code, answer.content) == (204, b"")
    assert api("GET", "/workers/w-shown").json() == shown
    assert workers["count"] == len(workers["workers"])
    assert shown in workers["workers"]
    assert api.status("DELETE", "/workers/w-shown") == 204
    assert api.status("DELETE", "/workers/w-shown") == 404
    assert api.status("GET", "/workers/w-shown") == 404


def test_a_worker_nobody_has_seen_can_be_disabled(api: Api, database: Path | str) -> None:
    """`PATCH` works on a worker that was never read, that never beat, and is remembered across restarts."""
    with serving(database) as first:
        answer = first("PATCH", "/workers/w", {"disabled": True})
        unseen = first.status("GET", "/workers/w")
        first.beat("w")
        seen = first("GET", "/workers/w").json()
        first("DELETE", "/workers/w")
    with serving(database) as second:
        second.beat("w")
        again = second("GET", "/workers").json()["workers"][0]
        second("PATCH", "/workers/w", {"disabled": False})
        enabled = second("GET", "/workers/w").json()

    assert (answer.status_code, answer.json()) == (200, {"disabled": True})
    assert unseen == 404
    assert seen["attributes"] == again["attributes"] == {"disabled": True}
    assert enabled["attributes"] == {"disabled": False}


def test_a_heartbeat_and_an_empty_poll_write_nothing(tmp_path: Path) -> None:
    """What comes from every worker every few seconds does not touch the disk."""
    with serving(tmp_path / "jobs.db") as api:
        job_id = api.submit()
        api.poll()

        def written() -> list[tuple[str, int]]:
            return [(name, (tmp_path / name).stat().st_mtime_ns) for name in ("jobs.db", "jobs.db-wal")]

        before = written()
        for _ in range(20):
            api.beat("w", job_id)
            api.poll()
        after = written()

    assert after == before


def test_named_data_is_stored(api: Api) -> None:
    """Data comes back with `_id` and `name`, is replaced by what is posted later, and can be deleted."""
    path = "/data/ffmpeg/opus"
    before = [api.status("GET", path), api.status("DELETE", path)]
    posted = api("POST", path, {"options": {"codec": "libopus"}})
    first = api("GET", path).json()
    api("POST", path, {"name": "mine", "_id": 1, "x": None})
    second = api("GET", path).json()

    assert before == [404, 404]
    assert (posted.status_code, posted.content) == (204, b"")
    assert first == {"options": {"codec": "libopus"}, "_id": first["_id"], "name": "opus"}
    assert second == {"x": None, "_id": first["_id"], "name": "opus"}
    assert api.status("DELETE", path) == 204
    assert api.status("GET", path) == 404


def test_a_name_is_stored_or_refused(api: Api) -> None:
    """A name may be as long as both databases can find it again; a longer one is a 400, wherever it stands."""
    for length, status in ((MAX_KEY - 4, 200), (MAX_KEY + 1, 400)):
        name, other = (token_urlsafe(length)[:length] for _ in range(2))  # which PostgreSQL cannot compress
        answers = [
            api("POST", f"/data/{name}/{other}", {}),
            api("PATCH", f"/workers/{name}", {"disabled": True}),
            api("PATCH", f"/workers/{name}", {"disabled": False}),
            api("POST", f"/workers/{name}", BEAT),
            api("POST", "/queue", JOB | {"tasks": [{"module": name}], "requires": [other]}),
            api("GET", f"/queue/poll?worker_id={name}&modules={name}&tags={other}"),
        ]

        assert {200 if answer.ok else answer.status_code for answer in answers} == {status}


def test_a_verdict_of_a_worker_with_an_odd_name(api: Api) -> None:
    """Whatever a record says of its worker, the job has ended."""
    job_id = api.submit()
    api.poll()
    names = {key: "".join(chr(0x1F300 + randrange(700)) for _ in range(700)) for key in ("worker", "worker_id")}

    assert api.status("PATCH", f"/jobs/{job_id}/completed", {"failed": False, "info": names}) == 204


def test_data_must_be_json(api: Api) -> None:
    """A form, or no content type, is 415 and not stored; another body that calls itself JSON is fine."""
    path = "/data/ffmpeg/form"

    assert api("POST", path, data={"a": "b"}).status_code == 415
    assert api("POST", path, data=b'{"a": 1}').status_code == 415
    assert api("POST", path, '{"a": 1}', headers={"Content-Type": "text/plain"}).status_code == 415
    assert api.status("GET", path) == 404
    assert api("POST", path, "{}", headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 204
    assert api("POST", path, "{}", headers={"Content-Type": "application/merge-patch+json"}).status_code == 204


def test_the_server_tells_about_itself(api: Api) -> None:
    """`/status` gives the version, what the server is built on, and that it is up."""
    config = api("GET", "/status/config").json()

    assert api("GET", "/status/health").json() == {"status": "online", "database": "online"}
    assert sorted(config) == ["backend", "offers", "uptime", "vanished_after", "version"]
    assert re.fullmatch(r"(SQLite|PostgreSQL) \d+\.[\d.]+", config["backend"]["database"])
    assert config["uptime"] >= 0


@pytest.mark.parametrize(
    "path", ["/nope", "/queue/", "/queue/nope", "/jobs/", "/workers/", "/data/", "/data/a/b/c", "/status"]
)
def test_an_unknown_route_is_not_found(api: Api, path: str) -> None:
    """What is no route is a 404 in JSON."""
    answer = api("GET", path, allow_redirects=False)

    assert (answer.status_code, list(answer.json())) == (404, ["message"])


ODD_NAMES = [
    "a/b",
    "/",
    "..",
    "a b",
    "a%2Fb",
    "%",
    "a?b#c",
    "<script>alert(1)</script>",
    "'; DROP TABLE jobs; --",
    "$(reboot)",
    "ünï 😀",
    "a\nb",
    "nul\0byte",
    "a:b;c=d,e+f",
    "poll",
    "x" * (MAX_KEY - 2),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names(api: Api, name: str) -> None:
    """Whatever stands in an address, quoted, is a name and nothing else."""
    quoted = quote(name, safe="").replace(".", "%2E")

    def call(method: str, path: str, body: Any = None) -> requests.Response:
        prepared = api.session.prepare_request(requests.Request(method, api.url, json=body))
        prepared.url = api.url + path  # requests would unquote dots
        return api.session.send(prepared, timeout=60)

    posted = call("POST", f"/data/{quoted}/{quoted}", {"for": name})
    got = call("GET", f"/data/{quoted}/{quoted}")
    call("POST", f"/workers/{quoted}", BEAT)
    patched = call("PATCH", f"/workers/{quoted}", {"disabled": True})
    worker = call("GET", f"/workers/{quoted}")

    assert posted.status_code == 204
    assert got.json() == {"for": name, "_id": got.json()["_id"], "name": name}
    assert patched.status_code == 200
    assert worker.json() == BEAT | {"worker_id": name, "attributes": {"disabled": True}}
    assert call("GET", f"/jobs/{quoted}").status_code == 404
    assert call("DELETE", f"/jobs/{quoted}").status_code == 404
    assert call("PATCH", f"/jobs/{quoted}/completed", OUTCOME).status_code == 404
    assert call("DELETE", f"/workers/{quoted}").status_code == 204
    assert call("DELETE", f"/data/{quoted}/{quoted}").status_code == 204


def test_names_with_slashes_are_kept_apart(api: Api) -> None:
    """The module `a/b` with the name `c` is not the module `a` with the name `b/c`."""
    api("POST", "/data/a%2Fb/c", {"which": 1})
    api("POST", "/data/a/b%2Fc", {"which": 2})

    assert api("GET", "/data/a%2Fb/c").json()["which"] == 1
    assert api("GET", "/data/a/b%2Fc").json()["which"] == 2
    assert api("GET", "/%64ata/%61/b%2fc").json()["which"] == 2


def test_lone_surrogates_come_back(api: Api) -> None:
    """JSON can say a surrogate without its other half, and it is kept wherever text or data can be."""
    odd = "\ud800 \udfff"
    tasks = [{"module": odd, "data": {odd: [odd]}, "note": odd}]
    api("POST", "/queue", json.dumps({"job_title": odd, "tasks": tasks}))
    job = api("GET", "/queue/poll").json()
    completed = api("PATCH", f"/jobs/{job['job_id']}/completed", json.dumps({"failed": True, "info": {odd: odd}}))
    verdict = api("GET", f"/jobs/{job['job_id']}/completed").json()
    beat = BEAT | {"hostname": odd, "job_id": odd, "info": {odd: odd}}
    api("POST", "/workers/w-odd", json.dumps(beat))
    api("POST", "/data/a/odd", json.dumps({odd: odd}))

    assert (job["job_title"], job["tasks"]) == (odd, tasks)
    assert completed.status_code == 204
    assert (verdict["job_title"], verdict["info"]) == (odd, {odd: odd})
    assert api("GET", "/workers/w-odd").json().items() >= beat.items()
    assert api("GET", "/data/a/odd").json()[odd] == odd
    assert api("DELETE", "/workers/w-odd").status_code == 204
