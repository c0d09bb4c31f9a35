"""One task process: start it, take it through its steps, stop it, pause it, close it.

Whatever the process does, a step ends: with the process's own answer, or with a `Failed` that says why there is none.
"""

import asyncio
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
    Request,
    Save,
    Start,
    Step,
    StepName,
)
from ipc.queue import MAX_FRAME, MAX_REQUEST, encode
from supervisor.isolation import sampler
from supervisor.isolation.cgroup import Cgroup, Cgroups
from supervisor.isolation.channel import Bounds, Channel
from supervisor.isolation.clock import Alarm, Clock
from supervisor.isolation.failure import StopOrder, explain_status
from supervisor.isolation.limits import Duration, Limits
from supervisor.isolation.limits import apply as apply_limits
from supervisor.isolation.line_pipe import LinePipe, split_level
from supervisor.isolation.zygote import Child, Zygote

MESSAGES_PER_SECOND = 100
MESSAGES_BURST = 400
"""Messages that a task process may send. Its heartbeat sends four a second, so no honest module comes near this."""

MESSAGES_KEPT = 200
"""Burst allowance reserved for heartbeats: a module polling data in a loop is slowed down, not killed."""

CLOSE_TIMEOUT = 5.0
"""Seconds in which a task process must have exited after its last step."""

FRAME_TIMEOUT = 5.0
"""Seconds in which a message that has begun must have arrived. The largest takes milliseconds."""

PAUSED_LOOK = 1.0
"""Seconds between two looks at a clock that stands still."""

EXIT_PATIENCE = 1.0
"""Seconds between a task process closing its queue and its exit. If it lives on, it has broken the protocol."""

StepResult = Ready | Done | Failed

ServerExchange = Callable[[Get | Put], Awaitable[Data]]
"""Asks the API server on behalf of a task."""

Exchange = Callable[[Request], Awaitable[Data]]
"""Answers a request of a task process: asks the API server, or saves the task's state."""


