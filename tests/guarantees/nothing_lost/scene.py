"""A real server and a client that can be killed, and the jobs that must come of it."""

import collections
import contextlib
import hashlib
import itertools
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import requests

from tests.support.client import Client, Held
from tests.support.farm import Farm
from tests.support.media import encode, make_clip
from tests.support.supervised import CLIENT, Supervised, job
from tests.support.waiting import until

VANISHED_AFTER = "5"
"""Seconds: more than a client takes to start on a busy machine, whose job the server would else give away meanwhile."""

PATIENCE = 100.0
"""Seconds in which what is left must be done when nothing is killed any more."""


class Api:
    """An API server at `url`, of which `log` is the file with its log."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.posted: dict[str, str] = {}
        self._log = log

    @property
    def log(self) -> list[str]:
        """The lines of its log."""
        return self._log.read_text(errors="replace").splitlines()

    def get(self, path: str) -> Any:
        """What it answers, or nothing."""
        answer = requests.get(self.url + path, timeout=30)
        assert answer.status_code in (200, 404)
        return answer.json() if answer.status_code == 200 else None

    def post(self, document: dict[str, Any]) -> str:
        """Put a job into the queue; returns its id."""
        answer = requests.post(f"{self.url}/queue", json=document, timeout=30)
        assert answer.status_code == 200
        self.posted[answer.json()["job_id"]] = document["job_title"]
        return answer.json()["job_id"]

    def queue(self) -> list[str]:
        """The ids of the jobs in the queue."""
        return [each["job_id"] for each in self.get("/queue")["queue"]]

    def completions(self) -> "collections.Counter[str]":
        """How often a verdict was accepted for each job, as far as the log tells: a kill may cost the last lines."""
        told = re.compile(r"Job (\S+) (?:completed|failed)$")
        return collections.Counter(found[1] for line in self.log if (found := told.search(line)))

    def titles(self) -> dict[str, str]:
        """The ids of all jobs that were ever posted, by a client too, and their titles."""
        queued = re.compile(r"Job (\S+) is queued: '(.*)'$")
        return self.posted | {found[1]: found[2] for line in self.log if (found := queued.search(line))}

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """The verdicts of all jobs that have one. Under the former id of a job stands its verdict, and no other."""
        found = {job_id: self.get(f"/jobs/{job_id}/completed") for job_id in self.titles()}
        return {job_id: verdict for job_id, verdict in found.items() if verdict and verdict["job_id"] == job_id}


class Server(Api):
    """`sisyphus-client serve`: the API server in a process of its own, always at the same address."""

    def __init__(self, directory: Path) -> None:
        super().__init__("", directory / "server.log")
        self._command = [CLIENT, "serve", "--database", str(directory / "jobs.db"), "--vanished-after", VANISHED_AFTER]
        self._process: subprocess.Popen[bytes]
        self._port = "0"
        self.start()
        (line,) = until(lambda: [line for line in self.log if "Serving http" in line], "the server to serve")
        self.url = line.split()[4]
        self._port = self.url.rpartition(":")[2]

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*self._command, "--port", self._port], stdout=log, stderr=log)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to stop, and wait; returns its exit status."""
        self._process.terminate()
        return self._process.wait(30)


