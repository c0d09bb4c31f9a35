"""The task process's main: load one module, serve its steps, send how each ended.

Runs in a child of the zygote, on its only thread, and trusts nothing the module does: it may raise anything, exit,
print, replace signal handlers or leave threads behind. What it cannot report from in here (a crash, `os._exit`), the
supervisor learns from the exit status.
"""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec
import setproctitle
from loguru import logger

import modules
import modules.output
import modules.tool
from app.config import Config, Settings
from app.exceptions import ClientError, InitializationError
from app.heartbeat import heartbeat
from ipc.messages import (
    Cause,
    Data,
    Done,
    Encoder,
    Failed,
    Get,
    Inspection,
    Progress,
    Put,
    Ready,
    Start,
    Step,
    Tool,
    ToTask,
)
from ipc.queue import MAX_FRAME, Queue, encode
from modules.base import BaseModule, location
from modules.data import server_data

WARM = (modules.output, modules.tool)
"""Imported for the zygote's sake: the bundled modules need it, and its memory is shared. Not `requests`, which would
cost every task 0.3 ms and the zygote 8 MB for the few that use it."""

if TYPE_CHECKING:
    from loguru import Message

MAX_TEXT = 16 << 10
"""Characters of one text (an error's message, a line) that go to the supervisor."""

MAX_LINES = 200
"""Lines or paths of one kind that go to the supervisor in one message, unless they say otherwise."""

REHEARSALS = 10
"""CPython 3.11 specialises a function's bytecode after eight calls."""

_SYSLOG = ((40, 3), (30, 4), (20, 6), (0, 7))
"""loguru's level numbers, from the highest, and their syslog levels, which mark a line's level as in sd-daemon(3)."""


class UnusableError(Exception):
    """The module cannot be imported, or is no module."""


class TerminationRequested(BaseException):
    """The supervisor asks the task to stop. Not an `Exception`, so that a module's handlers let it through."""


