"""The task process's end of its queue: requests in, messages out, and server-side data during a step.

Between steps the main thread reads the queue. The first exchange of server-side data starts a reader thread, which
reads from then on. A reader is needed because several threads of a module may wait for data at once, and because
`TerminationRequested`, which is raised in the main thread only, could otherwise tear a frame that is half read.
"""

import os
import signal
import threading
from collections import deque
from queue import Empty, SimpleQueue
from types import FrameType

import msgspec
from loguru import logger

from ipc.messages import Data, Done, Failed, Progress, Ready, Request, Start, Step, ToTask
from ipc.queue import MAX_FRAME, Queue, encode

# Seconds. A signal that arrives while the main thread is about to wait does not end its wait: the interpreter runs a
# handler before or after a lock is awaited, and a first wait lets the reader have the interpreter in between.
SIGNAL_LOOK = 0.1


class TerminationRequested(BaseException):
    """The supervisor asks the task to stop. Not an `Exception`, so that a module's handlers let it through."""


class Termination:
    """Raises `TerminationRequested` in the main thread when SIGTERM arrives during a step.

    The module is unwound by it, so that its `finally` blocks and `modules.tool` stop what they started. SIGTERM
    between two steps has no effect.

    In a `with` statement of the main thread, it is raised only at the end. The zygote, where SIGTERM is blocked, makes
    it and installs the handler, so that no task process has to.

    Attributes:
        in_step: Code of the module may be running.
    """

    def __init__(self) -> None:
        self.in_step = False
        self._thread = threading.get_ident()
        self._deferrals = 0
        self._is_pending = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def begin_step(self) -> None:
        """Forget a SIGTERM that came too late for the step before."""
        self._is_pending = False
        self.in_step = True

    def __enter__(self) -> None:
        # Signal handlers run in the main thread, and in no other.
        self._deferrals += threading.get_ident() == self._thread

    def __exit__(self, *exception: object) -> None:
        if threading.get_ident() != self._thread:
            return
        self._deferrals -= 1
        if self._is_pending and self.in_step and not self._deferrals:
            self._is_pending = False
            raise TerminationRequested

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._deferrals:
            self._is_pending = True
        elif self.in_step:
            raise TerminationRequested


class Exchange:
    """Receives requests, sends messages and asks for server-side data over `queue`. Any thread may send and ask."""

    def __init__(self, queue: Queue[ToTask], termination: Termination) -> None:
        self._queue = queue
        self._termination = termination
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: deque[tuple[Request, SimpleQueue[Data]]] = deque()
        self._requests: SimpleQueue[Start | Step | None] | None = None  # filled by the reader, once there is one

    def receive(self) -> Start | Step | None:
        """Wait for the next request; `None` when the supervisor has closed the queue."""
        if self._requests is not None:
            return self._requests.get()
        while isinstance(message := self._queue.get(), Data):
            pass  # nobody here asked: the module has written to the queue by itself
        return message

    def send(self, message: Ready | Progress | Request | Done | Failed) -> None:
        """Send `message`. Ends the process if the supervisor is gone."""
        try:
            # A half-sent frame must be completed, or the supervisor reads garbage.
            with self._termination, self._sending:
                self._queue.put(message)
        except OSError:
            os._exit(1)  # the supervisor is gone, and the kernel is about to say so

    def send_status(self, status: bytes) -> None:
        """Send what the heartbeat is to report, as JSON. The heartbeat's timer thread calls this, too."""
        if len(status) > MAX_FRAME // 2:
            logger.warning("The status is too large to report ({} bytes)", len(status))
        else:
            self.send(Progress(msgspec.Raw(status)))

    # --- server-side data ---

    def open(self) -> None:
        """Let threads ask for server-side data, from the beginning of a step on."""
        self._is_open = True

    def close(self, reason: str) -> None:
        """Let nobody ask until the next `open`, and answer threads that still wait with the error `reason`."""
        with self._lock:
            self._is_open = False
            waiting, self._waiting = self._waiting, deque()
        for _, answer in waiting:
            answer.put(Data(0, error=reason))

    def ask(self, request: Request) -> Data:
        """Have the supervisor carry out a request, and wait for the answer. Its status is 0 if there is none.

        The supervisor takes one request at a time, so requests wait for each other; answers arrive in the order
        of the requests. An answer that arrives between two steps is discarded.
        """
        if len(encode(request)) > MAX_FRAME:  # backslashes and quotes take two bytes there
            return Data(0, error="what is to be stored takes too many bytes to be sent")
        answer: SimpleQueue[Data] = SimpleQueue()
        with self._termination, self._lock:
            if not self._is_open:
                return Data(0, error="it can be asked only during a step of the task")
            try:
                self._start_reader()
            except RuntimeError as error:
                return Data(0, error=f"it takes a thread to ask it: {error}")
            self._waiting.append((request, answer))
            if len(self._waiting) == 1:
                self.send(request)
        while True:
            try:
                # `TerminationRequested` may be raised here: nobody takes the answer then.
                return answer.get(timeout=SIGNAL_LOOK)
            except Empty:
                pass  # see SIGNAL_LOOK

    def _start_reader(self) -> None:
        if self._requests is None:
            requests: SimpleQueue[Start | Step | None] = SimpleQueue()
            threading.Thread(target=self._read, args=(requests,), name="reader", daemon=True).start()
            self._requests = requests

    def _read(self, requests: "SimpleQueue[Start | Step | None]") -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread is to have them
        while (message := self._queue.get()) is not None:
            if isinstance(message, Data):
                self._pass_on(message)
            else:
                requests.put(message)
        self.close("the supervisor is gone")
        requests.put(None)

    def _pass_on(self, data: Data) -> None:
        """Give `data` to the thread that has waited longest, and send the next thread's request."""
        with self._lock:
            if not self._waiting:
                return
            _, answer = self._waiting.popleft()
            if self._waiting:
                self.send(self._waiting[0][0])
        answer.put(data)
