"""`sisyphus-client start` as the tests run it: short intervals, a log that can be read, jobs that can be held."""

import asyncio
import contextlib
import inspect
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from supervisor.worker.journal import Journal, OutboxItem, UnfinishedJob
from tests.support.api_server import Api
from tests.support.farm import Farm, Request, Verdict
from tests.support.supervised import BENIGN, CLIENT, Supervised, job, without_leftovers
from tests.support.waiting import until

Result = TypeVar("Result")

ROOT = Path(__file__).parents[2]

WORKER = "8b5c1d1e-6f0a-4c39-9a53-0d3a86a4d1f7"

TOKEN = "spam-and-eggs-4711"

QUICK = {
    "HOST_UUID": WORKER,
    "HOSTNAME_OVERRIDE": "encoder01",
    "HEARTBEAT_INTERVAL": "0.3",
    "QUEUE_POLL_INTERVAL": "0.2",
    "NETWORK_RETRY_INTERVAL": "0.3",
}

SETTINGS = {
    *QUICK,
    "API_URL",
    "API_TOKEN",
    "API_TIMEZONE",
    "WORKER_SLOTS",
    "WORKER_TAGS",
    "METRICS_PORT",
    "ON_RESTART",
    "SHUTDOWN_GRACE",
    "WORK_HOURS",
    "WORK_HOURS_PAUSE",
}

BEAT = 1.0
"""The heartbeat's interval where gaps are measured: long beside what a busy machine adds."""

SLOW_BEAT = 2.0
"""The same beside modules and faults that make it busy themselves."""


class Client:
    """`sisyphus-client start`, with short intervals and a log that can be read."""

    def __init__(self, farm: Farm, supervised: Supervised) -> None:
        self.farm = farm
        self.directory = supervised.directory
        self.settings = QUICK | {"API_URL": farm.url}
        self.launcher: list[str] = []  # put before the command
        self._command = [CLIENT, "start", "--config", str(supervised.config)]
        self._log = self.directory / "log"
        self._log.touch()
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The one that was started last."""
        return self._started[-1]

    @property
    def log(self) -> list[str]:
        """The lines of the log of all that were started."""
        return self._log.read_text().splitlines()

    def start(self, **settings: str) -> "subprocess.Popen[bytes]":
        """Start it, with other settings."""
        command, streams = [*self.launcher, *self._command], {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, env=self._environment(settings), cwd=self.directory, stdout=log, **streams
            )
        self._started.append(process)
        return process

    def refuse(self, **settings: str) -> str:
        """Start one that ends by itself, with status 2 and the line that is returned, beside the one that may run."""
        command, environment = [*self.launcher, *self._command], self._environment(settings)
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        return done.stderr

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        return own | self.settings | settings

    def stop(self) -> int:
        """Ask it to stop, and wait; returns its exit status."""
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill what is left."""
        for process in self._started:
            process.kill()
            process.wait()


def reporting(farm: Farm, supervised: Supervised) -> Client:
    """A client of the farm, not yet started, with a module that reports, under several names."""
    names = ("reporter", "first", "second", "third")
    supervised.configure(modules=dict.fromkeys(names, "tests.support.modules.Reporter"))
    return Client(farm, supervised)


class Held:
    """A job that runs until it is let go."""

    def __init__(self, directory: Path, name: str = "held", **data: Any) -> None:
        self.ready, self.end = directory / f"{name}.ready", directory / f"{name}.end"
        self.job = job(("reporter", {"ready": str(self.ready), "until": str(self.end), **data}), job_title=name)

    def await_running(self) -> None:
        until(self.ready.exists, "the job to run")

    def let_go(self) -> None:
        self.end.touch()


