"""Server-side data in a task process: modules read and write it through the supervisor."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from ipc.messages import MAX_BODY, Data, Done, Failed, Get, Put, Start
from ipc.queue import MAX_FRAME, MAX_REQUEST
from tests.support.exchanges import MINUTE, STEPS, TOKEN, Desk, Tasks, asking, cancel, eventually, reason, serving, step
from tests.support.media import make_clip


async def test_data_is_kept_and_found(tasks: Tasks) -> None:
    """What a module stores it finds again, in every step; the supervisor shows the token, and the module needs none."""
    with serving(TOKEN) as server:
        data = {"put": {"ä": [1.5, None, "\udcff"]}}
        calls = {"init": [["put", "a/b c", data], ["get", "spam"]], **{name: [["get", "a/b c"]] for name in STEPS[1:]}}
        process = await tasks.serve(asking(server), **calls)
        answers = [await step(process, name) for name in STEPS[1:]]

        assert answers == [Done()] * 3
        assert tasks.noted() == [None, *[data] * 3]  # that there is none is no error
        assert server.seen[0] == f"POST /data/clerk/a%2Fb%20c Bearer {TOKEN}"
        assert server.seen[2:] == [f"GET /data/clerk/a%2Fb%20c Bearer {TOKEN}"] * 3


BAD_EXCHANGES: dict[str, tuple[Data | BaseException | None, str]] = {
    # name: (what the exchange does, what the message says)
    "none": (None, "http://localhost:5000 does not answer: the client runs without an API server"),
    "no answer": (Data(0, error="Connection refused"), "http://localhost:5000 does not answer: Connection refused"),
    "status": (Data(500, "oops"), "http://localhost:5000/data/clerk/x answers with status 500"),
    "too large": (Data(200, "x" * (MAX_REQUEST + 1)), "more than a task process can take (64 MiB)"),
    "too large on its way": (Data(200, '"' * (MAX_REQUEST // 2)), "more than a task process can take (64 MiB)"),
    "no UTF-8": (Data(200, "\ud800"), "does not answer: asking it failed: UnicodeEncodeError"),
    "error": (ZeroDivisionError(), "does not answer: asking it failed: ZeroDivisionError"),
    "cancelled": (asyncio.CancelledError(), "does not answer: asking it failed: CancelledError"),
}


@pytest.mark.parametrize("name", BAD_EXCHANGES)
async def test_failure_is_explained(tasks: Tasks, name: str) -> None:
    """What the server does not give fails the step with a message that says why, and the process lives on."""
    exchange, message = BAD_EXCHANGES[name]

    async def answer(request: Get | Put) -> Data:
        if isinstance(exchange, BaseException):
            raise exchange
        assert exchange is not None
        return exchange

    process = await tasks.serve(answer if exchange else None, run=[["get", "x"]], cleanup=[["try_to_get", "x"]])
    failure, after = await step(process), await step(process, "cleanup")

    assert reason(failure) == "exception"
    assert message in failure.cause.message
    assert after == Done()
    assert tasks.noted() == [failure.cause.message]


async def test_threads_wait_for_each_other(tasks: Tasks) -> None:
    """Threads of a module may ask at once: each gets its own answer, and the server is asked one thing at a time."""
    desk = Desk()
    process = await tasks.serve(desk, run=[["get_in_threads", 5]])

    assert await step(process) == Done()
    assert len(desk.requests) == 6 * 20
    assert desk.busiest == 1


async def test_large_data(tasks: Tasks) -> None:
    """As much as may be goes either way; more, or what would take too much on the way, is refused in the module."""
    quotes = '"' * (MAX_BODY // 2 - 10)

    desk = Desk()
    calls = [["put", "x", {"x": "y" * (MAX_BODY - 9)}], ["get", "large"]]
    process = await tasks.serve(desk, run=calls, validate=[["put", "x", {"x": quotes}]])
    refused, done = await step(process, "validate"), await step(process)
    put = desk.requests[0]

    assert isinstance(put, Put)
    assert len(put.body) == MAX_BODY
    assert done == Done()
    assert tasks.noted() == [{"for": "large"}]
    assert isinstance(refused, Failed)
    assert "too many bytes to be sent" in refused.cause.message
    assert MAX_BODY * 2 + 50 > MAX_FRAME


async def test_task_process_does_without_http(tasks: Tasks) -> None:
    """The task process imports no HTTP library for it, and starts no thread before it asks."""
    process = await tasks.serve(Desk(), init=[["tell"]], run=[["get", "x"], ["tell"]])

    assert await step(process) == Done()
    before, _, after = tasks.noted()
    assert (before["requests"], before["threads"]) == (False, 1)
    assert (after["requests"], after["threads"]) == (False, 2)


def test_fork_of_a_module_asks_by_itself(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that the module forked, the server is asked from there, and the supervisor's queue is left alone."""

    async def ask() -> None:
        process = await tasks.serve(Desk(), run=[["get", "x"], ["get_in_fork", "x"], ["get", "y"]])

        assert await step(process) == Done()

    with serving() as server:
        server.kept["/data/clerk/x"] = {"from": "afar"}
        monkeypatch.setenv("API_URL", server.url)
        tasks.run(ask())

    assert tasks.noted() == [{"for": "x"}, {"from": "afar"}, {"for": "y"}]
    assert server.seen == ["GET /data/clerk/x"]


