"""The parent's end of the queue: what hostile requests and unread answers do to it."""

import asyncio

import psutil
import pytest

from ipc.messages import Cause, Done, Failed, Get, Step
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.task_process import StepResult
from tests.support.exchanges import MINUTE, STEPS, Desk, Supervise, Tasks, eventually, step

HOSTILE = {
    # act: what the record says
    "flood_of_gets": "sent more than 400 messages at once|before it had its last answer",
    "gets_without_reading": "asked for server-side data (Get) before it had its last answer",
    "two_gets": "asked for server-side data (Get) before it had its last answer",
    "put_after_get": "asked for server-side data (Put) before it had its last answer",
    "get_with_a_huge_name": "sent what is no message: Expected `str` of length <= 1000",
    "get_of_another_path": "sent what is no message: Expected `str` matching regex",
    "put_of_another_path": "sent what is no message: Expected `str` matching regex",
    "put_of_a_huge_body": "sent what is no message: Expected `str` of length <= 4194304",
    "get_after_the_answer": "asked for server-side data (Get) without having a step to do",
    "half_a_get": "closed its queue without an answer",
    "get_and_close": "closed its queue without an answer",
}


# --- in a task process ---


def test_asking_in_a_loop_is_no_flood(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that asks as fast as it gets answers is slowed down, and not ended for sending too much."""
    for name, count in {"BURST": 40, "KEPT": 20, "PER_SECOND": 1000}.items():
        monkeypatch.setattr(f"supervisor.isolation.task_process.MESSAGES_{name}", count)

    async def test(tasks: Tasks) -> None:
        process = await tasks.serve(Desk(), run=[["get_many", 300]])

        assert await step(process) == Done()

    supervise(test)


# --- stopped in the middle of it ---


def test_request_behind_an_abandoned_one_waits(supervise: Supervise) -> None:
    """What a stopped module asks while its first request is not answered yet waits its turn: no protocol is broken."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, run=[["get_when_asked_to_stop", "slow", "other"]])
        tasks.go.touch()
        running = asyncio.create_task(step(process))
        await desk.asked.wait()
        process.stop(StopOrder(Cause("cancelled", "cancelled by a test")))
        await eventually(lambda: tasks.noted() == ["unwinding"], "the module to be stopped")
        desk.release.set()
        failure = await running

        assert isinstance(failure, Failed)
        assert failure.cause.reason == "cancelled"
        assert tasks.noted() == ["unwinding", {"for": "other"}]

    supervise(test)


# --- hostile modules ---


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("act", HOSTILE)
def test_hostile_requests_end_the_task(supervise: Supervise, act: str, name: str) -> None:
    """Floods, second requests, odd names and torn frames are breaches of the protocol, and nothing else is harmed."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.start(desk, "hostile")
        answers: list[StepResult] = []
        for each in STEPS[: STEPS.index(name) + 1]:
            start = tasks.start_message("hostile", step=name, act=act)
            answers.append(await process.step(each, start if each == "init" else Step(each), MINUTE, 10.0))
        *before, answer = answers
        after = await tasks.serve(Desk(), run=[["get", "x"]])

        assert not any(isinstance(each, Failed) for each in before)
        assert isinstance(answer, Failed)
        assert answer.cause.reason == "protocol"
        assert any(part in answer.cause.message for part in HOSTILE[act].split("|")), answer.cause.message
        assert len(desk.requests) <= 400
        assert not desk.busy
        assert await step(after) == Done()

    supervise(test)


def test_answer_that_nobody_takes(supervise: Supervise) -> None:
    """An answer that is half sent when its step ends is sent to its end: the next step's request comes after it."""

    async def test(tasks: Tasks) -> None:
        desk = Desk()
        process = await tasks.serve(desk, "hostile", step="run", act="get_and_return")
        done, cleaned = await step(process), await step(process, "cleanup")

        assert (done, cleaned) == (Done(), Done())
        assert desk.requests == [Get("hostile", "large")]

    supervise(test)


def test_large_answers_do_not_pile_up(supervise: Supervise) -> None:
    """A module that takes no answers has at most one of them kept for it."""

    async def test(tasks: Tasks) -> None:
        own = psutil.Process()
        before = own.memory_info().rss
        for _ in range(5):
            desk = Desk()
            process = await tasks.serve(desk, "hostile", step="run", act="gets_without_reading")
            await step(process)

            assert desk.requests == [Get("hostile", "large")]
        assert own.memory_info().rss - before < 3 << 25

    supervise(test)
