"""The queue between two processes: length-prefixed JSON frames over a socket, one producer and one consumer.

Why not `multiprocessing.Queue`: a killed child holds its lock for ever (cpython#96062), unpickling a child's message
runs the child's code, `recv` has no limit of length, and a frame torn by SIGKILL blocks the reader. Here the processes
share nothing that a dead one could hold, and a reader takes only bytes that have arrived, within a limit.
"""

import functools
import os
import struct
from typing import Any, Generic, TypeVar

import msgspec

MAX_FRAME = 8 << 20
"""Bytes in the largest frame that a task process may send."""

MAX_REQUEST = 64 << 20
"""Bytes in the largest frame that the supervisor sends: it carries a task's data."""

_LENGTH = struct.Struct("!I")

M = TypeVar("M")


def encode(message: msgspec.Struct) -> bytes:
    """Make a frame: the length in four bytes, most significant first, then the message as JSON."""
    body = msgspec.json.encode(message)
    return _LENGTH.pack(len(body)) + body


@functools.cache  # making one takes 0.4 ms; a task process inherits the zygote's
def _decoder(messages: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(messages)


class Decoder(Generic[M]):
    """Turns bytes, in pieces of any size, into messages of the types in `messages`.

    It never raises, whatever it is fed. At the first bytes that are no message, `error` becomes one line that says what
    is wrong, and all later data is ignored. It holds at most one unfinished frame.
    """

    def __init__(self, messages: Any, limit: int) -> None:
        self.error = ""
        self._decoder: msgspec.json.Decoder[M] = _decoder(messages)
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """True while a frame has begun to arrive and has not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[M]:
        """Add `data`, and return the messages that are complete now."""
        messages: list[M] = []
        if self.error:
            return messages
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > self._limit:
                self._fail(f"announced a message of {length} bytes (the limit is {self._limit})")
                return messages
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            try:
                messages.append(self._decoder.decode(self._buffer[start + _LENGTH.size : end]))
            except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, no such message, nested too deeply
                self._fail(f"sent what is no message: {error}")
                return messages
            start = end
        del self._buffer[:start]
        return messages

    def _fail(self, error: str) -> None:
        self.error = error
        self._buffer.clear()


class Queue(Generic[M]):
    """The task process's end of the queue. It blocks, and trusts the supervisor.

    Attributes:
        descriptor: The socket; an object of it would take each task process 30 page faults.
    """

    def __init__(self, messages: Any, descriptor: int = -1, limit: int = MAX_REQUEST) -> None:
        self.descriptor = descriptor
        self._decoder: Decoder[M] = Decoder(messages, limit)
        self._received: list[M] = []

    def get(self) -> M | None:
        """Wait for the next message; `None` if the other side has closed the queue or sends something else."""
        while not self._received:
            try:
                data = os.read(self.descriptor, 1 << 16)
            except ConnectionError:  # the other side closed without reading all that we sent: unix(7)
                return None
            if not data:
                return None
            self._received = self._decoder.feed(data)
            if self._decoder.error:
                return None
        return self._received.pop(0)

    def put(self, message: msgspec.Struct) -> None:
        """Send `message`; waits while the other side does not read.

        Raises:
            OSError: the other side is gone.
            OverflowError: the message takes more than `MAX_FRAME` bytes, and is not sent.
        """
        frame = encode(message)
        if len(frame) > MAX_FRAME:
            raise OverflowError(f"the message takes {len(frame)} bytes")
        while frame:
            frame = frame[os.write(self.descriptor, frame) :]
