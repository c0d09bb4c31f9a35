"""One verdict per job: whatever is killed and whenever, no job is lost, none is done twice, and nothing half is left.

The server here is the real one, in a process of its own, since what counts is what it has recorded; where it has to be
held in a state that it passes in a millisecond, it is the farm of the other tests.
"""

import collections
import contextlib
import hashlib
import itertools
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.farm import Farm, Fault
from tests.media import look, make_clip
from tests.supervised import BENIGN, CLIENT, Supervised, job, until
from tests.test_worker import Client, await_beats, await_calls, await_idle

KILLS = 100

PATIENCE = 100.0
"""Seconds in which what is left must be done when nothing is killed any more."""

MODULES = '''
import os
import signal
import time
from pathlib import Path

from modules.base import BaseModule


class Noter(BaseModule):
    """Notes its steps under its name, and whether it is resumed; in the step `at`, waits for a file."""

    def __init__(self, task):
        super().__init__(task)
        if self.task.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.note("init")

    def validate(self):
        self.note("validate")

    def run(self):
        self.note("run")

    def cleanup(self):
        self.note("cleanup")

    def note(self, step):
        with Path(self.task.log).open("a") as log:
            log.write(f"{self.task.name} {step}{' resumed' * self.resumed}\\n")
        if self.task.get("at") == step:
            Path(self.task.ready).touch()
            while not Path(self.task.until).exists():
                time.sleep(0.01)


class Killer(Noter):
    """Kills the supervisor, in the step `kill`."""

    def note(self, step):
        super().note(step)
        if self.task.kill == step:
            zygote = Path(f"/proc/{os.getppid()}/stat").read_text()
            os.kill(int(zygote.rpartition(")")[2].split()[1]), signal.SIGKILL)
            time.sleep(1000)
'''


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
        """The verdicts of all jobs that have one."""
        found = {job_id: self.get(f"/jobs/{job_id}/completed") for job_id in self.titles()}
        return {job_id: verdict for job_id, verdict in found.items() if verdict}


class Server(Api):
    """`sisyphus-client serve`: the API server in a process of its own, always at the same address."""

    def __init__(self, directory: Path) -> None:
        super().__init__("", directory / "server.log")
        self._command = [CLIENT, "serve", "--database", str(directory / "jobs.db"), "--vanished-after", "1.5"]
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
        options = {"codec": "libx264", "preset": "ultrafast", "threads": 1, "flags": "+bitexact"}
        data = {
            "sources": [{"filename": str(self._clip), "options": {"fflags": "+bitexact"}}],
            "source_maps": [{"source": 0, "specifier": "v"}],
            "output_maps": [{"specifier": "v", "stream": 0, "options": options}],
            "output_file": str(target),
        }
        return "ffmpeg", data | ({"overwrite": True} if self._overwrite else {})

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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()
    assert "Traceback" not in "\n".join(server.log)


@pytest.fixture
def farm() -> Iterator[Farm]:
    """A server; at the end the client must have kept to the protocol."""
    farm = Farm()
    yield farm
    farm.close()
    assert not farm.violations


def a_client(server: Api | Farm, supervised: Supervised, directory: Path) -> Client:
    """A client of a server, not yet started, with the modules above and a place of its own for temporary files."""
    (directory / "noting.py").write_text(MODULES)
    configure(supervised, directory)
    client = Client(server, supervised)
    (directory / "tmp").mkdir(exist_ok=True)
    client.settings["TMPDIR"] = str(directory / "tmp")
    return client


def configure(supervised: Supervised, directory: Path, **limits: str) -> None:
    supervised.configure(limits, {"noter": "noting.Noter", "killer": "noting.Killer"}, paths=(str(directory),))


@pytest.fixture
def client(farm: Farm, supervised: Supervised, tmp_path: Path) -> Iterator[Client]:
    with contextlib.closing(a_client(farm, supervised, tmp_path)) as client:
        yield client


def await_instant(seconds: float, began: float) -> None:
    until(lambda: time.monotonic() >= began + seconds, "the instant")


