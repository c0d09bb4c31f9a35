"""The supervisor's end of a queue to a child: a task process or the zygote.

Nothing here waits for the other side, and nothing that the other side sends grows here: a message is taken when all of
it has arrived, within a limit of its size, and within a rate. After the first breach nothing more is read.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ipc.queue import Decoder
from supervisor.isolation.clock import Clock

READ_SIZE = 1 << 16
"""Bytes that are read at once: a flood does not keep the loop from its other work for long."""

LATE_CHECK = 0.5
"""Seconds between two looks at an unfinished frame, at least. While paused, its deadline does not come nearer."""

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits on what the other side may send."""

    frame_size: int
    """Bytes in the largest frame."""
    frame_timeout: float = float("inf")
    """Seconds in which a frame that has begun must have arrived. Time while paused does not count."""
    burst: float = float("inf")
    """Messages at once."""
    per_second: float = 0.0
    """Messages a second in the long run, if there is a `burst`."""


class Channel(Generic[M]):
    """Reads messages of the types in `messages` from `connection`, and sends frames. `close` must be called.

    `on_message` is called for each message, in the event loop. `on_end` is called once, when nothing more is read: with
    the breach of `bounds` or of the protocol, or with an empty text if the other side has closed its end.
    """

    def __init__(
        self,
        connection: socket.socket,
        messages: Any,
        bounds: Bounds,
        clock: Clock,
        on_message: Callable[[M], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._socket = connection
        self._decoder: Decoder[M] = Decoder(messages, bounds.frame_size)
        self._bounds = bounds
        self._clock = clock
        self._on_message = on_message
        self._on_end = on_end
        self._unsent = bytearray()
        self._is_waiting = False
        self._frame_timer: asyncio.TimerHandle | None = None
        self._frame_deadline = 0.0
        self._loop = asyncio.get_running_loop()
        self._allowed = bounds.burst
        self._counted_at = self._loop.time()
        self._reading = True
        connection.setblocking(False)
        self._loop.add_reader(connection, self._readable)

    def close(self) -> None:
        """Close the connection. A frame that the other side has not taken is dropped."""
        self.stop_reading()
        self._drop_unsent()
        self._socket.close()

    # --- sending ---

    @property
    def is_sending(self) -> bool:
        """True while the other side has not taken all that was sent."""
        return bool(self._unsent)

    def send(self, frame: bytes) -> None:
        """Send `frame` whole, after what the other side has not taken yet. If it is gone, nothing happens."""
        self._unsent += frame
        self._send_unsent()

    def send_now(self, frame: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send `frame`, with `descriptors`, which may be closed afterwards.

        Raises:
            OSError: the other side is gone, or has not read for so long that the socket is full.
        """
        if self._unsent:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        sent = socket.send_fds(self._socket, [frame], list(descriptors))  # they go with the first byte
        if sent < len(frame):
            self.send(frame[sent:])

    def finish_sending(self) -> None:
        """Tell the other side that nothing more comes."""
        with contextlib.suppress(OSError):  # it is gone
            self._socket.shutdown(socket.SHUT_WR)

    def _send_unsent(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is gone, which the reading side or the zygote is about to tell
            self._unsent.clear()
        if self._unsent:
            self._is_waiting = True
            self._loop.add_writer(self._socket, self._send_unsent)
        else:
            self._drop_unsent()

    def _drop_unsent(self) -> None:
        self._unsent.clear()
        if self._is_waiting:  # to remove a writer that is not there makes an error, with the socket's two names
            self._is_waiting = False
            self._loop.remove_writer(self._socket)

    # --- reading ---

    def drain(self) -> None:
        """Read what the other side had sent before it ended."""
        while self._reading and self._has_data():
            self._readable()

    def stop_reading(self) -> None:
        """Read nothing more. `on_end` is not called."""
        if self._frame_timer:
            self._frame_timer.cancel()
            self._frame_timer = None
        if self._reading:
            self._loop.remove_reader(self._socket)
            self._reading = False

    def seconds_until(self, allowed: float) -> float:
        """The time until `allowed` messages may be sent at once, from the last message on."""
        return max(0.0, allowed - self._allowed) / self._bounds.per_second

    def _has_data(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        messages = self._decoder.feed(data)
        if not self._is_within_rate(len(messages)):
            self._end(f"sent more than {self._bounds.burst:g} messages at once")
            return
        self._watch_frame(progress=bool(messages))
        for message in messages:
            self._on_message(message)
        if self._decoder.error or not data:
            self._end(self._decoder.error)

    def _end(self, breach: str) -> None:
        if self._reading:
            self.stop_reading()
            self._on_end(breach)

    def _is_within_rate(self, count: int) -> bool:
        now = self._loop.time()
        earned = (now - self._counted_at) * self._bounds.per_second
        self._counted_at = now
        self._allowed = min(self._bounds.burst, self._allowed + earned) - count
        return self._allowed >= 0

    def _watch_frame(self, progress: bool) -> None:
        """Set a deadline for a frame that has begun, and lift it when one has ended."""
        if self._frame_timer and (progress or not self._decoder.pending):
            self._frame_timer.cancel()
            self._frame_timer = None
        if self._decoder.pending and self._frame_timer is None:
            self._frame_deadline = self._clock.now() + self._bounds.frame_timeout
            self._check_frame()

    def _check_frame(self) -> None:
        left = self._frame_deadline - self._clock.now()
        if left <= 0:
            self._end(f"did not finish a message within {self._bounds.frame_timeout:g} s")
        elif left < float("inf"):
            self._frame_timer = self._loop.call_later(max(left, LATE_CHECK), self._check_frame)
