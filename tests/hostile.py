"""The hostile modules: each does, in one step, the thing that its task's data names."""

import collections
import contextlib
import ctypes
import io
import itertools
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from loguru import logger

import modules.tool
from app.config import Config
from app.exceptions import CleanupError, ClientError, InitializationError, RunError, Skipped, ValidationError
from app.heartbeat import heartbeat
from modules.base import BaseModule
from tests.support.modules import EachStep


def _find_queue() -> int:
    for number in range(3, 100):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return number
    return -1


QUEUE = _find_queue()
"""The runner's queue, which a hostile module finds by looking."""

ERRORS = {"init": InitializationError, "validate": ValidationError, "run": RunError, "cleanup": CleanupError}


class Benign(BaseModule):
    """Does nothing, well."""

    def run(self) -> None:
        self.heartbeat.set_data({"status": "in_progress", "task": "benign", "progress": 50})
        if made := self.task.get("make"):
            Path(made).write_text("made")

    def outputs(self) -> list[str]:
        return [self.task.make] if "make" in self.task else []


class Curious(BaseModule):
    """Writes down what it finds."""

    def run(self) -> None:
        tempfile.mkstemp()
        found = [
            Config.API_URL,
            str(Config.API_TIMEZONE),
            Config.HOSTNAME,
            Config.HOST_UUID,
            Config.VERSION,
            Config.MODULES["curious"],
            heartbeat.job_id,
            heartbeat.job_title,
            heartbeat.interval,
            tempfile.gettempdir(),
            os.environ["TMPDIR"],
            os.environ.get("API_TOKEN"),
            heartbeat.message,
            os.environ["SPAM"],
            os.getcwd(),
        ]
        Path(self.task.out).write_text(json.dumps(found))


