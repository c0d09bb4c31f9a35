"""One task process: start it, take it through its steps, stop it.

Whatever the process does, a step ends: with its own answer, or with a `Failed` that says why there was none.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from loguru import logger

from ipc import linux
from ipc.messages import (
    TASK_REASONS,
    Cause,
    Data,
    Done,
    Exited,
    Failed,
    FromTask,
    Get,
    Progress,
    Put,
    Ready,
    Start,
    Step,
    StepName,
)
from ipc.queue import MAX_FRAME, MAX_REQUEST, Decoder, encode
from supervisor.isolation import sampler
from supervisor.isolation.cgroup import Cgroup, Cgroups
from supervisor.isolation.clock import Clock
from supervisor.isolation.failure import StopOrder, explain_status
from supervisor.isolation.limits import Duration, Limits
from supervisor.isolation.limits import apply as apply_limits
from supervisor.isolation.line_pipe import LinePipe
from supervisor.isolation.zygote import Child, Zygote

MESSAGES_PER_SECOND = 100
MESSAGES_BURST = 400
"""What a task process may send: its heartbeat sends four messages a second, so this is no module's honest doing."""

MESSAGES_KEPT = 200
"""Of the burst, for heartbeats: a module that asks for server-side data in a loop waits for its answers, and lives."""

CLOSE_TIMEOUT = 5.0
"""Seconds in which a task process whose steps are done must have exited."""

FRAME_TIMEOUT = 5.0
"""Seconds in which a message that has begun must have arrived; the largest takes milliseconds."""

PAUSED_LOOK = 1.0
"""Seconds between two looks at a clock that stands still."""

EXIT_PATIENCE = 1.0
"""Seconds between a task process closing its queue and its exit; what lives on has broken the protocol."""

_SYSLOG_LEVELS = {"7": "DEBUG", "6": "INFO", "4": "WARNING", "3": "ERROR"}

StepResult = Ready | Done | Failed

Exchange = Callable[[Get | Put], Awaitable[Data]]
"""Asks the API server on a task's behalf."""


