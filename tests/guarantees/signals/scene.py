"""The states of a client in which signals reach it.

Real signals to the real process. The bounds are those that the client gives itself, and `LEEWAY` for a busy machine.
"""

import contextlib
import re
import signal
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from ipc import linux
from supervisor.worker.outbox import MARK
from tests.support.client import Client, Held, await_beats, await_calls, await_idle
from tests.support.farm import SILENCE, Farm
from tests.support.supervised import BENIGN, Supervised, job
from tests.support.waiting import until

LEEWAY = 10.0
"""Seconds that a busy machine may take for what takes milliseconds."""

QUICKER = {"HEARTBEAT_INTERVAL": "0.1", "QUEUE_POLL_INTERVAL": "0.1"}


class Waiting(Held):
    """A job that waits in one of its steps until it is let go."""

    def __init__(self, directory: Path, at: str, deaf: bool = False, name: str = "waiting") -> None:
        super().__init__(directory, name)
        self.at, self.deaf, self._log = at, deaf, directory / f"{name}.log"
        data = {"at": at, "deaf": deaf, "ready": str(self.ready), "until": str(self.end), "log": str(self._log)}
        self.job = job(("waiter", data))

    @property
    def steps(self) -> list[str]:
        """What it has done."""
        return self._log.read_text().splitlines()


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
        self.configure()
        self.client = Client(self.farm, self.supervised)
        self.client.settings |= {"SISYPHUS_STATE_DIR": str(directory / "state"), **QUICKER}
        self.settings: dict[str, str] = {}
        self.jobs: dict[str, Waiting] = {}
        self.spare = ""

    def configure(self, modules: dict[str, str] | None = None, **limits: Any) -> None:
        self.supervised.configure(limits, {"waiter": "tests.support.modules.Waiter"} | (modules or {}))

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
            waiting.await_running()
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
    "USR2": re.compile("Paused|Resumed|not paused"),
}
"""What a signal makes the client say."""


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
    """A parameter of a test: one of these states. All but a client that is idle or runs a job are `slow`."""
    quick = (is_idle, in_run)
    marks = {state: () if state in quick else pytest.mark.slow for state in states}
    return pytest.mark.parametrize(
        "state", [pytest.param(state, id=state.__name__, marks=marks[state]) for state in states]
    )


def named_with_signals(states: list[Callable[..., None]], *names: str) -> Any:
    """Two parameters of a test: each state with the first of these signals, and one state with each of the others.

    What signals ask for does not depend on the state (`Worker._on_signal`); what is done then does.
    """
    quick = next(state for state in states if state in (is_idle, in_run))
    pairs = [*((state, names[0]) for state in states), *((quick, name) for name in names[1:])]
    cases = {f"{state.__name__}-{name}": (state, name.split()) for state, name in pairs}
    first = f"{quick.__name__}-{names[0]}"
    return pytest.mark.parametrize(("state", "names"), rest_is_slow({first: cases[first]} | cases))


def signals(*names: str) -> Any:
    """A parameter of a test: signals that are sent, one after the other. All but the first are `slow`."""
    return pytest.mark.parametrize("names", rest_is_slow({name: (name.split(),) for name in names}))


def rest_is_slow(cases: Mapping[str, tuple[Any, ...]]) -> list[Any]:
    """Parameters of a test, by their ids: the first represents the others, which are `slow`."""
    first = next(iter(cases))
    return [
        pytest.param(*case, id=name, marks=() if name == first else pytest.mark.slow) for name, case in cases.items()
    ]


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
