"""Outages: told once, waited out."""

import time

import pytest
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from supervisor.api.errors import SessionError
from supervisor.api.outages import OutageLog
from tests.support.client import Client, await_calls, await_idle, complaints, own_beats
from tests.support.farm import Farm, status
from tests.support.supervised import BENIGN
from tests.support.waiting import pass_time, until


@pytest.mark.parametrize("what", ["server", "route"])
def test_an_outage_is_two_lines(farm: Farm, client: Client, what: str) -> None:
    """The log has a line when a server or its route is lost, and one when it is back, however often it was tried."""
    client.start(LOGURU_LEVEL="INFO", WORKER_SLOTS="2" if what == "server" else "1")
    await_idle(farm)
    before = len(client.log)
    if what == "server":
        farm.go_down()
        pass_time(3)
    else:
        farm.misbehave("GET /queue/poll", status(503))
        await_calls(farm, "GET /queue/poll", 6, time.monotonic())
    lost = client.log[before:]
    farm.come_up() if what == "server" else farm.behave()
    await_calls(farm, "GET /queue/poll", 4, time.monotonic())
    back = client.log[before + len(lost) :]

    assert len(lost) == 1
    assert len(back) == 1


def test_a_last_answer_is_no_end() -> None:
    """The answer to a call that was under way when the server went down does not end the outage; a later one does."""
    refused = SessionError("Connection refused")
    refused.__cause__ = NewConnectionError(HTTPConnection("localhost"), "Connection refused")
    began = time.monotonic()
    outages = OutageLog("http://localhost")

    outages.note_failure("GET /queue", refused, began)
    outages.note_success("GET /queue", began)
    still_down = not outages.reachable.is_set()
    outages.note_success("GET /queue", time.monotonic())

    assert still_down
    assert outages.reachable.is_set()


def test_a_server_that_is_down_at_the_start(farm: Farm, client: Client) -> None:
    """The client waits for its server, with one line in the log, and starts to work when it is there."""
    farm.go_down()
    job_id = farm.post(BENIGN)
    client.start()
    until(lambda: complaints(client), "the line")
    pass_time(2)
    lines = complaints(client)
    farm.come_up()
    verdict = farm.await_verdict(job_id)

    assert len(lines) == 1
    assert not verdict.failed


def test_attempts_are_few(farm: Farm, client: Client) -> None:
    """A server that fails is asked again after a while and not in a busy loop, the outbox among it."""
    client.start(CANCEL_DELETED_JOBS="1")
    farm.misbehave("PATCH /jobs/*", status(503))
    farm.misbehave("GET /jobs/*", status(503))
    farm.post(BENIGN)
    await_calls(farm, "PATCH /jobs/*")
    farm.misbehave("*", status(503))
    since = time.monotonic()
    until(lambda: len(own_beats(farm, since)) >= 10, "heartbeats")
    seconds = time.monotonic() - since
    often = len([each for each in farm.calls("*", since) if not each.call.startswith("POST")])

    # A look at the flags and a question for the verdict, each of one call or two, after 0.3 s; and as much for luck.
    assert often <= 2 * (4 * seconds / 0.3)
