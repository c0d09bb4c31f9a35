"""The task process's main: load one module, serve its steps, send how each ended.

Runs in a child of the zygote, on its only thread, and trusts nothing the module does: it may raise anything, exit,
print, replace signal handlers or leave threads behind. What it cannot report from in here (a crash, `os._exit`), the
supervisor learns from the exit status.
"""

import atexit
import contextlib
import gc
import io
import json
import os
import resource
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from typing import Any

import setproctitle
from loguru import logger

from app.config import Config
from app.exceptions import ClientError, InitializationError, Skipped, Unfit
from app.heartbeat import heartbeat
from child import roots
from child.exchange import Exchange, Termination, TerminationRequested
from child.loader import UnusableError, ask_tools, declared_paths, inspect, load
from child.text import first_lines, last_lines, to_text
from ipc.messages import MAX_REASON, NO_TASKS, Cause, Done, Failed, Inspection, Ready, Start, Step, ToTask
from ipc.queue import MAX_FRAME, Queue
from modules import context
from modules.base import BaseModule
from modules.context import TaskContext
from modules.data import server_data

_decode = json.JSONDecoder().raw_decode
"""Decodes what `json.dumps` has made, without the search for white space around it, which takes 12 page faults."""

_BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
"""Files that hold back what is written to them."""

THREADS_TIME = 0.5
"""Seconds in which the module's threads may end after its last step, such as those of a pool that it no longer has."""


