"""A task's process tree: measuring its usage, and stopping and continuing all of it."""

import contextlib
import itertools
import os
import signal
import time
from typing import TYPE_CHECKING

import msgspec
from rich.filesize import decimal

from ipc import linux

if TYPE_CHECKING:
    import psutil  # slow to import, and needed only by steps that last for a while

EXACT_EVERY = 10
"""Measure PSS on every Nth sample (always when RSS exceeds the limit). For 8 GiB, PSS takes the kernel 46 ms; the rest
of a sample takes 0.04 ms a process."""

_STOPPED = "TtZX"
"""States of a process that is stopped or has ended. One in uninterruptible sleep (D) stops when it wakes: the parent in
vfork(2), for one, only when its child continues."""

STOP_TIMEOUT = 5.0
"""Seconds to wait until all of a tree has stopped."""


class Usage(msgspec.Struct, frozen=True):
    """The usage of a process tree at one instant, and up to it."""

    memory: int = 0
    """Bytes when last measured; pages that processes share are counted once (PSS)."""
    processes: int = 0
    """Number of live processes."""
    threads: int = 0
    """Number of their threads; 0 if there are too many processes to count these."""
    cpu_seconds: float = 0.0
    """User and system time of the live processes, and of children that they have waited for."""
    io_bytes: int = 0
    """Bytes read and written by system calls: files, pipes, devices."""


class Sampler:
    """Measures the process `pid` and all below it. Blocks for as long as the kernel takes."""

    def __init__(self, pid: int, memory_limit: int | None = None, process_limit: int | None = None) -> None:
        self._pid = pid
        self._process_limit = process_limit
        self._memory_limit = memory_limit
        self._processes: dict[int, psutil.Process] = {}
        self._memory = 0
        self._samples = 0

    def sample(self) -> Usage:
        """Measure the tree now. A process that ends meanwhile is left out.

        Raises:
            OSError: it cannot be measured, for want of a descriptor.
        """
        import psutil

        resident = processes = threads = io_bytes = 0
        cpu_seconds = 0.0
        if (crowd := self._crowd()) is not None:
            return crowd
        for process in self._members():
            with contextlib.suppress(psutil.Error, FileNotFoundError), process.oneshot():
                resident += process.memory_info().rss
                cpu_seconds += sum(process.cpu_times()[:4])  # user, system, and those of children
                processes += 1
                threads += os.stat(f"/proc/{process.pid}/task").st_nlink - 2  # a directory for each
                counters = process.io_counters()
                io_bytes += counters.read_chars + counters.write_chars
        # RSS counts shared pages once for each process, so the true amount is at most this sum.
        over = self._memory_limit is not None and resident > self._memory_limit
        if over or self._samples % EXACT_EVERY == 0:
            self._memory = self._proportional()
        self._samples += 1
        return Usage(self._memory, processes, threads, cpu_seconds, io_bytes)

    def _crowd(self) -> Usage | None:
        """Count the processes alone, if there are more than the limit: measuring all of a fork bomb takes too long."""
        limit = self._process_limit
        if limit is None or len(list(itertools.islice(linux.descendants(self._pid), limit))) < limit:
            return None
        alive = 0
        for pid in itertools.chain([self._pid], linux.descendants(self._pid)):
            alive += bool(linux.living_thread(pid))
            if alive > limit:
                return Usage(self._memory, alive)
        return None

    def _members(self) -> "list[psutil.Process]":
        import psutil

        known, self._processes = self._processes, {}
        for thread in filter(None, map(linux.living_thread, [self._pid, *linux.descendants(self._pid)])):
            with contextlib.suppress(psutil.Error):
                self._processes[thread] = known.get(thread) or psutil.Process(thread)
        return list(self._processes.values())

    def _proportional(self) -> int:
        import psutil

        total = 0
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                try:
                    total += process.memory_full_info().pss
                except psutil.AccessDenied:  # it has made itself unreadable: take its RSS, which is at least as much
                    total += process.memory_info().rss
        return total


def freeze(pid: int) -> list[int]:
    """Stop `pid` and everything below it, also processes forked meanwhile. Returns those that it has stopped.

    Parents are stopped before their children: a stopped parent reaps no child, so no number on the list can be given to
    another process before it is used.
    """
    stopped: list[int] = []
    seen: set[int] = set()
    deadline = time.monotonic() + STOP_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # no descriptor to look with: look again
            tree = [pid, *linux.descendants(pid)]
            for member in tree:
                if member not in seen and _state(member) not in _STOPPED:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(member, signal.SIGSTOP)
                        stopped.append(member)
                seen.add(member)
            if all(_state(member) in f"{_STOPPED}D" for member in tree) and seen.issuperset(linux.descendants(pid)):
                break
        time.sleep(0.001)
    return stopped


def thaw(pids: list[int]) -> None:
    """Continue the processes that `freeze` stopped, children before their parents."""
    for pid in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    return linux.state(linux.living_thread(pid))


def describe(pid: int) -> list[str]:
    """Describe each process of the tree, in a line for a person."""
    import psutil

    lines = []
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error), process.oneshot():
                seconds = sum(process.cpu_times()[:2])
                memory = decimal(process.memory_info().rss)
                state = f"{process.status()}, {memory}, {seconds:.1f} s of CPU time"
                lines.append(f"process {process.pid} ({process.name()}), {state}")
    return lines
