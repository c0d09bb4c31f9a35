"""The embedded API server, over HTTP: the contract of the routes, and that nothing is lost or given twice."""

import contextlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from loguru import logger

from server.main import ServerError, ServerSettings, in_background
from server.store import Store
from server.transport import MAX_BODY
from server.workers import AwakeClock, Workers
from tests.supervised import until

JOB = {"job_title": "a job", "tasks": [{"module": "ffmpeg", "data": {"sources": ["a.mkv"]}}]}
OUTCOME = {"failed": False, "info": {"worker": "encoder01"}}
BEAT = {"status": "idle", "online_at": "2026-01-01T00:00:00+00:00", "hostname": "encoder01", "version": "1.4.0"}
FULL_BEAT = BEAT | {
    "status": "in_progress",
    "task": "ffmpeg",
    "job_id": "00000000-1111-2222-3333-444444444444",
    "job_title": "a job",
    "progress": 43.5,
    "info": {"frame": 17},
}
UNKNOWN = "00000000-0000-4000-8000-000000000000"

SOON = 0.4
"""Seconds until a worker counts as vanished, where a test waits for it."""


class Api:
    """A client of the server, one connection long."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send a request; bytes and text go as they are, under JSON's content type."""
        if isinstance(body, bytes | str):
            options = {"data": body, "headers": {"Content-Type": "application/json"}} | options
        elif body is not None:
            options["json"] = body
        return self.session.request(method, self.url + path, timeout=60, **options)

    def submit(self, title: str = "a job") -> str:
        """Submit a job; returns its id."""
        answer = self("POST", "/queue", JOB | {"job_title": title})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def poll(self) -> str | None:
        """Take a job; returns its id."""
        answer = self("GET", "/queue/poll")
        assert answer.status_code == (404 if answer.json() is None else 200)
        return answer.json() and str(answer.json()["job_id"])

    def beat(self, worker_id: str, job_id: str = "") -> None:
        """Send a heartbeat."""
        named = {"status": "in_progress", "job_id": job_id} if job_id else {}
        assert self("POST", f"/workers/{worker_id}", BEAT | named).status_code == 204

    def queued(self) -> list[str]:
        """The ids of the queued jobs, the head first."""
        return [job["job_id"] for job in self("GET", "/queue").json()["queue"]]

    def status(self, method: str, path: str, body: Any = None) -> int:
        """The status of an answer."""
        return self(method, path, body).status_code


@contextlib.contextmanager
def connected(url: str, token: str = "") -> Iterator[Api]:
    """A client, its connection closed at the end."""
    api = Api(url, token)
    with api.session:
        yield api


@contextlib.contextmanager
def serving(directory: Path, **settings: Any) -> Iterator[Api]:
    """A server of one's own, in this process."""
    settings = {"database": directory / "jobs.db", "port": 0, **settings}
    with in_background(ServerSettings(**settings)) as url, connected(url, settings.get("token", "")) as api:
        yield api


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that all tests share."""
    database = tmp_path_factory.mktemp("server") / "jobs.db"
    with in_background(ServerSettings(database, port=0)) as url:
        yield url


@pytest.fixture
def api(url: str) -> Iterator[Api]:
    """A client of the shared server, its queue empty and enabled."""
    with connected(url) as api:
        api("DELETE", "/queue")
        api("PATCH", "/queue", {"disabled": False})
        yield api


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the server logs, a line each."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="DEBUG")
    yield lines
    logger.remove(sink)


class Process:
    """A server in a process of its own, which can be killed and started again."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._log = directory / "server.log"
        self._settings = {"database": directory / "jobs.db", "port": 0} | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it; returns the URL once it answers."""
        code = (
            "from pathlib import PosixPath\n"
            "from server.main import ServerSettings, serve\n"
            f"serve(ServerSettings(**{self._settings!r}))\n"
        )
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([sys.executable, "-c", code], stderr=log, stdin=subprocess.DEVNULL)
        said = until(lambda: self._ended() or re.search(r"Serving (http\S+)", self.log), "the server to start")
        assert isinstance(said, re.Match), self.log
        return str(said[1])

    @property
    def log(self) -> str:
        """What it has logged since its start."""
        return self._log.read_text()

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process
        return self._process.wait(timeout=30)

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A server that can be killed, not started yet."""
    process = Process(tmp_path)
    yield process
    process.kill()


