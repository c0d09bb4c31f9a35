"""Measures the daemon as a whole: `sisyphus-client start` with an API server of its own, both as processes."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import requests
from bench_client import Bench, Report

CLIENT = os.path.join(os.path.dirname(sys.executable), "sisyphus-client")
PATIENCE = 300.0

SLICES = 5
"""Parts of the time in which an idle client is measured, which tell the noise."""


class Farm:
    """A server with `jobs` in its queue. Its worker starts with `start`."""

    def __init__(self, directory: Path, configuration: str) -> None:
        self.directory = directory
        self._configuration = configuration
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
        log, database = self.directory / "server.log", str(self.directory / "server.sqlite3")
        command = [CLIENT, "serve", "--port", "0", *(options or ["--database", database])]
        with _process(command, {"LOGURU_LEVEL": "INFO"}, log) as self._server:
            self.url = await_that(lambda: _address(log), "the server")
            yield self

    @contextlib.contextmanager
    def working(self, **settings: str) -> Iterator[psutil.Process]:
        """Run a worker; its supervisor."""
        own = {"API_URL": self.url, "SISYPHUS_STATE_DIR": str(self.directory / "state"), **settings}
        command = [CLIENT, "start", "--config", self._configuration]
        with _process(command, own, self.directory / "worker.log") as process:
            yield psutil.Process(process.pid)


# --- the parts ---


async def drain(bench: Bench) -> list[Report]:
    """Empty jobs from an API server: a few, many, with several slots, and with a long queue behind them."""
    size, taken = bench.size, {}
    for jobs, slots, queued in ((15, 1, 0), (size.jobs, 1, 0), (size.jobs, 4, 0), (size.jobs, 1, size.queue)):
        what = f"of {jobs} jobs of one task, {slots} slots" + f", of {queued} queued" * bool(queued)
        with serving(bench) as farm:
            taken[what] = [_drain(farm, jobs, slots, queued) / jobs for _ in range(3 if jobs == 15 else 1)]
    title = "A job from the queue of an API server on the same machine"
    return [Report(title, "ms", taken, {next(iter(taken)): "33 ms (all in 0.5 s)"})]


def _drain(farm: Farm, jobs: int, slots: int, queued: int) -> float:
    """Seconds in which `slots` slots complete `jobs` empty jobs, from the first that is taken; more may be `queued`."""
    ids = [farm.post("empty", {}) for _ in range(max(jobs, queued))][:jobs]
    with farm.working(WORKER_SLOTS=str(slots), LOGURU_LEVEL="WARNING"):
        await_that(lambda: not farm.knows(ids[0]), "the first job", 0.002)
        began = time.perf_counter()
        for job_id in ids[-slots:]:
            await_that(lambda job_id=job_id: not farm.knows(job_id), "the last job", 0.02)
        return time.perf_counter() - began


async def idle(bench: Bench) -> list[Report]:
    """What a client without work takes, with the default intervals, with one slot and with several."""
    seconds, more = bench.size.idle_seconds, 9
    cpu: dict[str, list[float]] = {}
    pss: dict[str, list[float]] = {}
    threads = []
    for slots in (1, more):
        with serving(bench) as farm, farm.working(WORKER_SLOTS=str(slots)) as supervisor:
            await_that(lambda slots=slots: farm.has_workers(slots), "the first heartbeats")
            (zygote,) = await_that(supervisor.children, "the zygote")
            cpu[f"CPU with {slots} slots"] = [_share(supervisor, zygote, seconds / SLICES) for _ in range(SLICES)]
            own = {"supervisor": supervisor.memory_full_info().pss, "zygote": zygote.memory_full_info().pss}
            pss[f"PSS with {slots} slots"] = [sum(own.values())]
            pss |= {f"{name} with {slots} slots": [each] for name, each in own.items()}
            threads.append(supervisor.num_threads())
    (one,), (many,) = (pss[f"PSS with {slots} slots"] for slots in (1, more))
    notes = [
        f"A slot more takes {(many - one) / (more - 1) / 1e6:.2f} MB of PSS (goal: 1)"
        f" and {(threads[1] - threads[0]) / (more - 1):.1f} threads (goal: none).",
    ]
    return [
        Report(f"An idle client: CPU in {seconds:g} s, of a processor", "%", cpu, {"CPU with 1 slots": "0.1 %"}),
        Report("Its memory", "MB", pss, {"PSS with 1 slots": "45 MB"}, notes),
    ]


def _share(supervisor: psutil.Process, zygote: psutil.Process, seconds: float) -> float:
    """The share of a processor that they take in so many seconds."""
    before, began = _cpu_seconds(supervisor) + _cpu_seconds(zygote), time.monotonic()
    time.sleep(seconds)
    return (_cpu_seconds(supervisor) + _cpu_seconds(zygote) - before) / (time.monotonic() - began)


async def restart(bench: Bench) -> list[Report]:
    """From SIGKILL of a task process until the next job runs: explained, reported, the next one taken."""
    taken = []
    with serving(bench) as farm:
        started = [farm.directory / f"started-{number}" for number in range(bench.size.kills + 1)]
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
    return [Report("After a crash", "ms", {"from SIGKILL of a task process to the next job's run": taken})]


@contextlib.contextmanager
def serving(bench: Bench) -> Iterator[Farm]:
    """Run a server in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Farm(Path(name), bench.configuration).serving() as farm:
        yield farm


# --- processes ---


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
