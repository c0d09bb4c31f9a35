"""The embedded API server and a client of it."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from server.config import ServerSettings
from server.main import in_background
from tests.support.waiting import until

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
def serving(database: Path | str, **settings: Any) -> Iterator[Api]:
    """A server of one's own, in this process."""
    settings = {"database": database, "port": 0, **settings}
    with in_background(ServerSettings(**settings)) as url, connected(url, settings.get("token", "")) as api:
        yield api


class Process:
    """A server in a process of its own, which can be killed and started again, at the same address."""

    def __init__(self, directory: Path, database: Path | str, descriptors: int = 0, **settings: Any) -> None:
        self._descriptors = descriptors
        self._log = directory / "server.log"
        self._settings = {"database": database, "port": 0} | settings
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> str:
        """Start it; returns the URL once it answers."""
        code = (
            "import resource\n"
            "from pathlib import PosixPath\n"
            "from server.config import ServerSettings\n"
            "from server.main import serve\n"
            f"most = {self._descriptors} or resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
            f"serve(ServerSettings(**{self._settings!r}))\n"
        )
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([sys.executable, "-c", code], stderr=log, stdin=subprocess.DEVNULL)
        said = until(lambda: self._ended() or re.search(r"Serving (http\S+)", self.log), "the server to start")
        assert isinstance(said, re.Match), self.log
        self.url = str(said[1])
        self._settings["port"] = int(self.url.rpartition(":")[2])
        return self.url

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process
        return self._process.pid

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

    close = kill


BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/queue"): JOB,
    ("PATCH", "/queue"): {"disabled": True},
    ("PATCH", f"/jobs/{UNKNOWN}/completed"): OUTCOME,
    ("POST", "/workers/w"): FULL_BEAT,
    ("PATCH", "/workers/w"): {"disabled": True},
}
"""A good body for every route that knows which keys it takes."""
