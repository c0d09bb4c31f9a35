"""The second signal, and SIGQUIT: cancel."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.worker.worker import FLUSH_TIMEOUT
from tests.guarantees.signals.scene import BUSY, DEAF, Scene, in_run, named_with_signals
from tests.support.supervised import job
from tests.support.waiting import until


@named_with_signals(BUSY + DEAF, "TERM TERM", "INT TERM", "QUIT", "TERM QUIT")
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


@pytest.mark.slow
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
