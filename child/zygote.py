"""The zygote: the warm process that forks task processes and reaps what they leave.

It has one thread and runs no module. It is a child subreaper, so its children are the live task processes and what
dead ones left behind; every child it does not know is killed, again and again until there is none. No `setsid`,
double fork or scrubbed environment escapes that, because none of them changes who adopts an orphan.

`fork` from the supervisor itself would deadlock (it has threads), `spawn` costs 300 ms of imports a task, and
`multiprocessing`'s forkserver loses exit statuses, outlives a killed supervisor and freezes the environment.
"""

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import setproctitle

import child.lean  # noqa: F401 - before anything else imports loguru
from child import task as task_main
from child import warm
from child.exchange import Termination
from child.sandbox import Confinement
from ipc import linux
from ipc.messages import Exited, Kill, Prepare, Spawn, Spawned, Terminate, ToZygote
from ipc.queue import Decoder, encode

SCAN_INTERVAL = 0.5
"""Seconds between two looks for unknown children while tasks are alive: a task process may resign as a subreaper."""

QUIET = 0.005
"""Seconds in which nothing has come, before a piece of the warming: it must not hold up a task's start or end."""

PATIENCE = 5.0
"""Seconds to wait for killed leftovers. One in uninterruptible sleep must not hold up the report of a task's end."""

CLEANING_TIMEOUT = 1.0
"""Seconds for the resource tracker of a task's `multiprocessing`, which outlives it to remove its shared memory."""

_BLOCKED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    signal.SIGCHLD,
)
"""Signals that an operator may send to the whole process group, on which only the supervisor acts; and SIGCHLD, which
is read from a descriptor. They are blocked, not ignored or handled: a task process has one thing to undo, and none of
them reaches it before it is ready. To reset seven handlers took it 0.3 ms."""

DESCRIPTORS = 3
"""How many descriptors come with a `Spawn`: the task process's queue, log and output."""


