"""What keeps the worker from taking jobs: the flags of queue and worker, and a pause."""

import signal
import time

import pytest

from tests.support.client import WORKER, Client, await_beats, await_calls, await_idle, await_verdicts, is_paused
from tests.support.farm import LOST, Farm, Fault, says, status
from tests.support.supervised import BENIGN


@pytest.mark.parametrize("path", ["/queue", f"/workers/{WORKER}"], ids=["queue", "worker"])
def test_takes_nothing_while_disabled(at_work: Client, path: str) -> None:
    """While the queue or the worker is disabled, jobs are left where they are."""
    farm = at_work.farm
    await_calls(farm, f"GET /workers/{WORKER}")  # without it, the server could not disable the worker
    changed = farm.operate("PATCH", path, {"disabled": True})
    since = time.monotonic()
    await_calls(farm, f"GET {path}", 2, since)  # one may have been under way
    since = time.monotonic()
    job_id = farm.post(BENIGN)
    await_calls(farm, f"GET {path}", 4, since)
    polls = farm.calls("GET /queue/poll", since)
    farm.operate("PATCH", path, {"disabled": False})
    verdict = farm.await_verdict(job_id)

    assert changed == 200
    assert not polls
    assert not verdict.failed


def test_own_record_is_read_though_nothing_may_be_taken(farm: Farm, client: Client) -> None:
    """A worker whose queue is disabled from the start can be disabled as well: it has read its own record."""
    farm.disabled = True
    client.start()
    await_calls(farm, "GET /queue", 2)

    assert farm.operate("PATCH", f"/workers/{WORKER}", {"disabled": True}) == 200
    assert not farm.calls("GET /queue/poll")


UNKNOWN = {
    "GET /queue": [
        *map(status, (500, 404)),
        *map(says, ("<h1>Spam</h1>", "null", "[]", '{"queue": [], "attributes": {"disabled": "perhaps"}}')),
        LOST,
        Fault(cut=5),
    ],
    "GET /workers/*": [status(500), says("spam"), LOST],
}


@pytest.mark.parametrize("route", UNKNOWN, ids=["queue", "worker"])
def test_takes_nothing_while_a_flag_is_unknown(farm: Farm, client: Client, route: str) -> None:
    """No job is taken before the server has said that it may be, by the queue's flag and the worker's own."""
    for fault in UNKNOWN[route]:
        farm.misbehave(route, fault, 2)
    job_id = farm.post(BENIGN)
    client.start()
    in_vain = 2 * len(UNKNOWN[route])
    first_told = await_calls(farm, route, in_vain + 1)[in_vain]
    verdict = farm.await_verdict(job_id)
    (poll, *_) = farm.calls("GET /queue/poll")

    assert poll.time > first_told.time
    assert not verdict.failed


ODD_QUEUES = '{"queue": [], "entries": null, "attributes": {"disabled": false}}', '{"queue": [], "entries": 0}', "{}"


@pytest.mark.parametrize("answer", ODD_QUEUES, ids=["no entries", "no attributes", "nothing"])
def test_odd_queues_do_no_harm(at_work: Client, answer: str) -> None:
    """A queue with `null` for entries, or without attributes, costs a look at most."""
    at_work.farm.misbehave("GET /queue", says(answer), 2)

    assert not at_work.farm.await_verdict(at_work.farm.post(BENIGN)).failed


def test_flags_cost_one_look_per_interval(farm: Farm, client: Client) -> None:
    """While there is work, a poll follows the other without a pause, and the flags are looked up once an interval."""
    interval = 30
    ids = [farm.post(BENIGN) for _ in range(30)]
    client.start(QUEUE_POLL_INTERVAL=str(interval))
    verdicts = await_verdicts(farm, 30)
    polls = farm.calls("GET /queue/poll")
    most = 1 + (polls[-1].time - farm.requests[0].time) // (0.9 * interval)

    assert [verdict.job_id for verdict in verdicts] == ids
    assert len(farm.calls("GET /queue")) <= most
    assert len(farm.calls("GET /workers/*")) <= most + 1  # and the one at the start


def test_takes_nothing_while_it_is_paused(at_work: Client) -> None:
    """A client that is paused while it is idle takes no job until it is resumed."""
    farm = at_work.farm
    await_idle(farm)
    at_work.process.send_signal(signal.SIGUSR2)
    await_beats(farm, 1, is_paused)
    job_id = farm.post(BENIGN)
    await_beats(farm, 4, is_paused)
    taken = list(farm.taken)
    at_work.process.send_signal(signal.SIGUSR2)
    verdict = farm.await_verdict(job_id)

    assert job_id not in taken
    assert not verdict.failed
