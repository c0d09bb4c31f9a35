"""A signal while the verdict cannot be delivered."""

import contextlib
from pathlib import Path

import pytest

from supervisor.worker.worker import FLUSH_TIMEOUT
from tests.guarantees.signals.scene import Scene, in_run, signals
from tests.support.client import await_calls
from tests.support.farm import SILENCE, Fault


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
