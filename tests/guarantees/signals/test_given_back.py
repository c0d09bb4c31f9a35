"""A client that is killed in the middle of giving a job back."""

import pytest

from tests.guarantees.signals.scene import Scene, in_run, rest_is_slow
from tests.support.client import await_calls, await_idle
from tests.support.farm import LOST, SILENCE, Fault, status
from tests.support.waiting import until

CUTS = {
    "posting": ("POST /queue", SILENCE),
    "posting, answer lost": ("POST /queue", LOST),
    "posting, in vain": ("POST /queue", Fault(acts=False, delay=SILENCE.delay)),
    "deleting": ("DELETE /jobs/*", SILENCE),
    "deleting, answer lost": ("DELETE /jobs/*", LOST),
    "deleting, in vain": ("DELETE /jobs/*", Fault(acts=False, delay=SILENCE.delay)),
}


@pytest.mark.parametrize(
    ("route", "fault", "disabled"),
    rest_is_slow(
        {name: (*cut, True) for name, cut in CUTS.items()}
        | {f"{name}, at work": (*CUTS[name], False) for name in ("posting", "deleting")}
    ),
)
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


@pytest.mark.slow
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
