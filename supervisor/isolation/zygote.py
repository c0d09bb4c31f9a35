"""The supervisor's side of the zygote: start it, have it fork and kill task processes, replace it when it is lost."""

import asyncio
import contextlib
import errno
import itertools
import os
import resource
import socket
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec
from loguru import logger

from app.config import Settings
from ipc import linux
from ipc.messages import Cause, Exited, FromZygote, Kill, Prepare, Spawn, Spawned, Terminate, ToZygote
from ipc.queue import encode
from supervisor.isolation.channel import Bounds, Channel
from supervisor.isolation.clock import Clock
from supervisor.launch import Launched, launch

ANSWER_TIMEOUT = 30.0
"""Seconds in which the zygote must have forked a task process. It needs 0.3 s to start itself, and 1 ms for each."""

KILL_TIMEOUT = 10.0
"""Seconds in which the zygote must report that a killed task is gone: its own patience with processes that do not die,
and a margin. A zygote that does not report is stopped or stuck, and is replaced."""


RETRY_INTERVAL = 0.1
"""Seconds until what a lost zygote has left is looked for again, and until an order is tried again."""

MAX_MESSAGE = 1 << 16
"""Bytes in the largest message of the zygote."""


IN_FLIGHT = 4096
"""Descriptors by which a task's hard limit of open files is below the client's."""

TOO_MANY_IN_FLIGHT = "programs of this user have more descriptors on their way through sockets than it may have open"


SO_PASSRIGHTS = 83
"""Option of a Unix socket: whether it takes descriptors (Linux 6.16)."""


class SpawnError(Exception):
    """A task process could not be started; the text says why."""


@dataclass(slots=True)
class Child:
    """A task process that the zygote forked, and the supervisor's ends of its queue, log and output."""

    number: int
    queue: socket.socket
    log: int
    output: int
    spawned: "asyncio.Future[int]"
    exited: "asyncio.Future[Exited | Cause]"
    """How it ended; a `Cause` if the zygote, which would have reported it, was lost with it."""
    pid: int = 0