class Works:
    """Makes jobs, and knows what must come of them: files that are made, encodes that are moved when they are done."""

    def __init__(self, directory: Path, supervised: Supervised, overwrite: bool = False) -> None:
        self.work, self.done = directory / "work", directory / "done"
        self.work.mkdir()
        self.done.mkdir()
        self._numbers = itertools.count()
        self._overwrite = overwrite
        self._clip = make_clip(directory / "clip.mkv", seconds=0.4, audio=False)
        reference = directory / "reference.ts"
        made = supervised.run(job(self._encode(reference)))
        assert made.returncode == 0, made.stderr
        self._digest = hashlib.sha256(reference.read_bytes()).digest()
        self.expected: dict[str, list[Path]] = {}

    def next(self) -> dict[str, Any]:
        """The next job; it has one to three tasks."""
        number = next(self._numbers)
        title, note, encode = f"job {number}", self.done / f"{number}.txt", self.work / f"{number}.ts"
        moved, scrap = self.done / encode.name, self.work / f"{number}.txt"
        move = ("cleanup", {"move": [{"source": str(encode), "destination": f"{self.done}/"}]})
        match number % 3:
            case 0:
                self.expected[title] = [note]
                tasks = [("benign", {"make": str(note)})]
            case 1:
                self.expected[title] = [moved]
                tasks = [self._encode(encode), move]
            case _:
                self.expected[title] = [moved]
                move[1]["delete"] = [str(scrap)]
                tasks = [("benign", {"make": str(scrap)}), self._encode(encode), move]
        return job(*tasks, job_title=title)

    def _encode(self, target: Path) -> tuple[str, dict[str, Any]]:
        options = {"preset": "ultrafast", "threads": 1, "flags": "+bitexact"}
        name, data = encode(self._clip, target, {"fflags": "+bitexact"}, **options)
        return name, data | ({"overwrite": True} if self._overwrite else {})

    def halves(self) -> list[Path]:
        """Encodes that stand under their names and are not whole."""
        found = []
        for file in itertools.chain(self.work.glob("[0-9]*.ts"), self.done.glob("[0-9]*.ts")):
            with contextlib.suppress(FileNotFoundError):  # just moved
                if hashlib.sha256(file.read_bytes()).digest() != self._digest:
                    found.append(file)
        return found

    def left_over(self) -> set[Path]:
        """What there is besides the files that were to be made."""
        wanted = {file for files in self.expected.values() for file in files}
        return {*self.work.iterdir(), *self.done.iterdir()} - wanted


def a_client(server: Api | Farm, supervised: Supervised, directory: Path) -> Client:
    """A client of a server, not yet started, with modules that note and kill, and its own place for temporary files."""
    configure(supervised)
    client = Client(server, supervised)
    (directory / "tmp").mkdir(exist_ok=True)
    client.settings["TMPDIR"] = str(directory / "tmp")
    return client


def configure(supervised: Supervised, **limits: str) -> None:
    supervised.configure(limits, {"noter": "tests.support.modules.Noter"})


def await_instant(seconds: float, began: float) -> None:
    until(lambda: time.monotonic() >= began + seconds, "the instant")


def await_all_told(server: Api) -> None:
    """Wait until no job is in the queue, and none without a verdict or deleted."""

    def is_pending(job_id: str) -> bool:
        return server.get(f"/jobs/{job_id}") is not None

    until(lambda: not server.queue() and not any(map(is_pending, server.titles())), "all jobs to be told of", PATIENCE)


CRASHED_THRICE = "the client went down 3 times while this job ran"


def answers(server: Api) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return bool(server.get("/status/health"))
    return False


class Noted(Held):
    """A job of three tasks, `a`, `b` and `c`, that note what they do; `b` waits in one of its steps."""

    def __init__(self, directory: Path, at: str = "run", deaf: bool = False) -> None:
        super().__init__(directory, "noted")
        self._log = directory / "noted"
        data: dict[str, dict[str, Any]] = {name: {"name": name, "log": str(self._log)} for name in "abc"}
        data["b"] |= {"at": at, "deaf": deaf, "ready": str(self.ready), "until": str(self.end)}
        self.job = job(*(("noter", each) for each in data.values()))

    def take(self) -> list[str]:
        """What was noted since the last look, the steps that are done in parallel in the order of the tasks."""
        lines = self._log.read_text().splitlines()
        self._log.unlink()
        order = ["init", "validate"]
        first = [line for line in lines if line.split()[1] in order]
        return sorted(first, key=lambda line: (order.index(line.split()[1]), line)) + [
            line for line in lines if line not in first
        ]


def interrupt(farm: Farm, client: Client, noted: Noted) -> str:
    """Have a client take the job, and kill it when the job waits; returns the job's id."""
    job_id = farm.post(noted.job)
    client.start()
    noted.await_running()
    client.kill()
    return job_id