class StepExecutor:
    """Serves the steps of one task over `queue`."""

    def __init__(self, queue: Queue[ToTask]) -> None:
        self._queue = queue
        self._module: Any = None
        self._title = ""
        self._in_step = False
        self._putting = threading.Lock()
        self._undisturbed = False
        self._asked = False
        self._requests: SimpleQueue[Start | Step | None] | None = None
        self._exchanging = threading.Lock()
        self._may_exchange = False
        self._exchanges: deque[tuple[Get | Put, SimpleQueue[Data]]] = deque()

    def serve(self) -> None:
        """Answer requests until the supervisor closes the queue."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        while (request := self._next()) is not None:
            self._put(self._answer(request))

    def _next(self) -> Start | Step | None:
        if self._requests is not None:
            return self._requests.get()
        while isinstance(message := self._queue.get(), Data):
            pass  # nobody here asked: the module has written to the queue by itself
        return message

    def _answer(self, request: Start | Step) -> Ready | Done | Failed:
        try:
            with self._step():
                match request:
                    case Start():
                        return self._start(request)
                    case Step("plan"):
                        plan = getattr(self._module, "plan", list)
                        return Done(lines=tuple(map(_text, plan())))
                    case Step("inspect" | "probe"):
                        return Done(inspection=_inspect(self._module, request.step == "probe"))
                    case Step("validate", files):
                        if isinstance(self._module, BaseModule):
                            self._module.sisyphus_files = {os.fsdecode(path): stands for path, stands in files}
                        self._call("validate")
                    case Step("run"):
                        if callable(set_start_time := getattr(self._module, "set_start_time", None)):
                            set_start_time()
                        self._call("run")
                    case Step("cleanup"):
                        self._call("cleanup")
                return Done(warnings=self._take_warnings())
        except TerminationRequested:
            # Where it was the supervisor that asked, it has its own reason for the record.
            message = "the task process was ended by SIGTERM from outside"
            return Failed(Cause("signal", message, signal="SIGTERM"))
        except UnusableError as error:
            return Failed(Cause("exception", _text(error), unusable=True))
        except ClientError as error:
            return Failed(_cause(error), self._take_warnings())
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            message = f"the module called sys.exit({_text(error.code)})"
            return Failed(Cause("exit", message, exit_status=status), self._take_warnings())
        except BaseException as error:  # noqa: BLE001 - outermost frame of a step: whatever the module raises
            name = type(error).__name__
            text = _text(error)
            with contextlib.suppress(Exception):  # formatting it runs the module's code again
                logger.opt(exception=error).error("The module raised {}", name)
            return Failed(Cause("exception", f"{name}: {text}" if text else name), self._take_warnings())

    def _start(self, start: Start) -> Ready:
        if start.open_files is not None:
            _limit_open_files(start.open_files)
        os.environ.update(start.environment)
        tempfile.tempdir = None
        Config.MODULES = dict(start.modules)
        self._title = f"task {start.task} {start.module}"
        self._show("init")
        heartbeat.job_id, heartbeat.job_title = start.job_id, start.job_title
        heartbeat.connect(self._say)
        server_data.connect(self._exchange)
        BaseModule.sisyphus_module, BaseModule.resumed = start.module, start.resumed
        BaseModule.sisyphus_free_space = start.free_space
        kind = _load(start)
        if start.data is None:
            self._module = kind
            return Ready(cleanup_on_failure=getattr(kind, "cleanup_on_failure", False) is True)
        self._module = kind(json.loads(start.data))
        return Ready(
            _paths(_strings(self._module, "outputs")),
            _paths(_strings(self._module, "removes")),
            getattr(self._module, "cleanup_on_failure", False) is True,
        )

    def _call(self, step: str) -> None:
        self._show(step)
        getattr(self._module, step)()

    def _show(self, step: str) -> None:
        setproctitle.setproctitle(f"sisyphus-client: {self._title}, {step}")

    def _take_warnings(self) -> tuple[str, ...]:
        if not isinstance(self._module, BaseModule):
            return ()
        taken, self._module.sisyphus_warnings = self._module.sisyphus_warnings, ()
        return _texts(taken)

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        self._asked = False
        self._may_exchange = True
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
            self._end_exchanges("the step ended before")
            heartbeat.flush()  # what was said last must not come after the answer
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # the module may have put anything in its place
                    stream.flush()

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Unwind the module, so that its `finally` blocks and `modules.tool` stop what they started.

        Not while a frame is half sent: the rest of it must follow, or the supervisor reads garbage.
        """
        del number, frame
        if self._undisturbed:
            self._asked = True
        elif self._in_step:
            raise TerminationRequested

    @contextlib.contextmanager
    def _asked_later(self) -> Iterator[None]:
        """Let `TerminationRequested` be raised only when this is done."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signal handlers run in the main thread, and in no other
            return
        before, self._undisturbed = self._undisturbed, True
        try:
            yield
        finally:
            self._undisturbed = before
            if self._asked and self._in_step and not before:
                self._asked = False
                raise TerminationRequested

    def _say(self, status: bytes) -> None:
        if len(status) > MAX_FRAME // 2:
            logger.warning("The status is too large to report ({} bytes)", len(status))
        else:
            self._put(Progress(msgspec.Raw(status)))

    def _put(self, message: Ready | Progress | Get | Put | Done | Failed) -> None:
        try:
            with self._asked_later(), self._putting:  # the heartbeat's timer sends, too
                self._queue.put(message)
        except OSError:
            os._exit(1)  # the supervisor is gone, and the kernel is about to say so

    # --- server-side data ---
    #
    # Between steps the main thread reads the queue. The first exchange starts a reader thread, which reads from then
    # on: `TerminationRequested` is raised in the main thread only, so it can tear no frame, and several threads may
    # wait at once. The supervisor takes one exchange at a time. Answers arrive in the order of the requests; an answer
    # between two steps is discarded.

    def _exchange(self, request: Get | Put) -> Data:
        """Have the supervisor ask the API server, after what was asked before this."""
        if len(encode(request)) > MAX_FRAME:  # backslashes and quotes take two bytes there
            return Data(0, error="what is to be stored takes too many bytes to be sent")
        answer: SimpleQueue[Data] = SimpleQueue()
        with self._asked_later(), self._exchanging:
            if not self._may_exchange:
                return Data(0, error="it can be asked only during a step of the task")
            try:
                self._start_reader()
            except RuntimeError as error:
                return Data(0, error=f"it takes a thread to ask it: {error}")
            self._exchanges.append((request, answer))
            if len(self._exchanges) == 1:
                self._put(request)
        return answer.get()  # where `TerminationRequested` may be raised: the answer then finds nobody

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
        self._end_exchanges("the supervisor is gone")
        requests.put(None)

    def _pass_on(self, data: Data) -> None:
        with self._exchanging:
            if not self._exchanges:
                return
            _, answer = self._exchanges.popleft()
            if self._exchanges:
                self._put(self._exchanges[0][0])
        answer.put(data)

    def _end_exchanges(self, reason: str) -> None:
        """Answer threads that still wait, and let no more ask until the next step."""
        with self._exchanging:
            self._may_exchange = False
            waiting, self._exchanges = self._exchanges, deque()
        for _, answer in waiting:
            answer.put(Data(0, error=reason))


def _limit_open_files(count: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    except (OSError, ValueError) as error:
        raise InitializationError(message=f"tool.client.limits.open_files cannot be applied: {error}") from error


class LogSink:
    """Where loguru's messages go: the pipe that the supervisor reads, once this is a task process."""

    def __init__(self) -> None:
        self.descriptor = -1

    def __call__(self, message: "Message") -> None:
        """Write `message`, each line of it marked with its level."""
        level = next(syslog for number, syslog in _SYSLOG if message.record["level"].no >= number)
        lines = str(message).encode("utf-8", "backslashreplace").splitlines()
        data = b"".join(b"<%d>%s\n" % (level, line) for line in lines)
        with contextlib.suppress(OSError):  # the supervisor is gone: nobody reads any more
            while data:
                data = data[os.write(self.descriptor, data) :]


