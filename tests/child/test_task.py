"""The steps of one module, in its process."""

import asyncio

import pytest

from ipc.messages import Done, Get
from tests.support.exchanges import MINUTE, Desk, Tasks, eventually, step
from tests.support.supervised import Supervised, job


@pytest.mark.parametrize("resumed", [True, False])
async def test_resumed(tasks: Tasks, resumed: bool) -> None:
    """A module knows from its initialisation on whether an earlier attempt may have done a part of its work."""
    process = await tasks.start(None)
    message = tasks.start_message(resumed=resumed, init=[["tell"]], run=[["tell"]])
    await process.step("init", message, MINUTE, 10.0)
    await step(process)

    assert [note["resumed"] for note in tasks.noted()] == [resumed] * 2


async def test_step_ends_while_a_thread_waits(tasks: Tasks) -> None:
    """A thread that waits when its step ends is told so, and the next step has exchanges of its own."""
    desk = Desk()
    calls = {"validate": [["leave_thread_asking", "slow"]], "run": [["join_thread"], ["get", "x"]]}
    process = await tasks.serve(desk, **calls)
    validating = asyncio.create_task(step(process, "validate"))
    await desk.asked.wait()
    tasks.go.touch()
    validated, done = await validating, await step(process)

    assert (validated, done) == (Done(), Done())
    assert tasks.noted() == ["http://localhost:5000 does not answer: the step ended before", {"for": "x"}]
    assert desk.cancelled == ["slow"]


async def test_thread_that_asks_between_steps(tasks: Tasks) -> None:
    """A thread that asks when no step is under way gets an error, and no protocol is broken."""
    desk = Desk()
    process = await tasks.serve(
        desk, validate=[["leave_thread_asking_later", "x"]], run=[["join_thread"], ["get", "y"]]
    )
    validated = await step(process, "validate")
    tasks.go.touch()
    await eventually(tasks.noted, "the thread to be answered")
    done = await step(process)

    assert (validated, done) == (Done(), Done())
    first, second = tasks.noted()
    assert "it can be asked only during a step" in first
    assert second == {"for": "y"}
    assert desk.requests == [Get("clerk", "y")]


def test_asyncio_and_yaml_are_for_those_who_use_them(supervised: Supervised) -> None:
    """No task has them but for its own use, in which loguru's sinks may be coroutines."""
    supervised.configure(modules={"asynchronous": "tests.support.modules.Asynchronous"})
    record = supervised.record(job(("asynchronous", {"codec": "x265"})))

    yaml = [{"codec": "x264"}, "codec: x265\n"]
    assert record["tasks"][0]["results"] == {"before": [], "yaml": yaml, "lines": ["from a coroutine"]}


def test_too_many_names_are_told(supervised: Supervised) -> None:
    """More than a message can hold is no breach of the protocol, of which a user would know nothing."""
    names = [f"/tmp/{number}-{'x' * 200}" for number in range(50_000)]
    record = supervised.record(job(("cleanup", {"delete": names})))

    assert record["error"]["reason"] == "exception"
    assert "more than 8 MiB together" in record["error"]["message"]