# --- the contract ---


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


def test_jobs_are_given_in_the_order_they_came(api: Api) -> None:
    """The queue is first in, first out, and what is taken is not given again."""
    job_ids = [api.submit(str(number)) for number in range(5)]

    assert api.queued() == job_ids
    assert [api.poll() for _ in range(6)] == [*job_ids, None]
    assert api.submit() == api.poll()


def test_a_task_keeps_what_it_carries(api: Api) -> None:
    """Task objects may carry more keys, of any kind, and everything comes back as it was posted."""
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
    api("POST", "/queue", {"job_title": "", "tasks": tasks})

    assert api("GET", "/queue/poll").json()["tasks"] == tasks


def test_a_job_may_have_no_tasks(api: Api) -> None:
    """An empty list of tasks is the worker's to refuse."""
    assert api.status("POST", "/queue", {"job_title": "nothing", "tasks": []}) == 200
    assert api("GET", "/queue/poll").json()["tasks"] == []


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


def test_a_worker_nobody_has_seen_can_be_disabled(api: Api, tmp_path: Path) -> None:
    """`PATCH` works on a worker that was never read, that never beat, and is remembered across restarts."""
    with serving(tmp_path) as first:
        answer = first("PATCH", "/workers/w", {"disabled": True})
        unseen = first.status("GET", "/workers/w")
        first.beat("w")
        seen = first("GET", "/workers/w").json()
        first("DELETE", "/workers/w")
    with serving(tmp_path) as second:
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
    with serving(tmp_path) as api:
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

    assert api("GET", "/status/health").json() == {"status": "online"}
    assert sorted(config) == ["backend", "uptime", "version"]
    assert config["backend"]["database"].startswith("SQLite ")
    assert config["uptime"] >= 0


@pytest.mark.parametrize(
    "path",
    ["/", "/nope", "/queue/", "/queue/nope", "/jobs", "/jobs/", "/workers/", "/data/a", "/data/a/b/c", "/status"],
)
def test_an_unknown_route_is_not_found(api: Api, path: str) -> None:
    """What is no route is a 404 in JSON."""
    answer = api("GET", path, allow_redirects=False)

    assert (answer.status_code, list(answer.json())) == (404, ["message"])


def test_a_wrong_method_is_refused(api: Api) -> None:
    """A route that does not know a method says so in JSON."""
    answer = api("PUT", "/queue")

    assert (answer.status_code, list(answer.json())) == (405, ["message"])


# --- odd names ---

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
    "x" * 2000,
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


def test_an_address_that_is_not_utf8_is_refused(api: Api) -> None:
    """Bytes that are no text are a 400."""
    assert api.status("GET", "/data/a/%FF") == 400


# --- bodies that are wrong ---

BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/queue"): JOB,
    ("PATCH", "/queue"): {"disabled": True},
    ("PATCH", f"/jobs/{UNKNOWN}/completed"): OUTCOME,
    ("POST", "/workers/w"): FULL_BEAT,
    ("PATCH", "/workers/w"): {"disabled": True},
}
"""A good body for every route that knows which keys it takes."""

OPTIONAL = {"task", "job_id", "job_title", "progress", "info"}
"""Keys of a heartbeat that may be missing."""

