"""The queue: what arrives is a message or an error, never an exception and never growth."""

import random
import socket
import struct
import threading

import psutil
import pytest

from ipc.messages import Cause, Done, Failed, FromTask, Progress, Ready, Start, Step, ToTask
from ipc.queue import MAX_FRAME, Decoder, Queue, encode

STREAMS = 100_000

SAMPLES = [
    encode(Ready((b"/a", b"/\xff"), (), (), True)),
    encode(Done(("w",), ("l",))),
    encode(Failed(Cause("exit", "m", exit_status=1, stderr=("x",) * 5))),
    struct.pack("!I", 41) + b'{"type":"progress","status":{"progress":1}}'[:41],
    struct.pack("!I", 0),
    struct.pack("!I", 1 << 31),
    struct.pack("!I", 20) + b"[" * 20,
    struct.pack("!I", 9) + b'{"type":"',
]


def test_messages_survive_any_fragmentation() -> None:
    """Messages come out as they went in, however their bytes are cut."""
    sent = [
        Ready((b"/\xff\n",), (b"/b",), (b"/c",), True),
        Done(("ä",), lines=("b",)),
        Failed(Cause("exception", "x" * 1000, unusable=True)),
    ]
    stream = b"".join(map(encode, sent))

    for size in (1, 2, 3, 7, 100, len(stream)):
        decoder: Decoder[FromTask] = Decoder(FromTask, MAX_FRAME)
        received = [message for at in range(0, len(stream), size) for message in decoder.feed(stream[at : at + size])]
        assert received == sent
        assert not decoder.error
        assert not decoder.pending


@pytest.mark.slow
def test_fuzzed_streams_cost_nothing() -> None:
    """A hundred thousand damaged streams: no exception, and no more memory than one frame."""
    chance = random.Random(20260101)
    before = psutil.Process().memory_info().rss
    broken = 0

    for _ in range(STREAMS):
        stream = bytearray(b"".join(chance.choices(SAMPLES, k=chance.randrange(1, 6))))
        for _ in range(chance.randrange(4)):
            match chance.randrange(4):
                case 0 if stream:
                    stream[chance.randrange(len(stream))] = chance.randrange(256)
                case 1:
                    del stream[chance.randrange(len(stream) + 1) :]
                case 2:
                    stream[chance.randrange(len(stream) + 1) :] = chance.randbytes(chance.randrange(50))
                case _:
                    at = chance.randrange(len(stream) + 1)
                    stream[at:at] = b'{"[\xff\xed\xa0\x80'[chance.randrange(7) :]
        decoder: Decoder[FromTask] = Decoder(FromTask, 1 << 10)
        while stream:
            size = chance.randrange(1, 40)
            decoder.feed(bytes(stream[:size]))
            del stream[:size]
            assert len(decoder._buffer) <= (1 << 10) + 4 + 40
        broken += bool(decoder.error)

    assert broken > STREAMS // 10
    assert psutil.Process().memory_info().rss - before < 8 << 20


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"spam"}',
        b'{"type":"done","warnings":[1]}',
        b'{"type":"done"',
        b"\xff\xfe",
        b'{"type":"failed","message":"\xff"}',
        b'{"type":"progress","status":' + b"[" * 100_000,
        b'{"type":"done"}{"type":"done"}',
    ],
)
def test_nonsense_is_an_error(body: bytes) -> None:
    """What is no message ends the stream with one line that says so, and nothing more is taken."""
    decoder: Decoder[FromTask] = Decoder(FromTask, MAX_FRAME)

    assert decoder.feed(struct.pack("!I", len(body)) + body) == []
    assert decoder.error.startswith("sent what is no message")
    assert "\n" not in decoder.error
    assert decoder.feed(encode(Done())) == []


def test_oversize_is_refused_before_it_arrives() -> None:
    """A frame over the limit is refused by its announced length alone."""
    decoder: Decoder[FromTask] = Decoder(FromTask, MAX_FRAME)

    decoder.feed(struct.pack("!I", MAX_FRAME + 1))

    assert decoder.error == f"announced a message of {MAX_FRAME + 1} bytes (the limit is {MAX_FRAME})"
    assert not decoder.pending


def test_task_data_survives_what_utf8_cannot_carry() -> None:
    """A task's data travels as JSON in ASCII, so that file names of any bytes arrive."""
    ours, theirs = socket.socketpair()
    start = Start("j", "t", 0, "m", "a.B", '{"path": "\\udcff"}', (), {}, None, {})

    with ours, theirs:
        sender = threading.Thread(target=Queue(FromTask, ours.fileno()).put, args=(start,))
        sender.start()
        received = Queue(ToTask, theirs.fileno()).get()
        sender.join()

    assert received == start


def test_closed_queue_ends_the_reader() -> None:
    """A task process whose supervisor is gone reads the end, even in the middle of a frame."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(encode(Step("run")) + b"\0\0")
        ours.close()
        queue = Queue(ToTask, theirs.fileno())

        assert queue.get() == Step("run")
        assert queue.get() is None


def test_status_is_carried_as_it_is() -> None:
    """A status is any JSON: what it means is for the heartbeat to find out."""
    decoder: Decoder[FromTask] = Decoder(FromTask, MAX_FRAME)
    body = b'{"type":"progress","status":[1,{"a":null}]}'

    (said,) = decoder.feed(struct.pack("!I", len(body)) + body)

    assert isinstance(said, Progress)
    assert bytes(said.status) == b'[1,{"a":null}]'