class Clerk(EachStep):
    """Uses server-side data: the task's data names what to do in each step, and the file `out` to note it in."""

    def do(self, step: str) -> None:
        for verb, *arguments in self.task.get(step, []):
            getattr(self, verb)(*arguments)

    def note(self, what: Any) -> None:
        with Path(self.task.out).open("a") as file:
            file.write(json.dumps(what) + "\n")

    def get(self, name: str) -> None:
        self.note(self.get_data(name))

    def put(self, name: str, object: dict[str, Any]) -> None:
        self.put_data(name, object)

    def try_to_get(self, name: str) -> None:
        try:
            self.get(name)
        except ClientError as error:
            self.note(error.message)

    def get_for_ever(self) -> None:
        for number in itertools.count():
            name = f"number {number}"
            found = self.get_data(name)
            if found != {"for": name}:
                self.note(f"wrong: {found} for {name}")

    def get_many(self, count: int) -> None:
        for number in range(count):
            assert self.get_data(str(number)) == {"for": str(number)}

    def get_in_threads(self, count: int) -> None:
        threads = [threading.Thread(target=self.get_many, args=(20,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        self.get_many(20)
        for thread in threads:
            thread.join()

    def get_when_asked_to_stop(self, slow: str, other: str) -> None:
        """Asks, and when it is stopped meanwhile, waits until there is a file, and asks for something else."""
        try:
            self.get(slow)
        finally:
            self.note("unwinding")
            self.wait_for(self.task.go)
            self.get(other)

    def wait_when_asked_to_stop(self, slow: str) -> None:
        try:
            self.get(slow)
        finally:
            self.note("unwinding")
            self.wait_for(self.task.go)

    def wait_for(self, path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.005)

    def leave_thread_asking(self, name: str) -> None:
        """Returns while a thread still waits for an answer."""
        self.thread = threading.Thread(target=self.try_to_get, args=(name,))
        self.thread.start()
        self.wait_for(self.task.go)

    def leave_thread_asking_later(self, name: str) -> None:
        """Leaves a thread that asks when there is a file."""

        def ask() -> None:
            self.wait_for(self.task.go)
            self.try_to_get(name)

        self.thread = threading.Thread(target=ask)
        self.thread.start()

    def join_thread(self) -> None:
        self.thread.join()

    def get_interrupted(self, name: str, at: int | None = None) -> None:
        """Asks, and gets SIGTERM before one instruction of the interpreter's: each time one later, if not `at`."""
        self.instruction = getattr(self, "instruction", 0) + 1 if at is None else at
        left = self.instruction

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            frame.f_trace_opcodes = True
            left -= event == "opcode"
            if not left:
                left = -1
                signal.raise_signal(signal.SIGTERM)
            return trace

        sys.settrace(trace)
        try:
            found = self.get_data(name)
        finally:
            sys.settrace(None)
        assert found == {"for": name}
        self.note("through")

    def get_in_fork(self, name: str) -> None:
        if os.fork() == 0:
            try:
                self.try_to_get(name)
            finally:
                os._exit(0)
        os.wait()

    def tell(self) -> None:
        self.note({"resumed": self.resumed, "requests": "requests" in sys.modules, "threads": threading.active_count()})


class Hostile(EachStep):
    """Data: `step`, in which to act, and `act`, the name of a function below; `ready` is a file it may write first."""

    def do(self, step: str) -> Any:
        logger.info("step {}", step)
        if self.task.get("log"):
            with Path(self.task.log).open("a") as file:
                file.write(f"{step} {os.getpid()}\n")
        if self.task.get("step") == step:
            return ACTS[self.task.act](self, step)
        return None


class Stubborn(Hostile):
    """A hostile module whose cleanup is wanted after a failure too."""

    cleanup_on_failure = True


class Messy(Stubborn):
    """Fails to clean up, too."""

    def cleanup(self) -> None:
        super().cleanup()
        raise CleanupError(message="cannot clean up")


def own_error(module: Hostile, step: str) -> None:
    raise ERRORS[step](message="Could not build additional pylons.")


def fork_and_fail(module: Hostile, step: str) -> None:
    """Fails after a child of its own has come to the end of the step."""
    if child := os.fork():
        os.waitpid(child, 0)
        own_error(module, step)


def generate(module: Hostile, step: str) -> Iterator[None]:
    yield


async def wait(module: Hostile, step: str) -> None:
    pass


def other_exception(module: Hostile, step: str) -> None:
    raise ZeroDivisionError("not one of the four")


def unprintable_exception(module: Hostile, step: str) -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    raise UnprintableError


def huge_error(module: Hostile, step: str) -> None:
    raise ERRORS[step](message="x" * (1 << 24))


def hold_gil(module: Hostile, step: str) -> None:
    _say_ready(module)
    collections.deque(itertools.repeat(None), maxlen=0)  # an endless loop in C that never looks for signals


def block_in_c(module: Hostile, step: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _say_ready(module)
    ctypes.CDLL(None).pause()


def endless_heartbeats(module: Hostile, step: str) -> None:
    while True:
        module.heartbeat.set_data(
            {"status": "in_progress", "task": "hostile", "progress": 1, "info": {"x": "y" * 1000}}
        )


def endless_log(module: Hostile, step: str) -> None:
    while True:
        logger.info("x" * 500)


def half_frame(module: Hostile, step: str) -> None:
    os.write(QUEUE, struct.pack("!I", 1000) + b'{"type":"done"')


def huge_frame(module: Hostile, step: str) -> None:
    _write(struct.pack("!I", 1 << 30))
    while True:
        _write(b" " * (1 << 20))


def huge_status(module: Hostile, step: str) -> None:
    module.heartbeat.set_data({"status": "in_progress", "task": "hostile", "info": {"x": "y" * (1 << 25)}})


def flood(module: Hostile, step: str) -> None:
    while True:
        _write(_framed(b'{"type": "progress", "status": {"progress": 1}}') * 1000)


def close_queue(module: Hostile, step: str) -> None:
    os.closerange(3, 1000)
    time.sleep(1000)


def flood_of_gets(module: Hostile, step: str) -> None:
    while True:
        _write(_frame("get", name="x") * 1000)


def gets_without_reading(module: Hostile, step: str) -> None:
    """Asks again and again, each time when the first of an answer is there, and takes none."""
    while True:
        _write(_frame("get", name="large"))
        select.select([QUEUE], [], [])


def half_a_get(module: Hostile, step: str) -> None:
    _write(_frame("get", name="x" * 900)[:500])
    os.closerange(3, 1000)
    time.sleep(1000)


def get_and_close(module: Hostile, step: str) -> None:
    _write(_frame("get", name="slow"))
    os.closerange(3, 1000)
    time.sleep(1000)


def get_and_die(module: Hostile, step: str) -> None:
    _write(_frame("get", name="slow"))
    os.kill(os.getpid(), signal.SIGKILL)


def get_and_return(module: Hostile, step: str) -> None:
    """Asks by itself, and leaves the answer, when the first of it is there, to whom it may concern."""
    _write(_frame("get", name="large"))
    select.select([QUEUE], [], [])


def send_descriptor(module: Hostile, step: str) -> None:
    """Tries to have the supervisor close something that is slow to close."""
    with socket.socket(fileno=os.dup(QUEUE)) as queue, contextlib.suppress(PermissionError):
        socket.send_fds(queue, [b"x"], [0])


def link_for_scratch(module: Hostile, step: str) -> None:
    """Leaves a link to itself in the place of its temporary directory."""
    place = tempfile.gettempdir()
    os.rmdir(place)
    os.symlink(place, place)


def lock_scratch(module: Hostile, step: str) -> None:
    """Takes the permissions of the directory that all tasks' temporary directories are in."""
    os.chmod(Path(tempfile.gettempdir()).parent, 0)


def flood_stdout(module: Hostile, step: str) -> None:
    for _ in range(module.task.get("megabytes", 5)):
        _write(b"spam and eggs\n" * (1_000_000 // 14), 1)


def endless_line(module: Hostile, step: str) -> None:
    for _ in range(module.task.get("megabytes", 5)):
        _write(b"x" * 1_000_000, 2)


def daemon(module: Hostile, step: str) -> None:
    """Double-forks and setsids a daemon with an empty environment that ignores TERM."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            script = f"trap '' TERM; echo ready >&{writer}; while :; do sleep 1000; done"
            os.set_inheritable(writer, True)
            os.execve("/bin/sh", ["sh", "-c", script], {})
        os._exit(0)
    os.wait()
    os.read(reader, 10)  # it has set its trap


def tool(module: Hostile, step: str) -> None:
    """Waits for a tool that never ends."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        _say_ready(module)
        process.wait()


def abandon(module: Hostile, step: str) -> None:
    """Starts a program, waits for its first line, and leaves it running."""
    process = subprocess.Popen(list(module.task.argv), stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()


def resign_and_hide(module: Hostile, step: str) -> None:
    """Gives up being a subreaper and dying with the zygote, then leaves a daemon and waits."""
    libc = ctypes.CDLL(None)
    libc.prctl(36, 0, 0, 0, 0)
    libc.prctl(1, 0, 0, 0, 0)
    daemon(module, step)
    _say_ready(module)
    time.sleep(1000)


def kill_zygote(module: Hostile, step: str) -> None:
    daemon(module, step)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)


def raise_signal(module: Hostile, step: str) -> None:
    os.kill(os.getpid(), module.task.number)
    time.sleep(1000)


def quiet(module: Hostile, step: str) -> None:
    _say_ready(module)
    time.sleep(1000)


def ignore_everything(module: Hostile, step: str) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue
    _say_ready(module)
    while True:
        time.sleep(1000)


def send_results(module: Hostile, step: str) -> None:
    """Send the text of its data for results, past the checks of this side."""
    module.sisyphus_context.results = SimpleNamespace(text=eval(module.task.text))


def skip_at_length(module: Hostile, step: str) -> None:
    """Give a reason that each later task of the job would have, past the bounds of this side."""
    sys.modules["child.task"].MAX_REASON = 1 << 30  # type: ignore[attr-defined]
    raise Skipped("x" * 1001)


def skip(module: Hostile, step: str) -> None:
    raise Skipped("nothing to do")


def warn_and_leave_threads(module: Hostile, step: str) -> None:
    threading.Thread(target=time.sleep, args=(1000,)).start()
    module.warn("odd")
    print("printed")


def threads(module: Hostile, step: str) -> None:
    for _ in range(module.task.count):
        threading.Thread(target=time.sleep, args=(1000,)).start()
    time.sleep(1000)


def leak(module: Hostile, step: str) -> None:
    """A gigabyte a second, once there is a file, if one is named."""
    _say_ready(module)
    while not os.path.exists(module.task.get("until", "/")):
        time.sleep(0.05)
    hoard = []
    while True:
        hoard.append(b"\1" * (64 << 20))
        time.sleep(1 / 16)


def leak_without_first_thread(module: Hostile, step: str) -> None:
    """A process without its first thread is a zombie to whoever looks at that one alone."""
    threading.Thread(target=leak, args=(module, step)).start()
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit(2), of the calling thread


def share(module: Hostile, step: str) -> None:
    """Eight processes that share 500 MB, for longer than a few measurements."""
    hoard = b"\1" * 500_000_000
    for _ in range(7):
        if os.fork() == 0:
            time.sleep(1000)
    time.sleep(2.5)
    assert hoard


def leak_in_a_tool(module: Hostile, step: str) -> None:
    """A tool takes the memory, and the module tells how it ended, as the bundled ones do."""
    code = "x = []\nwhile True: x.append(b'1' * (4 << 20))"
    modules.tool.run([sys.executable, "-c", code]).check()


def crowd(module: Hostile, step: str) -> None:
    """As many processes as are asked for, until there is a file, if one is named."""
    for _ in range(module.task.count):
        subprocess.Popen(["sleep", "1000"])
    _say_ready(module)
    while not os.path.exists(module.task.get("until", "")):
        time.sleep(0.05)


def bomb(module: Hostile, step: str) -> None:
    """One of the programs in bombs.py."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bombs", *module.task.argv], cwd=Path(__file__).parent.parent
    )
    time.sleep(module.task.get("seconds", 1000))
    del process


def take_all_descriptors(module: Hostile, step: str) -> None:
    while True:
        os.dup(0)


def zombies(module: Hostile, step: str) -> None:
    """Without an end: a thousand a second."""
    while True:
        if os.fork() == 0:
            os._exit(0)


def kill_all_in_a_namespace(module: Hostile, step: str) -> None:
    """Becomes root in namespaces of its own, if the kernel lets it, and kills and mounts there."""
    script = "mount -t tmpfs none /tmp; kill -9 -1"
    command = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", script]
    subprocess.run(command, stderr=subprocess.DEVNULL)


def deep_scratch(module: Hostile, step: str) -> None:
    os.chdir(tempfile.gettempdir())
    for _ in range(1000):
        os.mkdir("deep")
        os.chdir("deep")


def spin(module: Hostile, step: str) -> None:
    while True:
        pass


def repeat_progress(module: Hostile, step: str) -> None:
    """Reports for ever, and never gets further."""
    while True:
        progress = module.task.get("progress", 43)
        module.heartbeat.set_data({"status": "in_progress", "task": "hostile", "progress": progress})
        time.sleep(0.05)


def work_in_silence(module: Hostile, step: str) -> None:
    """Computes for a while and reports nothing."""
    end = time.monotonic() + module.task.seconds
    while time.monotonic() < end:
        sum(range(100_000))
        time.sleep(0.005)


def copy_slowly(module: Hostile, step: str) -> None:
    """Moves a byte now and then, and reports nothing."""
    end = time.monotonic() + module.task.seconds
    with tempfile.TemporaryFile(buffering=0) as file:
        while time.monotonic() < end:
            file.write(b"x")
            time.sleep(0.2)


def run_tool(module: Hostile, step: str) -> None:
    """Runs a tool as the bundled modules do."""
    _say_ready(module)
    modules.tool.run(list(module.task.argv)).check()


def read_file(module: Hostile, step: str) -> None:
    """Reads a file to its end, which a pipe may keep for long."""
    Path(module.task.path).read_bytes()


def tell_limits(module: Hostile, step: str) -> None:
    """Writes down what limits the module finds, and what a tool finds."""
    code = """if True:
        import json, os, psutil, resource
        own = psutil.Process()
        print(json.dumps([own.nice(), int(own.ionice().ioclass), own.cpu_affinity(),
              resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)[0],
              int(open("/proc/self/oom_score_adj").read())]))
    """
    told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    with contextlib.redirect_stdout(io.StringIO()) as own:
        exec(code, {})
    Path(module.task.out).write_text(json.dumps([json.loads(own.getvalue()), json.loads(told)]))


def tick(module: Hostile, step: str) -> None:
    """A tool that forks all the time and leaves a mark of each fork, until there is a file named by `until`."""
    script = 'touch "$1"; until [ -e "$2" ]; do (echo x >> "$1"); done'
    subprocess.run(["sh", "-c", script, "tick", module.task.ready, module.task.until], check=True)


def ask_about_term(module: Hostile, step: str) -> None:
    """A tool that writes down that it was asked to stop."""
    script = 'trap "echo asked >> $1; exit 0" TERM; touch "$1"; while :; do sleep 0.01; done'
    _say_ready(module)
    modules.tool.run(["sh", "-c", script, "sh", module.task.note]).check()


def _write(data: bytes, descriptor: int = QUEUE) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _frame(kind: str, of: str = "hostile", **fields: str) -> bytes:
    """A message as it travels."""
    return _framed(json.dumps({"type": kind, **({"module": of} if fields else {}), **fields}).encode())


def _say_ready(module: Hostile) -> None:
    if ready := module.task.get("ready"):
        Path(ready).write_text(str(os.getpid()))


def _sending(make: Callable[[str], bytes]) -> Callable[[Hostile, str], None]:
    """An act that writes what a step gives into the queue, and does nothing more."""

    def act(module: Hostile, step: str) -> None:
        _write(make(step))
        time.sleep(1000)

    return act


def _framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


SENT: dict[str, Callable[[str], bytes]] = {
    "garbage": lambda step: os.urandom(1000),
    "nested_frame": lambda step: _framed(b'{"type":"progress","status":' + b"[" * 500_000),
    "unasked_answer": lambda step: _frame("done") * 3,
    # A failure that returns the job to the queue: it would be run for ever.
    "foreign_reason": lambda step: _framed(b'{"type":"failed","cause":{"reason":"shutdown","message":""}}'),
    "two_gets": lambda step: _frame("get", name="slow") * 2,
    "put_after_get": lambda step: _frame("get", name="slow") + _frame("put", name="x", body="{}"),
    "get_with_a_huge_name": lambda step: _frame("get", name="x" * (7 << 20)),
    "get_of_another_path": lambda step: _frame("get", of="..", name="queue"),
    "put_of_another_path": lambda step: _frame("put", name="..", body="{}"),
    "put_of_a_huge_body": lambda step: _frame("put", name="x", body="x" * (7 << 20)),
    "get_after_the_answer": lambda step: _frame("ready" if step == "init" else "done") + _frame("get", name="x"),
}
"""What acts write into the queue."""


ACTS: dict[str, Callable[[Hostile, str], object]] = {
    **{name: value for name, value in globals().items() if callable(value) and not name.startswith("_")},
    **{name: _sending(make) for name, make in SENT.items()},
    "system_exit": lambda module, step: sys.exit(7),
    "os_exit": lambda module, step: os._exit(7),
    "abort": lambda module, step: os.abort(),
    "segfault": lambda module, step: ctypes.string_at(0),
    "sigkill": lambda module, step: os.kill(os.getpid(), signal.SIGKILL),
    "tell_open_files": lambda module, step: logger.info("open files: {}", resource.getrlimit(resource.RLIMIT_NOFILE)),
}
"""What the name of an act does."""