MALFORMED = {
    "empty": b"",
    "torn": b'{"disabled": tru',
    "not an object": b"[]",
    "null": b"null",
    "a string": b'"disabled"',
    "a number": b"1",
    "NaN": b"NaN",
    "NaN inside": b'{"disabled": NaN, "job_title": NaN, "progress": NaN, "info": {"x": NaN}}',
    "Infinity inside": b'{"tasks": [{"module": "a", "data": {"x": -Infinity}}], "job_title": "a"}',
    "a number too large": b'{"progress": 1e999, "tasks": [{"module": "a", "data": {"x": 1e999}}], "job_title": "a"}',
    "a whole number too long": b'{"x": ' + b"9" * 5000 + b"}",
    "two values": b"{}{}",
    "single quotes": b"{'disabled': true}",
    "not UTF-8": b'{"job_title": "\xff"}',
    "half a UTF-16": b"\xff\xfe{",
    "a bomb of lists": b"[" * 200_000,
    "a bomb of objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep": b'{"info":' * 150 + b"1" + b"}" * 150,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize(("method", "path"), [*BODIES, ("POST", "/data/a/malformed")])
def test_a_malformed_body_is_refused(api: Api, method: str, path: str, body: bytes) -> None:
    """What is no JSON object is a 400 with a message, on every route, and changes nothing."""
    answer = api(method, path, body)

    assert answer.status_code == 400, answer.text
    assert answer.json()["message"]
    assert api.poll() is None
    assert api.status("GET", "/data/a/malformed") == 404


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_every_key_is_checked(api: Api, method: str, path: str) -> None:
    """Unknown keys, nulls, wrong types and missing keys are each a 400 that names the key."""
    good = BODIES[method, path]
    wrong = {"unknown_key": good | {"unknown_key": 1}}
    for key, value in good.items():
        other: Any = {} if not isinstance(value, dict) else "text"
        wrong |= {f"{key}: null": good | {key: None}, f"{key}: {other}": good | {key: other}}
        if key not in OPTIONAL or path == f"/jobs/{UNKNOWN}/completed" or path == "/queue":
            wrong[f"{key} missing"] = {name: value for name, value in good.items() if name != key}
    answers = {case: api(method, path, body) for case, body in wrong.items()}

    for case, answer in answers.items():
        assert answer.status_code == 400, case
        assert re.split("[: ]", case)[0] in answer.json()["message"], case


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (JOB | {"tasks": [1]}, "tasks[0]: expected an object"),
        (JOB | {"tasks": [{}]}, "tasks[0].module: missing key"),
        (JOB | {"tasks": [{"module": "a"}, {"module": None}]}, "tasks[1].module: expected a string"),
        (JOB | {"tasks": [{"module": "a", "data": None}]}, "tasks[0].data: expected an object"),
        (JOB | {"tasks": [{"module": "a", "data": []}]}, "tasks[0].data: expected an object"),
        (JOB | {"tasks": {}}, "tasks: expected a list"),
        (JOB | {"job_title": 1}, "job_title: expected a string"),
        (JOB | {"job_name": "a"}, "job_name: unknown key"),
        ({"job_title": "a"}, "tasks: missing key"),
        (JOB | {"tasks": [{"module": "a", "\ud800": 1}]}, "tasks[0]: expected keys without lone surrogates"),
        (JOB | {"x" * 1000: 1}, "x" * 60 + ": unknown key"),
    ],
)
def test_a_wrong_job_is_refused_in_words(api: Api, body: dict[str, Any], complaint: str) -> None:
    """The message says which key is wrong, and what is expected."""
    answer = api("POST", "/queue", json.dumps(body))

    assert (answer.status_code, answer.json()) == (400, {"message": complaint})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (BEAT | {"status": "busy"}, "status: expected 'startup', 'idle' or 'in_progress'"),
        (BEAT | {"progress": True}, "progress: expected a number"),
        (BEAT | {"progress": "43"}, "progress: expected a number"),
        (BEAT | {"online_at": 1}, "online_at: expected a string"),
        (BEAT | {"info": []}, "info: expected an object"),
    ],
)
def test_a_wrong_heartbeat_is_refused_in_words(api: Api, body: dict[str, Any], complaint: str) -> None:
    """A heartbeat that says nonsense is refused, and makes no record."""
    answer = api("POST", "/workers/w-wrong", body)

    assert (answer.status_code, answer.json()) == (400, {"message": complaint})
    assert api.status("GET", "/workers/w-wrong") == 404


