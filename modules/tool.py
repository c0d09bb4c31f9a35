"""Run one external program: argument list in, lines out, and nothing left behind.

One thread reads both pipes through a selector. Threads would be shorter, but an exception that the task process raises
from its signal handler reaches the main thread only, and a reader thread blocked on a pipe that a grandchild holds
could then never be joined. `subprocess.run` and `communicate` wait for end-of-file on the pipes, for just as long.
"""

import contextlib
import errno
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Self

from loguru import logger

from app.exceptions import ClientError, RunError, Unfit, ValidationError
from ipc.words import describe_signal, signal_name

MAX_LINE = 64 << 10
"""Bytes of a line that are kept; the rest of a longer one is dropped."""

MAX_REASON = 1000
"""Characters of a program's last line that an error's message quotes."""

MAX_CAPTURED = 16 << 20
"""Bytes that a short command may write to stdout."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the program has exited. Its end is told at once; but a signal that arrives while a
wait begins does not end that: its handler runs after the wait."""

LOOK_WITHOUT_END = 0.1
"""The same where the kernel does not tell of a program's end."""

DRAIN_TIME = 0.5
"""Seconds to read the rest of the program's output while a grandchild goes on writing to the same pipes."""

_PACKAGES = {
    "ffprobe": "ffmpeg",
    "mkvmerge": "mkvtoolnix",
    "mkvextract": "mkvtoolnix",
    "HandBrakeCLI": "handbrake-cli",
}

_VERSION_FLAGS = {"ffmpeg": "-version", "ffprobe": "-version"}
"""The option that prints a program's version, if it is not `--version`."""

_Taker = Callable[[bytes], None]


@dataclass(frozen=True)
class Finished:
    """How a program ended. `returncode` is negative for a signal, as in `subprocess`."""

    argv: tuple[str, ...]
    returncode: int
    stderr: tuple[str, ...] = ()
    stdout: bytes = b""

    def check(self) -> "Finished":
        """Return this value if the program succeeded.

        Raises:
            RunError: The program failed.
        """
        if self.returncode:
            raise self.error(self.described())
        return self

    def described(self) -> str:
        """A phrase for how the program ended: `ffmpeg exited with status 1`."""
        name = os.path.basename(self.argv[0])
        if self.returncode >= 0:
            return f"{name} exited with status {self.returncode}"
        hint = ", which the kernel does when memory runs out" if self.returncode == -signal.SIGKILL else ""
        return f"{name} was killed by {describe_signal(-self.returncode)}{hint}"

    def error(self, message: str) -> RunError:
        """An error for the job's record: `message`, the last line on stderr, and the command line."""
        last = f": {self.stderr[-1][:MAX_REASON]}" if self.stderr else ""
        return RunError(
            message=f"{message}{last}; the command was: {shlex.join(self.argv)}",
            stderr=self.stderr,
            exit_status=self.returncode if self.returncode >= 0 else None,
            signal=signal_name(-self.returncode) if self.returncode < 0 else None,
        )


def run(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None] | None = None,
    on_stderr: Callable[[str], None] | None = None,
    ask: signal.Signals = signal.SIGTERM,
    grace: float = 8.0,
    tail: int = 20,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run `argv` to its end, passing each line of stdout to `on_line` and of stderr to `on_stderr`.

    Lines end in a line feed or a carriage return; empty ones are skipped. The last `tail` lines of stderr are in the
    result. `environment` is added to the task's own. An exception in a callback or a signal handler stops the program
    before it goes on: one signal `ask`, `grace` seconds, then SIGKILL.

    Raises:
        RunError: The program cannot be started. A program that fails is no error here: see `Finished.check`.
    """
    kept: deque[str] = deque(maxlen=tail)

    def error_line(line: str) -> None:
        logger.debug("{}: {}", os.path.basename(argv[0]), line)
        kept.append(line)
        if on_stderr is not None:
            on_stderr(line)

    out = _Lines(on_line or _ignore)
    err = _Lines(error_line)
    with _Program(argv, environment, (out.feed, err.feed), ask, grace) as program:
        returncode = program.serve(None)
    out.end()
    err.end()
    return Finished(tuple(argv), returncode, tuple(kept))


def capture(
    argv: Sequence[str], *, timeout: float = 60.0, tail: int = 20, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run a short command; its stdout is in the result. `environment` is added to the task's own.

    Raises:
        RunError: The command cannot be started, takes longer than `timeout` seconds, or writes more than
            `MAX_CAPTURED` bytes.
    """
    with Capture(argv, timeout=timeout, tail=tail, environment=environment) as command:
        return command.result()


