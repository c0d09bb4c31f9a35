"""SHUTDOWN_GRACE: a drain becomes a cancel."""

import json
import time
from collections.abc import Callable

import pytest

from tests.guarantees.signals.scene import Scene, has_two, in_cleanup, in_run, in_run_and_deaf, in_validate, named


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


@pytest.mark.slow
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