def instants(chance: random.Random, count: int, start: float = 0.0) -> list[float]:
    """Seconds to a kill: a quarter of them before a client can be at work, which takes `start`, the rest after."""
    early = [chance.uniform(0.002, start) for _ in range(count // 4 if start else 0)]
    late = [start + chance.uniform(0, 0.8) for _ in range(count - len(early))]
    return chance.sample(early + late, count)


def seconds_to_start(client: Client, server: Api) -> float:
    """How long a client of this machine, as busy as it is, takes from its start to its first heartbeat."""
    began = time.monotonic()
    client.start()
    path = f"/workers/{client.settings['HOST_UUID']}"
    until(lambda: server.get(path), "a heartbeat")
    seconds = time.monotonic() - began
    client.stop()
    return seconds


def await_all_told(server: Api) -> None:
    """Wait until no job is in the queue, and none without a verdict or deleted."""

    def pending() -> list[str]:
        return [job_id for job_id in server.titles() if server.get(f"/jobs/{job_id}")]

    until(lambda: not server.queue() and not pending(), "all jobs to be told of", PATIENCE)


def check(server: Api, works: Works, hint: str, excusable: tuple[str, ...] = ()) -> dict[str, bool]:
    """Each job has one verdict, and what came of it is there, whole. Returns which jobs have failed, by title.

    A job may have failed for a reason that is `excusable`.
    """
    verdicts = server.verdicts()
    by_title = collections.Counter(verdict["job_title"] for verdict in verdicts.values())
    failed = {verdict["job_title"]: verdict["failed"] for verdict in verdicts.values()}

    assert by_title == collections.Counter(server.posted.values()), hint
    assert set(server.completions().values()) == {1}, hint
    assert set(server.completions()) <= set(verdicts), hint
    assert not server.queue(), hint
    for verdict in verdicts.values():
        if verdict["failed"]:
            assert verdict["info"]["message"].endswith(excusable), (hint, verdict)
        else:
            for file in works.expected[verdict["job_title"]]:
                assert file.exists(), (hint, verdict)
                assert file.suffix == ".ts" or file.read_text() == "made", (hint, verdict)
    assert not works.halves(), hint
    return failed


def check_left_over(works: Works, failed: dict[str, bool], client: Client, hint: str) -> None:
    """Nothing temporary is left; of a job that failed because of the kills, what it had made may be."""
    numbers = {title.split()[1] for title, has_failed in failed.items() if has_failed}
    left = {file for file in works.left_over() if file.name.lstrip(".").split(".")[0] not in numbers}

    assert not left, hint
    assert not list(Path(client.settings["TMPDIR"]).iterdir()), hint


CRASHED_THRICE = "the client went down 3 times while this job ran"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_the_client(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """Killed at a hundred random instants while it drains, the client has one verdict for each job in the end."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        halves = []
        for seconds in instants(chance, KILLS, seconds_to_start(client, server)):
            while len(server.queue()) < 6:
                server.post(works.next())
            began = time.monotonic()
            client.start()
            await_instant(seconds, began)
            client.kill()
            halves += works.halves()
        client.start()
        await_all_told(server)
        ended = client.stop()
        failed = check(server, works, hint, (CRASHED_THRICE,))
        check_left_over(works, failed, client, hint)
        log = "\n".join(client.log)
    for file in itertools.islice(works.done.glob("*.ts"), 3):
        assert look(file)["streams"]

    assert ended == 0, hint
    assert not halves, hint
    assert "Traceback" not in log, hint
    assert not all(failed.values()), hint
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_the_server(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """With the server killed again and again, each job has one verdict in the end, and the client lives on."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    for _ in range(60):
        server.post(works.next())
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        client.start(WORKER_SLOTS="2")
        for seconds in instants(chance, 25):
            await_instant(seconds, time.monotonic())
            server.kill()
            server.start()
        until(lambda: answers(server), "the server to be back")
        await_all_told(server)
        alive = client.process.poll() is None
        ended = client.stop()
        failed = check(server, works, hint)
        check_left_over(works, failed, client, hint)
        log = "\n".join(client.log)

    assert alive, hint
    assert ended == 0, hint
    assert not any(failed.values()), hint
    assert "Traceback" not in log, hint


def answers(server: Api) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return bool(server.get("/status/health"))
    return False


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("on_restart", ["requeue", "fail"])
def test_kills_with_other_ways_to_restart(
    server: Server, supervised: Supervised, tmp_path: Path, on_restart: str
) -> None:
    """With ON_RESTART=requeue, what was in hand is done anew, once; with fail, it has failed and says why."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised, overwrite=True)
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        for seconds in instants(chance, 20, seconds_to_start(client, server)):
            while len(server.queue()) < 6:
                server.post(works.next())
            began = time.monotonic()
            client.start(ON_RESTART=on_restart)
            await_instant(seconds, began)
            client.kill()
        client.start(ON_RESTART=on_restart)
        await_all_told(server)
        ended = client.stop()
        failed = check(
            server, works, hint, ("the client went down while this job ran",) if on_restart == "fail" else ()
        )
        check_left_over(works, failed, client, hint)

    assert ended == 0, hint
    assert any(failed.values()) == (on_restart == "fail"), hint


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_both_in_one(supervised: Supervised, tmp_path: Path) -> None:
    """The same with --standalone, where client and server are one process and die at one instant."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    server = Api(f"http://127.0.0.1:{port}", tmp_path / "log")
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        client._command += ["--standalone", "--port", str(port)]
        for seconds in instants(chance, 12):
            client.start()
            until(lambda: answers(server), "the server to serve")
            while len(server.queue()) < 6:
                server.post(works.next())
            await_instant(seconds, time.monotonic())
            client.kill()
        client.start()
        until(lambda: answers(server), "the server to serve")
        await_all_told(server)
        failed = check(server, works, hint, (CRASHED_THRICE,))
        ended = client.stop()
        check_left_over(works, failed, client, hint)
        log = "\n".join(client.log)

    assert ended == 0, hint
    assert "Traceback" not in log, hint


# --- resuming ---


class Noted:
    """A job of three tasks, `a`, `b` and `c`, that note what they do; `b` waits in one of its steps."""

    def __init__(self, directory: Path, at: str = "run", deaf: bool = False) -> None:
        self._log, self.ready, self._end = (directory / name for name in ("noted", "noted.ready", "noted.end"))
        data: dict[str, dict[str, Any]] = {name: {"name": name, "log": str(self._log)} for name in "abc"}
        data["b"] |= {"at": at, "deaf": deaf, "ready": str(self.ready), "until": str(self._end)}
        self.job = job(*(("noter", each) for each in data.values()))

    def await_waiting(self) -> None:
        until(self.ready.exists, "the job to wait")

    def let_go(self) -> None:
        self._end.touch()

    def take(self) -> list[str]:
        """What was noted since the last look, the steps that are done in parallel in the order of the tasks."""
        lines = self._log.read_text().splitlines()
        self._log.unlink()
        order = ["init", "validate"]
        first = [line for line in lines if line.split()[1] in order]
        return sorted(first, key=lambda line: (order.index(line.split()[1]), line)) + [
            line for line in lines if line not in first
        ]


def test_a_resumed_job_begins_at_the_first_task_that_is_not_done(farm: Farm, client: Client, tmp_path: Path) -> None:
    """All tasks are initialised and validated again; those that are completed are not run again; the interrupted one,
    and no other, is told that it is resumed."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    before = noted.take()
    noted.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)

    prepared = [f"{name} {step}" for step in ("init", "validate") for name in "abc"]
    assert before == [*prepared, "a run", "a cleanup", "b run"]
    assert noted.take() == [
        *(f"{line} resumed" if line[0] == "b" else line for line in prepared),
        "b run resumed",
        "b cleanup resumed",
        "c run",
        "c cleanup",
    ]
    assert not verdict.failed
    assert [task["result"] for task in verdict.info["tasks"]] == ["completed"] * 3
    assert farm.taken == [job_id]


def test_a_task_that_was_interrupted_in_its_cleanup_is_run_again(farm: Farm, client: Client, tmp_path: Path) -> None:
    """A task is completed when it has been cleaned up, and not before."""
    noted = Noted(tmp_path, at="cleanup")
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    noted.take()
    noted.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)
    after = [line for line in noted.take() if " run" in line]

    assert after == ["b run resumed", "c run"]
    assert not verdict.failed


@pytest.mark.parametrize("at", ["init", "validate"])
def test_a_job_that_was_interrupted_before_it_ran_is_no_resumed_one(
    farm: Farm, client: Client, tmp_path: Path, at: str
) -> None:
    """No task is told that it is resumed of which nothing was done."""
    noted = Noted(tmp_path, at=at)
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    noted.take()
    noted.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)

    assert not [line for line in noted.take() if "resumed" in line]
    assert not verdict.failed


def test_a_resumed_job_may_be_interrupted_again(farm: Farm, client: Client, tmp_path: Path) -> None:
    """What was completed before two kills stays completed, and the record tells of the whole."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    for _ in range(2):
        client.start()
        noted.await_waiting()
        client.kill()
        noted.ready.unlink()
    noted.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)
    runs = [line for line in noted.take() if " run" in line]

    assert runs == ["a run", "b run", "b run resumed", "b run resumed", "c run"]
    assert not verdict.failed
    assert verdict.info["start_time"] < verdict.info["end_time"]
    assert [task["module"] for task in verdict.info["tasks"]] == ["noter"] * 3


# --- a job that takes the client down ---


@pytest.mark.parametrize("step", ["init", "validate", "run", "cleanup"])
def test_a_job_that_takes_the_client_down_is_failed(farm: Farm, client: Client, tmp_path: Path, step: str) -> None:
    """After three times the job is failed, its record says why, and the next job is done."""
    log = tmp_path / "steps"
    first = ("noter", {"name": "a", "log": str(log)})
    job_id = farm.post(job(first, ("killer", {"name": "b", "log": str(log), "kill": step})))
    next_id = farm.post(BENIGN)
    ends = []
    for _ in range(3):
        client.start()
        ends.append(client.process.wait(60))
    client.start()
    verdict = farm.await_verdict(job_id)
    after = farm.await_verdict(next_id)
    times = log.read_text().splitlines().count(f"b {step}") + log.read_text().splitlines().count(f"b {step} resumed")

    assert ends == [-signal.SIGKILL] * 3
    assert times == 3
    assert verdict.failed
    assert CRASHED_THRICE in verdict.info["message"]
    assert verdict.info["error"]["reason"] == "lost"
    assert verdict.info["error"]["step"] == "run"
    assert [task["module"] for task in verdict.info["tasks"]] == ["noter"] * (step in ("run", "cleanup"))
    assert not after.failed


def test_stops_in_between_do_not_count(farm: Farm, client: Client, supervised: Supervised, tmp_path: Path) -> None:
    """Of the starts that end without a verdict, those that the operator ended are not held against the job."""
    configure(supervised, tmp_path, grace="1h")
    noted = Noted(tmp_path, deaf=True)
    job_id = farm.post(noted.job)
    for ending in ("kill", "quit", "quit", "kill", "quit", "quit"):
        client.start()
        noted.await_waiting()
        if ending == "kill":
            client.kill()
        else:
            for words in ("SIGQUIT: stopping", "SIGQUIT: killing"):
                since = len(client.log)
                client.process.send_signal(signal.SIGQUIT)
                until(lambda since=since, words=words: words in "\n".join(client.log[since:]), words)
            client.process.wait(60)
        noted.ready.unlink()
    noted.let_go()
    client.start()

    assert not farm.await_verdict(job_id).failed


# --- the client is not what it was ---


@pytest.mark.parametrize("change", [{"WORKER_SLOTS": "1"}, {"WORKER_SLOTS": "1", "HOST_UUID": "another"}])
def test_no_job_is_lost_when_settings_change(
    farm: Farm, client: Client, tmp_path: Path, change: dict[str, str]
) -> None:
    """The jobs of a client that was killed are its own at the next start, with fewer slots and another id too."""
    noted = [Noted(directory) for directory in (tmp_path / "1", tmp_path / "2") if not directory.mkdir()]
    ids = [farm.post(each.job) for each in noted]
    client.start(WORKER_SLOTS="2")
    for each in noted:
        each.await_waiting()
    await_beats(farm, 6)
    client.kill()
    for each in noted:
        each.let_go()
    client.start(**change)
    verdicts = [farm.await_verdict(job_id).failed for job_id in ids]

    assert verdicts == [False, False]


def test_a_job_that_another_has_now_is_left_to_it(farm: Farm, client: Client, tmp_path: Path) -> None:
    """An interrupted job that the server has given to another worker meanwhile is not done by two."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    beat = farm.beats()[-1] | {"job_id": job_id}
    farm.operate("POST", "/workers/other", beat)
    farm.operate("DELETE", f"/workers/{client.settings['HOST_UUID']}")
    noted.let_go()
    noted.take()
    client.start()
    farm.await_verdict(farm.post(BENIGN))

    assert [verdict.job_id for verdict in farm.verdicts] != [job_id]
    assert len(farm.verdicts) == 1
    assert not (tmp_path / "noted").exists()


def test_a_job_that_is_in_the_queue_again_is_taken_from_there(farm: Farm, client: Client, tmp_path: Path) -> None:
    """An interrupted job that the server has put back into the queue is done once."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    noted.let_go()
    farm.queue[job_id] = farm.running.pop(job_id)
    client.start()
    verdict = farm.await_verdict(job_id)
    await_idle(farm)

    assert not verdict.failed
    assert len(farm.verdicts) == 1
    assert farm.taken == [job_id, job_id]


def test_a_job_that_was_deleted_meanwhile_is_not_resumed(farm: Farm, client: Client, tmp_path: Path) -> None:
    """An interrupted job that the operator has deleted is not run, and forgotten."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    farm.delete(job_id)
    noted.take()
    client.start()
    farm.await_verdict(farm.post(BENIGN))

    assert not (tmp_path / "noted").exists()


def test_a_job_that_was_not_yet_resumed_waits_for_the_next_start(farm: Farm, client: Client, tmp_path: Path) -> None:
    """A client that is told to stop while it still asks about an interrupted job does not begin it again."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    noted.take()
    noted.let_go()
    farm.misbehave("GET /jobs/*", Fault(delay=1.0), 1)
    since = time.monotonic()
    client.start()
    await_calls(farm, "GET /jobs/*", 1, since)
    ended = client.stop()
    begun = (tmp_path / "noted").exists()
    told = list(farm.verdicts)
    client.start()
    verdict = farm.await_verdict(job_id)

    assert ended == 0
    assert not begun
    assert not told
    assert not verdict.failed
    assert farm.taken == [job_id]


def test_a_job_is_resumed_without_a_server(farm: Farm, client: Client, tmp_path: Path) -> None:
    """Work that is in hand does not wait for the server: an interrupted job is done, and its verdict kept."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    client.start()
    noted.await_waiting()
    client.kill()
    noted.let_go()
    farm.go_down()
    client.start()
    until(lambda: "is completed" in "\n".join(client.log), "the job to be done")
    farm.come_up()

    assert not farm.await_verdict(job_id).failed


# --- one job that is not like others ---


@pytest.mark.parametrize(
    "odd",
    [{"job_title": "\ud800"}, {"tasks": [{"module": "benign", "data": {"spam": "\udcff.mkv"}}]}, {"job_id": "a\ud800"}],
    ids=["title", "data", "id"],
)
def test_text_that_is_not_unicode_holds_up_nobody(farm: Farm, client: Client, odd: dict[str, Any]) -> None:
    """A job with half a character in it, as a file name that is not UTF-8 becomes, keeps no other from being done."""
    job_id = farm.post(BENIGN | odd)
    next_id = farm.post(BENIGN)
    client.start()
    after = farm.await_verdict(next_id)
    alive = client.process.poll() is None

    assert alive
    assert not after.failed
    assert "Traceback" not in "\n".join(client.log)
    assert [verdict.job_id for verdict in farm.verdicts] == [job_id, next_id] or "job_id" in odd


# --- while the client starts ---


@pytest.mark.slow
def test_kills_of_the_client_and_its_zygote(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """What survives when both are killed at one instant is killed by the next start, before it begins anything."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        start = seconds_to_start(client, server)
        for _ in range(12):
            while len(server.queue()) < 6:
                server.post(works.next())
            client.start()
            await_instant(start + chance.uniform(0, 0.4), time.monotonic())
            victims = psutil.Process(client.process.pid).children()
            for victim in [psutil.Process(client.process.pid), *victims]:
                victim.send_signal(signal.SIGSTOP)
            for victim in victims:
                victim.kill()
            client.kill()
        client.start()
        await_all_told(server)
        ended = client.stop()
        failed = check(server, works, hint, (CRASHED_THRICE,))
        check_left_over(works, failed, client, hint)

    assert ended == 0, hint
