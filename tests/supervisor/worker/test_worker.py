"""The worker as a whole: its settings, its slots, its state directory."""

import time
from pathlib import Path

from tests.support.client import SETTINGS, WORKER, Client, Held, await_beats, await_calls, await_verdicts
from tests.support.farm import Farm
from tests.support.supervised import BENIGN
from tests.support.waiting import until


def test_settings_may_be_empty(farm: Farm, client: Client) -> None:
    """Settings that are present but empty count as absent."""
    empty = dict.fromkeys(SETTINGS | {"CANCEL_DELETED_JOBS", "LOGURU_LEVEL", "SISYPHUS_CONFIG"}, "")
    job_id = farm.post(BENIGN)
    client.start(**empty | {"API_URL": farm.url})
    verdict = farm.await_verdict(job_id)

    assert not verdict.failed
    assert not any("Authorization" in request.headers for request in farm.requests)


def test_slots_run_jobs_side_by_side(farm: Farm, client: Client, tmp_path: Path) -> None:
    """With three slots there are three workers, each with a job of its own, that stay the same over a restart."""
    jobs = [Held(tmp_path, f"job{number}") for number in range(3)]
    ids = [farm.post(each.job) for each in jobs]
    client.start(WORKER_SLOTS="3")
    for each in jobs:
        each.await_running()
    since = time.monotonic()
    await_beats(farm, 12)
    workers = {request.path.rpartition("/")[2] for request in farm.calls("POST /workers/*")}
    shown = {worker: {beat.get("job_id") for beat in farm.beats(worker, since)} for worker in workers}
    for each in jobs:
        each.let_go()
    verdicts = await_verdicts(farm, 3)
    client.stop()
    since = time.monotonic()
    client.start(WORKER_SLOTS="3")
    again = until(
        lambda: (
            len(found := {call.path.rpartition("/")[2] for call in farm.calls("POST /workers/*", since)}) == 3 and found
        ),
        "three workers",
    )

    assert WORKER in workers
    assert len(workers) == 3
    assert not any(":" in worker for worker in workers)
    assert sorted(map(list, shown.values())) == sorted([job_id] for job_id in ids)
    assert {verdict.info["worker_id"] for verdict in verdicts} == workers
    assert again == workers


def test_a_worker_that_is_disabled_leaves_the_others_at_work(farm: Farm, client: Client) -> None:
    """Each slot has a flag of its own."""
    client.start(WORKER_SLOTS="2")
    workers = until(
        lambda: len(found := {call.path.rpartition("/")[2] for call in farm.calls("GET /workers/*")}) == 2 and found,
        "two workers",
    )
    changed = farm.operate("PATCH", f"/workers/{WORKER}", {"disabled": True})
    await_calls(farm, f"GET /workers/{WORKER}", 2, time.monotonic())
    ids = [farm.post(BENIGN) for _ in range(4)]
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    assert changed == 200
    assert {verdict.info["worker_id"] for verdict in verdicts} == workers - {WORKER}
