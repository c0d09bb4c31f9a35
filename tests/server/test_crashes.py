"""A real PostgreSQL that hangs, crashes or is replaced by another one, while clients submit, take and complete jobs."""

import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.server.postgresql import Crashing
from tests.server.relay import Relay
from tests.support.api_server import JOB, OUTCOME, Api, connected, serving
from tests.support.waiting import until


class Traffic:
    """Two clients that submit jobs and two that take and complete them, until the end, whatever is answered.

    Attributes:
        submitted: The titles of jobs that were acknowledged.
        doubtful: Titles of jobs that perhaps were submitted.
        taken: The titles of jobs that were given to a client, each time that one was.
        completed: The titles of jobs whose verdict was taken.
        unclear: How many polls failed: each may have taken a job with it.
        statuses: Of all answers.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.submitted: list[str] = []
        self.doubtful: list[str] = []
        self.taken: list[str] = []
        self.completed: list[str] = []
        self.unclear = 0
        self.statuses: list[int] = []
        self._ended = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Make traffic meanwhile."""
        threads = [threading.Thread(target=self._submit, args=(name,)) for name in "ab"]
        threads += [threading.Thread(target=self._work) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _submit(self, name: str) -> None:
        with connected(self._url) as api:
            number = 0
            while not self._ended.wait(0.02):
                number += 1
                answer = self._note(api("POST", "/queue", JOB | {"job_title": f"{name}{number}"}))
                (self.submitted if answer.ok else self.doubtful).append(f"{name}{number}")

    def _work(self) -> None:
        with connected(self._url) as api:
            while not self._ended.is_set():
                self.work(api)

    def work(self, api: Api) -> bool:
        """Take a job and complete it; returns whether there was one."""
        answer = self._note(api("GET", "/queue/poll?wait=0.2"))
        self.unclear += answer.status_code == 503
        if answer.status_code != 200:
            return False
        job = answer.json()
        self.taken.append(job["job_title"])
        path = f"/jobs/{job['job_id']}/completed"
        # 404 after a doubtful answer: the verdict was taken.
        until(lambda: self._note(api("PATCH", path, OUTCOME)).status_code in (204, 404), "the verdict to be taken", 90)
        self.completed.append(job["job_title"])
        return True

    def _note(self, answer: requests.Response) -> requests.Response:
        self.statuses.append(answer.status_code)
        return answer


def hang(first: Crashing, _second: Crashing | None, _relay: Relay, api: Api) -> None:
    """Be stopped, and go on when that was noticed."""
    first.send(signal.SIGSTOP)
    try:
        _until_noticed(api)
    finally:
        first.send(signal.SIGCONT)


def crash(first: Crashing, _second: Crashing | None, _relay: Relay, api: Api) -> None:
    """Be killed, and started again when that was noticed."""
    first.send(signal.SIGKILL)
    _until_noticed(api)
    first.start()


def lose_a_backend(first: Crashing, _second: Crashing | None, _relay: Relay, _api: Api) -> None:
    """Lose one process of many."""
    first.kill_backend()


def fail_over(first: Crashing, second: Crashing | None, relay: Relay, api: Api) -> None:
    """Be replaced by a copy that has every commit."""
    assert second
    relay.refuse()
    first.send(signal.SIGKILL)
    _until_noticed(api)
    second.promote()
    relay.switch(second.cluster.port)


def _until_noticed(api: Api) -> None:
    until(lambda: api.status("GET", "/queue") == 503, "calls to be refused", 60)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("happen", [hang, crash, lose_a_backend, fail_over])
def test_no_job_is_lost_or_doubled(
    happen: Callable[[Crashing, Crashing | None, Relay, Api], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are 503 meanwhile and go on by themselves; each job that was acknowledged is there once, and given once."""
    monkeypatch.setattr("server.storage.database.HANG", 2.0)
    with contextlib.ExitStack() as opened:
        first = _started(opened)
        second = None
        relay = opened.enter_context(Relay(first.cluster.port))
        database = first.cluster.make_database("test", relay.port)
        if happen is fail_over:
            second = first.make_standby(_directory(opened))
            opened.callback(second.send, signal.SIGKILL)
        with serving(database, vanished_after=300.0) as api:
            traffic = Traffic(api.url)
            with traffic.running():
                until(lambda: len(traffic.completed) > 20, "traffic")
                happen(first, second, relay, api)
                until(lambda: api.status("GET", "/queue") == 200, "the server to go on", 60)
                goal = len(traffic.completed) + 20
                until(lambda: len(traffic.completed) > goal, "traffic again", 60)
            while traffic.work(api):
                pass
            jobs = _all_jobs(api)

    titles = [job["job_title"] for job in jobs]
    running = [job["job_title"] for job in jobs if job["state"] == "running"]
    assert len(set(titles)) == len(titles)
    assert set(traffic.submitted) <= set(titles) <= {*traffic.submitted, *traffic.doubtful}
    assert len(set(traffic.taken)) == len(traffic.taken)
    assert sorted(traffic.completed) == sorted(job["job_title"] for job in jobs if job["state"] == "completed")
    assert len(running) <= traffic.unclear
    assert len(jobs) == len(traffic.completed) + len(running)
    assert set(traffic.statuses) <= {200, 204, 404, 503}


def _started(opened: contextlib.ExitStack) -> Crashing:
    crashing = Crashing(_directory(opened))
    opened.callback(crashing.send, signal.SIGKILL)
    crashing.start()
    return crashing


def _directory(opened: contextlib.ExitStack) -> Path:
    """A directory that every user can reach, unlike `tmp_path`: PostgreSQL refuses root."""
    return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="sisyphus-postgresql-")))


def _all_jobs(api: Api) -> list[dict[str, str]]:
    jobs: list[dict[str, str]] = []
    cursor = ""
    while True:
        page = api("GET", f"/jobs?limit=1000{cursor}").json()
        jobs += page["jobs"]
        if "next" not in page:
            return jobs
        cursor = f"&cursor={page['next']}"
