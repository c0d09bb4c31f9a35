"""Jobs that are resumed, and those that take the client down.

The server is the farm of the other tests: it can be held in a state that the real one passes in a millisecond.
"""

import signal
from pathlib import Path

import pytest

from tests.guarantees.nothing_lost.scene import CRASHED_THRICE, Noted, configure, interrupt
from tests.support.client import Client, await_beats
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, Supervised, job
from tests.support.waiting import until

# --- resuming ---


@pytest.mark.parametrize("at", ["init", "validate", "run", "cleanup"])
def test_a_resumed_job_begins_at_the_first_task_that_is_not_done(
    farm: Farm, client: Client, tmp_path: Path, at: str
) -> None:
    """All tasks are initialised and validated again; those that are completed, with their cleanup, are not run again;
    the interrupted one, and no other, is told that it is resumed, if anything of it was done."""
    noted = Noted(tmp_path, at=at)
    job_id = interrupt(farm, client, noted)
    before = noted.take()
    noted.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)

    prepared = [f"{name} {step}" for step in ("init", "validate") for name in "abc"]
    done = ["a run", "a cleanup", "b run"]
    is_resumed = at in ("run", "cleanup")
    again = [*prepared, *done[2 if is_resumed else 0 :], "b cleanup", "c run", "c cleanup"]
    assert not is_resumed or before == prepared + done + ["b cleanup"] * (at == "cleanup")
    assert noted.take() == [f"{line} resumed" if is_resumed and line[0] == "b" else line for line in again]
    assert not verdict.failed
    assert [task["result"] for task in verdict.info["tasks"]] == ["completed"] * 3
    assert farm.taken == [job_id]


def test_a_resumed_job_may_be_interrupted_again(farm: Farm, client: Client, tmp_path: Path) -> None:
    """What was completed before two kills stays completed, and the record tells of the whole."""
    noted = Noted(tmp_path)
    job_id = farm.post(noted.job)
    for _ in range(2):
        client.start()
        noted.await_running()
        client.kill()
        noted.ready.unlink()
    noted.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)
    runs = [line for line in noted.take() if " run" in line]

    assert runs == ["a run", "b run", "b run resumed", "b run resumed", "c run"]
    assert not verdict.failed
    assert verdict.info["start_time"] < verdict.info["end_time"]
    assert [task["module"] for task in verdict.info["tasks"]] == ["noter"] * 3


def test_a_job_that_has_failed_stays_failed(farm: Farm, client: Client, tmp_path: Path) -> None:
    """A kill in a task that runs after a failure: only such tasks are run, the failure is the first one, and what had
    its result before keeps it."""
    noted = Noted(tmp_path)
    a, b, c = noted.job["tasks"]
    noted.job["tasks"] = [
        {"module": "hostile", "data": {"step": "run", "act": "own_error"}},
        a,
        {"module": "hostile", "data": {"step": "run", "act": "own_error"}, "when": "always"},
        b | {"when": "always"},
        c | {"when": "failure"},
        a,
    ]
    job_id = interrupt(farm, client, noted)
    noted.take()
    noted.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)
    after = noted.take()

    assert [line for line in after if line[0] == "b"] == [
        f"b {step} resumed" for step in ("init", "validate", "run", "cleanup")
    ]
    assert [line for line in after if line[0] == "c"] == [
        f"c {step}" for step in ("init", "validate", "run", "cleanup")
    ]
    assert len(after) == 8
    assert verdict.failed
    assert verdict.info["error"]["task"] == 0
    assert verdict.info["message"] == "Failed to run task: Could not build additional pylons."
    results = "failed, not run, failed, completed, completed, not run"
    assert ", ".join(task["result"] for task in verdict.info["tasks"]) == results


# --- a job that takes the client down ---


@pytest.mark.parametrize("step", ["init", "validate", "run", "cleanup"])
def test_a_job_that_takes_the_client_down_is_failed(farm: Farm, client: Client, tmp_path: Path, step: str) -> None:
    """After three times the job is failed, its record says why, and the next job is done."""
    log, ready = tmp_path / "steps", tmp_path / "ready"
    first = ("noter", {"name": "a", "log": str(log)})
    held = {"name": "b", "log": str(log), "at": step, "ready": str(ready), "until": str(tmp_path / "never")}
    job_id = farm.post(job(first, ("noter", held)))
    next_id = farm.post(BENIGN)
    for _ in range(3):
        client.start()
        until(ready.exists, "the module to be in its step")
        client.kill()
        ready.unlink()
    client.start()
    verdict = farm.await_verdict(job_id)
    after = farm.await_verdict(next_id)
    times = log.read_text().splitlines().count(f"b {step}") + log.read_text().splitlines().count(f"b {step} resumed")

    assert times == 3
    assert verdict.failed
    assert CRASHED_THRICE in verdict.info["message"]
    assert verdict.info["error"]["reason"] == "lost"
    assert verdict.info["error"]["step"] == "run"
    assert [task["module"] for task in verdict.info["tasks"]] == ["noter"] * (step in ("run", "cleanup"))
    assert not after.failed


def test_stops_in_between_do_not_count(farm: Farm, client: Client, supervised: Supervised, tmp_path: Path) -> None:
    """Of the starts that end without a verdict, those that the operator ended are not held against the job."""
    configure(supervised, grace="1h")
    noted = Noted(tmp_path, deaf=True)
    job_id = farm.post(noted.job)
    quits = ["SIGQUIT: stopping", "SIGQUIT: killing"]
    for orders in ([], quits, quits, ["SIGTERM: "], [], ["SIGTERM: "], quits, quits):
        client.start()
        noted.await_running()
        for words in orders:
            since = len(client.log)
            client.process.send_signal(signal.Signals[words.partition(":")[0]])
            until(lambda since=since, words=words: words in "\n".join(client.log[since:]), words)
        if orders and orders != quits:
            await_beats(farm, 2)  # by then, the order is written down
        if orders != quits:  # as `systemctl stop` does when its patience ends
            client.kill()
        client.process.wait(60)
        noted.ready.unlink()
    noted.let_go()
    client.start()

    assert not farm.await_verdict(job_id).failed