async def without_server(request: Get | Put) -> Data:
    """The exchange where there is no API server."""
    del request
    return Data(0, error="the client runs without an API server")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a task process is started in and held to."""

    zygote: Zygote
    cgroups: Cgroups | None
    limits: Limits
    clock: Clock


class TaskProcess:
    """A running task process. Made by `start`; `close` must be called.

    Attributes:
        pid: Its process id.
    """

    def __init__(
        self, zygote: Zygote, clock: Clock, on_status: Callable[[msgspec.Raw], None], exchange: Exchange
    ) -> None:
        self._zygote = zygote
        self._clock = clock
        self._cgroup: Cgroup | None = None
        self._memory_limit: str | None = None
        self._frozen: list[int] | None = None
        self._memory_kills = linux.out_of_memory_kills()
        self._on_status = on_status
        self._exchange = exchange
        self._exchanging: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._messages: Decoder[FromTask] = Decoder(FromTask, MAX_FRAME)
        self._unsent = bytearray()
        self._answer: asyncio.Future[StepResult] | None = None
        self._ended: Cause | None = None
        self._reading = False
        self._busy = False
        self._due: tuple[type, ...] = ()
        self._frame_deadline: asyncio.TimerHandle | None = None
        self._allowed = float(MESSAGES_BURST)
        self._counted_at = self._loop.time()
        self._stop: asyncio.Future[StopOrder] = self._loop.create_future()
        self._child: Child
        self._socket: socket.socket
        self._log: LinePipe
        self._output: LinePipe

    @classmethod
    async def start(
        cls,
        confines: Sandbox,
        label: str,
        job_id: str,
        on_status: Callable[[msgspec.Raw], None],
        exchange: Exchange = without_server,
    ) -> "TaskProcess":
        """Have the zygote fork a task process; it waits for its `Start`. `label` names the task in the log.

        `exchange` asks the API server for the task, one thing at a time, and is cancelled when the step ends.

        Raises:
            SpawnError: it could not be started.
            LimitError: one of its limits cannot be applied.
            OSError: there are too few descriptors.
        """
        self = cls(confines.zygote, confines.clock, on_status, exchange)
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self._socket, queue = socket.socketpair()
            ours.enter_context(self._socket)
            theirs.enter_context(queue)
            readers = []
            descriptors = [queue.fileno()]
            for _ in range(2):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                ours.callback(os.close, reader)
                theirs.callback(os.close, writer)
                os.set_blocking(reader, False)
                readers.append(reader)
                descriptors.append(writer)
            self._child = await confines.zygote.spawn(descriptors)
            ours.pop_all()
        bound = logger.bind(job=job_id, task=label, pid=self.pid)
        self._log = LinePipe(readers[0], lambda line: bound.log(*_level(line)))
        self._output = LinePipe(readers[1], lambda line: bound.info("{}", line))
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)
        self._reading = True
        self._child.exited.add_done_callback(self._on_exited)
        try:
            self._confine(confines)
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it can take another step."""
        return self._ended is None

    def stop(self, order: StopOrder) -> None:
        """Stop the step under way, or the next one.

        Only the first order is recorded; a later one with `now=True` still kills at once.
        """
        if not self._stop.done():
            self._stop.set_result(order)
        elif order.now:
            self._order_kill()

    async def pause(self) -> None:
        """Stop the whole tree where it is. Killing it works all the same."""
        if self._frozen is not None or self._ended:
            return
        self._frozen = []
        if self._cgroup:
            with contextlib.suppress(OSError):
                self._cgroup.freeze(True)
                return
        self._frozen = await asyncio.to_thread(sampler.freeze, self.pid)

    async def resume(self) -> None:
        """Let the tree go on where it was."""
        frozen, self._frozen = self._frozen, None
        if frozen is None or self._ended:
            return
        if self._cgroup:
            with contextlib.suppress(OSError):
                self._cgroup.freeze(False)
        await asyncio.to_thread(sampler.thaw, frozen)

    async def step(self, name: StepName, request: Start | Step, timeout: Duration, grace: float) -> StepResult:
        """Have the process do one step, and wait for its end.

        After the timeout or an order to stop, the process is asked, and killed after `grace` seconds.
        """
        self._busy = True
        self._due = (Failed, Ready if isinstance(request, Start) else Done)
        self._answer = self._loop.create_future()
        if self._ended:
            self._answer.set_result(Failed(self._ended))
        else:
            self._send(encode(request))
        ends: list[asyncio.Future[Any]] = [self._answer, self._stop]
        try:
            await self._wait(ends, timeout.seconds)
            if self._answer.done():
                answer = self._answer.result()
                if self._ended and self._ended.reason == "protocol":
                    answer = Failed(self._ended)  # ignore an answer that came together with a protocol violation
            else:
                if not self._stop.done():
                    cause = Cause("timeout", f"{name} did not end within {timeout.text}", limit=timeout.text)
                    self._stop.set_result(StopOrder(cause))
                await self._end_step(self._stop.result(), grace)
                answer = Failed(self._stop.result().cause)
            return Failed(self._with_evidence(answer.cause), answer.warnings) if isinstance(answer, Failed) else answer
        finally:
            self._end_exchange()
            self._answer = None
            if self._stop.done():
                self._stop = self._loop.create_future()

    async def close(self) -> Exited | Cause:
        """Let the process exit, or kill it where it is in the middle of a step; returns when nothing of it is alive."""
        if not self._busy and self._frozen is None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            await asyncio.wait([self._child.exited], timeout=CLOSE_TIMEOUT)
        exited = await self._kill()
        self._end_exchange()
        self._stop_reading()
        self._stop_sending()
        self._socket.close()
        self._log.close()
        self._output.close()
        if self._cgroup:
            self._cgroup.remove()
        return exited

    def _confine(self, confines: Sandbox) -> None:
        """Apply the limits, before the module's code runs: the process waits for its first message."""
        limits = confines.limits
        if confines.cgroups and (cgroup := confines.cgroups.make(self._child.number)):
            cgroup.limit(limits.memory.bytes if limits.memory else None, limits.processes)
            try:
                cgroup.add(self.pid)
            except OSError as error:
                logger.debug("Task process {} gets no cgroup: {}", self.pid, error.strerror)
                cgroup.remove()
            else:
                self._cgroup = cgroup
                self._memory_limit = limits.memory.text if limits.memory else None
        apply_limits(limits, self.pid)

    async def _wait(self, ends: list["asyncio.Future[Any]"], seconds: float) -> None:
        """Wait for one of `ends`, for at most `seconds` that are not spent paused."""
        deadline = self._clock.now() + seconds
        while (left := deadline - self._clock.now()) > 0:
            wait = PAUSED_LOOK if self._clock.paused else left
            if (await asyncio.wait(ends, timeout=wait, return_when=asyncio.FIRST_COMPLETED))[0]:
                return

    async def _kill(self) -> Exited | Cause:
        if self._cgroup and not self._child.exited.done():
            self._cgroup.kill()
        return await self._zygote.kill(self._child)

    def _order_kill(self) -> None:
        if self._cgroup and not self._child.exited.done():
            self._cgroup.kill()
        self._zygote.order_kill(self._child)

    async def _end_step(self, order: StopOrder, grace: float) -> None:
        """Ask, wait the grace, kill. A process that stops when asked lives on, for its cleanup."""
        assert self._answer is not None
        if not order.now:
            await self.resume()
            self._zygote.terminate(self._child)
            await asyncio.wait([self._answer], timeout=grace)
        if order.now or not self._answer.done():
            await self._kill()

    def _send(self, frame: bytes) -> None:
        """Send `frame` whole, after what the process has not taken yet; a step's end must tear none."""
        self._unsent += frame
        self._send_on()

    def _send_on(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is gone, and the zygote is about to say how
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(self._socket, self._send_on)
        else:
            self._stop_sending()

    def _stop_sending(self) -> None:
        self._unsent.clear()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        messages = self._messages.feed(data)
        if not self._within_rate(len(messages)):
            self._break(f"sent more than {MESSAGES_BURST} messages at once")
            return
        self._watch_frame(progress=bool(messages))
        for message in messages:
            self._take(message)
        if self._messages.error:
            self._break(self._messages.error)
        elif not data:
            # Most likely it is dying, and how it died says more than a torn frame. It may also have closed the queue.
            self._stop_reading()
            self._loop.call_later(EXIT_PATIENCE, self._break, "closed its queue without an answer")

    def _watch_frame(self, progress: bool) -> None:
        """Set a deadline for a frame that has begun, and lift it when one has ended."""
        if self._frame_deadline and (progress or not self._messages.pending):
            self._frame_deadline.cancel()
            self._frame_deadline = None
        if self._messages.pending and self._frame_deadline is None:
            self._frame_deadline = self._loop.call_later(FRAME_TIMEOUT, self._frame_is_late)

    def _frame_is_late(self) -> None:
        self._frame_deadline = None
        if self._frozen is None:
            self._break(f"did not finish a message within {FRAME_TIMEOUT:g} s")
        else:
            self._watch_frame(progress=False)  # it is stopped in the middle of it, and goes on when it is resumed

    def _take(self, message: FromTask) -> None:
        match message:
            case Progress(status):
                self._on_status(status)
            case Get() | Put():
                self._begin_exchange(message)
            case Failed(cause) if cause.reason not in TASK_REASONS:
                self._break(f"gave a reason ({cause.reason}) that is not its to give")
            case _ if self._answer is None or self._answer.done() or not isinstance(message, self._due):
                self._break(f"answered ({type(message).__name__}) without being asked for that")
            case _:
                self._busy = False
                self._answer.set_result(message)

    def _begin_exchange(self, request: Get | Put) -> None:
        """Ask the API server, if the process may: in a step, and when it has taken the answer before this."""
        asked = f"asked for server-side data ({type(request).__name__})"
        if self._answer is None or self._answer.done():
            self._break(f"{asked} without having a step to do")
        elif self._exchanging or self._unsent:
            self._break(f"{asked} before it had its last answer")
        else:
            self._exchanging = asyncio.create_task(self._serve(request))

    async def _serve(self, request: Get | Put) -> None:
        await asyncio.sleep(max(0.0, MESSAGES_KEPT - self._allowed) / MESSAGES_PER_SECOND)
        try:
            frame = _answer_frame(await self._exchange(request))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - outermost frame, and another's code
            if self._exchanging is asyncio.current_task():
                logger.opt(exception=error).error("Asking the API server for a task failed")
            frame = encode(Data(0, error=f"asking it failed: {type(error).__name__}"))
        if self._exchanging is asyncio.current_task():  # else the step is over, and this would be taken for another's
            self._exchanging = None
            self._send(frame)

    def _end_exchange(self) -> None:
        exchanging, self._exchanging = self._exchanging, None
        if exchanging:
            exchanging.cancel()

    def _within_rate(self, count: int) -> bool:
        now = self._loop.time()
        earned = (now - self._counted_at) * MESSAGES_PER_SECOND
        self._counted_at = now
        self._allowed = min(MESSAGES_BURST, self._allowed + earned) - count
        return self._allowed >= 0

    def _break(self, error: str) -> None:
        """The process does not keep to the protocol: read nothing more from it and end it."""
        self._stop_reading()
        if self._ended is None:
            self._settle(Cause("protocol", f"the task process {error}"))
            self._order_kill()

    def _on_exited(self, future: asyncio.Future[Exited | Cause]) -> None:
        self._drain()
        if self._ended is None:
            exited = future.result()
            self._settle(exited if isinstance(exited, Cause) else explain_status(exited.status))

    def _drain(self) -> None:
        """Take what the process had sent before it ended: an answer among it stands."""
        while self._reading and self._pending():
            self._readable()

    def _pending(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _settle(self, cause: Cause) -> None:
        self._ended = cause
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Failed(cause))

    def _stop_reading(self) -> None:
        if self._frame_deadline:
            self._frame_deadline.cancel()
            self._frame_deadline = None
        if self._reading:
            self._loop.remove_reader(self._socket)
            self._reading = False

    def _with_evidence(self, cause: Cause) -> Cause:
        """`cause` with the last lines of the log and of what was printed, and the kernel's part in it."""
        self._log.drain()
        self._output.drain()
        log = tuple(_level(line)[1] for line in self._log.last_lines())
        stderr = cause.stderr or self._output.last_lines()
        return msgspec.structs.replace(self._blame_memory(cause), log=log, stderr=stderr)

    def _blame_memory(self, cause: Cause) -> Cause:
        """Tell a kill for want of memory from others. Our own kills have an order, whose cause names no signal."""
        if cause.signal != "SIGKILL":
            return cause
        in_cgroup = self._cgroup.out_of_memory_kills() if self._cgroup else 0
        if not in_cgroup and linux.out_of_memory_kills() == self._memory_kills:
            return cause
        message = f"{cause.message}: the kernel's out-of-memory killer took it"
        limit = self._memory_limit if self._cgroup and self._cgroup.over_its_memory() else None
        if limit:
            message += f", over the limit of {limit}"
        return msgspec.structs.replace(cause, reason="memory", message=message, limit=limit)


def _answer_frame(data: Data) -> bytes:
    if len(data.body) > MAX_REQUEST or len(frame := encode(data)) > MAX_REQUEST:
        return encode(Data(0, error=f"what it sends is more than a task process can take ({MAX_REQUEST >> 20} MiB)"))
    return frame


def _level(line: str) -> tuple[str, str]:
    """The level that the prefix of a log line tells, as in sd-daemon(3), and the line without it."""
    if len(line) >= 3 and line[0] == "<" and line[2] == ">" and line[1] in _SYSLOG_LEVELS:
        return _SYSLOG_LEVELS[line[1]], line[3:]
    return "INFO", line