async def test_option_set_comes_through_the_supervisor(tasks: Tasks, tmp_path: Path) -> None:
    """The ffmpeg module's option sets are asked of the supervisor, under the name that all clients share."""
    source = make_clip(tmp_path / "source.mkv")
    data = {
        "sources": [str(source)],
        "source_maps": [{"source": 0}],
        "output_maps": [{"stream": 0, "option_set": "good"}, {"stream": 1, "option_set": "bad"}],
        "output_file": str(tmp_path / "out.mkv"),
    }

    async def exchange(request: Get | Put) -> Data:
        asked.append(request)
        return Data(200, json.dumps({"options": {"codec": "copy"}})) if request.name == "good" else Data(404)

    asked: list[Get | Put] = []

    process = await tasks.start(exchange, "ffmpeg")
    message = Start("j", "t", 0, "encoder", "modules.ffmpeg.Ffmpeg", json.dumps(data), (), {}, None, {})
    await process.step("init", message, MINUTE, 10.0)
    failure = await step(process, "validate")

    assert asked == [Get("ffmpeg", "good"), Get("ffmpeg", "bad")]
    assert isinstance(failure, Failed)
    assert failure.cause.message == (
        "output_maps[1].option_set: option set 'bad': there is none at http://localhost:5000/data/ffmpeg/bad"
    )


async def test_stop_during_an_exchange(tasks: Tasks) -> None:
    """A module that waits for the server can be stopped; its cleanup in the same process gets its own answers."""
    desk = Desk()
    process = await tasks.serve(desk, run=[["get", "slow"]], cleanup=[["get", "own"], ["get", "other"]])
    running = asyncio.create_task(step(process))
    await desk.asked.wait()
    cancel(process)
    failure = await running
    desk.release.set()

    assert reason(failure) == "cancelled"
    assert process.alive
    assert await step(process, "cleanup") == Done()
    assert tasks.noted() == [{"for": "own"}, {"for": "other"}]
    assert desk.cancelled == ["slow"]


@pytest.mark.parametrize("asks", ["after the late answer", "before the late answer", ""])
async def test_late_answer_is_nobodys(tasks: Tasks, asks: str) -> None:
    """An answer that comes when the module has been stopped is not taken for that to what it asks afterwards."""
    run = ["get_when_asked_to_stop", "slow", "other"] if asks else ["wait_when_asked_to_stop", "slow"]
    desk = Desk()
    process = await tasks.serve(desk, run=[run], cleanup=[["get", "own"]])
    running = asyncio.create_task(step(process))
    await desk.asked.wait()
    if asks.startswith("before"):
        tasks.go.touch()
    cancel(process)
    await eventually(lambda: tasks.noted() == ["unwinding"], "the module to be stopped")
    desk.release.set()
    await eventually(lambda: asks.startswith("before") or not desk.busy, "the late answer")
    tasks.go.touch()

    assert reason(await running) == "cancelled"
    assert await step(process, "cleanup") == Done()
    assert tasks.noted()[1:] == ([{"for": "other"}] if asks else []) + [{"for": "own"}]
    assert desk.cancelled == []


async def test_stop_at_any_instant(tasks: Tasks) -> None:
    """Wherever in an exchange the request to stop falls, no answer goes astray, and cleanup works."""
    chance = random.Random(20260101)
    for _ in range(60):
        desk = Desk()
        process = await tasks.serve(desk, run=[["get_for_ever"]], cleanup=[["get", "own"]])
        running = asyncio.create_task(step(process))
        await desk.begun.wait()
        await asyncio.sleep(chance.random() / 200)
        cancel(process)
        failure = await running
        cleaned = await step(process, "cleanup")

        assert reason(failure) == "cancelled"
        assert cleaned == Done()
    assert tasks.noted() == [{"for": "own"}] * 60


async def test_stop_before_any_instruction(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with SIGTERM before each single instruction of an exchange: none leaves anything half done."""
    monkeypatch.setattr("supervisor.isolation.task_process.MESSAGES_PER_SECOND", 1_000_000)

    process = await tasks.serve(Desk(), validate=[["get", "own"]], run=[["get_interrupted", "other"]])
    await step(process, "validate")
    failures = 0
    while isinstance(failure := await step(process), Failed):
        assert "SIGTERM" in failure.cause.message
        assert await step(process, "validate") == Done()
        failures += 1

    assert failures > 300
    assert tasks.noted() == [{"for": "own"}] * (failures + 1) + ["through"]


async def test_stop_before_any_instruction_of_the_first_exchange(tasks: Tasks) -> None:
    """The same for the first exchange of a process, which does more; not before each, for it takes a process."""
    done, instruction = False, 0
    while not done:
        instruction += 29
        calls = {"run": [["get_interrupted", "other", instruction]], "cleanup": [["get", "own"]]}
        process = await tasks.serve(Desk(), **calls)
        done = await step(process) == Done()

        assert await step(process, "cleanup") == Done()
    assert instruction > 600
    assert tasks.noted() == [{"for": "own"}] * (instruction // 29 - 1) + ["through", {"for": "own"}]


# --- threads that outlive a step ---