def missing(name: str) -> Unfit | None:
    """A message for a person if there is no program `name`, else `None`."""
    if shutil.which(name) is not None:
        return None
    if found := shutil.which(name, mode=os.F_OK):
        return Unfit(f"{name} may not be executed: {found} lacks the permission")
    return Unfit(f"{name} is not installed, or not on PATH (install {_PACKAGES.get(name, name)})")


def require(name: str, error: type[ClientError] = ValidationError) -> None:
    """Raise `error` if there is no program `name`."""
    if problem := missing(name):
        raise error(message=problem)


def version(name: str) -> str:
    """The version that a program prints, such as `5.1.9`.

    Raises:
        RunError: The program cannot be started, or prints no version.
    """
    finished = capture([name, _VERSION_FLAGS.get(name, "--version")], timeout=10.0).check()
    said = " ".join(finished.stdout.decode(errors="replace").split()) or " ".join(finished.stderr)
    if found := re.search(r"\d+(\.\d+)+[\w.+~-]*|\b[nN]-\d\S*", said):
        return found[0]
    raise finished.error(f"{name} does not tell its version")


class _Program:
    """A program under way, which does not outlive the `with` statement."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None,
        takers: tuple[_Taker, _Taker],
        ask: signal.Signals,
        grace: float,
    ) -> None:
        """`takers` get what it writes to stdout and to stderr. For the rest see `run`."""
        self._argv, self._environment, self._takers, self._ask, self._grace = argv, environment, takers, ask, grace
        self._selector = selectors.DefaultSelector()
        self._process: subprocess.Popen[bytes] | None = None
        self._end = -1
        """A descriptor that can be read when the program has exited."""
        self._look = LOOK_WITHOUT_END

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start it. `close` must be called.

        Raises:
            RunError: It cannot be started.
        """
        try:
            with _terminate_held():
                self._process = _start(self._argv, self._environment)
            self._register(self._process)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop it, if it has not ended."""
        process = self._process
        try:
            if process is not None and process.poll() is None:
                self._stop(process)
        finally:
            self._selector.close()
            for pipe in (process.stdout, process.stderr) if process is not None else ():
                assert pipe is not None
                pipe.close()
            if self._end >= 0:
                os.close(self._end)

    def serve(self, timeout: float | None) -> int:
        """Pass on what the program writes until it has exited. Returns its exit status."""
        process = self._process
        assert process is not None
        left = float("inf") if timeout is None else timeout
        while process.poll() is None:
            if left <= 0:
                raise RunError(message=f"{os.path.basename(self._argv[0])} did not end within {timeout:g} s")
            begin = time.monotonic()
            look = min(self._look, left)
            self._pass_on(process, look)
            left -= min(time.monotonic() - begin, 2 * look)  # if it took longer, we were paused meanwhile
        # The program's last output is in the pipes by now, so an empty select ends the loop. A grandchild may write on.
        deadline = time.monotonic() + DRAIN_TIME
        while self._pass_on(process, 0) and time.monotonic() < deadline:
            pass
        return process.returncode

    def _register(self, process: subprocess.Popen[bytes]) -> None:
        for pipe, taker in zip((process.stdout, process.stderr), self._takers, strict=True):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, taker)
        with contextlib.suppress(OSError):  # an old kernel or container (Linux 5.3), or no descriptor is left
            self._end = os.pidfd_open(process.pid)
            self._selector.register(self._end, selectors.EVENT_READ)
            self._look = LOOK_INTERVAL

    def _pass_on(self, process: subprocess.Popen[bytes], wait: float) -> bool:
        """Read once from the pipes, after at most `wait` seconds. Returns whether there may be more to read."""
        if not self._selector.get_map():  # the pipes are closed, and nothing tells of the program's end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            return False
        events = self._selector.select(wait)
        for key, _ in events:
            try:
                data = os.read(key.fd, 64 << 10) if key.data else b""
            except BlockingIOError:
                continue
            if data:
                key.data(data)
            else:
                self._selector.unregister(key.fileobj)
        return bool(events)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """Ask once, wait the grace, kill, reap.

        ffmpeg flushes its output when asked once, and aborts when asked again. A full pipe would block it, so the pipes
        are read meanwhile and the output is dropped.
        """
        try:
            process.send_signal(self._ask)
            process.send_signal(signal.SIGCONT)  # a stopped program handles the other signal only when it continues
            for key in list(self._selector.get_map().values()):
                self._selector.modify(key.fileobj, key.events, key.data and _ignore)
            deadline = time.monotonic() + self._grace
            while process.poll() is None and (left := deadline - time.monotonic()) > 0:
                self._pass_on(process, min(left, self._look))
        finally:
            process.kill()
            process.wait()


class Capture(_Program):
    """A short command under way, as `capture` runs one: others can be started meanwhile."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        tail: int = 20,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._timeout = timeout
        self._kept: deque[str] = deque(maxlen=tail)
        self._taken = bytearray()
        self._errors = _Lines(self._kept.append)
        super().__init__(argv, environment, (self._take, self._errors.feed), signal.SIGTERM, 1.0)

    def result(self) -> Finished:
        """Wait until it has ended."""
        returncode = self.serve(self._timeout)
        self._errors.end()
        return Finished(tuple(self._argv), returncode, tuple(self._kept), bytes(self._taken))

    def _take(self, data: bytes) -> None:
        self._taken += data
        if len(self._taken) > MAX_CAPTURED:
            name = os.path.basename(self._argv[0])
            raise RunError(message=f"{name} wrote more than {MAX_CAPTURED} bytes: {shlex.join(self._argv)}")