@pytest.mark.parametrize("value", [0, 1, "true", None, []])
def test_a_verdict_is_a_plain_yes_or_no(api: Api, value: Any) -> None:
    """`failed` is true or false and nothing that could pass for it; the job goes on running."""
    job_id = api.submit()
    api.poll()

    assert api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME | {"failed": value}) == 400
    assert api.status("GET", f"/jobs/{job_id}") == 200
    assert api.status("GET", f"/jobs/{job_id}/completed") == 404


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


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    """More than the limit is a 413, announced or not, and the server goes on; the limit itself is let through."""
    large = b'{"x": "' + b"x" * (MAX_BODY - 9) + b'"}'
    within = api("POST", "/data/a/large", large)
    announced = api("POST", "/data/a/too-large", large + b" ")
    streamed = api("POST", "/data/a/too-large", data=iter([large, b" "]), headers={"Content-Type": "application/json"})
    api("DELETE", "/data/a/large")

    assert [within.status_code, announced.status_code, streamed.status_code] == [204, 413, 413]
    assert announced.json() == streamed.json() == {"message": "The body is larger than 64 MiB."}
    assert api.status("GET", "/data/a/too-large") == 404


def test_a_client_that_goes_away_half_way_harms_nobody(api: Api, logged: list[str]) -> None:
    """A body that never ends is dropped with its connection, and nothing is stored."""
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /queue HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )

    assert api.poll() is None
    assert api.status("GET", "/status/health") == 200
    assert not [line for line in logged if "Traceback" in line or "rror" in line]


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