def prepare(settings: Mapping[str, Any]) -> LogSink:
    """In the zygote: do what is the same for all tasks, so that none of them has to. Returns where they log to.

    Adding a handler to loguru alone takes 4 ms, as much as all the rest of an empty task.
    """
    known = msgspec.convert(settings, Settings)
    known.apply()
    sink = LogSink()
    logger.configure(
        handlers=[
            {"sink": sink, "level": known.log_level, "format": "{message}", "diagnose": False, "backtrace": False}
        ]
    )
    faulthandler.enable()  # a crash in C code says on stderr which line of Python called it
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper, still ours
    title, handler = setproctitle.getproctitle(), signal.getsignal(signal.SIGTERM)
    for _ in range(REHEARSALS):
        _rehearse()
    setproctitle.setproctitle(title)
    signal.signal(signal.SIGTERM, handler)
    return sink


def _rehearse() -> None:
    """Do what every task does: caches and specialised bytecode are then warm and shared, which saves a task 0.5 ms."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        queue: Queue[ToTask] = Queue(theirs, ToTask)
        start = Start("", "", 0, "rehearsal", f"{BaseModule.__module__}.{BaseModule.__name__}", "{}", (), {}, None, {})
        for request in (start, Step("validate"), Step("run"), Step("cleanup")):
            ours.sendall(encode(request))
        ours.shutdown(socket.SHUT_WR)
        StepExecutor(queue).serve()


def main(connection: socket.socket) -> int:
    """Be the task process at the other end of `connection`; returns its exit status."""
    _spare_forks()
    StepExecutor(Queue(connection, ToTask)).serve()
    _leave()
    return 0


def _spare_forks() -> None:
    """Let SIGTERM end a process that the module forks, as it would in any program.

    It is blocked meanwhile: what arrives in the child before it has its own handling, the interpreter forgets, and
    who sent it (`multiprocessing.Pool`, for one) waits for the child for ever.
    """
    mask: set[signal.Signals] = set()

    def before() -> None:
        mask.clear()
        mask.update(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))  # type: ignore[arg-type]  # or plain ints

    def in_child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    os.register_at_fork(before=before, after_in_child=in_child, after_in_parent=in_parent)


def _leave() -> None:
    """Do what the interpreter would at its end: modules count on it for what they have left open."""
    atexit._run_exitfuncs()
    for thing in gc.get_objects():
        if issubclass(type(thing), io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom):
            with contextlib.suppress(Exception):  # closed, or nobody reads it any more
                thing.flush()


def _load(start: Start) -> Callable[[dict[str, Any]], Any]:
    """The class that serves the task.

    Raises:
        UnusableError: it cannot be had, and why.
    """
    sys.path += start.paths
    modules.__path__ += start.paths
    os.environ[modules.PATHS] = os.pathsep.join(start.paths)  # for processes that the module spawns
    package, _, name = start.target.rpartition(".")
    try:
        found = getattr(importlib.import_module(package), name, None)
    except (Exception, SystemExit) as error:  # the module's own top level ran
        logger.opt(exception=error).debug("Importing {} failed", package)
        raise UnusableError(
            f"module {start.module!r} ({start.target}) cannot be imported: {type(error).__name__}: {_text(error)}"
        ) from error
    if not isinstance(found, type):
        raise UnusableError(f"module {start.module!r} ({start.target}) cannot be used: {package} has no class {name}")
    return found


def _inspect(kind: Any, probe: bool) -> Inspection:
    """What a module's class says it needs, and what of it is here. One that does not derive from the base says less."""
    for method in ("validate", "run", "cleanup"):
        if not callable(getattr(kind, method, None)):
            raise UnusableError(f"{kind.__module__}.{kind.__qualname__} is no module: it has no method {method}")
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    tools = getattr(kind, "tools", ()) if issubclass(kind, BaseModule) else ()
    encoders = kind.probe_encoders() if probe and issubclass(kind, BaseModule) else ()
    return Inspection(
        _text(file),
        tuple(_look_for(_text(name)) for name in tools),
        tuple(Encoder(_text(name), _text(problem)) for name, problem in encoders),
    )


