"""One signal on top of the other."""

import signal

import pytest

from tests.guarantees.signals.scene import Scene, in_run, signals
from tests.support.client import await_beats


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


@pytest.mark.slow
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
