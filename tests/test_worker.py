"""The daemon, seen from the server's side: what it does and what it sends, to a server that behaves and to others."""

import contextlib
import html
import itertools
import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.farm import LOST, SILENCE, Farm, Fault, Request, Verdict, says, status
from tests.media import make_clip
from tests.supervised import BENIGN, CLIENT, Supervised, job, until

WORKER = "8b5c1d1e-6f0a-4c39-9a53-0d3a86a4d1f7"
TOKEN = "spam-and-eggs-4711"

QUICK = {
    "HOST_UUID": WORKER,
    "HOSTNAME_OVERRIDE": "encoder01",
    "HEARTBEAT_INTERVAL": "0.3",
    "QUEUE_POLL_INTERVAL": "0.2",
    "NETWORK_RETRY_INTERVAL": "0.3",
}
SETTINGS = {*QUICK, "API_URL", "API_TOKEN", "API_TIMEZONE", "WORKER_SLOTS", "ON_RESTART", "SHUTDOWN_GRACE"}

BEAT = 1.0
"""The heartbeat's interval where gaps are measured: long beside what a busy machine adds."""

REPORTER = '''
import json
import time
from pathlib import Path

from modules.base import BaseModule


class Reporter(BaseModule):
    """Says in each step what its task's data has for it, says when it is ready, and waits for a file."""

    def __init__(self, task):
        super().__init__(task)
        self.say("init")

    def validate(self):
        self.say("validate")

    def run(self):
        self.say("run")
        if "seen" in self.task:
            Path(self.task.seen).write_text(json.dumps([self.task.to_dict(), self.resumed]))
        if "ready" in self.task:
            Path(self.task.ready).touch()
        while "until" in self.task and not Path(self.task.until).exists():
            time.sleep(0.01)

    def say(self, step):
        if step in self.task:
            self.heartbeat.set_data(eval(self.task[step], {"nan": float("nan"), "inf": float("inf")}))
'''