def test_a_poll_costs_the_same_however_long_the_queue_is(tmp_path: Path) -> None:
    """SQLite takes as many steps to append a job and to take one from a queue of 10 as from one of 5000."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(act: Callable[[], Any]) -> int:
        nonlocal steps
        steps = 0
        store._db.set_progress_handler(count, 1)
        act()
        store._db.set_progress_handler(None, 0)
        return steps

    with contextlib.closing(Store(tmp_path / "jobs.db")) as store:
        store._db.execute("PRAGMA synchronous = OFF")
        costs = []
        for jobs in (10, 5000):
            while len(store.queue()) < jobs:
                for _ in range(jobs):
                    store.submit("a job", [])
            costs.append((cost(store.take), cost(lambda: store.submit("a job", []))))

    assert costs[0] == costs[1]


# --- workers that vanish ---


def test_the_job_of_a_vanished_worker_goes_back_to_the_head(tmp_path: Path, logged: list[str]) -> None:
    """When the worker that named it is silent, a job is put back before all others, under its id, and logged once."""
    with serving(tmp_path, vanished_after=SOON) as api:
        first, second, third = (api.submit(name) for name in "abc")
        assert [api.poll(), api.poll()] == [first, second]
        api.beat("w", first)
        api.beat("v", second)
        until(lambda: len(api.queued()) == 3, "the jobs to be put back")
        queued = api.queued()
        told = [line for line in logged if "goes back" in line]
        again = [api.poll() for _ in range(4)]

    assert queued == again[:3] == [first, second, third]
    assert again[3] is None
    assert sorted(told) == sorted(
        [
            f"Job {first} goes back to the head of the queue: worker 'w' has sent no heartbeat for {SOON} s",
            f"Job {second} goes back to the head of the queue: worker 'v' has sent no heartbeat for {SOON} s",
        ]
    )


def test_a_job_that_nobody_ever_named_goes_back(tmp_path: Path, logged: list[str]) -> None:
    """When its worker dies right after the poll, or the answer to that is lost, a job is put back too."""
    with serving(tmp_path, vanished_after=SOON) as api:
        job_id = api.submit()
        api.poll()
        until(api.queued, "the job to be put back")
        queued = api.queued()

    assert queued == [job_id]
    assert [line for line in logged if "goes back" in line] == [
        f"Job {job_id} goes back to the head of the queue: no worker has named it for {2 * SOON:g} s"
    ]


def test_a_job_stays_with_a_worker_that_names_it(tmp_path: Path) -> None:
    """Of two running jobs the one that heartbeats name stays, and the other goes back."""
    with serving(tmp_path, vanished_after=1.0) as api:
        kept, left = api.submit(), api.submit()
        api.poll()
        api.poll()

        def put_back() -> list[str]:
            api.beat("w", kept)
            return api.queued()

        queued = until(put_back, "the other job to be put back")
        status = api.status("GET", f"/jobs/{kept}")

    assert queued == [left]
    assert status == 200


def test_a_job_that_its_worker_no_longer_names_goes_back(tmp_path: Path, logged: list[str]) -> None:
    """A worker that lives and goes on with another job does not keep the one that it has forgotten."""
    with serving(tmp_path, vanished_after=SOON) as api:
        forgotten, other = api.submit(), api.submit()
        api.poll()
        api.poll()
        api.beat("w", forgotten)

        def put_back() -> bool:
            api.beat("w", other)
            return forgotten in api.queued()

        until(put_back, "the job to be put back")

    assert any("goes back" in line and forgotten in line for line in logged)


def test_a_late_verdict_counts(tmp_path: Path) -> None:
    """A worker believed vanished may still complete its job, which then leaves the queue; a second verdict is late."""
    with serving(tmp_path, vanished_after=SOON) as api:
        job_id = api.submit()
        api.poll()
        api.beat("w", job_id)
        until(api.queued, "the job to be put back")
        late = api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME)
        later = api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME | {"failed": True})
        queued, polled = api.queued(), api.poll()
        verdict = api("GET", f"/jobs/{job_id}/completed").json()

    assert (late, later) == (204, 404)
    assert (queued, polled) == ([], None)
    assert verdict["failed"] is False


def test_a_worker_that_comes_back_keeps_its_job(tmp_path: Path, logged: list[str]) -> None:
    """When the worker of a job that was put back names it again, before anybody took it, it leaves the queue."""
    with serving(tmp_path, vanished_after=SOON) as api:
        job_id = api.submit()
        api.poll()
        until(api.queued, "the job to be put back")

        def taken_again() -> bool:
            api.beat("w", job_id)
            return not api.queued()

        until(taken_again, "the job to leave the queue")
        status = api.status("GET", f"/jobs/{job_id}")

    assert status == 200
    assert f"Job {job_id} is out of the queue again: its worker is back" in logged


def test_naming_a_job_that_was_never_taken_does_not_take_it(tmp_path: Path) -> None:
    """A heartbeat does not take jobs: one that nobody polled stays in the queue, whoever names it."""
    with serving(tmp_path, vanished_after=SOON) as api:
        polled, named = api.submit(), api.submit()
        api.poll()

        def put_back() -> bool:
            api.beat("w", named)
            return polled in api.queued()

        until(put_back, "the other job to be put back, by when the watch has looked many times")
        queued = api.queued()

    assert queued == [polled, named]


@pytest.mark.slow
def test_time_in_which_the_server_is_down_does_not_count(tmp_path: Path) -> None:
    """A job whose worker could not beat, because the server was killed or stopped meanwhile, stays with it."""
    slow = 1.0
    process = Process(tmp_path, vanished_after=slow)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(process.kill)
        with connected(process.start()) as api:
            kept, ruler = api.submit(), api.submit()
            api.poll()
            api.poll()
            api.beat("w", kept)
            process.send(signal.SIGSTOP)
            wait_for(3 * slow)
            process.send(signal.SIGCONT)
            api.beat("w", kept)
            after_stop = api.queued()
            process.send(signal.SIGKILL)
            process.wait()
        wait_for(3 * slow)
        with connected(process.start()) as api:

            def put_back() -> list[str]:
                api.beat("w", kept)
                return api.queued()

            until(put_back, "the job that nobody names to be put back")
            after_kill = api.queued()

    assert after_stop == []
    assert after_kill == [ruler]
    assert kept not in process.log


def wait_for(seconds: float) -> None:
    """Let time pass: what is tested is that nothing happens in it."""
    deadline = time.monotonic() + seconds
    until(lambda: time.monotonic() > deadline, "time to pass")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_gap_is_no_time() -> None:
    """The clock counts what passes in small steps, and leaves out what passes at once."""
    source = Clock()
    clock = AwakeClock(2.0, source)
    source.time = 2.0
    counted = [clock()]
    source.time = 3600.0
    counted.append(clock())
    source.time = 3601.5
    counted.append(clock())

    assert counted == [2.0, 2.0, 3.5]


def test_when_a_job_counts_as_lost() -> None:
    """The limits to the second: 30 s of silence, or 60 s in which nobody names the job."""
    clock = Clock()
    workers = Workers(30.0, 30.0, clock)
    jobs = ["silent", "unnamed", "forgotten"]
    lost: dict[str, float] = {}
    workers.beat("w", {"job_id": "silent"})
    workers.beat("v", {"job_id": "forgotten"})
    for second in range(70):
        clock.time = float(second)
        workers.beat("v", {})
        for job_id in workers.look(lambda: [job for job in jobs if job not in lost]).lost:
            lost[job_id] = clock.time

    assert lost == {"silent": 31.0, "unnamed": 61.0, "forgotten": 61.0}


def test_a_job_that_is_taken_again_gets_its_whole_time_again() -> None:
    """What was known about a job before it went back does not count against whoever takes it next."""
    clock = Clock()
    workers = Workers(30.0, 30.0, clock)
    workers.beat("w", {"job_id": "a"})
    found = []
    for second in range(100):
        clock.time = float(second)
        if workers.look(lambda: ["a"]).lost:
            found.append(second)

    assert found == [31, 93]


def test_a_worker_is_forgotten_after_its_time() -> None:
    """A record is shown for 30 s after the last heartbeat, and then takes no memory."""
    clock = Clock()
    workers = Workers(30.0, 30.0, clock)
    workers.beat("w", {"status": "idle"})
    clock.time = 30.0
    within = workers.get("w"), workers.all()
    clock.time = 31.0
    after = workers.get("w"), workers.all(), workers.forget("w")
    workers.beat("w", {"status": "idle"})
    clock.time = 100.0
    workers.look(list)

    assert within == ({"status": "idle"}, {"w": {"status": "idle"}})
    assert after == (None, {}, False)
    assert workers._beats == {}


# --- the token ---


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    """With a token, every call but the health and the pages needs it, and without it nothing happens."""
    with serving(tmp_path, token="s3cret") as api, connected(api.url) as stranger:
        job_id = api.submit()
        refused = {
            answer.request.method: answer
            for answer in (
                stranger("GET", "/queue/poll"),
                stranger("DELETE", "/queue"),
                stranger("POST", "/queue", b"no JSON at all"),
                stranger("PATCH", f"/jobs/{job_id}/completed", OUTCOME),
            )
        }
        wrong = [
            stranger("GET", "/queue", headers={"Authorization": value}).status_code
            for value in ("Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer ünï")
        ]
        unknown = stranger.status("GET", "/nope")
        opened = [stranger.status("GET", path) for path in ("/status/health", "/doc/", "/doc/openapi.json", "/doc")]
        closed = [stranger.status("GET", path) for path in ("/status/config", "/docs", "/doc%2F", "/data/doc/x")]
        lower = stranger("GET", "/queue", headers={"Authorization": "bearer  s3cret"}).status_code
        page = stranger("GET", "/doc/openapi.json").json()
        polled = api.poll()

    for answer in refused.values():
        assert answer.status_code == 401
        assert answer.json() == {"message": "The token is missing or wrong."}
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert wrong == [401] * len(wrong)
    assert unknown == 401
    assert opened == [200] * 4
    assert closed == [401] * 4
    assert lower == 200
    assert page["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert polled == job_id


# --- the pages ---


def test_the_pages_need_nothing_from_outside(api: Api) -> None:
    """The OpenAPI page and all that it loads come from the server itself."""
    page = api("GET", "/doc/")
    loaded = re.findall(r'(?:src|href)="([^"]+)"|url: *\'([^\']+)\'', page.text)
    parts = [api("GET", first or second) for first, second in loaded]

    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert len(parts) == 4
    assert [part.status_code for part in parts] == [200] * 4
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert '"validatorUrl": null' in page.text
    assert api("GET", "/doc", allow_redirects=False).headers["Location"] == "/doc/"


def test_the_schema_tells_of_every_route(api: Api) -> None:
    """Every call of the contract is on the page, with a summary, an answer's form, and no 422."""
    schema = api("GET", "/doc/openapi.json").json()
    calls = {
        f"{method.upper()} {path}": call
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
    }

    assert sorted(calls) == sorted(
        [
            "GET /queue",
            "POST /queue",
            "PATCH /queue",
            "DELETE /queue",
            "GET /queue/poll",
            "GET /jobs/{job_id}",
            "DELETE /jobs/{job_id}",
            "GET /jobs/{job_id}/completed",
            "PATCH /jobs/{job_id}/completed",
            "GET /workers",
            "GET /workers/{worker_id}",
            "POST /workers/{worker_id}",
            "PATCH /workers/{worker_id}",
            "DELETE /workers/{worker_id}",
            "GET /data/{module}/{name}",
            "POST /data/{module}/{name}",
            "DELETE /data/{module}/{name}",
            "GET /status/config",
            "GET /status/health",
        ]
    )
    for name, call in calls.items():
        assert call["summary"], name
        assert "422" not in call["responses"], name
        assert {"200", "204"} & set(call["responses"]), name
        assert ("requestBody" in call) == (name.split()[0] in {"POST", "PATCH"}), name