class Zygote:
    """The supervisor's only child process. It forks the task processes, and is their parent.

    The supervisor must be a child subreaper (`linux.become_subreaper`): if the zygote is lost, its children fall to the
    supervisor, which kills them before it starts a new zygote.
    """

    def __init__(self, settings: Settings, launched: Launched | None = None) -> None:
        """`launched` is its process, if that was started before there were settings."""
        self._settings = settings
        self._is_loss_told = False
        # A job of a thousand tasks takes three thousand descriptors here, more than the usual limit.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # The tasks get the limit that we were given, and less than ours: a user may have as many descriptors on their
        # way through sockets as the limit of the one who sends, so that a module could leave us none: unix(7).
        hard -= min(hard // 4, IN_FLIGHT)
        self._open_files = min(soft, hard), hard
        # Children of the program that became this supervisor by exec: a container's script starts some beside it.
        self._launched = launched
        zygotes = {launched.process.pid} if launched else set()
        self._inherited = frozenset(linux.children(os.getpid())) - zygotes
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel[FromZygote]
        self._children: dict[int, Child] = {}
        self._numbers = itertools.count(1)
        self._recovery: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The zygote's process id, or 0 while there is none."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the zygote. Returns at once; orders wait until it is ready."""
        (self._process, ours), self._launched = self._launched or launch(), None
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, self._open_files)
        self._channel = Channel(
            ours,
            FromZygote,
            Bounds(MAX_MESSAGE),
            Clock(),
            self._take,
            lambda breach: self._lose(breach or "it ended"),
        )
        self._send(Prepare(msgspec.to_builtins(self._settings.without_secrets())))

    async def spawn(self) -> Child:
        """Fork a task process, which then waits for its first message. The caller closes the child's ends.

        Raises:
            SpawnError: it could not be started.
            OSError: there are too few descriptors.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            queue, their_queue = socket.socketpair()
            ours.enter_context(queue)
            theirs.enter_context(their_queue)
            # A descriptor that a module sends is closed here, and some take as long to close as it wants (SO_LINGER).
            with contextlib.suppress(OSError):  # an older kernel
                queue.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
            log, their_log = _pipe(ours, theirs)
            output, their_output = _pipe(ours, theirs)
            child = Child(next(self._numbers), queue, log, output, loop.create_future(), loop.create_future())
            await self._fork(child, [their_queue.fileno(), their_log, their_output])
            ours.pop_all()
        return child

    async def check(self) -> None:
        """Fork a task process, and end it: raises what `spawn` would."""
        child = await self.spawn()
        with child.queue:
            os.close(child.log)
            os.close(child.output)
        self.kill(child)
        await self.await_end(child)

    async def _fork(self, child: Child, descriptors: Sequence[int]) -> None:
        await self._order(child, descriptors)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                child.pid = await asyncio.shield(child.spawned)
        except TimeoutError:
            self._lose("it did not answer")
            raise SpawnError(f"the zygote did not start a task process within {ANSWER_TIMEOUT:g} s") from None

    async def _order(self, child: Child, descriptors: Sequence[int]) -> None:
        """Order `child` from the zygote, which is started if there is none, once the kernel takes the descriptors.

        It does not while programs of this user, whichever they are, have more of them on their way through sockets than
        we may have open (ETOOMANYREFS, unix(7)). That says nothing of the zygote and of the tasks that it holds.
        """
        refused_at: float | None = None
        while True:
            if self._recovery:
                await asyncio.shield(self._recovery)
            if self._process is None:
                self.start()
            try:
                self._channel.send_now(encode(Spawn(child.number)), descriptors)
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    self._lose(f"it takes no orders: {error.strerror}")
                    raise SpawnError("the zygote was lost") from None
                if refused_at is None:
                    refused_at = time.monotonic()
                    logger.warning("A task waits: {}", TOO_MANY_IN_FLIGHT)
                if time.monotonic() - refused_at > ANSWER_TIMEOUT:
                    raise SpawnError(TOO_MANY_IN_FLIGHT) from None
            else:
                self._children[child.number] = child
                return
            await asyncio.sleep(RETRY_INTERVAL)

    def terminate(self, child: Child) -> None:
        """Ask the task process to stop."""
        self._send(Terminate(child.number))

    def kill(self, child: Child) -> None:
        """Kill the task process and all that it started."""
        if not child.exited.done():
            self._send(Kill(child.number))

    async def await_end(self, child: Child) -> Exited | Cause:
        """Wait for the end of a task process that is killed. Returns when nothing of it is alive."""
        if not child.exited.done():
            await asyncio.wait([child.exited], timeout=KILL_TIMEOUT)
        if not child.exited.done():
            self._lose("it did not kill a task process")
        return await asyncio.shield(child.exited)

    async def stop(self) -> None:
        """End the zygote and everything below it."""
        if self._process is not None:
            self._lose("")
        if self._recovery:
            await asyncio.shield(self._recovery)

    def _send(self, message: ToZygote, descriptors: Sequence[int] = ()) -> None:
        try:
            self._channel.send_now(encode(message), descriptors)
        except OSError as error:  # it is gone, or was stopped for so long that the socket is full
            self._lose(f"it takes no orders: {error.strerror}")

    def _take(self, message: FromZygote) -> None:
        match message:
            case Spawned(number, error=error) if error:
                _refuse(self._children.pop(number), error)
            case Spawned(number, pid):
                self._children[number].spawned.set_result(pid)
                self._is_loss_told = False
            case Exited(number):
                self._children.pop(number).exited.set_result(message)

    def _lose(self, why: str) -> None:
        """Kill the zygote and everything below it: it is of no use any more. `why` is empty if this is intended."""
        if self._process is None:
            return
        self._channel.close()
        process, self._process = self._process, None
        children, self._children = self._children, {}
        self._recovery = asyncio.create_task(self._recover(process, list(children.values()), why))

    async def _recover(self, process: subprocess.Popen[bytes], children: list[Child], why: str) -> None:
        while True:
            try:
                status = await asyncio.to_thread(_kill_all, process, self._inherited)
                break
            except OSError:  # no descriptor to look for its descendants with
                await asyncio.sleep(RETRY_INTERVAL)
        if why:
            ending = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            level = "DEBUG" if self._is_loss_told else "ERROR"
            logger.log(level, "The zygote was lost: {} ({}); everything it held was killed", why, ending)
            self._is_loss_told = True  # until one has forked a task: while there is none to be had, each try loses one
        for child in children:
            if not child.spawned.done():
                _refuse(child, "the zygote was lost")
            child.exited.set_result(Cause("lost", f"the process that watches over the tasks was lost ({why})"))
        self._recovery = None


def _refuse(child: Child, why: str) -> None:
    child.spawned.set_exception(SpawnError(why))
    child.spawned.exception()  # mark it as retrieved: the caller of `spawn` may have been cancelled


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose reading end does not block. Each end is closed with its stack."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, reader)
    theirs.callback(os.close, writer)
    os.set_blocking(reader, False)
    return reader, writer


def _kill_all(process: subprocess.Popen[bytes], inherited: Collection[int]) -> int:
    def is_ours(pid: int) -> bool:
        # The zygote began a session of its own, and no process below it can join ours.
        return pid not in inherited and os.getsid(pid) != os.getsid(0)

    with contextlib.suppress(ProcessLookupError):
        process.kill()
    status = process.wait()
    # Its descendants have fallen to us, a subreaper. The task processes are dying with it (PDEATHSIG), not their tools.
    linux.kill_children(is_ours)
    return status
