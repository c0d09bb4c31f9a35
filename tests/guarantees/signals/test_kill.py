"""The third signal, and SIGQUIT twice: kill."""

import signal
from collections.abc import Callable

from tests.guarantees.signals.scene import BUSY, Scene, is_polling, named_with_signals, signals
from tests.support.processes import await_none_alive


@named_with_signals(BUSY, "TERM TERM TERM", "INT INT INT", "QUIT QUIT", "TERM TERM QUIT", "TERM QUIT INT")
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
        waiting.await_running()
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