class Client:
    """`sisyphus-client start`, with short intervals and a log that can be read."""

    def __init__(self, farm: Farm, supervised: Supervised) -> None:
        self.directory = supervised.directory
        self.settings = QUICK | {"API_URL": farm.url}
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
        own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        with self._log.open("ab") as log:
            self._started.append(
                subprocess.Popen(
                    self._command,
                    env=own | self.settings | settings,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return self.process

    def refuse(self, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Start one that is to end by itself, beside the one that may run."""
        own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        return subprocess.run(
            self._command, env=own | self.settings | settings, capture_output=True, text=True, timeout=60
        )

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


class Held:
    """A job that runs until it is let go."""

    def __init__(self, directory: Path, name: str = "held", **data: Any) -> None:
        self.ready, self._end = directory / f"{name}.ready", directory / f"{name}.end"
        self.job = job(("reporter", {"ready": str(self.ready), "until": str(self._end), **data}), job_title=name)

    def await_running(self) -> None:
        until(self.ready.exists, "the job to run")

    def let_go(self) -> None:
        self._end.touch()


@pytest.fixture
def farm() -> Iterator[Farm]:
    """A server; at the end the client must have kept to the protocol."""
    farm = Farm()
    yield farm
    farm.close()
    assert not farm.violations


@pytest.fixture
def client(farm: Farm, supervised: Supervised, tmp_path: Path) -> Iterator[Client]:
    """A client of the farm, not yet started, with the module above under several names."""
    (tmp_path / "reporter.py").write_text(REPORTER)
    names = ("reporter", "first", "second", "third")
    supervised.configure(modules=dict.fromkeys(names, "reporter.Reporter"), paths=(str(tmp_path),))
    client = Client(farm, supervised)
    yield client
    client.close()
    print(*client.log[-50:], sep="\n")  # seen where a test fails


@pytest.fixture
def held(tmp_path: Path) -> Held:
    """A job that runs until it is let go."""
    return Held(tmp_path)


def gaps(requests: list[Request]) -> list[float]:
    """Seconds between one request and the next."""
    return [later.time - earlier.time for earlier, later in itertools.pairwise(requests)]


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


def await_idle(farm: Farm) -> dict[str, Any]:
    """Wait until the client is up and has nothing to do."""
    return await_beats(farm, 1, lambda beat: beat["status"] == "idle")[0]


def await_verdicts(farm: Farm, count: int) -> list[Verdict]:
    return until(lambda: len(farm.verdicts) >= count and list(farm.verdicts), f"{count} verdicts", 60)


def pass_time(seconds: float) -> None:
    """Let attempts be made that nobody sees: the server is away."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, "time to pass")


def tasks_of(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is to be done, without what a client may have noted beside it."""
    return [(task["module"], task["data"]) for task in document["tasks"]]


# --- taking jobs ---


def test_takes_jobs_in_order_and_leaves_when_asked(farm: Farm, client: Client) -> None:
    """Jobs are taken in the server's order and have one verdict each; SIGTERM ends an idle client with 0."""
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    verdicts = await_verdicts(farm, 3)
    await_idle(farm)
    ended = client.stop()

    assert [(verdict.job_id, verdict.failed) for verdict in verdicts] == [(job_id, False) for job_id in ids]
    assert {"start_time", "end_time", "runtime", "worker", "worker_id", "version", "completed", "tasks"} == set(
        verdicts[0].info
    )
    assert (verdicts[0].info["worker"], verdicts[0].info["worker_id"]) == ("encoder01", WORKER)
    assert ended == 0
    assert len(farm.verdicts) == 3


@pytest.mark.parametrize("path", ["/queue", f"/workers/{WORKER}"], ids=["queue", "worker"])
def test_takes_nothing_while_disabled(farm: Farm, client: Client, path: str) -> None:
    """While the queue or the worker is disabled, jobs are left where they are."""
    client.start()
    await_calls(farm, f"GET /workers/{WORKER}")  # without it, the server could not disable the worker
    changed = farm.operate("PATCH", path, {"disabled": True})
    since = time.monotonic()
    await_calls(farm, f"GET {path}", 2, since)  # one may have been under way
    since = time.monotonic()
    job_id = farm.post(BENIGN)
    await_calls(farm, f"GET {path}", 4, since)
    polls = farm.calls("GET /queue/poll", since)
    farm.operate("PATCH", path, {"disabled": False})
    verdict = farm.await_verdict(job_id)

    assert changed == 200
    assert not polls
    assert not verdict.failed


def test_own_record_is_read_though_nothing_may_be_taken(farm: Farm, client: Client) -> None:
    """A worker whose queue is disabled from the start can be disabled as well: it has read its own record."""
    farm.disabled = True
    client.start()
    await_calls(farm, "GET /queue", 2)

    assert farm.operate("PATCH", f"/workers/{WORKER}", {"disabled": True}) == 200
    assert not farm.calls("GET /queue/poll")


UNKNOWN = {
    "500": status(500),
    "404": status(404),
    "html": says("<h1>Spam</h1>"),
    "null": says("null"),
    "list": says("[]"),
    "text": says('{"queue": [], "attributes": {"disabled": "perhaps"}}'),
    "lost": LOST,
    "cut": Fault(cut=5),
}


@pytest.mark.parametrize("fault", UNKNOWN.values(), ids=UNKNOWN)
def test_takes_nothing_while_the_queues_flag_is_unknown(farm: Farm, client: Client, fault: Fault) -> None:
    """No job is taken before the server has said that it may be."""
    farm.misbehave("GET /queue", fault)
    job_id = farm.post(BENIGN)
    client.start()
    await_calls(farm, "GET /queue", 3)
    polls = farm.calls("GET /queue/poll")
    farm.behave()
    verdict = farm.await_verdict(job_id)

    assert not polls
    assert not verdict.failed


@pytest.mark.parametrize("fault", [status(500), says("spam"), LOST], ids=["500", "garbage", "lost"])
def test_takes_nothing_while_the_workers_flag_is_unknown(farm: Farm, client: Client, fault: Fault) -> None:
    """The same is true of the worker's own flag."""
    farm.misbehave("GET /workers/*", fault)
    job_id = farm.post(BENIGN)
    client.start()
    await_calls(farm, "GET /workers/*", 3)
    polls = farm.calls("GET /queue/poll")
    farm.behave()
    verdict = farm.await_verdict(job_id)

    assert not polls
    assert not verdict.failed


@pytest.mark.parametrize(
    "answer",
    ['{"queue": [], "entries": null, "attributes": {"disabled": false}}', '{"queue": [], "entries": 0}', "{}"],
    ids=["no entries", "no attributes", "nothing"],
)
def test_odd_queues_do_no_harm(farm: Farm, client: Client, answer: str) -> None:
    """A queue with `null` for entries, or without attributes, costs a look at most."""
    farm.misbehave("GET /queue", says(answer), 2)
    job_id = farm.post(BENIGN)
    client.start()

    assert not farm.await_verdict(job_id).failed


def test_flags_cost_one_look_per_interval(farm: Farm, client: Client) -> None:
    """While there is work, a poll follows the other without a pause, and the flags are looked up once an interval."""
    interval = 30
    ids = [farm.post(BENIGN) for _ in range(30)]
    client.start(QUEUE_POLL_INTERVAL=str(interval))
    verdicts = await_verdicts(farm, 30)
    polls = farm.calls("GET /queue/poll")
    most = 1 + (polls[-1].time - farm.requests[0].time) // (0.9 * interval)

    assert [verdict.job_id for verdict in verdicts] == ids
    assert len(farm.calls("GET /queue")) <= most
    assert len(farm.calls("GET /workers/*")) <= most + 1  # and the one at the start


def test_an_empty_queue_is_looked_at_once_per_interval(farm: Farm, client: Client) -> None:
    """While there is no work, there is one look and one poll an interval."""
    interval = 0.5
    client.start(QUEUE_POLL_INTERVAL=str(interval))
    await_calls(farm, "GET /queue/poll", 6)

    for route in ("GET /queue", "GET /queue/poll"):
        assert statistics.mean(gaps(farm.calls(route))) > 0.8 * interval


FAILED_POLLS = {
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "400": status(400),
    "401": status(401),
    "302": status(302, Location="/queue"),
    "garbage": says(b"\x00\xff\xfe spam"),
    "html": says("<h1>Spam</h1>"),
    "list": says("[]"),
    "number": says("3"),
    "deep": says("[" * 100_000),
    "lost": LOST,
    "reset": Fault(cut="reset"),
    "headers cut": Fault(False, 200, b"null", cut="headers"),
    "too short": Fault(False, 200, b'{"job_title": "spam", "tasks": [', length=1000),
    "huge": says(b'"' + b"x" * (64 << 20)),
}


@pytest.mark.slow
def test_a_failed_poll_is_not_repeated_at_once(farm: Farm, client: Client) -> None:
    """After each poll that failed, however it did, the client waits; and then it goes on."""
    wait = 0.6
    for fault in FAILED_POLLS.values():
        farm.misbehave("GET /queue/poll", fault, 1)
    client.start(QUEUE_POLL_INTERVAL="0.1", NETWORK_RETRY_INTERVAL=str(wait))
    polls = await_calls(farm, "GET /queue/poll", len(FAILED_POLLS) + 1)
    waited = dict(zip(FAILED_POLLS, gaps(polls), strict=False))
    verdict = farm.await_verdict(farm.post(BENIGN))

    assert {name: seconds for name, seconds in waited.items() if seconds < 0.8 * wait} == {}
    assert not verdict.failed


def test_null_means_that_the_queue_is_empty(farm: Farm, client: Client) -> None:
    """`200 null`, which a race on the server gives, is no failure: the next poll comes after the usual interval."""
    farm.misbehave("GET /queue/poll", says("null"), 3)
    job_id = farm.post(BENIGN)
    client.start(NETWORK_RETRY_INTERVAL="1000")

    assert not farm.await_verdict(job_id).failed


@pytest.mark.parametrize("failures", [0, 2], ids=["at once", "when it can be had"])
@pytest.mark.parametrize("fault", [Fault(cut=-2), Fault(length=-2), Fault(length=2)], ids=["cut", "short", "long"])
def test_a_job_of_a_broken_answer_is_fetched(farm: Farm, client: Client, fault: Fault, failures: int) -> None:
    """The job of a cut answer, which the server has given away for good, is fetched by the id in the part that came."""
    farm.misbehave("GET /queue/poll", fault, 1)
    farm.misbehave("GET /jobs/*", status(503), failures)
    ids = [farm.post(BENIGN), farm.post(BENIGN)]
    client.start()
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    assert [verdict.failed for verdict in verdicts] == [False, False]
    assert farm.taken == ids


def test_goes_on_when_a_job_is_lost(farm: Farm, client: Client) -> None:
    """A poll's answer that is cut before the id, or lost, costs that job and no other."""
    farm.misbehave("GET /queue/poll", Fault(cut=20), 1)
    farm.misbehave("GET /queue/poll", LOST, 1)
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    verdict = farm.await_verdict(ids[2])

    assert not verdict.failed
    assert farm.taken == ids


# --- the heartbeat ---


def test_beats_before_it_polls(farm: Farm, client: Client) -> None:
    """The server hears of a worker before the worker asks for anything."""
    farm.post(BENIGN)
    client.start()
    await_calls(farm, "GET /queue/poll")
    (first, *others) = farm.requests

    assert first.call == f"POST /workers/{WORKER}"
    assert first.json["hostname"] == "encoder01"
    assert f"GET /workers/{WORKER}" in [request.call for request in others]


@pytest.mark.slow
def test_beats_while_it_drains(farm: Farm, client: Client, held: Held) -> None:
    """After SIGTERM the heartbeat goes on until the job in hand is done; no other is taken; the client exits with 0."""
    job_id, other = farm.post(held.job), farm.post(BENIGN)
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    held.await_running()
    client.process.terminate()
    beats = await_beats(farm)
    held.let_go()
    ended = client.process.wait(60)

    assert all(beat["job_id"] == job_id for beat in beats)
    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert ended == 0
    assert [(verdict.job_id, verdict.failed) for verdict in farm.verdicts] == [(job_id, False)]
    assert list(farm.queue) == [other]


@pytest.mark.slow
def test_beats_while_it_is_paused(farm: Farm, client: Client, held: Held) -> None:
    """While a job is paused the heartbeat goes on and says so, and no longer when it is resumed."""
    job_id = farm.post(held.job)
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    held.await_running()
    client.process.send_signal(signal.SIGUSR2)
    await_beats(farm, 1, _is_paused)
    paused = await_beats(farm)
    client.process.send_signal(signal.SIGUSR2)
    await_beats(farm, 1, lambda beat: not _is_paused(beat))
    resumed = await_beats(farm, 2)
    held.let_go()
    verdict = farm.await_verdict(job_id)

    assert all(_is_paused(beat) and beat["job_id"] == job_id for beat in paused)
    assert not any(map(_is_paused, resumed))
    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert not verdict.failed


def test_takes_nothing_while_it_is_paused(farm: Farm, client: Client) -> None:
    """A client that is paused while it is idle takes no job until it is resumed."""
    client.start()
    await_idle(farm)
    client.process.send_signal(signal.SIGUSR2)
    await_beats(farm, 1, _is_paused)
    job_id = farm.post(BENIGN)
    await_beats(farm, 4, _is_paused)
    taken = list(farm.taken)
    client.process.send_signal(signal.SIGUSR2)
    verdict = farm.await_verdict(job_id)

    assert not taken
    assert not verdict.failed


def _is_paused(beat: dict[str, Any]) -> bool:
    return beat.get("info", {}).get("paused") is True


@pytest.mark.slow
def test_beats_while_modules_hang_and_die(farm: Farm, client: Client, supervised: Supervised) -> None:
    """No module can hold up the heartbeat; each job has its verdict, and the client is the same one."""
    acts = ("hold_gil", "segfault", "kill_zygote", "flood", "endless_log", "huge_frame", "block_in_c")
    supervised.configure({"run_timeout": "1s"})
    ids = [farm.post(job(("hostile", {"step": "run", "act": act}))) for act in acts]
    ids.append(farm.post(BENIGN))
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    verdicts = await_verdicts(farm, len(ids))
    await_beats(farm, 2)

    assert [verdict.job_id for verdict in verdicts] == ids
    assert [verdict.failed for verdict in verdicts] == [True] * len(acts) + [False]
    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert client.process.poll() is None


BAD_LISTENERS = {
    "late": Fault(delay=3 * BEAT),
    "500": status(500),
    "lost": LOST,
    "silent": SILENCE,
    "slow headers": Fault(pace=0.1 * BEAT),
    "slow body": Fault(True, 200, b"x" * 100, pace=0.1 * BEAT, dribbles="body"),
    "huge": says(b"x" * (64 << 20)),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BAD_LISTENERS.values(), ids=BAD_LISTENERS)
def test_beats_whatever_the_answers_are(farm: Farm, client: Client, held: Held, fault: Fault) -> None:
    """The next heartbeat does not wait for the answer to the last, and work goes on beside it."""
    await_none = farm.post(BENIGN)
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    farm.await_verdict(await_none)
    farm.misbehave("POST /workers/*", fault)
    job_id = farm.post(held.job)
    held.await_running()
    since = time.monotonic()
    until(lambda: len(own_beats(farm, since)) >= 8, "heartbeats")
    held.let_go()
    verdict = farm.await_verdict(job_id)

    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert not verdict.failed


@pytest.mark.slow
def test_beats_while_the_queue_is_long(farm: Farm, client: Client) -> None:
    """A look at the flags, which costs the whole queue, holds up no heartbeat, however long the queue is."""
    waiting = json.dumps({"job_title": "x" * 100_000, "tasks": [{"module": "benign"}] * 100, "job_id": "x"})
    listing = f'{{"queue": [{", ".join([waiting] * 300)}], "entries": 300, "attributes": {{"disabled": false}}}}'
    farm.misbehave("GET /queue", says(listing))
    job_id = farm.post(BENIGN)
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    await_calls(farm, "GET /queue", 4)
    until(lambda: len(own_beats(farm)) > 4, "heartbeats")

    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert not farm.await_verdict(job_id).failed


@pytest.mark.slow
def test_heartbeats_jitter(farm: Farm, client: Client) -> None:
    """Workers that were started at one instant do not beat in step for ever."""
    interval = 0.5
    client.start(HEARTBEAT_INTERVAL=str(interval))
    until(lambda: len(own_beats(farm)) > 16, "heartbeats")
    steady = gaps(own_beats(farm))[2:]  # the first is sent at once, the second may be

    assert statistics.pstdev(steady) > 0.01 * interval
    assert 0.5 * interval < statistics.mean(steady) < 1.5 * interval


def test_heartbeat_shows_the_task_that_runs(farm: Farm, client: Client, tmp_path: Path) -> None:
    """All modules report from their first step on, and the server is shown the one whose turn it is."""
    tasks, names = [], ("first", "second", "third")
    for place, name in enumerate(names):
        words = [f"{{'status': 'in_progress', 'task': '{name}', 'progress': {10 * place + step}}}" for step in range(3)]
        data = dict(zip(("init", "validate", "run"), words, strict=True))
        tasks.append((name, data | {"ready": str(tmp_path / f"{name}.ready"), "until": str(tmp_path / f"{name}.end")}))
    farm.post(job(*tasks, job_title="three"))
    client.start()
    shown = []
    for name in names:
        until((tmp_path / f"{name}.ready").exists, f"{name} to run")
        await_beats(farm, 1)  # one may have been under way
        shown.append(await_beats(farm, 2)[-1])
        (tmp_path / f"{name}.end").touch()

    assert [(beat["task"], beat["progress"], beat["job_title"]) for beat in shown] == [
        ("first", 2, "three"),
        ("second", 12, "three"),
        ("third", 22, "three"),
    ]


ODD_STATUSES = {
    "too much": ("{'progress': 250}", {"progress": 100}),
    "too little": ("{'progress': -3}", {"progress": 0}),
    "NaN": ("{'progress': nan, 'info': {'x': nan, 'deep': [inf, {'y': None}], 'z': 1}}", {}),
    "infinite": ("{'progress': inf, 'ratio': -inf, 'info': {}}", {}),
    "None": ("{'task': None, 'progress': None, 'info': None, 'spam': None}", {}),
    "unknown keys": ("{'progress': 5, 'speed': 2.5, 'info': {'frame': 7}}", {"info": {"speed": 2.5, "frame": 7}}),
    "types": ("{'status': 7, 'task': [], 'progress': '43%', 'info': 'spam'}", {}),
    "huge": ("{'progress': 10 ** 400, 'info': {'x': 2 ** 70}}", {}),
    "forged": (
        "{'job_id': 'x', 'job_title': 'y', 'hostname': 'z', 'version': '0', 'online_at': 'w', 'status': 'startup'}",
        {"job_title": "held", "hostname": "encoder01"},
    ),
    "text": ("{'info': {'x': '\\ud800 \\0'}}", {}),
    "no object": ("[1, 2]", {}),
}


@pytest.mark.parametrize(("said", "expected"), ODD_STATUSES.values(), ids=ODD_STATUSES)
def test_what_a_module_says_is_made_legal(
    farm: Farm, client: Client, tmp_path: Path, said: str, expected: dict[str, Any]
) -> None:
    """Whatever a module reports, the server gets a heartbeat that it takes, and the client's own words stand."""
    held = Held(tmp_path, run=said)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    await_beats(farm, 1)
    beat = await_beats(farm, 2)[-1]
    held.let_go()
    farm.await_verdict(job_id)

    assert (beat["job_id"], beat["status"], beat["task"]) == (job_id, "in_progress", "reporter")
    assert {key: beat.get(key) for key in expected} == expected


def test_nothing_of_a_job_is_left_after_it(farm: Farm, client: Client, tmp_path: Path) -> None:
    """An idle worker's heartbeat says nothing of the last job."""
    held = Held(tmp_path, run="{'progress': 43, 'speed': 3, 'info': {'frame': 1}}")
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    until(lambda: any("progress" in beat for beat in farm.beats()), "the progress")
    held.let_go()
    farm.await_verdict(job_id)
    await_idle(farm)
    after = await_beats(farm)

    assert all(beat["status"] == "idle" for beat in after)
    assert not any({"job_id", "job_title", "task", "progress"} & set(beat) for beat in after)
    assert not any({"speed", "frame"} & set(beat.get("info", {})) for beat in after)


# --- what is in a job ---


def test_escaped_strings_are_unescaped(farm: Farm, client: Client, tmp_path: Path) -> None:
    """Strings that were escaped for HTML are read as they were meant, once, and after the JSON was parsed."""
    seen = tmp_path / "seen & heard"
    data = {"seen": str(seen), "words": ['"Tom" & <Jerry>', {"deep": ["'", "ä", "&amp;"]}], "number": 5, "no": None}
    held = Held(tmp_path, "Tom & 'Jerry'", **data)
    farm.post(_escaped(held.job))
    client.start()
    held.await_running()
    beat = await_beats(farm, 1, lambda beat: "job_title" in beat)[0]
    (found, _) = json.loads(seen.read_text())
    held.let_go()

    assert {key: found[key] for key in data} == data
    assert beat["job_title"] == "Tom & 'Jerry'"


@pytest.mark.parametrize(
    ("there", "written"), [("R&amp;D", "R&amp;D"), ("R&D", "R&D"), (None, "R&D")], ids=["raw", "unescaped", "neither"]
)
def test_a_raw_path_that_exists_is_kept(
    farm: Farm, client: Client, tmp_path: Path, there: str | None, written: str
) -> None:
    """A string that names an existing path as it stands, and none once it is unescaped, is kept."""
    if there:
        (tmp_path / there).touch()
    job_id = farm.post(job(("benign", {"make": str(tmp_path / "R&amp;D")})))
    client.start()
    farm.await_verdict(job_id)

    assert (tmp_path / written).read_text() == "made"
    assert len(list(tmp_path.glob("R*D"))) == 1


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return html.escape(value)
        case list():
            return list(map(_escaped, value))
        case dict():
            return {key: _escaped(inner) for key, inner in value.items()}
    return value


ODD_JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "no tasks": ({"job_title": "odd"}, "tasks"),
    "tasks are empty": ({"job_title": "odd", "tasks": []}, "tasks"),
    "tasks are null": ({"job_title": "odd", "tasks": None}, "tasks"),
    "tasks are text": ({"job_title": "odd", "tasks": "spam"}, "tasks"),
    "no title": ({"tasks": BENIGN["tasks"]}, "job_title"),
    "title is null": ({"job_title": None, "tasks": BENIGN["tasks"]}, "job_title"),
    "a task is text": ({"job_title": "odd", "tasks": ["spam"]}, "tasks[0]"),
    "a task is nameless": ({"job_title": "odd", "tasks": [{"data": {}}]}, "tasks[0].module"),
    "unknown module": ({"job_title": "odd", "tasks": [*BENIGN["tasks"], {"module": "spam"}]}, "'spam'"),
    "data is a list": ({"job_title": "odd", "tasks": [{"module": "benign", "data": [1]}]}, "tasks[0].data"),
    "data is wrong": ({"job_title": "odd", "tasks": [{"module": "cleanup", "data": {"delete": 5}}]}, "delete"),
    "an odd id": (BENIGN | {"job_id": "spam & eggs? 100%"}, "job_id"),
    "a long id": (BENIGN | {"job_id": "x" * 2000}, "job_id"),
}


@pytest.mark.parametrize(("document", "word"), ODD_JOBS.values(), ids=ODD_JOBS)
def test_an_odd_job_fails_and_says_why(farm: Farm, client: Client, document: dict[str, Any], word: str) -> None:
    """A job that cannot be run is failed with a message that says so, and the next one is taken."""
    odd, next_id = farm.post(document), farm.post(BENIGN)
    client.start()
    verdict = farm.await_verdict(odd)
    after = farm.await_verdict(next_id)

    assert verdict.failed
    assert verdict.info["completed"] is False
    assert word in verdict.info["message"]
    assert not after.failed


@pytest.mark.parametrize("job_id", ["null", "42", '""', "[]"])
def test_a_job_without_an_id_does_no_harm(farm: Farm, client: Client, job_id: str) -> None:
    """Of a job that has no id nobody can be told anything; the next one is taken."""
    farm.misbehave("GET /queue/poll", says(f'{{"job_title": "odd", "tasks": [], "job_id": {job_id}}}'), 1)
    next_id = farm.post(BENIGN)
    client.start()

    assert not farm.await_verdict(next_id).failed
    assert [verdict.job_id for verdict in farm.verdicts] == [next_id]


# --- settings and secrets ---


def test_the_url_may_end_in_a_slash(farm: Farm, client: Client) -> None:
    """`API_URL` may end in slashes; the farm knows no route with two in a row."""
    client.start(API_URL=farm.url + "//")

    assert not farm.await_verdict(farm.post(BENIGN)).failed


def test_settings_may_be_empty(farm: Farm, client: Client) -> None:
    """Settings that are present but empty count as absent."""
    empty = dict.fromkeys(SETTINGS | {"CANCEL_DELETED_JOBS", "LOGURU_LEVEL", "SISYPHUS_CONFIG"}, "")
    job_id = farm.post(BENIGN)
    client.start(**empty | {"API_URL": farm.url})
    verdict = farm.await_verdict(job_id)

    assert not verdict.failed
    assert not any("Authorization" in request.headers for request in farm.requests)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("WORKER_SLOTS", "0"),
        ("WORKER_SLOTS", "-1"),
        ("WORKER_SLOTS", "2.5"),
        ("WORKER_SLOTS", "many"),
        ("ON_RESTART", "perhaps"),
        ("SHUTDOWN_GRACE", "soon"),
        ("SHUTDOWN_GRACE", "-1"),
        ("CANCEL_DELETED_JOBS", "perhaps"),
        ("QUEUE_POLL_INTERVAL", "0"),
        ("NETWORK_RETRY_INTERVAL", "nan"),
        ("HEARTBEAT_INTERVAL", "inf"),
        ("API_URL", "localhost:5000"),
        ("API_URL", "ftp://localhost"),
        ("API_URL", "http://"),
        ("API_URL", "http://localhost:spam"),
        ("HOST_UUID", "encoder:01"),
        ("API_TOKEN", "two\nlines"),
    ],
)
def test_unusable_settings_are_one_line(client: Client, setting: str, value: str) -> None:
    """A setting that makes no sense is one line that names it, with exit status 2."""
    done = client.refuse(**{setting: value})

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(setting)
    assert value not in done.stderr or setting != "API_TOKEN"


def test_the_token_is_sent_and_kept_secret(farm: Farm, client: Client, held: Held, tmp_path: Path) -> None:
    """The token goes to the server with every request, and is seen nowhere else: no log, title or task has it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login spam password eggs\n")  # must not take the token's place
    farm.misbehave("* /queue*", status(401), 3)
    job_id = farm.post(held.job)
    client.start(API_TOKEN=TOKEN, LOGURU_LEVEL="TRACE", NETRC=str(netrc))
    held.await_running()
    supervisor = psutil.Process(client.process.pid)
    below = supervisor.children(recursive=True)
    titles = [" ".join(process.cmdline()) for process in (supervisor, *below)]
    environments = [Path(f"/proc/{process.pid}/environ").read_text() for process in below]
    held.let_go()
    farm.await_verdict(job_id)
    client.stop()
    kept = [file.read_text(errors="replace") for file in (tmp_path / "state").rglob("*") if file.is_file()]

    assert {request.headers["Authorization"] for request in farm.requests} == {f"Bearer {TOKEN}"}
    assert len(environments) == 2
    assert not [text for text in (*titles, *environments, *kept, *client.log) if TOKEN in text]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_are_not_followed(farm: Farm, client: Client, code: int) -> None:
    """Neither the token nor anything else goes to where a redirect points."""
    other = Farm("127.0.0.2")
    with contextlib.closing(other):
        farm.misbehave("*", status(code, Location=other.url + "/queue/poll"))
        job_id = farm.post(BENIGN)
        client.start(API_TOKEN=TOKEN)
        await_calls(farm, "POST /workers/*", 4)
        farm.behave()
        farm.misbehave("PATCH /jobs/*", status(code, Location=other.url + "/"), 2)
        verdict = farm.await_verdict(job_id)

        assert not other.requests
    assert not verdict.failed


# --- verdicts ---

DOUBTS = {
    "recorded, lost": LOST,
    "recorded, reset": Fault(cut="reset"),
    "recorded, headers cut": Fault(status=500, cut="headers"),
    "recorded, 500": status(500, acts=True),
    "recorded, 502": status(502, acts=True),
    "recorded, time-out": SILENCE,
    "not recorded, lost": Fault(acts=False, cut="before"),
    "not recorded, 500": status(500),
    "not recorded, 503": status(503),
    "not recorded, time-out": Fault(acts=False, delay=SILENCE.delay),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", DOUBTS.values(), ids=DOUBTS)
def test_doubts_are_settled_by_asking(farm: Farm, client: Client, fault: Fault) -> None:
    """After a doubtful answer the client asks whether the job is still there, and sends again only if it is."""
    farm.misbehave("PATCH /jobs/*/completed", fault, 1)
    ids = [farm.post(BENIGN) for _ in range(2)]
    client.start()
    verdicts = await_verdicts(farm, 2)
    sent = farm.calls(f"PATCH /jobs/{ids[0]}/completed")
    asked = farm.calls(f"GET /jobs/{ids[0]}", sent[0].time)

    assert [verdict.job_id for verdict in verdicts] == ids
    assert len(sent) == (1 if fault.acts else 2)
    assert len(asked) == 1
    assert all(again.time > asked[0].time for again in sent[1:])


@pytest.mark.parametrize("fault", [LOST, status(500), status(503)], ids=["recorded", "not recorded", "503"])
def test_nothing_is_sent_again_while_in_doubt(farm: Farm, client: Client, fault: Fault) -> None:
    """While the server does not say whether it has the job, the client asks, and does not send."""
    failures = 3
    farm.misbehave("PATCH /jobs/*/completed", fault, 1)
    farm.misbehave("GET /jobs/*", status(500), failures)
    ids = [farm.post(BENIGN) for _ in range(2)]
    client.start()
    verdicts = await_verdicts(farm, 2)
    sent = farm.calls(f"PATCH /jobs/{ids[0]}/completed")
    asked = farm.calls(f"GET /jobs/{ids[0]}", sent[0].time)

    assert [verdict.job_id for verdict in verdicts] == ids
    assert len(sent) == (1 if fault.acts else 2)
    assert len(asked) == failures + 1
    assert all(again.time > asked[failures].time for again in sent[1:])


@pytest.mark.parametrize("code", [301, 401, 403, 404, 405, 429])
def test_a_verdict_that_is_turned_away_is_kept(farm: Farm, client: Client, code: int) -> None:
    """An answer that means neither that it was recorded nor that it is wrong does not lose the verdict."""
    farm.misbehave("PATCH /jobs/*/completed", status(code), 2)
    client.start()

    assert not farm.await_verdict(farm.post(BENIGN)).failed


def test_a_record_that_is_refused_is_reduced(farm: Farm, client: Client) -> None:
    """A server that does not take the whole record gets one without what it may not know."""

    def is_full(request: Request) -> bool:
        return bool({"error", "tasks"} & set(request.json["info"]))

    farm.misbehave("PATCH /jobs/*/completed", status(400), when=is_full)
    ids = [farm.post(job(("hostile", {"step": "run", "act": "own_error"}))), farm.post(BENIGN)]
    client.start()
    failed, completed = (farm.await_verdict(job_id) for job_id in ids)

    assert (failed.failed, completed.failed) == (True, False)
    assert "Could not build additional pylons." in failed.info["message"]


def test_a_verdict_that_is_never_taken_holds_up_no_other(farm: Farm, client: Client) -> None:
    """A job whose verdict the server refuses in every form does not keep later ones from being told."""
    refused = farm.post(BENIGN)
    farm.misbehave(f"PATCH /jobs/{refused}/completed", status(400))
    client.start()

    assert not farm.await_verdict(farm.post(BENIGN)).failed


def test_work_goes_on_while_verdicts_wait(farm: Farm, client: Client) -> None:
    """While the server takes no verdicts, jobs are run all the same; later all are told, once, in their order."""
    farm.misbehave("PATCH /jobs/*", status(503))
    ids = [farm.post(BENIGN) for _ in range(6)]
    client.start()
    until(lambda: farm.taken == ids, "all jobs to be taken")
    await_idle(farm)
    told = list(farm.verdicts)
    farm.behave()
    verdicts = await_verdicts(farm, 6)

    assert not told
    assert [verdict.job_id for verdict in verdicts] == ids


def test_an_outage_in_the_middle_of_a_job(farm: Farm, client: Client, held: Held) -> None:
    """The server may be away while a job ends: its verdict is told when the server is back, and work goes on."""
    ids = [farm.post(held.job), farm.post(BENIGN)]
    client.start()
    held.await_running()
    farm.go_down()
    held.let_go()
    until(lambda: not psutil.Process(client.process.pid).children()[0].children(), "the job to end")
    farm.come_up()
    verdicts = await_verdicts(farm, 2)

    assert [(verdict.job_id, verdict.failed) for verdict in verdicts] == [(job_id, False) for job_id in ids]


def test_verdicts_survive_a_kill(farm: Farm, client: Client) -> None:
    """Verdicts that could not be told are told by the next client, in their order, once."""
    farm.misbehave("PATCH /jobs/*", status(503))
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    until(lambda: farm.taken == ids, "all jobs to be taken")
    await_idle(farm)
    client.kill()
    farm.behave()
    client.start()
    verdicts = await_verdicts(farm, 3)
    await_idle(farm)

    assert [(verdict.job_id, verdict.failed) for verdict in verdicts] == [(job_id, False) for job_id in ids]


def test_a_kill_between_telling_and_hearing(farm: Farm, client: Client) -> None:
    """A client killed after its verdict was recorded, and before it heard so, finds that out and goes on."""
    farm.misbehave("PATCH /jobs/*", SILENCE, 1)
    job_id = farm.post(BENIGN)
    client.start()
    farm.await_verdict(job_id)
    client.kill()
    client.start()
    farm.await_verdict(farm.post(BENIGN))
    await_idle(farm)

    assert len(farm.calls(f"PATCH /jobs/{job_id}/completed")) <= 2  # it cannot know that it had sent it
    assert len(farm.verdicts) == 2


def test_a_stop_does_not_wait_for_ever_to_tell(farm: Farm, client: Client) -> None:
    """A client that is asked to stop while the server takes no verdicts leaves, and tells them at its next start."""
    farm.misbehave("PATCH /jobs/*", status(503))
    job_id = farm.post(BENIGN)
    client.start()
    until(lambda: farm.taken == [job_id], "the job to be taken")
    await_idle(farm)
    ended = client.stop()
    farm.behave()
    client.start()
    verdict = farm.await_verdict(job_id)

    assert ended == 0
    assert not verdict.failed


# --- interrupted jobs ---


def test_an_interrupted_job_is_resumed(farm: Farm, client: Client, tmp_path: Path) -> None:
    """A job in hand when the client was killed is run again by the next one, and the module is told."""
    seen = tmp_path / "seen"
    held = Held(tmp_path, seen=str(seen))
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    client.kill()
    held.ready.unlink()
    client.start()
    held.await_running()
    (_, resumed) = json.loads(seen.read_text())
    held.let_go()
    verdict = farm.await_verdict(job_id)

    assert resumed
    assert not verdict.failed
    assert farm.taken == [job_id]


def test_an_interrupted_job_is_failed_where_that_is_wanted(farm: Farm, client: Client, held: Held) -> None:
    """With ON_RESTART=fail, a job that was in hand when the client was killed has failed, and its record says how."""
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    client.kill()
    client.start(ON_RESTART="fail")
    verdict = farm.await_verdict(job_id)

    assert verdict.failed
    assert verdict.info["error"]["reason"] == "lost"
    assert farm.taken == [job_id]


@pytest.mark.slow
@pytest.mark.parametrize("on_restart", ["resume", "requeue", "fail"])
def test_nothing_is_left_of_an_interrupted_task(
    farm: Farm, client: Client, supervised: Supervised, tmp_path: Path, on_restart: str
) -> None:
    """Whatever becomes of a job after the client was killed, its task's temporary file is gone."""
    clip = make_clip(tmp_path / "clip.mkv")
    out = tmp_path / "out"
    out.mkdir()
    data = {
        "sources": [{"filename": str(clip), "options": {"re": True, "stream_loop": -1, "t": "600"}}],
        "source_maps": [{"source": 0, "specifier": "v"}],
        "output_maps": [{"specifier": "v", "stream": 0, "options": {"codec": "mpeg2video"}}],
        "output_file": str(out / "film.ts"),
    }
    job_id = farm.post(job(("ffmpeg", data)))
    client.start()
    until(lambda: [file for file in out.iterdir() if file.stat().st_size], "the encode to be under way")
    farm.disabled = True
    client.kill()
    left = [file.name for file in out.iterdir()]
    if on_restart == "resume":  # but it is another worker's by now
        farm.running.pop(job_id)
    client.start(ON_RESTART=on_restart)
    until(lambda: not list(out.iterdir()), "what is left to be removed")

    assert client.stop() == 0
    assert len(left) == 1
    assert list(out.iterdir()) == []


BAD_RETURNS = {
    "sound": ("POST /queue", Fault(), 0),
    "500": ("POST /queue", status(500), 2),
    "no delete": ("DELETE /jobs/*", status(500), 2),
    "delete lost": ("DELETE /jobs/*", LOST, 1),
}


@pytest.mark.parametrize(("route", "fault", "times"), BAD_RETURNS.values(), ids=BAD_RETURNS)
def test_an_interrupted_job_is_given_back_where_that_is_wanted(
    farm: Farm, client: Client, held: Held, route: str, fault: Fault, times: int
) -> None:
    """With ON_RESTART=requeue, such a job is posted again as it was, and only then is its old record deleted."""
    farm.misbehave(route, fault, times)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    farm.disabled = True
    client.kill()
    client.start(ON_RESTART="requeue")
    until(lambda: farm.calls(f"DELETE /jobs/{job_id}") and not farm.running, "the old record to be deleted", 60)
    posts, deletes = farm.calls("POST /queue"), farm.calls(f"DELETE /jobs/{job_id}")
    queued = list(farm.queue.values())
    held.let_go()
    farm.disabled = False
    await_verdicts(farm, 1)

    assert [tasks_of(again) for again in queued] == [tasks_of(held.job)]
    assert queued[0]["job_title"] == held.job["job_title"]
    assert posts[-1].time < deletes[0].time
    assert [verdict.job_id for verdict in farm.verdicts] == [queued[0]["job_id"]]


def test_a_job_is_not_lost_when_its_return_is_not_confirmed(farm: Farm, client: Client, held: Held) -> None:
    """A job whose posting was accepted, and the answer lost, is in the queue once, and its old record goes."""
    farm.misbehave("POST /queue", LOST, 1)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    farm.disabled = True
    client.kill()
    client.start(ON_RESTART="requeue")
    until(lambda: farm.calls(f"DELETE /jobs/{job_id}") and not farm.running, "the old record to be deleted", 60)

    assert [tasks_of(again) for again in farm.queue.values()] == [tasks_of(held.job)]


def test_the_second_sigterm_gives_the_job_back(farm: Farm, client: Client, held: Held) -> None:
    """A second SIGTERM stops the job in hand and puts it back into the queue; the client exits with 0."""
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    client.process.terminate()
    await_beats(farm, 1)
    client.process.terminate()
    ended = client.process.wait(60)

    assert ended == 0
    assert [tasks_of(again) for again in farm.queue.values()] == [tasks_of(held.job)]
    assert job_id not in farm.queue
    assert not farm.running
    assert not farm.verdicts


def test_the_third_sigterm_ends_everything(farm: Farm, client: Client, supervised: Supervised, tmp_path: Path) -> None:
    """A third SIGTERM does not wait for a task that ignores all signals, whatever its grace is."""
    supervised.configure({"grace": "1h"})
    ready = tmp_path / "ready"
    farm.post(job(("hostile", {"step": "run", "act": "ignore_everything", "ready": str(ready)})))
    client.start()
    until(ready.exists, "the module to run")
    for _ in range(2):
        client.process.terminate()
        await_beats(farm, 2)
    client.process.terminate()

    client.process.wait(60)


def test_a_deleted_job_is_cancelled_where_that_is_wanted(farm: Farm, client: Client, held: Held) -> None:
    """With CANCEL_DELETED_JOBS=1, a job that the server has deleted is stopped; one that it cannot show is not."""
    farm.misbehave("GET /jobs/*", status(500), 3)
    job_id = farm.post(held.job)
    client.start(CANCEL_DELETED_JOBS="1")
    held.await_running()
    await_calls(farm, f"GET /jobs/{job_id}", 5)
    still = farm.beats()[-1].get("job_id")
    farm.delete(job_id)
    after = farm.await_verdict(farm.post(BENIGN))

    assert still == job_id
    assert not after.failed
    assert farm.verdicts == [after]


def test_a_deleted_job_runs_on_otherwise(farm: Farm, client: Client, held: Held) -> None:
    """Without that setting it runs to its end; that its verdict is not wanted any more holds up nothing."""
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    farm.delete(job_id)
    beats = await_beats(farm, 4)
    held.let_go()
    after = farm.await_verdict(farm.post(BENIGN))

    assert all(beat["job_id"] == job_id for beat in beats)
    assert farm.verdicts == [after]


# --- outages ---


def test_an_outage_is_two_lines(farm: Farm, client: Client) -> None:
    """The log has one line when the server is lost, and one when it is back, however often it was tried."""
    client.start(LOGURU_LEVEL="INFO", WORKER_SLOTS="2")
    await_idle(farm)
    before = len(client.log)
    farm.go_down()
    pass_time(3)
    lost = client.log[before:]
    farm.come_up()
    await_calls(farm, "GET /queue/poll", 4, time.monotonic())
    back = client.log[before + len(lost) :]

    assert len(lost) == 1
    assert len(back) == 1


def test_an_error_is_two_lines(farm: Farm, client: Client) -> None:
    """The same is true of a route that the server fails at."""
    client.start(LOGURU_LEVEL="INFO")
    await_idle(farm)
    before = len(client.log)
    farm.misbehave("GET /queue/poll", status(503))
    await_calls(farm, "GET /queue/poll", 6, time.monotonic())
    lost = client.log[before:]
    farm.behave()
    await_calls(farm, "GET /queue/poll", 4, time.monotonic())
    back = client.log[before + len(lost) :]

    assert len(lost) == 1
    assert len(back) == 1


def test_a_server_that_is_down_at_the_start(farm: Farm, client: Client) -> None:
    """The client waits for its server, with one line in the log, and starts to work when it is there."""
    farm.go_down()
    job_id = farm.post(BENIGN)
    client.start()
    until(lambda: any("WARNING" in line or "ERROR" in line for line in client.log), "the line")
    pass_time(2)
    lines = list(client.log)
    farm.come_up()
    verdict = farm.await_verdict(job_id)

    assert len([line for line in lines if "WARNING" in line or "ERROR" in line]) == 1
    assert not verdict.failed


def test_attempts_are_few(farm: Farm, client: Client) -> None:
    """A server that fails is asked again after a while and not in a busy loop, the outbox among it."""
    client.start(CANCEL_DELETED_JOBS="1")
    farm.misbehave("PATCH /jobs/*", status(503))
    farm.misbehave("GET /jobs/*", status(503))
    farm.post(BENIGN)
    await_calls(farm, "PATCH /jobs/*")
    farm.misbehave("*", status(503))
    since = time.monotonic()
    until(lambda: len(own_beats(farm, since)) >= 10, "heartbeats")
    seconds = time.monotonic() - since
    often = len([each for each in farm.calls("*", since) if not each.call.startswith("POST")])

    # A look at the flags and a question for the verdict, each of one call or two, after 0.3 s; and as much for luck.
    assert often <= 2 * (4 * seconds / 0.3)


# --- slots ---


def test_slots_run_jobs_side_by_side(farm: Farm, client: Client, tmp_path: Path) -> None:
    """With three slots there are three workers, each with a job of its own, that stay the same over a restart."""
    jobs = [Held(tmp_path, f"job{number}") for number in range(3)]
    ids = [farm.post(each.job) for each in jobs]
    client.start(WORKER_SLOTS="3")
    for each in jobs:
        each.await_running()
    since = time.monotonic()
    await_beats(farm, 12)
    workers = {request.path.rpartition("/")[2] for request in farm.calls("POST /workers/*")}
    shown = {worker: {beat.get("job_id") for beat in farm.beats(worker, since)} for worker in workers}
    for each in jobs:
        each.let_go()
    verdicts = await_verdicts(farm, 3)
    client.stop()
    since = time.monotonic()
    client.start(WORKER_SLOTS="3")
    again = until(
        lambda: (
            len(found := {call.path.rpartition("/")[2] for call in farm.calls("POST /workers/*", since)}) == 3 and found
        ),
        "three workers",
    )

    assert WORKER in workers
    assert len(workers) == 3
    assert not any(":" in worker for worker in workers)
    assert sorted(map(list, shown.values())) == sorted([job_id] for job_id in ids)
    assert {verdict.info["worker_id"] for verdict in verdicts} == workers
    assert again == workers


def test_a_worker_that_is_disabled_leaves_the_others_at_work(farm: Farm, client: Client) -> None:
    """Each slot has a flag of its own."""
    client.start(WORKER_SLOTS="2")
    workers = until(
        lambda: len(found := {call.path.rpartition("/")[2] for call in farm.calls("GET /workers/*")}) == 2 and found,
        "two workers",
    )
    changed = farm.operate("PATCH", f"/workers/{WORKER}", {"disabled": True})
    await_calls(farm, f"GET /workers/{WORKER}", 2, time.monotonic())
    ids = [farm.post(BENIGN) for _ in range(4)]
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    assert changed == 200
    assert {verdict.info["worker_id"] for verdict in verdicts} == workers - {WORKER}


# --- the state directory ---


def test_there_is_one_client_for_a_state_directory(farm: Farm, client: Client) -> None:
    """A second client with the same state directory says so in one line and exits with 2; the first goes on."""
    client.start()
    await_idle(farm)
    done = client.refuse()

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not farm.await_verdict(farm.post(BENIGN)).failed


def test_the_workers_id_is_made_once(farm: Farm, client: Client) -> None:
    """Without HOST_UUID an id is made up, and kept over a restart."""
    for _ in range(2):
        since = time.monotonic()
        client.start(HOST_UUID="")
        await_calls(farm, "POST /workers/*", 1, since)
        client.stop()

    assert len({request.path for request in farm.calls("POST /workers/*")}) == 1
