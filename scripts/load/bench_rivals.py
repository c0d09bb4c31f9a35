"""What `bench.py` compares the client's task processes with: other ways to have four empty calls in a fresh process.

Each runs in a process of its own, `bench_rivals.py NAME COUNT`, and prints the seconds of each run, and the CPU
seconds and page faults of all, as JSON. The imports on top are few because a spawned process repeats them.
"""

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

MISSING = 3
"""Exit status: something that is not installed; standard error says what."""

TICKS = os.sysconf("SC_CLK_TCK")

STEPS = ("init", "validate", "run", "cleanup")


def nothing() -> None:
    """One empty step."""


def four_steps() -> None:
    """The work of a task, where a pool calls one function."""
    for _ in STEPS:
        nothing()


def serve(connection) -> None:
    """The work of a task, asked for step by step."""
    with contextlib.suppress(EOFError):
        while connection.recv():
            nothing()
            connection.send(True)


@contextlib.contextmanager
def bare_fork() -> Iterator[Callable[[], None]]:
    """Of a process with the zygote's imports."""
    import child.zygote  # noqa: F401

    gc.collect()
    gc.freeze()
    gc.disable()

    def one() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    yield one


@contextlib.contextmanager
def process(method: str) -> Iterator[Callable[[], None]]:
    import multiprocessing

    context = multiprocessing.get_context(method)

    def one() -> None:
        ours, theirs = context.Pipe()
        child = context.Process(target=serve, args=(theirs,))
        child.start()
        theirs.close()
        for step in STEPS:
            ours.send(step)
            ours.recv()
        ours.close()
        child.join()
        child.close()

    yield one


@contextlib.contextmanager
def executor() -> Iterator[Callable[[], None]]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=1, max_tasks_per_child=1) as pool:
        yield lambda: pool.submit(four_steps).result()


@contextlib.contextmanager
def pebble() -> Iterator[Callable[[], None]]:
    from pebble import ProcessPool

    with ProcessPool(max_workers=1, max_tasks=1) as pool:
        yield lambda: pool.schedule(four_steps).result()


@contextlib.contextmanager
def rq() -> Iterator[Callable[[], None]]:
    """From posting a job to having its result; the worker reaps the job's process before it takes the next."""
    import tempfile

    from redis import Redis
    from rq import Queue

    if shutil.which("redis-server") is None:
        print("redis-server is not installed: apt-get install redis-server", file=sys.stderr)
        sys.exit(MISSING)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        address = os.path.join(directory, "redis")
        server = ["redis-server", "--port", "0", "--unixsocket", address, "--save", "", "--dir", directory]
        stack.enter_context(_running(server))
        connection = Redis(unix_socket_path=address)
        while not _answers(connection):
            time.sleep(0.01)
        stack.enter_context(_running([sys.executable, __file__, "rq-worker", address]))
        queue = Queue(connection=connection)

        def one() -> None:
            queue.enqueue("bench_rivals.four_steps").latest_result(timeout=30)

        yield one


def rq_worker(address: str) -> None:
    import bench_rivals  # noqa: F401  # each of the worker's children has it, and need not import it
    from redis import Redis
    from rq import Queue, Worker

    connection = Redis(unix_socket_path=address)
    Worker([Queue(connection=connection)], connection=connection).work(logging_level="ERROR")


@contextlib.contextmanager
def _running(argv: list[str]) -> Iterator[None]:
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _answers(connection) -> bool:
    from redis.exceptions import ConnectionError as NotYetError

    try:
        return connection.ping()
    except NotYetError:
        return False


RIVALS = {
    "fork": ("bare fork + _exit + waitpid, the zygote's imports", 200, bare_fork),
    "rq": ("RQ: one forked work horse a job, redis-server", 200, rq),
    "forkserver": ("multiprocessing, forkserver", 200, lambda: process("forkserver")),
    "spawn": ("multiprocessing, spawn", 60, lambda: process("spawn")),
    "executor": ("ProcessPoolExecutor(max_tasks_per_child=1)", 60, executor),
    "pebble": ("pebble ProcessPool(max_tasks=1)", 40, pebble),
}
"""What each is, how many runs of it (fewer where each is long), and how one is made."""


def measure(name: str, count: int) -> tuple[list[float], float, int]:
    """Seconds that each of `count` runs took, after some that are not counted; CPU seconds and page faults of all."""
    with RIVALS[name][2]() as one:
        for _ in range(max(3, count // 20)):
            one()
        taken = []
        pids = [os.getpid(), *_children()]
        cpu, faults = cost_of(*pids)
        for _ in range(count):
            began = time.perf_counter()
            one()
            taken.append(time.perf_counter() - began)
        after = cost_of(*pids)
        return taken, after[0] - cpu, after[1] - faults


def cost_of(*pids: int) -> tuple[float, int]:
    """The CPU seconds and page faults of processes so far, those of the children that they have waited for included."""
    cpu, faults = 0, 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = [int(field) for field in file.read().rpartition(") ")[2].split()[1:]]
        except (FileNotFoundError, ProcessLookupError):  # it has ended: its costs are among its parent's
            continue
        faults += fields[6] + fields[7]  # minflt, cminflt, proc(5); the next are times, in ticks
        cpu += sum(fields[10:14])
    return cpu / TICKS, faults


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="utf-8") as file:
        return [int(pid) for pid in file.read().split()]


if __name__ == "__main__":
    if sys.argv[1] == "rq-worker":
        rq_worker(sys.argv[2])
    else:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
