"""One task process, as the supervisor has it."""

import asyncio

import pytest

from ipc.messages import Cause, Failed
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.limits import Duration
from tests.support.exchanges import MINUTE, Desk, Tasks, eventually, reason, step


@pytest.mark.parametrize("now", [True, False], ids=["kill", "timeout"])
async def test_exchange_ends_with_its_process(tasks: Tasks, now: bool) -> None:
    """A timeout, or a kill, ends the step while the server keeps silent, and what was asked of it is dropped."""
    desk = Desk()
    process = await tasks.serve(desk, run=[["get", "slow"]])
    running = asyncio.create_task(step(process, timeout=MINUTE if now else Duration(0.5, "500ms")))
    await desk.asked.wait()
    if now:
        process.stop(StopOrder(Cause("cancelled", "killed by a test"), now=True))
    failure = await running
    await eventually(lambda: desk.cancelled == ["slow"], "the exchange to be cancelled")

    assert reason(failure) == ("cancelled" if now else "timeout")


async def test_death_during_an_exchange(tasks: Tasks) -> None:
    """A process that dies while its request is under way is reported with how it died."""
    process = await tasks.serve(Desk(), "hostile", step="run", act="get_and_die")
    failure = await step(process)

    assert isinstance(failure, Failed)
    assert (failure.cause.reason, failure.cause.signal) == ("signal", "SIGKILL")
