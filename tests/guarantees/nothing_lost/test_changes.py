"""No job is lost when the client or the server has changed between two starts, or when a job is not like others."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.guarantees.nothing_lost.scene import Noted, interrupt
from tests.support.client import Client, await_beats, await_calls, await_idle
from tests.support.farm import Farm, Fault
from tests.support.supervised import BENIGN
from tests.support.waiting import until


@pytest.mark.parametrize("change", [{"WORKER_SLOTS": "1"}, {"WORKER_SLOTS": "1", "HOST_UUID": "another"}])
def test_no_job_is_lost_when_settings_change(
    farm: Farm, client: Client, tmp_path: Path, change: dict[str, str]
) -> None:
    """The jobs of a client that was killed are its own at the next start, with fewer slots and another id too."""
    noted = [Noted(directory) for directory in (tmp_path / "1", tmp_path / "2") if not directory.mkdir()]
    ids = [farm.post(each.job) for each in noted]
    client.start(WORKER_SLOTS="2")
    for each in noted:
        each.await_running()
    await_beats(farm, 6)
    client.kill()
    for each in noted:
        each.let_go()
    client.start(**change)
    verdicts = [farm.await_verdict(job_id).failed for job_id in ids]

    assert verdicts == [False, False]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_job_that_another_has_now_is_left_to_it(farm: Farm, client: Client, tmp_path: Path, is_deleted: bool) -> None:
    """An interrupted job that the server has given to another worker meanwhile is not done by two; nor is one that the
    operator has deleted done at all."""
    noted = Noted(tmp_path)
    job_id = interrupt(farm, client, noted)
    if is_deleted:
        farm.delete(job_id)
    else:
        farm.operate("POST", "/workers/other", farm.beats()[-1] | {"job_id": job_id})
        farm.operate("DELETE", f"/workers/{client.settings['HOST_UUID']}")
    noted.let_go()
    noted.take()
    client.start()
    other = farm.await_verdict(farm.post(BENIGN))

    assert farm.verdicts == [other]
    assert not (tmp_path / "noted").exists()


def test_a_job_that_is_in_the_queue_again_is_taken_from_there(farm: Farm, client: Client, tmp_path: Path) -> None:
    """An interrupted job that the server has put back into the queue is done once."""
    noted = Noted(tmp_path)
    job_id = interrupt(farm, client, noted)
    noted.let_go()
    farm.queue[job_id] = farm.running.pop(job_id)
    client.start()
    verdict = farm.await_verdict(job_id)
    await_idle(farm)

    assert not verdict.failed
    assert len(farm.verdicts) == 1
    assert farm.taken == [job_id, job_id]


def test_a_job_that_was_not_yet_resumed_waits_for_the_next_start(farm: Farm, client: Client, tmp_path: Path) -> None:
    """A client that is told to stop while it still asks about an interrupted job does not begin it again."""
    noted = Noted(tmp_path)
    job_id = interrupt(farm, client, noted)
    noted.take()
    noted.let_go()
    farm.misbehave("GET /jobs/*", Fault(delay=1.0), 1)
    since = time.monotonic()
    client.start()
    await_calls(farm, "GET /jobs/*", 1, since)
    ended = client.stop()
    begun = (tmp_path / "noted").exists()
    told = list(farm.verdicts)
    client.start()
    verdict = farm.await_verdict(job_id)

    assert ended == 0
    assert not begun
    assert not told
    assert not verdict.failed
    assert farm.taken == [job_id]


def test_a_job_is_resumed_without_a_server(farm: Farm, client: Client, tmp_path: Path) -> None:
    """Work that is in hand does not wait for the server: an interrupted job is done, and its verdict kept."""
    noted = Noted(tmp_path)
    job_id = interrupt(farm, client, noted)
    noted.let_go()
    farm.go_down()
    client.start()
    until(lambda: "is completed" in "\n".join(client.log), "the job to be done")
    farm.come_up()

    assert not farm.await_verdict(job_id).failed


@pytest.mark.parametrize(
    "odd",
    [{"job_title": "\ud800"}, {"tasks": [{"module": "benign", "data": {"spam": "\udcff.mkv"}}]}, {"job_id": "a\ud800"}],
    ids=["title", "data", "id"],
)
def test_text_that_is_not_unicode_holds_up_nobody(farm: Farm, client: Client, odd: dict[str, Any]) -> None:
    """A job with half a character in it, as a file name that is not UTF-8 becomes, keeps no other from being done."""
    job_id = farm.post(BENIGN | odd)
    next_id = farm.post(BENIGN)
    client.start()
    after = farm.await_verdict(next_id)
    alive = client.process.poll() is None

    assert alive
    assert not after.failed
    assert "Traceback" not in "\n".join(client.log)
    assert [verdict.job_id for verdict in farm.verdicts] == [job_id, next_id] or "job_id" in odd
