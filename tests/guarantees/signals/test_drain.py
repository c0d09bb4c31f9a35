"""The first SIGTERM or SIGINT: drain."""

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.api.transport import CALL_TIMEOUT
from tests.guarantees.signals.scene import BUSY, DEAF, IDLE, Scene, is_idle, is_polling, named_with_signals, signals
from tests.support.client import await_beats, await_calls, await_idle
from tests.support.farm import Fault
from tests.support.processes import await_none_alive
from tests.support.supervised import BENIGN
from tests.support.waiting import until


@named_with_signals(IDLE, "TERM", "INT", "QUIT")
def test_an_idle_client_leaves_at_once(scene: Scene, state: Callable[[Scene], None], names: list[str]) -> None:
    """What has nothing in hand ends with 0 at the first signal, the server there or not."""
    state(scene)
    scene.signal(*names)
    ended = scene.await_end()

    assert ended == 0
    assert not scene.farm.taken
    assert "Traceback" not in "\n".join(scene.client.log)


@signals("TERM", "INT", "QUIT")
def test_a_burst_of_signals_is_no_harm(scene: Scene, names: list[str]) -> None:
    """Three at once, of which some may arrive as one: an idle client ends as it does at one of them or at all."""
    number = signal.Signals[f"SIG{names[0]}"]
    is_idle(scene)
    for _ in range(3):
        scene.client.process.send_signal(number)
    ended = scene.await_end()

    assert ended in (0, 128 + number, -number)
    assert "Traceback" not in "\n".join(scene.client.log)


@named_with_signals(BUSY + DEAF, "TERM", "INT")
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


@pytest.mark.slow
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


@pytest.mark.slow
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
