"""The parent's end of the queue: what hostile requests and unread answers do to it."""

import asyncio
import os
import socket

import psutil
import pytest

from ipc.messages import Data, Done, Failed, FromTask, Get, Step, ToTask
from ipc.queue import MAX_REQUEST, Decoder, encode
from supervisor.isolation.channel import Bounds, Channel
from supervisor.isolation.clock import Clock
from supervisor.isolation.task_process import StepResult
from tests.support.exchanges import MINUTE, STEPS, Desk, Tasks, eventually, step

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


async def test_asking_in_a_loop_is_no_flood(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that asks as fast as it gets answers is slowed down, and not ended for sending too much."""
    for name, count in {"BURST": 40, "KEPT": 20, "PER_SECOND": 1000}.items():
        monkeypatch.setattr(f"supervisor.isolation.task_process.MESSAGES_{name}", count)

    process = await tasks.serve(Desk(), run=[["get_many", 300]])

    assert await step(process) == Done()


@pytest.mark.parametrize("name", ["init", "run"])
@pytest.mark.parametrize("act", HOSTILE)
async def test_hostile_requests_end_the_task(tasks: Tasks, act: str, name: str) -> None:
    """Floods, second requests, odd names and torn frames are breaches of the protocol, and nothing else is harmed."""
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


async def test_answer_that_nobody_takes(tasks: Tasks) -> None:
    """An answer that is half sent when its step ends is sent to its end: the next step's request comes after it."""
    desk = Desk()
    process = await tasks.serve(desk, "hostile", step="run", act="get_and_return")
    done, cleaned = await step(process), await step(process, "cleanup")

    assert (done, cleaned) == (Done(), Done())
    assert desk.requests == [Get("hostile", "large")]


async def test_large_answers_do_not_pile_up(tasks: Tasks) -> None:
    """A module that takes no answers has at most one of them kept for it."""
    own = psutil.Process()
    before = own.memory_info().rss
    for _ in range(5):
        desk = Desk()
        process = await tasks.serve(desk, "hostile", step="run", act="gets_without_reading")
        await step(process)

        assert desk.requests == [Get("hostile", "large")]
    assert own.memory_info().rss - before < 3 << 25


class Peer:
    """A channel, what it has told its owner, and the other end of its connection."""

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self.messages: list[FromTask] = []
        self.ends: list[str] = []
        ours, self.socket = socket.socketpair()
        self.channel: Channel[FromTask] = Channel(ours, FromTask, bounds, clock, self.messages.append, self.ends.append)

    async def read(self, size: int) -> bytes:
        """What the channel has sent, `size` bytes of it."""
        data = bytearray()
        while len(data) < size:
            data += await asyncio.to_thread(self.socket.recv, 1 << 16)
        return bytes(data)

    def close(self) -> None:
        self.channel.close()
        self.socket.close()


async def test_unfinished_message_is_late_unless_paused() -> None:
    """A message must arrive whole in its time. While the clock is paused it may be stopped in the middle."""
    clock = Clock()
    clock.pause()
    peer = Peer(Bounds(1000, frame_timeout=0.01), clock)
    peer.socket.send(encode(Done()) + encode(Done())[:7])
    await asyncio.sleep(0.6)

    assert peer.messages == [Done()]
    assert peer.ends == []
    clock.resume()
    await eventually(lambda: peer.ends, "the end")
    assert peer.ends == ["did not finish a message within 0.01 s"]
    peer.close()


async def test_nothing_is_read_after_a_breach() -> None:
    """The owner is told once of the first breach, or of the end, and gets no later message."""
    peers = [Peer(Bounds(1000, burst=2, per_second=1), Clock()) for _ in range(3)]
    peers[0].socket.send(encode(Done()) + b"\0\0\0\1?" + encode(Done()))
    peers[1].socket.send(encode(Done()) * 3)
    peers[2].socket.shutdown(socket.SHUT_WR)
    await eventually(lambda: all(peer.ends for peer in peers), "the ends")
    for peer in peers[:2]:
        peer.socket.send(encode(Done()))
    await asyncio.sleep(0.05)

    assert [peer.messages for peer in peers] == [[Done()], [], []]
    assert peers[0].ends[0].startswith("sent what is no message")
    assert [peer.ends for peer in peers[1:]] == [["sent more than 2 messages at once"], [""]]
    for peer in peers:
        peer.close()


async def test_messages_are_sent_whole_and_in_order() -> None:
    """However slowly the other side reads, no message is torn or overtaken; one with descriptors does not wait."""
    peer = Peer(Bounds(1000), Clock())
    frames = [encode(Data(200, "x" * (1 << 22))), encode(Data(200, "y"))]
    for frame in frames:
        peer.channel.send(frame)
    assert peer.channel.is_sending
    with pytest.raises(BlockingIOError):
        peer.channel.send_now(frames[1], [0])
    received: Decoder[ToTask] = Decoder(ToTask, MAX_REQUEST)
    sizes = [
        len(message.body)
        for message in received.feed(await peer.read(sum(map(len, frames))))
        if isinstance(message, Data)
    ]

    assert sizes == [1 << 22, 1]
    await eventually(lambda: not peer.channel.is_sending, "all to be sent")
    reader, writer = os.pipe()
    peer.channel.send_now(frames[1], [writer])
    os.close(writer)
    data, descriptors, _, _ = socket.recv_fds(peer.socket, 100, 1)
    os.write(descriptors[0], b"spam")
    assert (data, os.read(reader, 9)) == (frames[1], b"spam")
    os.close(descriptors[0])
    os.close(reader)
    peer.close()
