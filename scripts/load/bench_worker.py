"""Measures the daemon as a whole: `sisyphus-client start` with an API server of its own, both as processes."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

CLIENT = os.path.join(os.path.dirname(sys.executable), "sisyphus-client")
PATIENCE = 300.0

SLICES = 5
"""Parts of the time in which an idle client is measured, which tell the noise."""


class Farm:
    """A server with `jobs` in its queue. Its worker starts with `start`."""

    def __init__(self, directory: Path, configuration: str, client: str = CLIENT) -> None:
        self._directory = directory
        self._configuration = configuration
        self._client = client
        self._http = requests.Session()
        self._server: subprocess.Popen[bytes] | None = None
        self.url = ""

    def post(self, module: str, data: dict[str, Any]) -> str:
        """Put a job of one task into the queue."""
        return self.post_tasks([{"module": module, "data": data}])

    def post_tasks(self, tasks: list[dict[str, Any]]) -> str:
        """Put a job into the queue."""
        job = {"job_title": "bench", "tasks": tasks}
        answer = self._http.post(f"{self.url}/queue", json=job, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["job_id"])

    def knows(self, job_id: str) -> bool:
        """Whether a job is queued or running."""
        return self._http.get(f"{self.url}/jobs/{job_id}", timeout=10).status_code == 200

    def verdict(self, job_id: str) -> Any:
        """Wait until a job has ended, and return its verdict."""
        url = f"{self.url}/jobs/{job_id}/completed"
        return await_that(lambda: self._http.get(url, timeout=10), "a verdict", 0.01).json()

    def is_queued(self, job_id: str) -> bool:
        """Whether nobody has taken a job yet."""
        queue = self._http.get(f"{self.url}/queue", timeout=10).json()["queue"]
        return any(job["job_id"] == job_id for job in queue)

    def has_workers(self, count: int = 1) -> bool:
        """Whether heartbeats of so many workers have arrived."""
        return bool(self._http.get(f"{self.url}/workers", timeout=10).json()["count"] >= count)

    def processes(self) -> list[psutil.Process]:
        """Return the server's processes."""
        assert self._server
        first = psutil.Process(self._server.pid)
        return [first, *first.children()]

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the server has taken."""
        return sum(_cpu_seconds(process) for process in self.processes())

    @contextlib.contextmanager
    def serving(self, *options: str) -> Iterator["Farm"]:
        """Run the server."""
        log, database = self._directory / "server.log", str(self._directory / "server.sqlite3")
        command = [self._client, "serve", "--port", "0", *(options or ["--database", database])]
        with _process(command, {"LOGURU_LEVEL": "INFO"}, log) as self._server:
            self.url = await_that(lambda: _address(log), "the server")
            yield self

    @contextlib.contextmanager
    def working(self, **settings: str) -> Iterator[psutil.Process]:
        """Run a worker; its supervisor."""
        own = {"API_URL": self.url, "SISYPHUS_STATE_DIR": str(self._directory / "state"), **settings}
        command = [self._client, "start", "--config", self._configuration]
        with _process(command, own, self._directory / "worker.log") as process:
            yield psutil.Process(process.pid)


def drain(directory: Path, configuration: str, jobs: int, slots: int, queued: int = 0) -> float:
    """Seconds in which `slots` slots complete `jobs` empty jobs, from the first that is taken; more may be `queued`."""
    with Farm(directory, configuration).serving() as farm:
        ids = [farm.post("empty", {}) for _ in range(max(jobs, queued))][:jobs]
        with farm.working(WORKER_SLOTS=str(slots), LOGURU_LEVEL="WARNING"):
            await_that(lambda: not farm.knows(ids[0]), "the first job", 0.002)
            began = time.perf_counter()
            for job_id in ids[-slots:]:
                await_that(lambda job_id=job_id: not farm.knows(job_id), "the last job", 0.02)
            return time.perf_counter() - began


@dataclass(frozen=True)
class Idle:
    """What an idle client takes: shares of a processor, each measured for a while; bytes of PSS; threads."""

    cpu: list[float]
    supervisor: int
    zygote: int
    threads: int


def idle(directory: Path, configuration: str, seconds: float, slots: int) -> Idle:
    """Let a client with so many slots be idle for so long."""
    with Farm(directory, configuration).serving() as farm, farm.working(WORKER_SLOTS=str(slots)) as supervisor:
        await_that(lambda: farm.has_workers(slots), "the first heartbeats")
        (zygote,) = await_that(supervisor.children, "the zygote")
        shares = []
        for _ in range(SLICES):
            before, began = _cpu_seconds(supervisor) + _cpu_seconds(zygote), time.monotonic()
            time.sleep(seconds / SLICES)
            taken = _cpu_seconds(supervisor) + _cpu_seconds(zygote) - before
            shares.append(taken / (time.monotonic() - began))
        pss = [process.memory_full_info().pss for process in (supervisor, zygote)]
        return Idle(shares, *pss, supervisor.num_threads())


def restart(directory: Path, configuration: str, kills: int) -> list[float]:
    """Seconds from SIGKILL of a task process to the start of the next job's `run`, each time."""
    started = [directory / f"started-{number}" for number in range(kills + 1)]
    taken = []
    with Farm(directory, configuration).serving() as farm:
        for file in started:
            farm.post("waiting", {"started": str(file)})
        with farm.working(LOGURU_LEVEL="CRITICAL"):
            for file, following in itertools.pairwise(started):
                pid, _ = await_that(lambda file=file: _report(file), "a job to run", 0.002)
                killed = time.monotonic()
                os.kill(int(pid), signal.SIGKILL)
                _, begun = await_that(lambda file=following: _report(file), "the next job to run", 0.002)
                taken.append(begun - killed)
            os.kill(int(_report(started[-1])[0]), signal.SIGKILL)
    return taken


def await_that(condition: Callable[[], Any], what: str, interval: float = 0.02) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE:g} s for {what}")
        time.sleep(interval)
    return value


@contextlib.contextmanager
def _process(command: list[str], settings: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _address(log: Path) -> str:
    _, _, rest = log.read_text(encoding="utf-8").partition("Serving ")
    return rest.split()[0] if rest.endswith("\n") else ""


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _report(file: Path) -> Any:
    """What a waiting task has written: its pid, and the instant on the monotonic clock."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