class ForkServer:
    """Serves the supervisor at the other end of `control` until it closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._log: warm.LogSink | None = None
        self._requests: Decoder[ToZygote] = Decoder(ToZygote, 1 << 16)
        self._descriptors: list[int] = []
        self._tasks: dict[int, int] = {}  # pid → task
        self._ended: dict[int, Exited] = {}  # pid → what to report once nothing is left
        self._strangers: dict[int, int] = {}  # pid → its session, which is the pid of the task it came from
        self._awaited: dict[int, float] = {}  # pid of a stranger or of an ended task → when it is waited for no longer
        self._cleaning: dict[int, float] = {}  # pid of a stranger → when its time to clean up is over
        self._selector = selectors.DefaultSelector()
        self._confinement = Confinement()
        self._termination = Termination()
        self._executor = task_main.StepExecutor(self._confinement.enter, self._termination)
        self._warming: Iterator[None] | None = None
        self._ahead = list(warm.AHEAD)
        self._next_look = 0.0

    def serve(self) -> None:
        """Fork, kill and reap until the supervisor is gone; then kill everything and return."""
        self._watch_children()
        self._selector.register(self._control, selectors.EVENT_READ)
        while True:
            for key, _ in self._wait():
                if key.fileobj is self._control:
                    if not self._take_requests():
                        linux.kill_children()
                        return
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(key.fd, 4096)
                    self._next_look = 0.0
            # Not after each order: to look at a thousand children takes as long as to fork one.
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + SCAN_INTERVAL
                self._reap()
                self._report()

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for something to do, and warm up if nothing comes."""
        while self._warming or (self._log and self._ahead and not self._tasks):
            if ready := self._selector.select(QUIET):
                return ready
            if not self._warming:
                self._import_ahead()
            elif next(self._warming, self) is self:
                self._warming = None
        return self._selector.select(SCAN_INTERVAL if self._tasks or self._ended else None)

    def _import_ahead(self) -> None:
        gc.enable()  # garbage of imports is half a megabyte; those of the start, which somebody waits for, leave theirs
        with contextlib.suppress(ImportError):  # a task that needs it tells
            importlib.import_module(self._ahead.pop(0))
        gc.disable()

    def _watch_children(self) -> None:
        """Make SIGCHLD wake the selector."""
        self._selector.register(linux.signal_descriptor(signal.SIGCHLD), selectors.EVENT_READ)

    def _take_requests(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, 16 * DESCRIPTORS)
        except ConnectionError:  # the supervisor ended before it had read all our messages: unix(7)
            return False
        self._descriptors += descriptors
        for request in self._requests.feed(data):
            match request:
                case Prepare(settings):
                    self._log = warm.prepare(settings)
                    self._warming = warm.warm_up(self._termination)
                case Spawn(task):
                    if self._ahead and len(self._tasks) > 1:  # a job of many tasks, each of which would import itself
                        self._import_ahead()
                    self._spawn(task)
                case Terminate(task):
                    self._signal(task, signal.SIGTERM)
                    self._signal(task, signal.SIGCONT)
                case Kill(task):
                    self._kill(task)
        return bool(data) and not self._requests.error

    def _signal(self, task: int, number: signal.Signals) -> None:
        for pid, known in self._tasks.items():
            if known == task:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _kill(self, task: int) -> None:
        for pid, known in self._tasks.items():
            # The task leads its own process group, except just after fork. Processes that left the group are
            # reparented to us, and `_reap` kills them.
            if known == task and not linux.kill_group(pid):
                os.kill(pid, signal.SIGKILL)

    def _spawn(self, task: int) -> None:
        descriptors, self._descriptors = self._descriptors[:DESCRIPTORS], self._descriptors[DESCRIPTORS:]
        zygote = os.getpid()
        gc.freeze()  # so that a collection in a task process does not touch, and so copy, the warm pages
        try:
            pid = os.fork()
        except OSError as error:
            self._send(Spawned(task, error=f"cannot fork: {error.strerror}"))
        else:
            if pid == 0:
                assert self._log is not None
                _become_task_process(zygote, descriptors, self._log, self._confinement, self._executor)
            self._tasks[pid] = task
            self._send(Spawned(task, pid))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _reap(self) -> None:
        """Take the status of every dead child, and kill every living one that is no task process."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
            if pid in self._tasks:
                self._ended[pid] = Exited(self._tasks.pop(pid), status, cpu, peak)
                self._awaited[pid] = time.monotonic() + PATIENCE
            else:
                self._awaited.pop(pid, None)
                self._account(self._strangers.pop(pid, 0), status, cpu, peak)
        # Only we reap our children, so none can vanish while this list is read, and none is skipped. The kernel
        # reparents orphans before their parent can be waited for, so those of a task reaped above are on the list.
        children = linux.children(os.getpid())
        strangers = [pid for pid in children if pid not in self._tasks and pid not in self._strangers]
        self._strangers |= {pid: os.getsid(pid) for pid in strangers}
        now = time.monotonic()
        self._awaited |= dict.fromkeys(strangers, now + PATIENCE)
        self._cleaning |= {pid: now + CLEANING_TIMEOUT for pid in strangers if _is_tracker(pid)}
        self._cleaning = {pid: end for pid, end in self._cleaning.items() if pid in self._strangers}
        doomed = [pid for pid in strangers if pid not in self._cleaning]
        for pid in [pid for pid, end in self._cleaning.items() if end < now]:
            del self._cleaning[pid]
            doomed.append(pid)
        if doomed:
            with _urgently():
                linux.kill_trees(doomed, spare_groups=self._tasks.keys())

    def _account(self, session: int, status: int, cpu: float, peak: int) -> None:
        """Add a leftover's CPU time and memory to its task's, if it is known which task that was."""
        if session not in self._ended and len(self._ended) == 1:
            session = next(iter(self._ended))  # it had made itself a session of its own
        if exited := self._ended.get(session):
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            self._ended[session] = Exited(
                exited.task,
                exited.status,
                exited.cpu_seconds + cpu,
                max(exited.peak_memory, peak),
                exited.leftovers + killed,
            )

    def _report(self) -> None:
        """Send `Exited` for each task that ended, once nothing that they started is alive or `PATIENCE` is over.

        One that does not die holds up neither the tasks that end after it, nor do those hold up this one.
        """
        now = time.monotonic()
        is_quiet = all(self._awaited.get(stranger, 0.0) <= now for stranger in self._strangers)
        for pid in [pid for pid in self._ended if is_quiet or self._awaited.get(pid, 0.0) <= now]:
            self._awaited.pop(pid, None)
            self._send(self._ended.pop(pid))

    def _send(self, message: Spawned | Exited) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, and the next read finds that out
            self._control.sendall(encode(message))


def _is_tracker(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"multiprocessing.resource_tracker" in file.read()
    return False


@contextlib.contextmanager
def _urgently() -> Iterator[None]:
    """Run with the highest priority, if permitted: a fork bomb leaves little time."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _become_task_process(
    zygote: int, descriptors: list[int], sink: warm.LogSink, confinement: Confinement, executor: task_main.StepExecutor
) -> NoReturn:
    """In the forked child: drop the zygote's descriptors, then be a task process until the end."""
    status = 1
    try:
        linux.die_with_parent(zygote)
        linux.become_subreaper()
        os.setsid()
        queue, sink.descriptor, output = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        _close_all_but([queue, sink.descriptor, *confinement.descriptors])
        confinement.open_to_supervisor()
        linux.unblock_signals()
        gc.enable()
        status = task_main.main(executor, queue)
    except BaseException:  # noqa: BLE001 - outermost frame of the process; the traceback goes to the task's log
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        # Never return into the zygote's loop, and do not run its atexit handlers.
        os._exit(status)


def _close_all_but(descriptors: list[int]) -> None:
    """Close all but the standard streams, of which the first is /dev/null, and `descriptors`."""
    lowest = 3
    for descriptor in sorted(descriptors):
        os.closerange(lowest, descriptor)  # one system call: close_range(2), Linux 5.9
        lowest = descriptor + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def main() -> None:
    """Be the zygote of the supervisor at the other end of the socket that the only argument numbers."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _BLOCKED)
    # SIGPIPE and SIGXFSZ stay ignored, as the interpreter has them: writing then raises an exception.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        with contextlib.suppress(OSError, ValueError):  # KILL, STOP, and the signals that the C library reserves
            signal.signal(number, signal.SIG_DFL)
    linux.become_subreaper()
    linux.set_dumpable(False)
    linux.continue_without_parent()  # a stopped zygote would not see that its supervisor is gone
    setproctitle.setproctitle("sisyphus-client: zygote")
    del os.environ["SPT_NOENV"], os.environ["LOGURU_AUTOINIT"]
    gc.disable()
    warm.import_shared()
    ForkServer(socket.socket(fileno=int(sys.argv[1]))).serve()