async def without_server(request: Request) -> Data:
    """The exchange of a client without an API server."""
    del request
    return Data(0, error="the client runs without an API server")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The sandbox of a task process: zygote, cgroups, limits and a pausable clock."""

    zygote: Zygote
    cgroups: Cgroups | None
    limits: Limits
    clock: Clock


class TaskProcess:
    """A running task process. Made by `start`; `close` must be called."""

    def __init__(
        self,
        sandbox: Sandbox,
        child: Child,
        bound_logger: Any,
        on_status: Callable[[msgspec.Raw], None],
        exchange: Exchange,
        redact: Callable[[Any], Any],
    ) -> None:
        self._zygote = sandbox.zygote
        self._clock = sandbox.clock
        self._child = child
        self._cgroup: Cgroup | None = None
        self._memory_limit: str | None = None
        self._memory_kills = linux.out_of_memory_kills()
        self._frozen: list[int] | None = None
        self._on_status = on_status
        self._exchange = exchange
        self._exchanging: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._is_asked = False
        self._answer: StepResult | None = None
        self._due: tuple[type, ...] = ()
        self._busy = False
        self._ended: Cause | None = None
        self._stop: StopOrder | None = None
        self._alarm = Alarm()
        self._log = LinePipe(child.log, lambda line: bound_logger.log(*redact(split_level(line))))
        self._output = LinePipe(child.output, lambda line: bound_logger.info("{}", redact(line)))
        self._channel: Channel[FromTask] = Channel(
            child.queue,
            FromTask,
            Bounds(MAX_FRAME, FRAME_TIMEOUT, MESSAGES_BURST, MESSAGES_PER_SECOND),
            sandbox.clock,
            self._take,
            self._on_channel_end,
        )
        self._child.exited.add_done_callback(self._on_exited)

    @classmethod
    async def start(
        cls,
        sandbox: Sandbox,
        label: str,
        job_id: str,
        on_status: Callable[[msgspec.Raw], None],
        exchange: Exchange = without_server,
        redact: Callable[[Any], Any] = lambda value: value,
    ) -> "TaskProcess":
        """Have the zygote fork a task process, which then waits for its `Start`.

        `label` names the task in the log. `on_status` gets what the module tells its heartbeat. `exchange` answers
        its requests, one at a time, and is cancelled when the step ends. `redact` removes secrets from the log.

        Raises:
            SpawnError: it could not be started.
            LimitError: one of its limits cannot be applied.
            OSError: there are too few descriptors.
        """
        child = await sandbox.zygote.spawn()
        bound_logger = logger.bind(job=job_id, task=label, pid=child.pid)
        self = cls(sandbox, child, bound_logger, on_status, exchange, redact)
        try:
            await self._confine(sandbox)
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
        """True while it can take another step."""
        return self._ended is None

    @property
    def lost(self) -> bool:
        """True if it ended because the zygote was lost."""
        return self._ended is not None and self._ended.reason == "lost"

    async def step(self, name: StepName, request: Start | Step, timeout: Duration, grace: float) -> StepResult:
        """Have the process do one step, and wait for its end.

        After the timeout or an order to stop, the process is asked to stop, and killed after `grace` seconds.
        """
        self._busy = self._is_asked = True
        self._due = (Failed, Ready if isinstance(request, Start) else Done)
        self._answer = Failed(self._ended) if self._ended else None
        if self._answer is None:
            self._channel.send(encode(request))
        try:
            answer = await self._wait(timeout.seconds)
            if answer is None:
                answer = Failed(await self._stop_step(name, timeout, grace))
            elif self._ended and self._ended.reason == "protocol":
                answer = Failed(self._ended)  # ignore an answer that came together with a breach
            return self._with_evidence(answer) if isinstance(answer, Failed) else answer
        finally:
            self._end_exchange()
            self._is_asked, self._stop = False, None

    def stop(self, order: StopOrder) -> None:
        """Stop the step under way, or the next one.

        Only the first order is recorded; a later one with `now=True` still kills at once.
        """
        if self._stop is None:
            self._stop = order
            self._alarm.ring()
        elif order.now:
            self._order_kill()

    async def pause(self) -> None:
        """Stop the whole process tree where it is. It can be killed all the same."""
        if self._frozen is not None or self._ended:
            return
        self._frozen = []  # already before the tree is stopped: `close` must not wait for its exit
        self._frozen = await asyncio.to_thread(sampler.freeze, self.pid)

    async def resume(self) -> None:
        """Let the process tree continue."""
        frozen, self._frozen = self._frozen, None
        if frozen is not None and not self._ended:
            await asyncio.to_thread(sampler.thaw, frozen)

    async def close(self) -> Exited | Cause:
        """Let the process exit, or kill it if it is in the middle of a step. Returns when nothing of it is alive."""
        if not self._busy and self._frozen is None:
            self._channel.finish_sending()
            await asyncio.wait([self._child.exited], timeout=CLOSE_TIMEOUT)
        exited = await self._kill()
        self._end_exchange()
        self._channel.close()
        self._log.close()
        self._output.close()
        if self._cgroup:
            self._cgroup.remove()
        return exited

    async def _confine(self, sandbox: Sandbox) -> None:
        """Apply the limits. The module's code does not run yet: the process waits for its first message."""
        limits = sandbox.limits
        if sandbox.cgroups and (cgroup := sandbox.cgroups.make(self._child.number)):
            cgroup.limit(limits.memory.bytes if limits.memory else None, limits.processes)
            try:
                # In a thread: the kernel waits a millisecond, until no other processor is in the middle of a fork.
                await asyncio.to_thread(cgroup.add, self.pid)
            except OSError as error:
                logger.debug("Task process {} gets no cgroup: {}", self.pid, error.strerror)
                cgroup.remove()
            else:
                self._cgroup = cgroup
                self._memory_limit = limits.memory.text if limits.memory else None
        apply_limits(limits, self.pid)

    # --- the end of a step, and of the process ---

    async def _wait(self, seconds: float) -> StepResult | None:
        """Wait for the answer or an order to stop, at most `seconds`. Time while paused does not count."""
        deadline = self._clock.now() + seconds
        while not (self._answer or self._stop) and (left := deadline - self._clock.now()) > 0:
            await self._alarm.wait(PAUSED_LOOK if self._clock.paused else left)
        return self._answer

    async def _stop_step(self, name: StepName, timeout: Duration, grace: float) -> Cause:
        """Ask, wait the grace, kill. A process that stops when asked lives on, for its cleanup."""
        if self._stop is None:
            cause = Cause("timeout", f"{name} did not end within {timeout.text}", limit=timeout.text)
            self._stop = StopOrder(cause)
        order = self._stop
        if not order.now:
            await self.resume()
            self._zygote.terminate(self._child)
            deadline = self._loop.time() + grace
            while self._answer is None and (left := deadline - self._loop.time()) > 0:
                await self._alarm.wait(left)
        if order.now or self._answer is None:
            await self._kill()
        return order.cause

    async def _kill(self) -> Exited | Cause:
        self._order_kill()
        return await self._zygote.await_end(self._child)

    def _order_kill(self) -> None:
        if self._cgroup and not self._child.exited.done():
            self._cgroup.kill()
        self._zygote.kill(self._child)

    def _on_exited(self, future: "asyncio.Future[Exited | Cause]") -> None:
        self._channel.drain()  # an answer that it sent before it ended counts
        exited = future.result()
        self._end(exited if isinstance(exited, Cause) else explain_status(exited.status))

    def _on_channel_end(self, breach: str) -> None:
        if breach:
            self._break(breach)
        else:
            # Most likely it is dying, and its exit status says more. But it may have closed the queue alone.
            self._loop.call_later(EXIT_PATIENCE, self._break, "closed its queue without an answer")

    def _break(self, breach: str) -> None:
        """The process has broken the protocol: read nothing more from it, and end it."""
        self._channel.stop_reading()
        if self._ended is None:
            self._end(Cause("protocol", f"the task process {breach}"))
            self._order_kill()

    def _end(self, cause: Cause) -> None:
        """Note how the process ended, unless that is known, and end the step under way."""
        if self._ended is None:
            self._ended = cause
            self._give(Failed(cause))

    def _give(self, answer: StepResult) -> None:
        """End the step under way with this answer, if it has none."""
        if self._is_asked and self._answer is None:
            self._answer = answer
            self._alarm.ring()

    # --- its messages ---

    def _take(self, message: FromTask) -> None:
        match message:
            case Progress(status):
                self._on_status(status)
            case Get() | Put() | Save():
                self._begin_exchange(message)
            case Failed(cause) if cause.reason not in TASK_REASONS:
                self._break(f"gave a reason ({cause.reason}) that is not its to give")
            case _ if not self._is_asked or self._answer or not isinstance(message, self._due):
                self._break(f"answered ({type(message).__name__}) without being asked for that")
            case _:
                self._busy = False
                self._give(message)

    def _begin_exchange(self, request: Request) -> None:
        """Ask the API server, if the process may: in a step, and when it has taken the answer before this."""
        asked = f"asked for server-side data ({type(request).__name__})"
        if not self._is_asked or self._answer:
            self._break(f"{asked} without having a step to do")
        elif self._exchanging or self._channel.is_sending:
            self._break(f"{asked} before it had its last answer")
        else:
            self._exchanging = asyncio.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        await asyncio.sleep(self._channel.seconds_until(MESSAGES_KEPT))
        try:
            frame = _data_frame(await self._exchange(request))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - outermost frame, and another's code
            if self._exchanging is asyncio.current_task():
                logger.opt(exception=error).error("Asking the API server for a task failed")
            frame = encode(Data(0, error=f"asking it failed: {type(error).__name__}"))
        if self._exchanging is asyncio.current_task():  # else the step is over: the next one must not get this answer
            self._exchanging = None
            self._channel.send(frame)

    def _end_exchange(self) -> None:
        exchanging, self._exchanging = self._exchanging, None
        if exchanging:
            exchanging.cancel()

    # --- evidence ---

    def _with_evidence(self, failed: Failed) -> Failed:
        """Add the last lines of the log and of the output, and find out whether the kernel killed it for memory."""
        self._log.drain()
        self._output.drain()
        log = tuple(split_level(line)[1] for line in self._log.last_lines())
        stderr = failed.cause.stderr or self._output.last_lines()
        cause = msgspec.structs.replace(self._blame_memory(failed.cause), log=log, stderr=stderr)
        return msgspec.structs.replace(failed, cause=cause)

    def _blame_memory(self, cause: Cause) -> Cause:
        if cause.signal != "SIGKILL":  # nor is it one of our own kills: their order's cause names no signal
            return cause
        in_cgroup = self._cgroup.out_of_memory_kills() if self._cgroup else 0
        if not in_cgroup and linux.out_of_memory_kills() == self._memory_kills:
            return cause
        message = f"{cause.message}: the kernel's out-of-memory killer took it"
        limit = self._memory_limit if self._cgroup and self._cgroup.over_its_memory() else None
        if limit:
            message += f", over the limit of {limit}"
        return msgspec.structs.replace(cause, reason="memory", message=message, limit=limit)


def _data_frame(data: Data) -> bytes:
    if len(data.body) > MAX_REQUEST or len(frame := encode(data)) > MAX_REQUEST:
        return encode(Data(0, error=f"what it sends is more than a task process can take ({MAX_REQUEST >> 20} MiB)"))
    return frame
