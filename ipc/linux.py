"""The Linux calls of the containment that Python's library does not have.

Children are read from `/proc/PID/task/TID/children` (Linux 4.2, CONFIG_PROC_CHILDREN): one read, where psutil reads
every process of the machine. That matters in a loop that must outrun a fork bomb. psutil is the fallback.
"""

import contextlib
import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable, Collection, Iterator

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_NONBLOCKING, _CLOSED_ON_EXEC = os.O_NONBLOCK, os.O_CLOEXEC  # signalfd's flags are open's: signalfd(2)
_SET_WORDS = 16
"""Words of 64 bits in the C library's `sigset_t`."""

_NO_SIGNALS = bytes(8 * _SET_WORDS)
_SET_MASK = signal.SIG_SETMASK.value

_libc = ctypes.CDLL(None, use_errno=True)
_sigprocmask = _libc.sigprocmask  # looked up here, not in each task process: that would take it 20 page faults


def signal_descriptor(number: signal.Signals) -> int:
    """Return a descriptor that can be read while a signal of this number, which must be blocked, is pending."""
    mask = struct.pack(f"@{_SET_WORDS}Q", 1 << (number - 1), *[0] * (_SET_WORDS - 1))
    descriptor: int = _libc.signalfd(-1, mask, _NONBLOCKING | _CLOSED_ON_EXEC)
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"signalfd: {os.strerror(error)}")
    return descriptor


def unblock_signals() -> None:
    """Block no signal any more. `signal.pthread_sigmask` would also make an object of each that was blocked."""
    _sigprocmask(_SET_MASK, _NO_SIGNALS, None)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option}: {os.strerror(error)}")


def become_subreaper() -> None:
    """Make orphaned descendants children of this process from now on: prctl(2)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_dumpable(dumpable: bool) -> None:
    """With false, no process of this user may trace this one, read or write its memory, or take its descriptors.

    The process's files in /proc then belong to root. A forked child inherits this; exec makes a process dumpable again.
    """
    _prctl(_PR_SET_DUMPABLE, dumpable)


def forbid_new_privileges() -> None:
    """Start no program with more privileges than this process has, for good. A process must do so before it may confine
    itself, because a setuid program could be fooled by a caller that confines it."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def continue_without_parent() -> None:
    """Have the kernel send SIGCONT to this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends; exit at once if `parent` has ended already.

    The kernel watches the parent's *thread* that forked us, which is why the zygote has only one thread.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def children(pid: int) -> list[int]:
    """Return the direct children of `pid`, zombies included; none if there is no such process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except (FileNotFoundError, ProcessLookupError):
        return []
    if not found and not os.path.exists(f"/proc/{pid}/task/{pid}/children"):
        import psutil  # slow to import, and nearly every kernel has the file

        with contextlib.suppress(psutil.Error):
            found = [child.pid for child in psutil.Process(pid).children()]
    return found


def descendants(pid: int) -> Iterator[int]:
    """Yield all processes below `pid`, parents first, read level by level: a process born meanwhile may be missing."""
    level = children(pid)
    while level:
        yield from level
        level = [grandchild for child in level for grandchild in children(child)]


def kill_trees(roots: Collection[int], spare_groups: Collection[int] = ()) -> None:
    """Kill each of `roots`, its process group unless that is in `spare_groups`, and all descendants.

    Groups come first: the kernel kills a group at one instant, so a bomb of ten thousand processes is over at once.
    Processes that have left the group are stopped, parents before children, and then killed. A stopped process forks no
    more, so this gains on a bomb; and it reaps no more, so no pid is reused before it is killed.
    """
    for group in {_group(pid) for pid in roots} - {0, os.getpgrp(), *spare_groups}:
        kill_group(group)
    seen: dict[int, None] = {}
    fresh = list(roots)
    while fresh:
        for pid in fresh:
            seen[pid] = None
            if _signal(pid, signal.SIGSTOP):
                fresh += (child for child in children(pid) if child not in seen)
        # A process may finish a fork before SIGSTOP takes effect, so look for new children.
        fresh = [child for pid in seen for child in children(pid) if child not in seen]
    for pid in seen:
        _signal(pid, signal.SIGKILL)


def kill_group(group: int) -> bool:
    """Kill a process group at one instant, half-forked children included; returns whether there is such a group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_children(is_ours: Callable[[int], bool] = lambda _pid: True, patience: float = 5.0) -> int:
    """Kill and reap every child of this process that is ours, and the orphans that fall to it, until none is left.

    Only a subreaper may call this, and only if nothing else waits for its children. Returns how many were killed. After
    `patience` seconds it gives up on processes that the kernel does not let die (uninterruptible sleep).
    """
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while strangers := [child for child in children(os.getpid()) if is_ours(child)]:
        kill_trees(strangers)
        killed.update(strangers)
        for child in strangers:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                    time.sleep(0.001)
        if time.monotonic() >= deadline:
            break
    return len(killed)


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory since boot (Linux 4.13); 0 if unknown."""
    with contextlib.suppress(OSError), open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def living_thread(pid: int) -> int:
    """Return `pid`, or another thread of the process if the first has ended; 0 if no thread is alive.

    A process whose first thread has ended is a zombie in /proc/PID, which shows none of its memory. /proc/TID does.
    """
    try:
        if state(pid) not in "ZX":
            return pid
        threads = map(int, os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((thread for thread in threads if state(thread) not in "ZX"), 0)


def state(pid: int) -> str:
    """Return the state as in proc(5): R running, S sleeping, T stopped, Z zombie, …; X if there is no such process.

    It is that of one thread; `living_thread` gives one that tells of the process.

    Raises:
        OSError: it cannot be read, for want of a descriptor.
    """
    try:
        return _stat(pid)[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def start_time(pid: int) -> int:
    """Return the clock ticks from boot to the start of `pid`, as this time namespace counts them.

    Raises:
        OSError: there is no such process, or /proc does not show it.
    """
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third, the state, on: proc(5)."""
    # The second field, the name in parentheses, may hold any character, even parentheses and spaces.
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    """Return all of a file of /proc. `open` would take twice as long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while part := os.read(descriptor, 1 << 16):
            found += part
        return found
    finally:
        os.close(descriptor)
