"""Clients of a server that is killed, hangs or loses its database, and what they were told."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial

import requests

from tests.support.api_server import JOB, OUTCOME, Api, connected
from tests.support.waiting import until


class Traffic:
    """Two clients that submit jobs and two that take and complete them, until the end, whatever is answered.

    Attributes:
        asked: The titles of jobs that were to be submitted.
        submitted: Of those that were acknowledged.
        taken: The titles of jobs that were given to a client, each time that one was.
        completed: The titles of jobs whose verdict was taken.
        unclear: How many polls failed: each may have taken a job with it.
        statuses: Of all answers.
        broken: How many of the clients ended because the server was gone.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.asked: list[str] = []
        self.submitted: list[str] = []
        self.taken: list[str] = []
        self.completed: list[str] = []
        self.unclear = 0
        self.statuses: list[int] = []
        self.broken = 0
        self._ended = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Make traffic meanwhile."""
        acts = [partial(self._submit, name) for name in "ab"] + [self._work] * 2
        threads = [threading.Thread(target=self._run, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _run(self, act: Callable[[Api], object]) -> None:
        try:
            with connected(self._url) as api:
                act(api)
        except requests.RequestException:
            self.broken += 1

    def _submit(self, name: str, api: Api) -> None:
        for number in itertools.count():
            if self._ended.wait(0.02):
                return
            self.asked.append(title := f"{name}{number}")
            if self._note(api("POST", "/queue", JOB | {"job_title": title})).ok:
                self.submitted.append(title)

    def _work(self, api: Api) -> None:
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


def all_jobs(api: Api) -> list[dict[str, str]]:
    """All jobs that the server lists."""
    jobs: list[dict[str, str]] = []
    cursor = ""
    while True:
        page = api("GET", f"/jobs?limit=1000{cursor}").json()
        jobs += page["jobs"]
        if "next" not in page:
            return jobs
        cursor = f"&cursor={page['next']}"
