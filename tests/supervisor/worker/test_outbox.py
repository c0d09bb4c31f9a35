"""Verdicts: each is delivered once, to a server that behaves and to others."""

import psutil
import pytest

from tests.support.client import Client, Held, await_idle, await_verdicts
from tests.support.farm import LOST, SILENCE, Farm, Fault, Request, status
from tests.support.supervised import BENIGN, job
from tests.support.waiting import until

DOUBTS = {
    "recorded, lost": LOST,
    "recorded, reset": Fault(cut="reset"),
    "recorded, headers cut": Fault(status=500, cut="headers"),
    "recorded, 500": status(500, acts=True),
    "recorded, 502": status(502, acts=True),
    "recorded, time-out": SILENCE,
    "not recorded, lost": Fault(acts=False, cut="before"),
    "not recorded, 500": status(500),
    "not recorded, 503": status(503),
    "not recorded, time-out": Fault(acts=False, delay=SILENCE.delay),
}


@pytest.mark.parametrize(
    ("doubt", "failures"),
    [
        *((doubt, 3) for doubt in ("recorded, lost", "not recorded, 500", "not recorded, 503")),
        *(pytest.param(doubt, 0, marks=pytest.mark.slow) for doubt in DOUBTS),
    ],
)
def test_doubts_are_settled_by_asking(at_work: Client, doubt: str, failures: int) -> None:
    """After a doubtful answer the client asks whether the job is still there, until it is told, and sends again only
    then, and if it is."""
    farm, fault = at_work.farm, DOUBTS[doubt]
    before = len(farm.verdicts)
    farm.misbehave("PATCH /jobs/*/completed", fault, 1)
    farm.misbehave("GET /jobs/*", status(500), failures)
    ids = [farm.post(BENIGN) for _ in range(2)]
    verdicts = await_verdicts(farm, before + 2)[before:]
    sent = farm.calls(f"PATCH /jobs/{ids[0]}/completed")
    asked = farm.calls(f"GET /jobs/{ids[0]}", sent[0].time)

    assert [verdict.job_id for verdict in verdicts] == ids
    assert len(sent) == (1 if fault.acts else 2)
    assert len(asked) == failures + 1
    assert all(again.time > asked[-1].time for again in sent[1:])


@pytest.mark.parametrize("code", [301, 401, 403, 404, 405, 429])
def test_a_verdict_that_is_turned_away_is_kept(at_work: Client, code: int) -> None:
    """An answer that means neither that it was recorded nor that it is wrong does not lose the verdict."""
    farm = at_work.farm
    farm.misbehave("PATCH /jobs/*/completed", status(code), 2)

    assert not farm.await_verdict(farm.post(BENIGN)).failed


def test_a_record_that_is_refused_is_reduced(at_work: Client) -> None:
    """A server that does not take the whole record gets one without what it may not know."""
    farm = at_work.farm

    def is_full(request: Request) -> bool:
        return bool({"error", "tasks"} & set(request.json["info"]))

    farm.misbehave("PATCH /jobs/*/completed", status(400), when=is_full)
    ids = [farm.post(job(("hostile", {"step": "run", "act": "own_error"}))), farm.post(BENIGN)]
    failed, completed = (farm.await_verdict(job_id) for job_id in ids)

    assert (failed.failed, completed.failed) == (True, False)
    assert "Could not build additional pylons." in failed.info["message"]


def test_a_verdict_that_is_never_taken_holds_up_no_other(farm: Farm, client: Client) -> None:
    """A job whose verdict the server refuses in every form does not keep later ones from being told."""
    refused = farm.post(BENIGN)
    farm.misbehave(f"PATCH /jobs/{refused}/completed", status(400))
    client.start()

    assert not farm.await_verdict(farm.post(BENIGN)).failed


def await_ends(client: Client, count: int) -> None:
    until(lambda: sum("is completed" in line for line in client.log) == count, "the jobs to end")


@pytest.mark.parametrize("is_killed", [False, True], ids=["at work", "after a kill"])
def test_work_goes_on_while_verdicts_wait(farm: Farm, client: Client, is_killed: bool) -> None:
    """While the server takes no verdicts, jobs are run all the same; later all are told, once, in their order, by the
    next client, too."""
    farm.misbehave("PATCH /jobs/*", status(503))
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    await_ends(client, len(ids))
    told = list(farm.verdicts)
    if is_killed:
        client.kill()
    farm.behave()
    if is_killed:
        client.start()
    verdicts = await_verdicts(farm, len(ids))
    await_idle(farm)

    assert not told
    assert [(verdict.job_id, verdict.failed) for verdict in verdicts] == [(job_id, False) for job_id in ids]


def test_an_outage_in_the_middle_of_a_job(farm: Farm, client: Client, held: Held) -> None:
    """The server may be away while a job ends: its verdict is told when the server is back, and work goes on."""
    ids = [farm.post(held.job), farm.post(BENIGN)]
    client.start()
    held.await_running()
    farm.go_down()
    held.let_go()
    until(lambda: not psutil.Process(client.process.pid).children()[0].children(), "the job to end")
    farm.come_up()
    verdicts = await_verdicts(farm, 2)

    assert [(verdict.job_id, verdict.failed) for verdict in verdicts] == [(job_id, False) for job_id in ids]


def test_a_kill_between_telling_and_hearing(farm: Farm, client: Client) -> None:
    """A client killed after its verdict was recorded, and before it heard so, finds that out and goes on."""
    farm.misbehave("PATCH /jobs/*", SILENCE, 1)
    job_id = farm.post(BENIGN)
    client.start()
    farm.await_verdict(job_id)
    client.kill()
    client.start()
    farm.await_verdict(farm.post(BENIGN))
    await_idle(farm)

    assert len(farm.calls(f"PATCH /jobs/{job_id}/completed")) <= 2  # it cannot know that it had sent it
    assert len(farm.verdicts) == 2