class StepExecutor:
    """Serves the steps of one task. Made in the zygote, so that each task process has one."""

    def __init__(self, confine: Callable[[Start], None], termination: Termination) -> None:
        """`confine` is called before any code of the module is loaded."""
        self._queue: Queue[ToTask] = Queue(ToTask)
        self._confine = confine
        self._termination = termination
        self._exchange = Exchange(self._queue, termination)
        self._module: Any = None
        self._title = ""

    def serve(self, queue: int) -> None:
        """Answer the requests that come from this descriptor, until the supervisor closes the queue."""
        self._queue.descriptor = queue
        process = os.getpid()
        while (request := self._exchange.receive()) is not None:
            answer = roots.explain(self._answer(request))
            if os.getpid() != process:  # the module has forked, and only the parent knows how the step ends
                os._exit(int(isinstance(answer, Failed)))
            try:
                self._exchange.send(answer)
            except OverflowError:
                words = f"its files' names take more than {MAX_FRAME >> 20} MiB together: make several tasks of it"
                self._exchange.send(Failed(Cause("exception", words)))

    def _answer(self, request: Start | Step) -> Ready | Done | Failed:
        try:
            return self._do(request)
        except TerminationRequested:
            # If the supervisor asked, it has its own reason for the record.
            message = "the task process was ended by SIGTERM from outside"
            return Failed(Cause("signal", message, signal="SIGTERM"))
        except UnusableError as error:
            return Failed(Cause("unfit", to_text(error), unusable=True))
        except ClientError as error:
            return Failed(_explain_client_error(error), *self._take_told())
        except Skipped as error:
            return Failed(Cause("exception", f"only run can skip a task: {to_text(error)}"), *self._take_told())
        except SystemExit as error:
            return Failed(_explain_exit(error), *self._take_told())
        except BaseException as error:  # noqa: BLE001 - outermost frame of a step: whatever the module raises
            return Failed(_explain_exception(error), *self._take_told())

    def _do(self, request: Start | Step) -> Ready | Done:
        self._exchange.open()
        self._termination.begin_step()
        try:
            return self._start(request) if isinstance(request, Start) else self._execute(request)
        finally:
            self._termination.in_step = False
            self._exchange.close("the step ended before")
            heartbeat.flush()  # what was said last must not come after the answer
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # the module may have put anything in its place
                    stream.flush()

    def _start(self, start: Start) -> Ready:
        ask_tools(start)
        self._confine(start)
        if start.open_files is not None:
            _limit_open_files(start.open_files)
        for name, value in start.environment.items():
            os.environ[name] = value
        tempfile.tempdir = None  # else the directory that the zygote has found stays in use, whatever TMPDIR says
        Config.MODULES = dict(start.modules)
        self._title = f"task {start.task} {start.module}"
        self._show("init")
        heartbeat.job_id, heartbeat.job_title = start.job_id, start.job_title
        heartbeat.connect(self._exchange.send_status)
        server_data.connect(self._exchange.ask)
        known = context.current  # to make another one takes 20 page faults
        known.module, known.resumed = start.module, start.resumed
        known.free_space, known.roots, known.network = start.free_space, start.roots, start.network
        known.saved_state = _decode(start.saved_state)[0] if start.saved_state else None
        known.job.id, known.job.title = start.job_id, start.job_title
        known.settings, known.exchange = start.settings, self._exchange.ask
        kind = load(start)
        if start.data is None:
            self._module = kind
            return Ready(cleanup_on_failure=getattr(kind, "cleanup_on_failure", False) is True)
        self._module = kind(_decode(start.data)[0])
        return Ready(
            declared_paths(self._module, "outputs"),
            declared_paths(self._module, "removes"),
            declared_paths(self._module, "inputs"),
            getattr(self._module, "cleanup_on_failure", False) is True,
        )

    def _execute(self, request: Step) -> Done:
        match request:
            case Step("plan"):
                lines = [to_text(line) for line in getattr(self._module, "plan", list)()]
                # The task's own directories are gone before anybody can paste the lines into a shell.
                own = [os.environ.get(name, "") for name in ("TMPDIR", "SISYPHUS_JOB_DIR")]
                used = [path for path in own if path and any(f"{path}/" in line for line in lines)]
                made = [shlex.join(["mkdir", "-p", "--", *used])] if used else []
                return Done(lines=(*made, *lines))
            case Step("inspect" | "probe"):
                return Done(inspection=inspect(self._module, probe=request.step == "probe"))
            case Step("schema"):
                schema = getattr(self._module, "schema", None)
                return Done(inspection=Inspection(schema=json.dumps(schema) if isinstance(schema, Mapping) else ""))
            case Step("validate", files) if files and isinstance(self._module, BaseModule):
                changed = {os.fsdecode(path): stands for path, stands in files}
                self._module.sisyphus_context.files = changed
            case Step("run" | "cleanup", tasks=tasks) if tasks is not NO_TASKS:
                context.current.job.finished = bytes(tasks)
                if (known := self._known_context()) is not None:
                    known.job.finished = bytes(tasks)
        self._show(request.step)
        skipped = ""
        if request.step == "run":
            skipped = self._run()
        else:
            _require_done(request.step, getattr(self._module, request.step)())
        if request.step == "validate":
            roots.refuse_outside(self._module)
        warnings, results = self._take_told()
        if request.step == "cleanup":
            warnings += _tell_of_threads()
        return Done(warnings, results, skipped=skipped)

    def _run(self) -> str:
        """Return the reason why the module skips its task; empty if it did its work."""
        # A module may forget to call it itself, and then has no duration.
        if callable(set_start_time := getattr(self._module, "set_start_time", None)):
            set_start_time()
        try:
            _require_done("run", self._module.run())
        except Skipped as skipped:
            return to_text(skipped)[:MAX_REASON] or "the module gives no reason"
        return ""

    def _show(self, step: str) -> None:
        setproctitle.setproctitle(f"sisyphus-client: {self._title}, {step}")

    def _known_context(self) -> TaskContext | None:
        """The module's context; `None` if it has not used it, and so has told nothing: to make one takes 50 µs."""
        used = isinstance(self._module, BaseModule) and "sisyphus_context" in vars(self._module)
        return self._module.sisyphus_context if used else None

    def _take_told(self) -> tuple[tuple[str, ...], str]:
        """The warnings of this step, which the module then no longer holds, and all of its results."""
        if (known := self._known_context()) is None:
            return (), ""
        taken, known.warnings = known.warnings, ()
        return last_lines(taken), known.results.text