# --- starting and stopping ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_with_connections_open(process: Process, number: signal.Signals) -> None:
    """A signal ends it with status 0 and no traceback, whatever its clients are in the middle of; nothing is lost."""
    url = process.start()
    host, port = url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(connected(url))
        job_id = api.submit()
        api.submit()
        api.poll()
        for sent in (
            b"",
            b"GET /queue HTTP/1.1\r\nHost: x\r\n",
            b"POST /queue HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
        ):
            stack.enter_context(socket.create_connection((host, int(port)))).sendall(sent)
        process.send(number)
        status = process.wait()
    log = process.log
    with connected(process.start()) as api:
        statuses = api.status("GET", f"/jobs/{job_id}"), len(api.queued())

    assert status == 0
    assert "Traceback" not in log
    assert "Stopped serving" in log
    assert statuses == (200, 1)


def test_it_runs_in_the_background_and_stops(tmp_path: Path) -> None:
    """In a thread it serves at once, leaves no thread behind, and what it stored is there the next time."""
    threads = threading.active_count()
    with serving(tmp_path) as api:
        job_id = api.submit()
        url = api.url
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=60)
    with serving(tmp_path) as api:
        polled = api.poll()

    assert polled == job_id
    until(lambda: threading.active_count() <= threads, "the server's threads to end")


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    """The one who starts the server learns which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError) as told, serving(tmp_path, port=port):
            pass

    assert str(told.value) == f"127.0.0.1:{port}: cannot be listened on: Address already in use"


@pytest.mark.parametrize(
    ("host", "port"), [("no.such.host.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 70000), ("x" * 99, 0)]
)
def test_an_address_that_is_none_is_told_in_one_line(tmp_path: Path, host: str, port: int) -> None:
    """A host or port that cannot be listened on is named."""
    with (
        pytest.raises(ServerError, match=rf"^{host}:{port}: cannot be listened on: .+$"),
        serving(tmp_path, host=host, port=port),
    ):
        pass


def test_a_time_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    """No worker can vanish after no time."""
    with pytest.raises(ServerError, match=r"^vanished_after: 0 is not a number"), serving(tmp_path, vanished_after=0):
        pass


def test_it_serves_ipv6(tmp_path: Path) -> None:
    """An IPv6 address stands in brackets in the URL."""
    with serving(tmp_path, host="::1") as api:
        assert api.url.startswith("http://[::1]:")
        assert api("GET", "/status/health").status_code == 200


def test_a_database_that_is_none_is_left_alone(tmp_path: Path) -> None:
    """A file that is no database, or another program's, is refused and not touched."""
    text = tmp_path / "text.db"
    text.write_text("This is a letter, and somebody wants to keep it. " * 100)
    foreign = tmp_path / "foreign.db"
    with contextlib.closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE songs (title)")
    before = text.read_bytes(), foreign.read_bytes()

    with pytest.raises(ServerError, match=r"text\.db: the database cannot be used: file is not a database$"):
        Store(text)
    with pytest.raises(ServerError, match=r"foreign\.db: is a database of another program$"):
        Store(foreign)

    assert (text.read_bytes(), foreign.read_bytes()) == before


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """A database with a version that this program does not know is refused with what to do."""
    path = tmp_path / "jobs.db"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")

    with pytest.raises(ServerError, match=r"was written by a newer version of this program .*99.* upgrade"):
        Store(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A directory, or a place below a file, is no database, in one line that names it."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ServerError, match=r"file/jobs\.db: the database cannot be written: .+$"):
        Store(tmp_path / "file" / "jobs.db")
    with pytest.raises(ServerError, match=r"the database cannot be (opened|used|written): .+$"):
        Store(tmp_path)


def test_one_database_has_one_server(tmp_path: Path, process: Process) -> None:
    """A second server is refused while the first has the database, in this process or another, and only so long."""
    in_use = pytest.raises(ServerError, match=r"the database is in use by another server$")
    with serving(tmp_path) as api:
        api.submit()
        with in_use:
            Store(tmp_path / "jobs.db")
    with connected(process.start()) as api:
        with in_use:
            Store(tmp_path / "jobs.db")
        queued = len(api.queued())
        process.kill()
    Store(tmp_path / "jobs.db").close()

    assert queued == 1


def test_a_database_makes_its_directory(tmp_path: Path) -> None:
    """A database may lie where nothing is yet."""
    with serving(tmp_path / "a" / "b") as api:
        assert api.poll() is None


def test_a_database_that_fails_is_told_to_the_client(tmp_path: Path, logged: list[str]) -> None:
    """When the disk is full a call is a 503 that says so, nothing is half done, and the server recovers."""
    with serving(tmp_path) as api:
        job_id = api.submit()
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
            # As good as full: every insertion and deletion fails with SQLite's own error.
            db.execute("CREATE TRIGGER full BEFORE DELETE ON jobs BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
            answer = api("PATCH", f"/jobs/{job_id}/completed", OUTCOME)
            verdict = api.status("GET", f"/jobs/{job_id}/completed")
            db.execute("DROP TRIGGER full")
        again = api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME)

    assert answer.status_code == 503
    assert "disk is full" in answer.json()["message"]
    assert verdict == 404
    assert again == 204
    assert any("the database failed: disk is full" in line for line in logged)


# --- killed ---


class Traffic:
    """Clients that submit, take and complete as fast as they can until the server is gone, and note what it said."""

    def __init__(self, url: str) -> None:
        self.submitted: set[str] = set()
        self.taken: list[str] = []
        self.completed: set[str] = set()
        self._url = url
        self._threads = [threading.Thread(target=self._run, args=(act,)) for act in (self._submit, self._work) * 3]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self, act: Callable[[Api], None]) -> None:
        with connected(self._url) as api, contextlib.suppress(requests.RequestException):
            while True:
                act(api)

    def _submit(self, api: Api) -> None:
        self.submitted.add(api.submit())

    def _work(self, api: Api) -> None:
        if job_id := api.poll():
            self.taken.append(job_id)
            if len(self.taken) % 2:
                assert api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME) == 204
                self.completed.add(job_id)


@pytest.mark.parametrize("jobs", [0, 1, 5, 20, 60])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(process: Process, jobs: int) -> None:
    """After SIGKILL amid traffic every job is in one place, as the clients were told, and none is given twice."""
    url = process.start()
    with Traffic(url) as traffic:
        until(lambda: len(traffic.completed) >= jobs, "traffic")
        process.send(signal.SIGKILL)
        process.wait()
    with connected(process.start()) as api:
        queued = api.queued()
        known = traffic.submitted | set(traffic.taken) | set(queued)
        unfinished = {job_id for job_id in known if api.status("GET", f"/jobs/{job_id}") == 200}
        completed = {job_id for job_id in known if api.status("GET", f"/jobs/{job_id}/completed") == 200}
        again = list(iter(api.poll, None))

    assert len(set(queued)) == len(queued)
    assert len(set(traffic.taken)) == len(traffic.taken)
    assert unfinished | completed == known
    assert not unfinished & completed
    assert traffic.completed <= completed
    assert completed <= set(traffic.taken)
    assert not set(queued) & set(traffic.taken)
    assert again == queued
