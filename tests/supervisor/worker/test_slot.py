"""The slot's loop, seen from the server's side: it polls, takes jobs in order, and goes on whatever a poll answers."""

import statistics

import pytest

from tests.support.client import WORKER, Client, await_calls, await_idle, await_verdicts, gaps
from tests.support.farm import LOST, Farm, Fault, says, status
from tests.support.supervised import BENIGN


def test_takes_jobs_in_order_and_leaves_when_asked(farm: Farm, client: Client) -> None:
    """Jobs are taken in the server's order and have one verdict each; SIGTERM ends an idle client with 0."""
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    verdicts = await_verdicts(farm, 3)
    await_idle(farm)
    ended = client.stop()

    assert [(verdict.job_id, verdict.failed) for verdict in verdicts] == [(job_id, False) for job_id in ids]
    assert {
        "start_time",
        "end_time",
        "runtime",
        "seconds",
        "worker",
        "worker_id",
        "version",
        "completed",
        "tasks",
    } == set(verdicts[0].info)
    assert (verdicts[0].info["worker"], verdicts[0].info["worker_id"]) == ("encoder01", WORKER)
    assert ended == 0
    assert len(farm.verdicts) == 3


def test_an_empty_queue_is_looked_at_once_per_interval(farm: Farm, client: Client) -> None:
    """While there is no work, there is one look and one poll an interval."""
    interval = 0.5
    client.start(QUEUE_POLL_INTERVAL=str(interval))
    await_calls(farm, "GET /queue/poll", 6)

    for route in ("GET /queue", "GET /queue/poll"):
        assert statistics.mean(gaps(farm.calls(route))) > 0.8 * interval


FAILED_POLLS = {
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "400": status(400),
    "401": status(401),
    "302": status(302, Location="/queue"),
    "garbage": says(b"\x00\xff\xfe spam"),
    "html": says("<h1>Spam</h1>"),
    "list": says("[]"),
    "number": says("3"),
    "deep": says("[" * 100_000),
    "lost": LOST,
    "reset": Fault(cut="reset"),
    "headers cut": Fault(False, 200, b"null", cut="headers"),
    "too short": Fault(False, 200, b'{"job_title": "spam", "tasks": [', length=1000),
    "huge": says(b'"' + b"x" * (64 << 20)),
}


@pytest.mark.slow
def test_a_failed_poll_is_not_repeated_at_once(farm: Farm, client: Client) -> None:
    """After each poll that failed, however it did, the client waits; and then it goes on."""
    wait = 0.6
    for fault in FAILED_POLLS.values():
        farm.misbehave("GET /queue/poll", fault, 1)
    client.start(QUEUE_POLL_INTERVAL="0.1", NETWORK_RETRY_INTERVAL=str(wait))
    polls = await_calls(farm, "GET /queue/poll", len(FAILED_POLLS) + 1)
    waited = dict(zip(FAILED_POLLS, gaps(polls), strict=False))
    verdict = farm.await_verdict(farm.post(BENIGN))

    assert {name: seconds for name, seconds in waited.items() if seconds < 0.8 * wait} == {}
    assert not verdict.failed


def test_null_means_that_the_queue_is_empty(farm: Farm, client: Client) -> None:
    """`200 null`, which a race on the server gives, is no failure: the next poll comes after the usual interval."""
    farm.misbehave("GET /queue/poll", says("null"), 3)
    job_id = farm.post(BENIGN)
    client.start(NETWORK_RETRY_INTERVAL="1000")

    assert not farm.await_verdict(job_id).failed


@pytest.mark.parametrize("failures", [0, 2], ids=["at once", "when it can be had"])
@pytest.mark.parametrize("fault", [Fault(cut=-2), Fault(length=-2), Fault(length=2)], ids=["cut", "short", "long"])
def test_a_job_of_a_broken_answer_is_fetched(farm: Farm, client: Client, fault: Fault, failures: int) -> None:
    """The job of a cut answer, which the server has given away for good, is fetched by the id in the part that came."""
    farm.misbehave("GET /queue/poll", fault, 1)
    farm.misbehave("GET /jobs/*", status(503), failures)
    ids = [farm.post(BENIGN), farm.post(BENIGN)]
    client.start()
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    assert [verdict.failed for verdict in verdicts] == [False, False]
    assert farm.taken == ids


def test_goes_on_when_a_job_is_lost(farm: Farm, client: Client) -> None:
    """A poll's answer that is cut before the id, or lost, costs that job and no other."""
    farm.misbehave("GET /queue/poll", Fault(cut=20), 1)
    farm.misbehave("GET /queue/poll", LOST, 1)
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    verdict = farm.await_verdict(ids[2])

    assert not verdict.failed
    assert farm.taken == ids
