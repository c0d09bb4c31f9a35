"""Signals: in each state of the client, each of them does what it is to do, and within its bound.

Real signals to the real process. The bounds are those that the client gives itself, and `LEEWAY` for a busy machine.
"""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from ipc import linux
from supervisor.api.client import CALL_TIMEOUT
from supervisor.worker.outbox import MARK
from supervisor.worker.worker import FLUSH_TIMEOUT
from tests.conftest import await_none_alive
from tests.farm import LOST, SILENCE, Farm, Fault, status
from tests.supervised import BENIGN, CLIENT, Supervised, job, until
from tests.test_worker import Client, await_beats, await_calls, await_idle

pytestmark = pytest.mark.slow

LEEWAY = 10.0
"""Seconds that a busy machine may take for what takes milliseconds."""

QUICKER = {"HEARTBEAT_INTERVAL": "0.1", "QUEUE_POLL_INTERVAL": "0.1"}

WAITER = '''
import signal
import subprocess
from pathlib import Path

import modules.tool
from modules.base import BaseModule

TOOL = """
trap 'echo tool asked >> "$3"; exit 1' TERM
[ -z "$4" ] || trap '' TERM
touch "$1"
until [ -e "$2" ]; do sleep 0.02; done
"""


class Waiter(BaseModule):
    """Notes its steps, and in the step `at` runs a tool until there is a file. If it is `deaf`, asking is no use."""

    cleanup_on_failure = True

    def __init__(self, task):
        super().__init__(task)
        self.do("init")

    def validate(self):
        self.do("validate")

    def run(self):
        self.heartbeat.set_data({"status": "in_progress", "task": "waiter", "progress": 43.1})
        self.do("run")

    def cleanup(self):
        self.do("cleanup")

    def do(self, step):
        with Path(self.task.log).open("a") as log:
            log.write(f"{step}\\n")
        if self.task.get("at") != step:
            return
        argv = ["sh", "-c", TOOL, "sh", self.task.ready, self.task.until, self.task.log, "deaf" * self.task.deaf]
        if self.task.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.run(argv, check=True)
        else:
            modules.tool.run(argv).check()
'''


@dataclass
class Waiting:
    """A job that waits in one of its steps until it is let go."""

    directory: Path
    at: str
    deaf: bool = False
    name: str = "waiting"

    @property
    def ready(self) -> Path:
        """Exists when it waits."""
        return self.directory / f"{self.name}.ready"

    @property
    def steps(self) -> list[str]:
        """What it has done."""
        return (self.directory / f"{self.name}.log").read_text().splitlines()

    @property
    def job(self) -> dict[str, Any]:
        end, log = self.directory / f"{self.name}.end", self.directory / f"{self.name}.log"
        data = {"at": self.at, "deaf": self.deaf, "ready": str(self.ready), "until": str(end), "log": str(log)}
        return job(("waiter", data))

    def await_waiting(self) -> None:
        until(self.ready.exists, f"the job to wait in {self.at}")

    def let_go(self) -> None:
        (self.directory / f"{self.name}.end").touch()


class Scene:
    """A client and its server, to be brought into a state.

    Attributes:
        jobs: Those in hand, and their ids.
        spare: The id of a job that is in the queue and is to stay there.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.farm = Farm()
        self.supervised = Supervised(directory)
        (directory / "waiter.py").write_text(WAITER)
        self.configure()
        self.client = Client(self.farm, self.supervised)
        self.client.settings |= {"SISYPHUS_STATE_DIR": str(directory / "state"), **QUICKER}
        self.settings: dict[str, str] = {}
        self.jobs: dict[str, Waiting] = {}
        self.spare = ""

    def configure(self, modules: dict[str, str] | None = None, **limits: Any) -> None:
        self.supervised.configure(limits, {"waiter": "waiter.Waiter"} | (modules or {}), paths=(str(self.directory),))

    def close(self) -> None:
        self.client.close()
        self.farm.close()

    def start(self, **settings: str) -> None:
        self.settings = settings
        self.client.start(**settings)

    def post(self, at: str, deaf: bool = False) -> Waiting:
        """Put a job into the queue that will wait in a step."""
        waiting = Waiting(self.directory, at, deaf, f"waiting{len(self.jobs)}")
        self.jobs[self.farm.post(waiting.job)] = waiting
        return waiting

    def begin(self, at: str, deaf: bool = False, slots: int = 1) -> None:
        """Have a client with a job in hand for each slot, and one more job in the queue."""
        posted = [self.post(at, deaf) for _ in range(slots)]
        self.start(WORKER_SLOTS=str(slots))
        for waiting in posted:
            waiting.await_waiting()
        self.spare = self.farm.post(BENIGN)

    def let_go(self) -> None:
        for waiting in self.jobs.values():
            waiting.let_go()

    def await_log(self, words: str, count: int = 1) -> list[str]:
        """Wait until so many lines of the client's log have these words."""
        return until(
            lambda: len(found := [line for line in self.client.log if words in line]) >= count and found,
            f"{count} x {words!r} in the log",
        )

    def signal(self, *names: str) -> None:
        """Send signals, each when the one before it has been taken: two of a kind may else arrive as one."""
        for name in names:
            since = len(self.client.log)
            self.client.process.send_signal(signal.Signals[f"SIG{name}"])
            until(
                lambda says=SAYS[name], since=since: self.has_ended() or any(map(says.search, self.client.log[since:])),
                f"SIG{name} to be taken",
            )

    def has_ended(self) -> bool:
        return self.client.process.poll() is not None

    def await_end(self, seconds: float = 0.0) -> int:
        """The exit status; the client must exit within so many seconds, and not be held up by what is alive still."""
        return self.client.process.wait(seconds + LEEWAY)

    def starts(self) -> dict[str, int]:
        """How many starts the journal counts against each job in it. The client must have ended."""
        with contextlib.closing(sqlite3.connect(self.directory / "state" / "journal.sqlite3")) as database:
            return dict(database.execute("SELECT job_id, starts FROM jobs"))

    def posted_again(self) -> list[list[dict[str, Any]]]:
        """The tasks of the jobs in the queue that were given back, without what was added to them."""
        queued = [each for job_id, each in self.farm.queue.items() if job_id != self.spare]
        return [[{key: task[key] for key in task if key != MARK} for task in each["tasks"]] for each in queued]