def _require_done(step: str, returned: object) -> None:
    """Refuse what a step with `yield` or `async` in it returns: nothing of such a step has run."""
    if returned is not None and isinstance(returned, Coroutine | Generator | AsyncGenerator):
        kind = type(returned).__name__
        raise TypeError(
            f"{step} of the module returned a {kind}, of which nothing has run: write it without yield and async"
        )


def _tell_of_threads() -> tuple[str, ...]:
    """A warning if threads of the module are alive after the last step: an interpreter would wait for them at its end,
    and nothing does here."""
    if pools := sys.modules.get("concurrent.futures.thread"):  # whose idle threads it would end first, in these steps
        pools._shutdown = True  # type: ignore[attr-defined]
        for queue in list(pools._threads_queues.values()):
            queue.put(None)
    deadline = time.monotonic() + THREADS_TIME
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    for thread in left:
        thread.join(max(deadline - time.monotonic(), 0))
    if not (alive := sum(thread.is_alive() for thread in left)):
        return ()
    return (f"{alive} of its threads were still alive after it and were ended: run must wait for them",)


def _explain_client_error(error: ClientError) -> Cause:
    """The cause that a module's error tells. Its attributes may hold anything."""
    failed = "signal" if error.signal else "exit" if isinstance(error.exit_status, int) else "exception"
    return Cause(
        "unfit" if isinstance(error.message, Unfit) else failed,  # type: ignore[arg-type]  # each is a `Reason`
        to_text(error.message) or to_text(error) or type(error).__name__,
        signal=to_text(error.signal) if error.signal else None,
        exit_status=error.exit_status if isinstance(error.exit_status, int) else None,
        problems=first_lines(error.problems) if len(error.problems) > 1 else (),  # a single one is the message
        stderr=last_lines(error.stderr),
        tool_died=bool(error.signal),
    )


def _explain_exit(error: SystemExit) -> Cause:
    status = error.code if isinstance(error.code, int) else int(error.code is not None)
    return Cause("exit", f"the module called sys.exit({to_text(error.code)})", exit_status=status)


def _explain_exception(error: BaseException) -> Cause:
    name = type(error).__name__
    text = to_text(error)
    with contextlib.suppress(Exception):  # formatting it runs the module's code again
        logger.opt(exception=error).error("The module raised {}", name)
    return Cause("exception", f"{name}: {text}" if text else name)


def _limit_open_files(count: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    except (OSError, ValueError) as error:
        raise InitializationError(message=f"tool.client.limits.open_files cannot be applied: {error}") from error


def main(executor: StepExecutor, queue: int) -> int:
    """Be the task process whose queue is this descriptor; returns its exit status."""
    os.register_at_fork(before=_block_sigterm, after_in_child=_handle_by_default, after_in_parent=_unblock_sigterm)
    executor.serve(queue)
    _leave()
    return 0


# SIGTERM ends a process that the module forks, as it would in any program. It is blocked during the fork: the
# interpreter would drop a signal that arrives in the child before the child has its own handling, and its sender
# (`multiprocessing.Pool`, for one) would wait for the child for ever.

_mask: set[signal.Signals] = set()
"""The signals that were blocked before the fork."""


def _block_sigterm() -> None:
    _mask.clear()
    _mask.update(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))  # type: ignore[arg-type]  # or plain ints


def _handle_by_default() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock_sigterm()


def _unblock_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


def _leave() -> None:
    """Do what the interpreter would at its end: modules count on it for what they have left open."""
    atexit._run_exitfuncs()
    for thing in gc.get_objects():
        if issubclass(type(thing), _BUFFERED):  # not isinstance, which may run code of the module's object
            with contextlib.suppress(Exception):  # closed, or nobody reads it any more
                thing.flush()