def _start(argv: Sequence[str], more: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    if isinstance(argv, str):  # whose first letter would be a program that is not installed
        raise TypeError(f"a tool takes a list of arguments, such as {argv.split()}, and not a text: {argv!r}")
    pipe = subprocess.PIPE
    # Colours would be escape codes in the messages: ffmpeg, and HandBrakeCLI with its libraries.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AV_LOG_FORCE_")}
    environment |= more or {}
    try:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, bufsize=0, env=environment)
    except (OSError, ValueError) as error:
        raise RunError(message=missing(argv[0]) or _why_not_started(argv[0], error)) from error


def _why_not_started(program: str, error: OSError | ValueError) -> str:
    name, path = os.path.basename(program), shutil.which(program)
    match getattr(error, "errno", None):
        case errno.ENOEXEC:
            return Unfit(f"{name} cannot be started: {path} is no program for this machine")
        case errno.ENOENT:
            return Unfit(f"{name} cannot be started: {path} needs an interpreter or loader that is not installed")
    return f"{name} cannot be started: {error}"


@contextlib.contextmanager
def _terminate_held() -> Iterator[None]:
    """Run SIGTERM's handler only at the end of the `with` statement.

    Its exception must not be raised while `Popen` starts the program, or nobody would stop that. The signal is not
    blocked, because the program would inherit the mask and could not be asked to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread: nothing is raised here
        return
    arrived: list[FrameType | None] = []
    previous = signal.signal(signal.SIGTERM, lambda _, frame: arrived.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if arrived and callable(previous):
            previous(signal.SIGTERM, arrived[0])
        elif arrived and previous == signal.SIG_DFL:
            signal.raise_signal(signal.SIGTERM)


def _ignore(data: object) -> None:
    del data


class _Lines:
    """Splits a stream of bytes into lines of text. Holds at most `MAX_LINE` bytes."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._part = b""

    def feed(self, data: bytes) -> None:
        *lines, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._part += line[: MAX_LINE - len(self._part)]
            self.end()
        self._part += rest[: MAX_LINE - len(self._part)]

    def end(self) -> None:
        """Pass on the last line, which may lack a line feed."""
        part, self._part = self._part, b""
        if part:
            self._on_line(part.decode(errors="replace"))
