"""The supervisor's side of the zygote: start it, order task processes from it, start it again when it is lost."""

import asyncio
import contextlib
import itertools
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from loguru import logger

from app.config import SECRETS, Settings
from ipc import linux
from ipc.messages import Cause, Exited, FromZygote, Kill, Prepare, Spawn, Spawned, Terminate, ToZygote
from ipc.queue import Decoder, encode
from supervisor.isolation import systemd

ANSWER_TIMEOUT = 30.0
"""Seconds in which the zygote must have started a task process; it needs 0.3 s for itself and 1 ms for each."""

KILL_TIMEOUT = 10.0
"""Seconds in which a killed task must be reported gone: the zygote's own patience with what will not die, and a margin.
A zygote that does not is stopped or stuck, and is replaced."""


class SpawnError(Exception):
    """A task process could not be started; the text says why."""


@dataclass(slots=True)
class Child:
    """A task process as the zygote knows it."""

    number: int
    spawned: asyncio.Future[int]
    exited: asyncio.Future[Exited | Cause]
    """How it ended; a `Cause` if the zygote, which would have told, was lost with it."""
    pid: int = field(default=0)


class Zygote:
    """The supervisor's only child process, which is the parent of all task processes.

    The supervisor must be a child subreaper (`linux.become_subreaper`): if the zygote is lost, what it held falls to
    the supervisor, which kills it before it starts a new one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Three descriptors a task: more than the usual 1024 for a job of a thousand. Tasks get what we were given.
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files[1], self._open_files[1]))
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket
        self._answers: Decoder[FromZygote]
        self._children: dict[int, Child] = {}
        self._numbers = itertools.count(1)
        self._recovery: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The zygote's process id, or 0 while there is none."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the zygote. It warms up while the caller goes on."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: a file in the working directory must not stand in for a module of Python's library.
                [sys.executable, "-P", "-m", "child.zygote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
                # SPT_NOENV: process titles must not overwrite the environment, where the marker is looked for.
                env=_environment(self._settings),
            )
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, self._open_files)
        ours.setblocking(False)
        self._control = ours
        self._answers = Decoder(FromZygote, 1 << 16)
        asyncio.get_running_loop().add_reader(ours, self._readable)
        self._send(Prepare(msgspec.to_builtins(self._settings.without_secrets())))

    async def spawn(self, descriptors: Sequence[int]) -> Child:
        """Fork a task process that is given `descriptors` (its queue, log and output).

        Raises:
            SpawnError: it could not be started.
        """
        if self._recovery:
            await asyncio.shield(self._recovery)
        if self._process is None:
            self.start()
        loop = asyncio.get_running_loop()
        child = Child(next(self._numbers), loop.create_future(), loop.create_future())
        self._children[child.number] = child
        self._send(Spawn(child.number), descriptors)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                child.pid = await asyncio.shield(child.spawned)
        except TimeoutError:
            self._lose("it did not answer")
            raise SpawnError(f"the zygote did not start a task process within {ANSWER_TIMEOUT:g} s") from None
        return child

    def terminate(self, child: Child) -> None:
        """Ask the task process to stop."""
        self._send(Terminate(child.number))

    def order_kill(self, child: Child) -> None:
        """Kill the task process and all that it started, without waiting for it."""
        if not child.exited.done():
            self._send(Kill(child.number))

    async def kill(self, child: Child) -> Exited | Cause:
        """Kill the task process and all that it started; returns when nothing of it is alive."""
        if not child.exited.done():
            self.order_kill(child)
            await asyncio.wait([child.exited], timeout=KILL_TIMEOUT)
        if not child.exited.done():
            self._lose("it did not kill a task process")
        return await asyncio.shield(child.exited)

    async def stop(self) -> None:
        """Kill whatever is left and end the zygote."""
        if self._process is not None:
            self._lose("")
        if self._recovery:
            await asyncio.shield(self._recovery)

    def _send(self, message: ToZygote, descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._control, [encode(message)], list(descriptors))
        except OSError as error:  # gone, or so long stopped that the socket is full
            self._lose(f"it takes no orders: {error.strerror}")

    def _readable(self) -> None:
        try:
            data = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for answer in self._answers.feed(data):
            match answer:
                case Spawned(number, error=error) if error:
                    self._children.pop(number).spawned.set_exception(SpawnError(error))
                case Spawned(number, pid):
                    self._children[number].spawned.set_result(pid)
                case Exited(number):
                    self._children.pop(number).exited.set_result(answer)
        if not data or self._answers.error:
            self._lose(self._answers.error or "it ended")

    def _lose(self, why: str) -> None:
        """Kill the zygote and all it held: it cannot be used any more. `why` is empty if that is intended."""
        if self._process is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        process, self._process = self._process, None
        children, self._children = self._children, {}
        self._recovery = asyncio.create_task(self._recover(process, list(children.values()), why))

    async def _recover(self, process: subprocess.Popen[bytes], children: list[Child], why: str) -> None:
        status = await asyncio.to_thread(_kill_all, process)
        if why:
            ending = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            logger.error("The zygote was lost: {} ({}); everything it held was killed", why, ending)
        for child in children:
            if not child.spawned.done():
                child.spawned.set_exception(SpawnError("the zygote was lost"))
                child.spawned.exception()  # retrieved: the one who asked may have given up
            child.exited.set_result(Cause("lost", f"the process that watches over the tasks was lost ({why})"))
        self._recovery = None


def _environment(settings: Settings) -> dict[str, str]:
    """What the zygote, the tasks and their tools get: the supervisor's variables but for its own affairs."""
    own = {
        linux.MARKER: linux.marker(os.getpid()),
        # Process titles must not overwrite the environment, where the marker is looked for.
        "SPT_NOENV": "1",
        # As it was understood: loguru fails at what is no level.
        "LOGURU_LEVEL": settings.log_level,
    }
    return {name: value for name, value in os.environ.items() if name not in SECRETS | systemd.VARIABLES} | own


def _kill_all(process: subprocess.Popen[bytes]) -> int:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    status = process.wait()
    # What the zygote held is now ours, for we are a subreaper; task processes are dying with it (PDEATHSIG).
    linux.kill_children()
    return status
