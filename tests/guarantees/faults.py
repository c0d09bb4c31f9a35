"""The faults of a client's surroundings: each lasts as long as its context."""

import contextlib
import itertools
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.client import Client
from tests.support.disks import fill
from tests.support.farm import Fault, says, status
from tests.support.waiting import until

ROOT = os.geteuid() == 0


@dataclass
class Surroundings:
    """What a client that runs depends on. `mounts` tells whether its directories are small disks of their own."""

    client: Client
    scratch: Path
    state: Path
    code: Path
    """A directory in its PYTHONPATH."""
    mounts: bool
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Closed when the client has ended."""

    @property
    def zygote(self) -> psutil.Process:
        (zygote,) = psutil.Process(self.client.process.pid).children()
        return zygote


Context = Callable[[Surroundings], contextlib.AbstractContextManager[None]]


def full(which: str) -> Context:
    @contextlib.contextmanager
    def fault(around: Surroundings) -> Iterator[None]:
        filler = fill(getattr(around, which))
        yield
        filler.unlink()

    return fault


def read_only(which: str) -> Context:
    @contextlib.contextmanager
    def fault(around: Surroundings) -> Iterator[None]:
        subprocess.run(["mount", "-o", "remount,ro", getattr(around, which)], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw", getattr(around, which)], check=True)

    return fault


def emptied(which: str) -> Context:
    """All is removed, and the directory itself, if it is no mount."""

    @contextlib.contextmanager
    def fault(around: Surroundings) -> Iterator[None]:
        shutil.rmtree(getattr(around, which), ignore_errors=True)
        yield

    return fault


@contextlib.contextmanager
def replaced(around: Surroundings) -> Iterator[None]:
    """A file is in the place of the client's scratch directory."""
    for directory in around.scratch.iterdir():
        shutil.rmtree(directory)
        directory.touch()
    yield


@contextlib.contextmanager
def forbidden(around: Surroundings) -> Iterator[None]:
    for directory in around.scratch.iterdir():
        directory.chmod(0)
    yield


@contextlib.contextmanager
def no_process(around: Surroundings) -> Iterator[None]:
    """The zygote may fork no more: by a cgroup, because root has no limit of its own, or by such a limit."""
    if not ROOT:
        zygote = around.zygote.pid
        before = resource.prlimit(zygote, resource.RLIMIT_NPROC)
        resource.prlimit(zygote, resource.RLIMIT_NPROC, (1, before[1]))
        yield
        resource.prlimit(zygote, resource.RLIMIT_NPROC, before)
        return
    group = Path("/sys/fs/cgroup/pids", f"sisyphus-test-{os.getpid()}")
    group.mkdir()
    around.stack.callback(group.rmdir)
    around.stack.callback(until, lambda: not (group / "cgroup.procs").read_text(), "the cgroup to be empty")
    (group / "pids.max").write_text("1")
    (group / "cgroup.procs").write_text(str(around.zygote.pid))
    yield
    (group / "pids.max").write_text("max")


@contextlib.contextmanager
def no_descriptors(around: Surroundings) -> Iterator[None]:
    pid = around.client.process.pid
    used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    free = (number for number in itertools.count() if number not in used)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    fourth = next(itertools.islice(free, 4, None))  # a call to the server needs one at a time
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (fourth, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def upgrading(around: Surroundings) -> Iterator[None]:
    """The zygote is lost while its code is being replaced."""
    broken = around.code / "child.py"
    broken.write_text("raise ImportError('half an upgrade')")
    around.zygote.kill()
    yield
    broken.unlink()


def cut(name: str) -> Context:
    """A file of the journal is cut short while it is open."""

    @contextlib.contextmanager
    def fault(around: Surroundings) -> Iterator[None]:
        if (file := around.state / name).exists():
            os.truncate(file, 100)
        yield

    return fault


def storm(number: signal.Signals, count: int) -> Context:
    @contextlib.contextmanager
    def fault(around: Surroundings) -> Iterator[None]:
        for _ in range(count):
            around.client.process.send_signal(number)
        yield

    return fault


def server(route: str, how: Fault) -> Context:
    @contextlib.contextmanager
    def fault(around: Surroundings) -> Iterator[None]:
        around.client.farm.misbehave(route, how)
        yield
        around.client.farm.behave()

    return fault


HUNG_UP = Fault(acts=False, cut="before")

FAULTS: dict[str, tuple[str, str, Context, str]] = {
    # name: (who, what, how, what the heartbeats say is wrong: nothing where jobs run meanwhile)
    "scratch full": ("the disk", "no space for temporary files", full("scratch"), "No space left on device"),
    "scratch read-only": ("the disk", "an error made it read-only", read_only("scratch"), "Read-only file system"),
    "scratch removed": ("a cleaner", "removes TMPDIR", emptied("scratch"), ""),
    "scratch replaced": ("a user", "puts a file in its place", replaced, ""),
    "scratch forbidden": ("a user", "takes the permissions away", forbidden, ""),
    "no process": ("the machine", "no process is to be had", no_process, "cannot fork"),
    "no descriptors": ("the machine", "no descriptor is to be had", no_descriptors, "Too many open files"),
    "upgrade": ("the operator", "replaces the code, and the zygote is lost", upgrading, "the zygote was lost"),
    "journal full": ("the disk", "no space for the journal", full("state"), "cannot be written"),
    "state removed": ("a cleaner", "removes the state directory", emptied("state"), ""),
    "journal cut": ("a user", "cuts the journal", cut("journal.sqlite3"), ""),
    "log of it cut": ("a user", "cuts its write-ahead log", cut("journal.sqlite3-wal"), ""),
    "HUP": ("the operator", "500 at once", storm(signal.SIGHUP, 500), ""),
    "USR1": ("the operator", "100 snapshots at once", storm(signal.SIGUSR1, 100), ""),
    "server errs": ("the server", "says 500 to every poll", server("GET /queue/poll", status(500)), "-"),
    "server hangs up": ("the server", "closes every poll", server("GET /queue/poll", HUNG_UP), "-"),
    "huge answers": ("the server", "says 80 MB", server("GET /queue*", says(b"[" + b" " * 80_000_000)), "-"),
    "nested answers": ("the server", "says nested lists", server("GET /queue*", says("[" * 1_000_000)), "-"),
    "wrong types": ("the server", "says what is no job", server("GET /queue/poll", says("[[0]]")), "-"),
}
