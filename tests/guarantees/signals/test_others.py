"""SIGHUP, SIGUSR1 and SIGUSR2."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.guarantees.signals.scene import (
    BUSY,
    DEAF,
    IDLE,
    Scene,
    await_handled,
    has_two,
    in_run,
    is_idle,
    is_idle_and_alone,
    is_polling,
    is_starting,
    is_stopped,
    named,
    snapshot,
)
from tests.support.client import await_beats, await_calls
from tests.support.farm import status
from tests.support.supervised import BENIGN, job
from tests.support.waiting import until


@named([*IDLE, is_polling, *BUSY, *DEAF])
def test_the_others_harm_nothing(scene: Scene, state: Callable[[Scene], None]) -> None:
    """Signals that do not stop the client leave it at work: jobs are finished and more of them taken."""
    state(scene)
    scene.signal("USR1", "HUP", "USR2", "USR1", "HUP", "USR2")
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


WRONG: dict[str, tuple[str | None, str]] = {
    "broken": ("[tool.client", "is not TOML"),
    "limit": ("[tool.client.limits]\nspam = 1\n", "spam"),
    "module": ('[tool.client.modules.enabled]\nx = "y"\n', "package.module.Class"),
    "empty": ("", "has no [tool.client] table"),
    "gone": (None, "cannot be read"),
    "pipe": ("", "is no regular file"),
}


def test_hup_keeps_what_it_has(scene: Scene) -> None:
    """A configuration that is wrong is one line in the log, and the one before stays."""
    is_idle(scene)
    config = scene.supervised.config
    for text, complaint in WRONG.values():
        config.unlink(missing_ok=True)
        if "regular" in complaint:
            os.mkfifo(config)  # reading it would wait for ever
        elif text is not None:
            config.write_text(text)
        before = len(scene.client.log)
        scene.signal("HUP")
        (said,) = scene.client.log[before:]

        assert "ERROR" in said
        assert complaint in said
        assert str(config) in said
    assert not scene.farm.await_verdict(scene.farm.post(BENIGN)).failed


@pytest.mark.slow
def test_hup_at_the_start_counts(scene: Scene) -> None:
    """A configuration that is read again before the client is up is the one that it has then."""
    scene.start()
    await_handled(scene, signal.SIGHUP)
    scene.configure(modules={"late": "tests.hostile.Hostile"})
    scene.signal("HUP")

    assert not scene.farm.await_verdict(scene.farm.post(job(("late", {"step": "none"})))).failed


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


@pytest.mark.slow
def test_usr1_tells_of_a_pause_and_the_outbox(scene: Scene) -> None:
    """The snapshot says that the client is paused and has no job, and how much the server is owed."""
    scene.farm.misbehave("PATCH /jobs/*", status(503))
    scene.farm.post(BENIGN)
    is_idle(scene)
    await_calls(scene.farm, "PATCH /jobs/*")
    scene.signal("USR2")
    said = snapshot(scene)

    assert "paused" in said
    assert "no job" in said
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