def _look_for(name: str) -> Tool:
    path = shutil.which(name) or ""
    try:
        return Tool(name, _text(path), version=modules.tool.version(name))
    except ClientError as error:
        return Tool(name, _text(path), problem=_text(error.message))


def _strings(module: Any, method: str) -> list[str]:
    """What an optional method of the module returns. A module of the guide need not have it, nor let it work."""
    try:
        returned = getattr(module, method)()
        return [text for text in returned if isinstance(text, str)]
    except Exception as error:  # noqa: BLE001 - data that validate has not seen yet may be anything
        logger.debug("{}() of the module failed: {}: {}", method, type(error).__name__, _text(error))
        return []


def _paths(paths: Iterable[str]) -> tuple[bytes, ...]:
    encoded = []
    for path in paths:
        with contextlib.suppress(ValueError):  # NUL, or what no file name can hold: for validation to tell
            encoded.append(os.fsencode(location(path)))
    return tuple(encoded)


def _text(value: object) -> str:
    """`value` as text that UTF-8 can carry, cut to a bearable length."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - str() of a module's object runs its code
        text = f"(a {type(value).__name__} whose text cannot be had: {type(error).__name__})"
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()


def _cause(error: ClientError) -> Cause:
    """How a tool ended or what else is wrong, as the module's error says it. Any attribute may hold anything."""
    return Cause(
        "signal" if error.signal else "exit" if isinstance(error.exit_status, int) else "exception",
        _text(error.message) or _text(error) or type(error).__name__,
        signal=_text(error.signal) if error.signal else None,
        exit_status=error.exit_status if isinstance(error.exit_status, int) else None,
        problems=_clipped(error.problems),
        stderr=_texts(error.stderr),
        tool_died=bool(error.signal),
    )


def _clipped(problems: Sequence[object]) -> tuple[str, ...]:
    """The first of `problems`, and how many more there are; nothing if there is one alone, which is the message."""
    if len(problems) < 2:
        return ()
    more = len(problems) - MAX_LINES
    return _texts(problems[:MAX_LINES]) + ((f"and {more} more problems",) if more > 0 else ())


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(_text(value)[:1000] for value in list(values)[-MAX_LINES:])
