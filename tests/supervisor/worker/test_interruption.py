"""Jobs that are interrupted: resumed, given back, failed or cancelled."""

import json
from pathlib import Path

import pytest

from tests.support.client import Client, Held, await_beats, await_calls, await_verdicts, tasks_of
from tests.support.farm import LOST, Farm, Fault, status
from tests.support.media import encode, make_clip
from tests.support.supervised import BENIGN, Supervised, job
from tests.support.waiting import until


def test_results_outlast_an_interruption(farm: Farm, client: Client, supervised: Supervised, tmp_path: Path) -> None:
    """What earlier tasks told before the client was killed is known to later ones, and on the record."""
    told, seen = {"ssim": 0.98}, tmp_path / "seen"
    modules = {"reporter": "tests.support.modules.Reporter", "teller": "tests.support.modules.Teller"}
    supervised.configure(modules=modules)
    held = Held(tmp_path)
    held.job["tasks"].insert(0, {"module": "teller", "data": {"results": told}})
    held.job["tasks"].append({"module": "teller", "data": {"seen": str(seen), "skip": "as it is"}})
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    client.kill()
    held.let_go()
    client.start()
    verdict = farm.await_verdict(job_id)

    assert json.loads(seen.read_text())[2] == [["teller", "completed", "", told], ["reporter", "completed", "", {}]]
    first, _, last = verdict.info["tasks"]
    assert (first["results"], last["result"], last["reason"]) == (told, "skipped", "as it is")
    assert not verdict.failed


@pytest.mark.slow
@pytest.mark.parametrize("on_restart", ["resume", "requeue", "fail"])
def test_nothing_is_left_of_an_interrupted_task(
    farm: Farm, client: Client, supervised: Supervised, tmp_path: Path, on_restart: str
) -> None:
    """Whatever becomes of a job after the client was killed, its task's temporary file is gone.

    With ON_RESTART=fail it has failed, and its record says how.
    """
    clip = make_clip(tmp_path / "clip.mkv")
    out = tmp_path / "out"
    out.mkdir()
    reading = {"re": True, "stream_loop": -1, "t": "600"}
    job_id = farm.post(job(encode(clip, out / "film.ts", reading, codec="mpeg2video")))
    client.start()
    until(lambda: [file for file in out.iterdir() if file.stat().st_size], "the encode to be under way")
    farm.disabled = True
    client.kill()
    left = [file.name for file in out.iterdir()]
    if on_restart == "resume":  # but it is another worker's by now
        farm.running.pop(job_id)
    client.start(ON_RESTART=on_restart)
    until(lambda: not list(out.iterdir()), "what is left to be removed")

    if on_restart == "fail":
        assert farm.await_verdict(job_id).info["error"]["reason"] == "lost"
    assert client.stop() == 0
    assert len(left) == 1
    assert list(out.iterdir()) == []


BAD_RETURNS = {
    "sound": ("POST /queue", Fault(), 0),
    "500": ("POST /queue", status(500), 2),
    "post lost": ("POST /queue", LOST, 1),
    "no delete": ("DELETE /jobs/*", status(500), 2),
    "delete lost": ("DELETE /jobs/*", LOST, 1),
}


@pytest.mark.parametrize(("route", "fault", "times"), BAD_RETURNS.values(), ids=BAD_RETURNS)
def test_an_interrupted_job_is_given_back_where_that_is_wanted(
    farm: Farm, client: Client, held: Held, route: str, fault: Fault, times: int
) -> None:
    """With ON_RESTART=requeue, such a job is posted again once, as it was, and then its old record is deleted."""
    farm.misbehave(route, fault, times)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    farm.disabled = True
    client.kill()
    client.start(ON_RESTART="requeue")
    until(lambda: farm.calls(f"DELETE /jobs/{job_id}") and not farm.running, "the old record to be deleted", 60)
    posts, deletes = farm.calls("POST /queue"), farm.calls(f"DELETE /jobs/{job_id}")
    queued = list(farm.queue.values())
    held.let_go()
    farm.disabled = False
    await_verdicts(farm, 1)

    assert [tasks_of(again) for again in queued] == [tasks_of(held.job)]
    assert queued[0]["job_title"] == held.job["job_title"]
    assert posts[-1].time < deletes[0].time
    assert [verdict.job_id for verdict in farm.verdicts] == [queued[0]["job_id"]]


def test_a_deleted_job_is_cancelled_where_that_is_wanted(farm: Farm, client: Client, held: Held) -> None:
    """With CANCEL_DELETED_JOBS=1, a job that the server has deleted is stopped; one that it cannot show is not."""
    farm.misbehave("GET /jobs/*", status(500), 3)
    job_id = farm.post(held.job)
    client.start(CANCEL_DELETED_JOBS="1")
    held.await_running()
    await_calls(farm, f"GET /jobs/{job_id}", 5)
    still = farm.beats()[-1].get("job_id")
    farm.delete(job_id)
    after = farm.await_verdict(farm.post(BENIGN))

    assert still == job_id
    assert not after.failed
    assert farm.verdicts == [after]


def test_a_deleted_job_runs_on_otherwise(farm: Farm, client: Client, held: Held) -> None:
    """Without that setting it runs to its end; that its verdict is not wanted any more holds up nothing."""
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    farm.delete(job_id)
    beats = await_beats(farm, 4)
    held.let_go()
    after = farm.await_verdict(farm.post(BENIGN))

    assert all(beat["job_id"] == job_id for beat in beats)
    assert farm.verdicts == [after]
