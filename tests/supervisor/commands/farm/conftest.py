"""A server of our own and a worker, shared by the tests of a file, and the program that steers them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import psutil
import pytest

from tests.conftest import kept
from tests.support.api_server import Api, serving
from tests.support.client import QUICK, Held, reporting
from tests.support.supervised import CLIENT, Supervised, job
from tests.support.waiting import until

GOOD = job(("reporter", {}), job_title="a good one")
COPY = {"source": "/none.mkv", "destination": f"{gettempdir()}/none/"}
BAD = job(("cleanup", {"copy": [COPY]}), job_title="a bad one")


class Operator:
    """Runs the program in a directory, with the server in its environment."""

    def __init__(self, directory: Path, api: Api) -> None:
        self.directory, self.api = directory, api
        self.environ = {name: value for name, value in os.environ.items() if name not in QUICK} | {
            "API_URL": api.url,
            "HOME": str(directory),
            "SISYPHUS_STATE_DIR": str(directory / "operator"),
            "TERM": "xterm-256color",
        }

    def __call__(self, *words: str, input: str = "", **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [CLIENT, *words], input=input, capture_output=True, text=True, cwd=self.directory,
            env=self.environ | environ, timeout=90,
        )  # fmt: skip

    def start(self, *words: str, **pipes: Any) -> "subprocess.Popen[Any]":
        """Start a command that goes on until it is told to stop."""
        pipes = {"stdin": subprocess.DEVNULL} | pipes
        return subprocess.Popen([CLIENT, *words], cwd=self.directory, env=self.environ, **pipes)

    def write(self, name: str, document: Any) -> Path:
        """Write a job file."""
        return Supervised.write_job(self, document, name)  # type: ignore[arg-type]

    def post(self, document: Any) -> str:
        """Submit a job past the program."""
        answer = self.api("POST", "/queue", document)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def state(self, job_id: str) -> str:
        """The state of a job."""
        return str(self.api("GET", f"/jobs/{job_id}/record").json()["state"])

    def progress(self) -> list[tuple[str | None, float | None]]:
        """The job and the progress of each worker's last heartbeat."""
        beats = self.api("GET", "/workers").json()["workers"]
        return [(beat.get("job_id"), beat.get("progress")) for beat in beats]

    def until_state(self, job_id: str, *states: str) -> None:
        """Wait until a job has one of these states."""
        until(lambda: self.state(job_id) in states, f"{job_id} to be {states}")


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The program, with a server that has a worker."""
    directory = tmp_path_factory.mktemp("farm")
    with (
        serving(directory / "server.sqlite3") as api,
        contextlib.closing(reporting(api, Supervised(directory))) as worker,  # type: ignore[arg-type]
    ):
        worker.start(SISYPHUS_STATE_DIR=str(directory / "state"))
        process = psutil.Process(worker.process.pid)
        until(lambda: api("GET", "/workers").json()["workers"], "the worker")
        with kept(lambda: {process.pid, *(child.pid for child in process.children())}):
            yield Operator(directory, api)
        worker.stop()


@pytest.fixture
def held_job(operator: Operator, tmp_path: Path) -> Iterator[str]:
    """A job that runs until the end of the test, or until it is stopped; its id."""
    held = Held(tmp_path, run="{'progress': 43.2, 'info': {'phase': 'encoding', 'speed': 1.5, 'eta_seconds': 3723}}")
    job_id = operator.post(held.job)
    held.await_running()
    until(lambda: (job_id, 43.2) in operator.progress(), "a heartbeat that tells of it")
    yield job_id
    held.let_go()
    operator.until_state(job_id, "completed", "failed", "cancelled")