SAYS = {
    "TERM": re.compile("SIGTERM: "),
    "INT": re.compile("SIGINT: "),
    "QUIT": re.compile("SIGQUIT: "),
    "HUP": re.compile("SIGHUP: "),
    "USR1": re.compile("Snapshot: worker"),
    "USR2": re.compile("Paused|Going on|nothing to pause"),
}
"""What a signal makes the client say."""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A client and its server; at the end the client must have kept to the protocol."""
    scene = Scene(tmp_path)
    yield scene
    scene.close()
    assert not scene.farm.violations


# --- the states ---


def is_starting(scene: Scene) -> None:
    """The server is down, and has never accepted a beat."""
    scene.farm.go_down()
    scene.start()
    scene.await_log("cannot be reached")


def is_idle(scene: Scene) -> None:
    scene.start()
    await_idle(scene.farm)
    await_calls(scene.farm, "GET /queue/poll")


def is_idle_and_alone(scene: Scene) -> None:
    """The server has gone."""
    is_idle(scene)
    scene.farm.go_down()
    scene.await_log("cannot be reached")


def is_idle_and_paused(scene: Scene) -> None:
    is_idle(scene)
    scene.signal("USR2")
    await_beats(scene.farm, 1, lambda beat: beat.get("info") == {"paused": True})


def is_polling(scene: Scene) -> None:
    """A poll hangs."""
    scene.farm.misbehave("GET /queue/poll", SILENCE)
    scene.start()
    await_calls(scene.farm, "GET /queue/poll")


def in_validate(scene: Scene, deaf: bool = False) -> None:
    scene.begin("validate", deaf)


def in_run(scene: Scene, deaf: bool = False) -> None:
    scene.begin("run", deaf)


def in_cleanup(scene: Scene, deaf: bool = False) -> None:
    scene.begin("cleanup", deaf)


def is_paused(scene: Scene, deaf: bool = False) -> None:
    """A job in hand is paused."""
    in_run(scene, deaf)
    scene.signal("USR2")
    await_beats(scene.farm, 1, lambda beat: beat.get("info", {}).get("paused"))


def has_two(scene: Scene, deaf: bool = False) -> None:
    """Two slots have a job each."""
    scene.begin("run", deaf, slots=2)


def in_run_and_deaf(scene: Scene) -> None:
    """The task in hand does not stop when asked."""
    in_run(scene, deaf=True)


IDLE = [is_starting, is_idle, is_idle_and_alone, is_idle_and_paused]
BUSY = [in_validate, in_run, in_cleanup, is_paused, has_two]
DEAF = [in_run_and_deaf]


def named(states: list[Callable[..., None]]) -> Any:
    """A parameter of a test: one of these states."""
    return pytest.mark.parametrize("state", states, ids=[state.__name__ for state in states])


def signals(*names: str) -> Any:
    """A parameter of a test: signals that are sent, one after the other."""
    return pytest.mark.parametrize("names", [name.split() for name in names], ids=names)


# --- the first TERM or INT: drain ---


@named(IDLE)
@signals("TERM", "INT", "QUIT")
def test_an_idle_client_leaves_at_once(scene: Scene, state: Callable[[Scene], None], names: list[str]) -> None:
    """What has nothing in hand ends with 0 at the first signal, the server there or not."""
    state(scene)
    scene.signal(*names)
    ended = scene.await_end()

    assert ended == 0
    assert not scene.farm.taken
    assert "Traceback" not in "\n".join(scene.client.log)


@named(IDLE)
@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
def test_a_burst_of_signals_is_no_harm(scene: Scene, state: Callable[[Scene], None], name: str) -> None:
    """Three at once, of which some may arrive as one: an idle client ends as it does at one of them or at all."""
    number = signal.Signals[f"SIG{name}"]
    state(scene)
    for _ in range(3):
        scene.client.process.send_signal(number)
    ended = scene.await_end()

    assert ended in (0, 128 + number, -number)
    assert "Traceback" not in "\n".join(scene.client.log)


@named(BUSY + DEAF)
@signals("TERM", "INT")
def test_the_first_drains(scene: Scene, state: Callable[[Scene], None], names: list[str]) -> None:
    """The jobs in hand are finished and their verdicts delivered, heartbeats meanwhile; no more are taken; status 0."""
    state(scene)
    scene.signal(*names)
    beats = await_beats(scene.farm, 4 * len(scene.jobs))
    alive = not scene.has_ended()
    scene.let_go()
    ended = scene.await_end()

    assert alive
    assert {beat["job_id"] for beat in beats} == set(scene.jobs)
    assert not any("paused" in beat.get("info", {}) for beat in beats[-1:])
    assert ended == 0
    assert {(verdict.job_id, verdict.failed) for verdict in scene.farm.verdicts} == {(id, False) for id in scene.jobs}
    assert list(scene.farm.queue) == [scene.spare]


def test_no_more_is_asked_for(scene: Scene) -> None:
    """A client that is told to stop while it looks whether it may take a job does not take one afterwards."""
    scene.start()
    await_idle(scene.farm)
    await_calls(scene.farm, "GET /queue/poll")
    since = time.monotonic()
    scene.farm.misbehave("GET /queue", Fault(delay=1.0), 2)
    await_calls(scene.farm, "GET /queue", 1, since)
    scene.farm.post(BENIGN)
    scene.signal("TERM")
    ended = scene.await_end(1.0)

    assert ended == 0
    assert not scene.farm.taken


@pytest.mark.parametrize("count", [1, 3])
def test_a_signal_at_the_start(tmp_path: Path, count: int) -> None:
    """A client that is told to stop at any instant of its start ends by the signal, or as it is to; nothing is left."""
    ended = []
    for number in range(12):
        scene = Scene(tmp_path / str(number))
        with contextlib.closing(scene):
            scene.farm.post(BENIGN)
            scene.start()
            instant = time.monotonic() + 0.06 * number
            until(lambda instant=instant: time.monotonic() > instant, "the instant")
            for _ in range(count):
                scene.client.process.terminate()
            ended.append(scene.await_end())
            assert "Traceback" not in "\n".join(scene.client.log)
            assert (
                count > 1 or len(scene.farm.queue) + len(scene.farm.verdicts) == 1
            )  # a kill may cost a poll its answer
            assert not await_none_alive()

    assert set(ended) <= {0, 143, -signal.SIGTERM}
    assert -signal.SIGTERM in ended


def test_a_job_that_comes_too_late_goes_back(scene: Scene) -> None:
    """A job that the server gives when the client has been told to stop is put back into the queue."""
    scene.farm.misbehave("GET /queue/poll", Fault(delay=2.0))
    job_id = scene.farm.post(BENIGN)
    scene.start()
    await_calls(scene.farm, "GET /queue/poll")
    scene.signal("TERM")
    ended = scene.await_end(2.0)

    assert ended == 0
    assert scene.farm.taken == [job_id]
    assert scene.posted_again() == [BENIGN["tasks"]]
    assert not scene.farm.running
    assert not scene.farm.verdicts


@pytest.mark.slow
def test_a_hanging_poll_is_waited_for(tmp_path: Path) -> None:
    """A poll may have taken a job: a client that is to stop gives its answer the usual time, and then ends with 0."""
    orders = {"drain": ["TERM"], "cancel": ["QUIT"], "both": ["INT", "TERM"]}
    with contextlib.ExitStack() as stack:
        scenes = {name: Scene(tmp_path / name) for name in orders}
        for name, scene in scenes.items():
            stack.callback(scene.close)
            is_polling(scene)
            scene.signal(*orders[name])
        ended = {name: scene.await_end(CALL_TIMEOUT) for name, scene in scenes.items()}
        logs = "\n".join(line for scene in scenes.values() for line in scene.client.log)

    assert ended == dict.fromkeys(orders, 0)
    assert "Traceback" not in logs


# --- the second, and QUIT: cancel ---


@named(BUSY + DEAF)
@signals("TERM TERM", "INT TERM", "QUIT", "TERM QUIT")
def test_the_second_gives_the_job_back(scene: Scene, state: Callable[[Scene], None], names: list[str]) -> None:
    """The tools are asked to stop, cleanup runs, the jobs go back to the queue and their records go; status 0."""
    state(scene)
    scene.signal(*names)
    ended = scene.await_end()
    waiting = list(scene.jobs.values())
    began = waiting[0].steps.index(waiting[0].at)

    assert ended == 0
    assert sorted(scene.posted_again(), key=json.dumps) == [each.job["tasks"] for each in waiting]
    assert not set(scene.jobs) & set(scene.farm.queue)
    assert not scene.farm.running
    assert not scene.farm.verdicts
    assert scene.spare in scene.farm.queue
    for each in waiting:
        assert each.deaf or each.steps[began + 1] == "tool asked"
        assert (each.steps[-1] == "cleanup") == (each.at == "run")
    assert "Traceback" not in "\n".join(scene.client.log)


def test_cleanup_is_not_called_where_it_is_not_wanted(scene: Scene, tmp_path: Path) -> None:
    """A module that does not ask for it is not cleaned up when its job is stopped."""
    ready, log = tmp_path / "ready", tmp_path / "steps"
    scene.farm.post(job(("hostile", {"step": "run", "act": "quiet", "ready": str(ready), "log": str(log)})))
    scene.start()
    until(ready.exists, "the module to run")
    scene.signal("QUIT")
    ended = scene.await_end()

    assert ended == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["init", "validate", "run"]
    assert len(scene.farm.queue) == 1


def test_a_job_that_is_given_back_is_done(scene: Scene) -> None:
    """A job that one client gave back is run by the next like any other, and has one verdict."""
    in_run(scene)
    scene.farm.delete(scene.spare)
    scene.signal("QUIT")
    scene.await_end()
    (new_id,) = scene.farm.queue
    scene.let_go()
    scene.start()
    verdict = scene.farm.await_verdict(new_id)

    assert not verdict.failed
    assert len(scene.farm.verdicts) == 1


def test_a_job_is_given_back_by_the_next_start(scene: Scene) -> None:
    """A client that cannot give its job back, because the server is gone, ends with 0; the next start gives it back."""
    in_run(scene)
    scene.farm.delete(scene.spare)
    scene.farm.go_down()
    scene.signal("QUIT")
    ended = scene.await_end(FLUSH_TIMEOUT)
    scene.farm.disabled = True
    scene.farm.come_up()
    scene.start()
    until(lambda: scene.farm.queue and not scene.farm.running, "the job to be given back")

    assert ended == 0
    assert scene.posted_again() == [each.job["tasks"] for each in scene.jobs.values()]
    assert not scene.farm.verdicts


# --- the third, and QUIT twice: kill ---

KILLS = ("TERM TERM TERM", "INT INT INT", "QUIT QUIT", "TERM TERM QUIT", "TERM QUIT INT")


@named(BUSY)
@signals(*KILLS)
def test_the_third_kills(scene: Scene, state: Callable[..., None], names: list[str]) -> None:
    """Nothing that does not stop is waited for; the status names the signal; the next start goes on with the jobs."""
    scene.configure(grace="1h")
    state(scene, deaf=True)
    scene.signal(*names)
    ended = scene.await_end()
    alive = await_none_alive()
    starts = scene.starts()
    records = set(scene.farm.running)
    for waiting in scene.jobs.values():
        waiting.ready.unlink()
    scene.start(**scene.settings)
    for waiting in scene.jobs.values():
        waiting.await_waiting()
    scene.let_go()
    verdicts = {scene.farm.await_verdict(job_id).failed for job_id in scene.jobs}

    assert ended == 128 + signal.Signals[f"SIG{names[-1]}"]
    assert not alive
    assert starts == dict.fromkeys(scene.jobs, 0)
    assert records == set(scene.jobs)
    assert verdicts == {False}
    assert scene.farm.taken.count(next(iter(scene.jobs))) == 1


@signals("TERM TERM TERM", "QUIT QUIT")
def test_a_hanging_poll_is_killed(scene: Scene, names: list[str]) -> None:
    """The last signal does not wait for the answer of a poll."""
    is_polling(scene)
    scene.signal(*names)
    ended = scene.await_end()

    assert ended == 128 + signal.Signals[f"SIG{names[-1]}"]


def test_kills_do_not_count(scene: Scene) -> None:
    """A job that was killed on purpose, more often than it may take the client down, is resumed all the same."""
    scene.configure(grace="1h")
    in_run(scene, deaf=True)
    (waiting,) = scene.jobs.values()
    for _ in range(5):
        scene.signal("QUIT", "QUIT")
        assert scene.await_end() == 131
        waiting.ready.unlink()
        scene.start()
        waiting.await_waiting()
    scene.let_go()
    (job_id,) = scene.jobs

    assert not scene.farm.await_verdict(job_id).failed


# --- the verdict cannot be delivered ---


def owes_a_verdict(scene: Scene) -> None:
    """The job in hand has ended while the client drains, and the server does not answer when it is told."""
    in_run(scene)
    scene.farm.misbehave("PATCH /jobs/*", Fault(acts=False, delay=SILENCE.delay))
    scene.signal("TERM")
    scene.let_go()
    await_calls(scene.farm, "PATCH /jobs/*")


ORDERS: dict[str, tuple[list[str], int]] = {
    "drain": ([], 0),
    "cancel": (["TERM"], 0),
    "QUIT": (["QUIT"], 0),
    "kill": (["TERM", "TERM"], 143),
    "pause": (["USR2"], 0),
    "others": (["USR1", "HUP", "USR2", "USR2"], 0),
}


@pytest.mark.slow
def test_a_verdict_is_kept_for_the_next_start(tmp_path: Path) -> None:
    """A client that drains gives a server that hangs a while to take the verdict, unless it is killed; the next start
    delivers it, once."""
    with contextlib.ExitStack() as stack:
        scenes = {name: Scene(tmp_path / name) for name in ORDERS}
        for name, scene in scenes.items():
            stack.callback(scene.close)
            owes_a_verdict(scene)
            scene.signal(*ORDERS[name][0])
        killed = scenes["kill"].await_end()
        ended = {name: scene.await_end(FLUSH_TIMEOUT) for name, scene in scenes.items()}
        told = [verdict for scene in scenes.values() for verdict in scene.farm.verdicts]
        verdicts = []
        for scene in scenes.values():
            scene.farm.behave()
            scene.start()
            (job_id,) = scene.jobs
            verdicts.append(scene.farm.await_verdict(job_id).failed)
        times = [scene.farm.taken.count(job_id) for scene in scenes.values() for job_id in scene.jobs]

    assert killed == 143
    assert ended == {name: expected for name, (_, expected) in ORDERS.items()}
    assert not told
    assert verdicts == [False] * len(ORDERS)
    assert times == [1] * len(ORDERS)


@signals("TERM", "QUIT")
def test_a_server_that_is_down_holds_up_nothing(scene: Scene, names: list[str]) -> None:
    """A client that owes a verdict to a server that is down leaves at once."""
    in_run(scene)
    scene.farm.go_down()
    scene.await_log("cannot be reached")
    scene.let_go()
    scene.await_log("is completed")
    scene.signal(*names)
    ended = scene.await_end()
    scene.farm.come_up()
    scene.start()
    (job_id,) = scene.jobs

    assert ended == 0
    assert not scene.farm.await_verdict(job_id).failed


# --- SHUTDOWN_GRACE ---


@named([in_validate, in_run, in_cleanup, has_two, in_run_and_deaf])
def test_a_drain_becomes_a_cancel(scene: Scene, state: Callable[[Scene], None]) -> None:
    """With SHUTDOWN_GRACE, what is not finished in time is stopped, and the jobs go back to the queue."""
    scene.client.settings["SHUTDOWN_GRACE"] = "1"
    state(scene)
    since = time.monotonic()
    scene.signal("TERM")
    ended = scene.await_end(1)
    seconds = time.monotonic() - since

    assert ended == 0
    assert seconds > 1
    assert sorted(scene.posted_again(), key=json.dumps) == [each.job["tasks"] for each in scene.jobs.values()]
    assert not scene.farm.running
    assert not scene.farm.verdicts


def test_a_drain_that_is_paused_becomes_a_cancel(scene: Scene) -> None:
    """A pause does not take the place of an end: after SHUTDOWN_GRACE the job is stopped, paused or not."""
    scene.client.settings["SHUTDOWN_GRACE"] = "2"
    in_run(scene)
    scene.signal("TERM", "USR2")
    ended = scene.await_end(2)

    assert ended == 0
    assert len(scene.posted_again()) == 1


def test_a_drain_in_time_is_a_drain(scene: Scene) -> None:
    """A job that ends within SHUTDOWN_GRACE has its verdict, and the client does not wait for the rest of it."""
    scene.client.settings["SHUTDOWN_GRACE"] = "3600"
    in_run(scene)
    scene.signal("TERM")
    scene.let_go()
    ended = scene.await_end()

    assert ended == 0
    assert [verdict.failed for verdict in scene.farm.verdicts] == [False]


# --- HUP, USR1, USR2 ---


@named([*IDLE, is_polling, *BUSY, *DEAF])
@signals("HUP", "USR1", "USR2 USR2", "USR1 HUP USR2 USR1 HUP USR2")
def test_the_others_harm_nothing(scene: Scene, state: Callable[[Scene], None], names: list[str]) -> None:
    """Signals that do not stop the client leave it at work: jobs are finished and more of them taken."""
    state(scene)
    scene.signal(*names)
    if "paused" in state.__name__:
        scene.signal("USR2")
    scene.farm.behave()
    if state is is_polling:  # else a poll might be cut short that is just being given a job
        scene.farm.hang_up()
    if state in (is_starting, is_idle_and_alone):
        scene.farm.come_up()
    scene.let_go()
    ids = [*scene.jobs, scene.spare or scene.farm.post(BENIGN)]
    verdicts = {scene.farm.await_verdict(job_id).failed for job_id in ids}

    assert verdicts == {False}
    assert "Traceback" not in "\n".join(scene.client.log)


def test_hup_adds_a_module(scene: Scene) -> None:
    """A module that is added to the configuration is usable in the next job, and one that was removed is not."""
    is_idle(scene)
    before = scene.farm.await_verdict(scene.farm.post(job(("late", {"step": "none"}))))
    text = scene.supervised.config.read_text()
    scene.configure(modules={"late": "tests.hostile.Hostile"})
    scene.supervised.config.write_text(scene.supervised.config.read_text().replace("benign =", "wicked ="))
    scene.signal("HUP")
    after = scene.farm.await_verdict(scene.farm.post(job(("late", {"step": "none"}))))
    removed = scene.farm.await_verdict(scene.farm.post(BENIGN))
    scene.supervised.config.write_text(text)
    scene.signal("HUP")
    again = scene.farm.await_verdict(scene.farm.post(BENIGN))

    assert [verdict.failed for verdict in (before, after, removed, again)] == [True, False, True, False]
    assert "'late' is not enabled" in before.info["message"]
    assert "'benign' is not enabled" in removed.info["message"]


def test_hup_changes_limits_of_the_next_job(scene: Scene) -> None:
    """A changed limit holds for the next job; the one in hand keeps those that it began with."""
    in_run(scene)
    scene.farm.delete(scene.spare)
    scene.configure(run_timeout="500ms")
    scene.signal("HUP")
    await_beats(scene.farm, 5)  # more than the new limit
    scene.let_go()
    (job_id,) = scene.jobs
    first = scene.farm.await_verdict(job_id)
    scene.jobs.clear()
    scene.post("run").ready.unlink()
    (scene.directory / "waiting0.end").unlink()
    second = scene.farm.await_verdict(next(iter(scene.jobs)))

    assert not first.failed
    assert second.info["error"]["reason"] == "timeout"
    assert second.info["error"]["limit"] == "500ms"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[tool.client", "is not TOML"),
        ("[tool.client.limits]\nspam = 1\n", "spam"),
        ('[tool.client.modules.enabled]\nx = "y"\n', "package.module.Class"),
        ("", "has no [tool.client] table"),
        (None, "cannot be read"),
    ],
    ids=["broken", "limit", "module", "empty", "gone"],
)
def test_hup_keeps_what_it_has(scene: Scene, text: str | None, complaint: str) -> None:
    """A configuration that is wrong is one line in the log, and the one before stays."""
    is_idle(scene)
    if text is None:
        scene.supervised.config.unlink()
    else:
        scene.supervised.config.write_text(text)
    before = len(scene.client.log)
    scene.signal("HUP")
    said = scene.client.log[before:]
    verdict = scene.farm.await_verdict(scene.farm.post(BENIGN))

    assert len(said) == 1
    assert "ERROR" in said[0]
    assert complaint in said[0]
    assert str(scene.supervised.config) in said[0]
    assert not verdict.failed


def test_hup_at_the_start_counts(scene: Scene) -> None:
    """A configuration that is read again before the client is up is the one that it has then."""
    scene.start()
    await_handled(scene, signal.SIGHUP)
    scene.configure(modules={"late": "tests.hostile.Hostile"})
    scene.signal("HUP")

    assert not scene.farm.await_verdict(scene.farm.post(job(("late", {"step": "none"})))).failed


def await_handled(scene: Scene, number: signal.Signals) -> None:
    """Wait until the client does with a signal what it is to do, and not what the system does."""
    file = Path(f"/proc/{scene.client.process.pid}/status")
    caught = re.compile(r"SigCgt:\t(\w+)")
    until(lambda: int(caught.search(file.read_text())[1], 16) >> (number - 1) & 1, f"{number.name} to be handled")


def snapshot(scene: Scene) -> str:
    """What USR1 makes the client say."""
    before = len(scene.client.log)
    scene.client.process.send_signal(signal.SIGUSR1)
    slots = int(scene.settings.get("WORKER_SLOTS", "1"))

    def said() -> list[str]:
        return [line for line in scene.client.log[before:] if "Snapshot: " in line]

    workers = until(lambda: len({line.split()[5] for line in said() if "worker " in line}) == slots and said(), "it")
    tools = slots * bool(scene.jobs)
    return "\n".join(until(lambda: sum("(sh)" in line for line in said()) >= tools and said(), "the tools") or workers)


def test_usr1_tells_of_a_job(scene: Scene) -> None:
    """The snapshot has each slot, its job, task, step and progress, every process of it, memory, and the outbox."""
    has_two(scene)
    said = until(lambda: (said := snapshot(scene)).count("MB of memory") == 2 and said, "the trees to be measured")
    (zygote,) = psutil.Process(scene.client.process.pid).children()

    assert "0 messages in the outbox" in said
    assert f"zygote {zygote.pid}" in said
    for job_id in scene.jobs:
        assert f"job {job_id} 'test', task 0:waiter, step run, 43.1 %" in said
    for task in zygote.children():
        (tool, *_) = task.children()
        assert f"process {task.pid} " in said
        assert f"process {tool.pid} (sh)" in said


def test_usr1_tells_of_no_job(scene: Scene) -> None:
    """The snapshot of a client that has nothing to do says so."""
    is_idle(scene)

    assert "no job" in snapshot(scene)


def test_usr1_tells_of_a_pause_and_the_outbox(scene: Scene) -> None:
    """The snapshot says that the client is paused, and how much the server is owed."""
    scene.farm.misbehave("PATCH /jobs/*", status(503))
    scene.farm.post(BENIGN)
    is_idle(scene)
    await_calls(scene.farm, "PATCH /jobs/*")
    scene.signal("USR2")
    said = snapshot(scene)

    assert "paused" in said
    assert "1 messages in the outbox" in said


def test_usr2_pauses_and_resumes(scene: Scene) -> None:
    """Every process of all jobs is stopped, heartbeats say so and go on, and at the next all go on."""
    has_two(scene)
    (zygote,) = psutil.Process(scene.client.process.pid).children()
    scene.signal("USR2")
    until(lambda: all(map(is_stopped, zygote.children(recursive=True))), "all of the jobs to be stopped")
    scene.let_go()
    beats = await_beats(scene.farm, 8, lambda beat: beat.get("info", {}).get("paused"))
    told = list(scene.farm.verdicts)
    scene.signal("USR2")
    verdicts = {scene.farm.await_verdict(job_id).failed for job_id in scene.jobs}

    assert not told
    assert {beat["job_id"] for beat in beats} == set(scene.jobs)
    assert verdicts == {False}


def is_stopped(process: psutil.Process) -> bool:
    """Whether a process is stopped, or its cgroup frozen: it then seems to sleep.

    One in vfork(2), as a shell is for an instant, sleeps uninterruptibly for as long as its child is stopped.
    """
    state = linux.state(process.pid)
    if state in "TtZX" or (state == "D" and "T" in map(linux.state, linux.children(process.pid))):
        return True
    own = Path(f"/proc/{process.pid}/cgroup").read_text()
    paths = [line[3:] for line in own.splitlines() if line.startswith("0::")]
    events = [Path(f"{mount}{path}/cgroup.events") for mount in CGROUP_MOUNTS for path in paths]
    return any("frozen 1" in file.read_text() for file in events if file.exists())


CGROUP_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


# --- one on top of the other ---


def test_a_pause_while_draining(scene: Scene) -> None:
    """A client that drains can be paused and resumed; it ends when its job has ended."""
    in_run(scene)
    scene.signal("TERM", "USR2")
    await_beats(scene.farm, 2, lambda beat: beat.get("info", {}).get("paused"))
    scene.let_go()
    await_beats(scene.farm, 4)
    alive = not scene.has_ended()
    scene.signal("USR2")
    ended = scene.await_end()

    assert alive
    assert ended == 0
    assert [verdict.failed for verdict in scene.farm.verdicts] == [False]


@signals("TERM USR2 TERM", "TERM USR2 QUIT", "USR2 QUIT", "TERM HUP USR2 INT")
def test_a_paused_job_is_stopped(scene: Scene, names: list[str]) -> None:
    """A second signal that finds the client paused while it drains gives the job back."""
    in_run(scene)
    scene.signal(*names)
    ended = scene.await_end()

    assert ended == 0
    assert len(scene.posted_again()) == 1
    assert not scene.farm.running


@signals("TERM TERM USR2 TERM", "QUIT USR2 QUIT", "QUIT HUP USR1 USR2 QUIT")
def test_what_is_being_stopped_cannot_be_paused(scene: Scene, names: list[str]) -> None:
    """A pause that comes while the job is being stopped does not keep the client from its end."""
    scene.configure(grace="1h")
    in_run(scene, deaf=True)
    scene.signal(*names)
    ended = scene.await_end()

    assert ended == 128 + signal.Signals[f"SIG{names[-1]}"]


def test_a_pause_does_not_outlast_the_grace(scene: Scene) -> None:
    """A job that is being stopped and will not is killed after its grace, whatever was said of a pause meanwhile."""
    scene.configure(grace="2s")
    in_run(scene, deaf=True)
    scene.signal("QUIT", "USR2")
    beats = await_beats(scene.farm, 1)
    ended = scene.await_end(2.0)

    assert ended == 0
    assert "paused" not in beats[0].get("info", {})
    assert len(scene.posted_again()) == 1


# --- with an API server of its own ---


@pytest.mark.parametrize(("names", "expected"), [(["TERM"], 0), (["QUIT"], 0), (["QUIT", "QUIT"], 131)])
def test_standalone(scene: Scene, names: list[str], expected: int) -> None:
    """With the server in the same process it is the same: what the client owes, its own server takes before the end."""
    deaf = len(names) == 2
    scene.configure(**({"grace": "1h"} if deaf else {}))
    waiting = Waiting(scene.directory, "run", deaf)
    scene.client._command += ["--standalone", "--port", "0"]
    scene.start()
    (line,) = scene.await_log("Serving http")
    submitted = subprocess.run(
        [CLIENT, "submit", str(scene.supervised.write_job(waiting.job))],
        env=os.environ | {"API_URL": line.split()[4]},
        capture_output=True,
        text=True,
        check=True,
    )
    job_id = submitted.stdout.strip()
    waiting.await_waiting()
    scene.signal(*names)
    if names == ["TERM"]:
        waiting.let_go()
    ended = scene.await_end(FLUSH_TIMEOUT)
    with contextlib.closing(sqlite3.connect(scene.directory / "state" / "server.sqlite3")) as database:
        completed = [row[0] for row in database.execute("SELECT job_id FROM verdicts")]
        queued = [row[0] for row in database.execute("SELECT job_id FROM jobs WHERE position IS NOT NULL")]
        running = [row[0] for row in database.execute("SELECT job_id FROM jobs WHERE position IS NULL")]

    assert ended == expected
    assert completed == ([job_id] if names == ["TERM"] else [])
    assert running == ([job_id] if deaf else [])
    assert len(queued) == (names == ["QUIT"])
    assert job_id not in queued


# --- killed in the middle of giving a job back ---

CUTS = {
    "posting": ("POST /queue", SILENCE),
    "posting, answer lost": ("POST /queue", LOST),
    "posting, in vain": ("POST /queue", Fault(acts=False, delay=SILENCE.delay)),
    "deleting": ("DELETE /jobs/*", SILENCE),
    "deleting, answer lost": ("DELETE /jobs/*", LOST),
    "deleting, in vain": ("DELETE /jobs/*", Fault(acts=False, delay=SILENCE.delay)),
}


@pytest.mark.parametrize(("route", "fault"), CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("disabled", [True, False], ids=["queue disabled", "at work"])
def test_a_kill_while_a_job_is_given_back(scene: Scene, route: str, fault: Fault, disabled: bool) -> None:
    """A client that is killed while it gives a job back does the rest at its next start: the job is in the queue once,
    or done once, and its old record is gone."""
    in_run(scene)
    scene.farm.delete(scene.spare)
    scene.farm.misbehave(route, fault)
    scene.signal("QUIT")
    await_calls(scene.farm, route)
    scene.client.kill()
    (old_id,) = scene.jobs
    scene.farm.disabled = disabled
    scene.farm.behave()
    scene.let_go()
    scene.start()
    until(lambda: len(scene.farm.queue) == 1 if disabled else scene.farm.verdicts, "the job to be in its place")
    until(lambda: old_id not in scene.farm.running, "the old record to go")
    given_back = scene.posted_again()
    client_idle = await_idle(scene.farm)

    assert given_back == ([each.job["tasks"] for each in scene.jobs.values()] if disabled else [])
    assert not scene.farm.running
    assert len(scene.farm.verdicts) == (not disabled)
    assert old_id not in {verdict.job_id for verdict in scene.farm.verdicts}
    assert len(scene.farm.queue) == disabled
    assert client_idle


def test_a_job_that_was_given_back_and_taken_again_is_done_once(scene: Scene) -> None:
    """A client that does not know whether it gave a job back, and takes that very job, does not post it once more."""
    in_run(scene)
    scene.farm.delete(scene.spare)
    scene.farm.misbehave("POST /queue", SILENCE, 1)
    scene.signal("QUIT")
    await_calls(scene.farm, "POST /queue")
    scene.client.kill()
    scene.let_go()
    scene.farm.misbehave("GET /queue", status(500), 1)
    scene.start(NETWORK_RETRY_INTERVAL="2")
    await_idle(scene.farm)
    (old_id,) = scene.jobs
    until(lambda: old_id not in scene.farm.running, "the old record to go")
    until(lambda: not scene.farm.queue and not scene.farm.running, "all to be done")

    assert len(scene.farm.verdicts) == 1


# --- `run`, which has no queue ---


@signals("TERM TERM", "INT TERM", "TERM INT", "HUP HUP", "QUIT QUIT", "HUP TERM")
def test_run_is_cancelled_by_the_first_and_killed_by_the_second(
    supervised: Supervised, tmp_path: Path, names: list[str]
) -> None:
    """The second signal to `run`, whichever it is, waits for nothing; the status names the first."""
    supervised.configure({"grace": "1h"})
    ready = tmp_path / "ready"
    client = supervised.start(job(("stubborn", {"step": "run", "act": "ignore_everything", "ready": str(ready)})))
    until(ready.exists, "the module to run")
    first, second = (signal.Signals[f"SIG{name}"] for name in names)
    client.send_signal(first)
    until(lambda: "again to kill it" in (client.stderr.readline() if client.stderr else ""), "the first to be taken")
    client.send_signal(second)
    client.communicate(timeout=LEEWAY)

    assert client.returncode == 128 + first
