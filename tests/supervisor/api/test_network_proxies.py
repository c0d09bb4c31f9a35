"""Proxies that answer for the server that they have lost."""

import time

import pytest

from tests.support.client import Client, Held, await_beats, await_calls
from tests.support.farm import Farm, Fault, status

PAGES = {
    "a page": status(404),
    "nothing": Fault(False, 404, b""),
    "JSON": Fault(False, 404, b'{"message": "no route matched"}'),
    "good": Fault(False, 200, b"<h1>We are back soon</h1>"),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("is_killed", [False, True], ids=["at work", "after a kill"])
def test_pages_of_a_proxy_lose_no_job(farm: Farm, client: Client, held: Held, is_killed: bool, page: str) -> None:
    """The verdict waits for the server itself, which alone can say that it knows the job no more; so does the job of
    a client that was killed."""
    job_id = farm.post(held.job)
    client.start(CANCEL_DELETED_JOBS="1")
    held.await_running()
    farm.misbehave("*", PAGES[page])
    await_calls(farm, f"GET /jobs/{job_id}", since=time.monotonic())
    if is_killed:
        client.kill()
        client.start()
        await_calls(farm, f"GET /jobs/{job_id}", since=time.monotonic())
    held.let_go()
    sent = await_calls(farm, f"PATCH /jobs/{job_id}/completed")
    await_calls(farm, f"GET /jobs/{job_id}", 2, since=sent[0].time)
    farm.behave()

    assert not farm.await_verdict(job_id).failed
    await_beats(farm, 1, lambda beat: beat["status"] == "idle")
    assert farm.taken == [job_id]