class Served:
    """A client, not yet started, and its server, the embedded one. Polls and beats are as rare as by default."""

    def __init__(self, client: Client, api: Api) -> None:
        self.client = client
        self.api = api
        client.settings |= {"API_URL": api.url, "QUEUE_POLL_INTERVAL": "60", "NETWORK_RETRY_INTERVAL": "60"}

    def submit(self, document: dict[str, Any] = BENIGN, **more: Any) -> str:
        """Submit a job; returns its id."""
        answer = self.api("POST", "/queue", document | more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def hold(self, directory: Path, name: str = "held", **more: Any) -> tuple[Held, str]:
        """Submit a job that runs until it is let go, and wait until it runs; returns it and its id."""
        held = Held(directory, name)
        job_id = self.submit(held.job, **more)
        held.await_running()
        return held, job_id

    def order(self, worker: str = WORKER, **attributes: bool) -> None:
        """Disable, enable, pause or resume a worker."""
        assert self.api.status("PATCH", f"/workers/{worker}", attributes) == 200

    def record(self, job_id: str) -> dict[str, Any]:
        """Everything of a job."""
        record: dict[str, Any] = self.api("GET", f"/jobs/{job_id}/record").json()
        return record

    def await_state(self, job_id: str, state: str) -> dict[str, Any]:
        """Wait until a job is in a state; returns everything of it."""
        return until(lambda: (record := self.record(job_id))["state"] == state and record, f"{job_id} {state}", 60)

    def idle_workers(self) -> int:
        """How many workers wait for a job."""
        return [each["status"] for each in self.api("GET", "/workers").json()["workers"]].count("idle")

    def await_beat(self, worker: str = WORKER, **info: Any) -> dict[str, Any]:
        """Wait for a heartbeat with this in its `info`."""

        def find() -> Any:
            beat = self.api("GET", f"/workers/{worker}").json()
            return (
                info.items() <= beat.get("info", {}).items() and beat.get("status") in ("idle", "in_progress") and beat
            )

        beat: dict[str, Any] = until(find, f"a heartbeat with {info}")
        return beat


def hold_jobs(farm: Farm, client: Client, directory: Path, count: int = 3) -> tuple[list[Held], list[str]]:
    """Start a client with one slot more than jobs that run until they are let go. Returns the jobs and their ids."""
    good = [Held(directory, f"good{number}") for number in range(count)]
    ids = [farm.post(each.job) for each in good]
    client.start(WORKER_SLOTS=str(count + 1), HEARTBEAT_INTERVAL=f"{SLOW_BEAT:g}")
    for each in good:
        each.await_running()
    return good, ids


def gaps(requests: list[Request]) -> list[float]:
    """Seconds between one request and the next."""
    return [later.time - earlier.time for earlier, later in itertools.pairwise(requests)]


def longest_gap(farm: Farm, since: float = 0.0) -> float:
    """Seconds between two heartbeats of a slot, at most."""
    slots = {request.call for request in farm.calls("POST /workers/*", since)}
    return max([0.0, *(gap for slot in slots for gap in gaps(farm.calls(slot, since)))])


def own_beats(farm: Farm, since: float = 0.0) -> list[Request]:
    return farm.calls(f"POST /workers/{WORKER}", since)


def await_beats(
    farm: Farm, count: int = 3, which: Callable[[dict[str, Any]], Any] = lambda _: True
) -> list[dict[str, Any]]:
    """Wait for heartbeats from now on of which `which` is true."""
    since = time.monotonic()
    return until(lambda: len(found := list(filter(which, farm.beats(since=since)))) >= count and found, "heartbeats")


def await_calls(farm: Farm, route: str, count: int = 1, since: float = 0.0) -> list[Request]:
    return until(lambda: len(found := farm.calls(route, since)) >= count and found, f"{count} x {route}")


def complaints(client: Client) -> list[str]:
    """The warnings and errors in a client's log, but that about its `paths`, which are in a checkout, and about what
    clients of other tests have left."""
    log = without_leftovers("\n".join(client.log))
    return [line for line in log.splitlines() if re.search(" (WARNING|ERROR) ", line) and " paths: " not in line]


def await_idle(farm: Farm) -> dict[str, Any]:
    """Wait until the client is up and has nothing to do."""
    return await_beats(farm, 1, lambda beat: beat["status"] == "idle")[0]


def await_verdicts(farm: Farm, count: int) -> list[Verdict]:
    return until(lambda: len(farm.verdicts) >= count and list(farm.verdicts), f"{count} verdicts", 60)


def tasks_of(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is to be done, without what a client may have noted beside it."""
    return [(task["module"], task["data"]) for task in document["tasks"]]


def is_paused(beat: dict[str, Any]) -> bool:
    return beat.get("info", {}).get("paused") is True


# --- its journal, opened and read ---

NOON = "2026-01-01T12:00:00+00:00"


@contextlib.contextmanager
def opened(state: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(state)) as journal:
        yield journal


def change(state: Path, act: Callable[[Journal], Awaitable[Result]]) -> Result:
    """Open the journal, and do something with it; returns what comes of that."""

    async def run(journal: Journal) -> Result:
        return await act(journal)

    with opened(state) as journal:
        return asyncio.run(run(journal))


def written(state: Path) -> tuple[list[UnfinishedJob], list[tuple[Any, ...]]]:
    """What is in the journal for one that opens it: the unfinished jobs, and the debts but for their numbers."""

    async def read(journal: Journal) -> tuple[list[UnfinishedJob], list[OutboxItem]]:
        return await journal.unfinished(), await journal.outbox_items()

    entries, debts = change(state, read)
    return entries, [(debt.job_id, debt.kind, debt.body, debt.doubtful, debt.new_id) for debt in debts]


def run_script(script: str, *arguments: object) -> "subprocess.Popen[str]":
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", inspect.cleandoc(script), *map(str, arguments)], cwd=ROOT, **pipes)
