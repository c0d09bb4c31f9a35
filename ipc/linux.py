"""The few Linux calls that containment rests on, which Python's library does not have.

psutil finds children by reading every process of the machine; `/proc/PID/task/TID/children` (Linux 4.2,
CONFIG_PROC_CHILDREN) is one read, which matters in a loop that must outrun a fork bomb. psutil is the fallback.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator

import psutil

MARKER = "SISYPHUS_SUPERVISOR"
"""Environment variable of every process below a supervisor: its pid, start time and pid namespace. What survives the
supervisor and the zygote both being killed at one instant is found by it at the next start."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option}: {os.strerror(error)}")


def become_subreaper() -> None:
    """From now on, descendants whose parent dies become children of this process: prctl(2)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends. Ends at once if it already has.

    The signal is tied to the parent's *thread* that forked us, which is why the zygote has only one.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def children(pid: int) -> list[int]:
    """The direct children of `pid` (zombies among them), or none if there is no such process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{pid}/task/{thread}/children", "rb") as file,
            ):
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return []
    if not found and not os.path.exists(f"/proc/{pid}/task/{pid}/children"):
        with contextlib.suppress(psutil.Error):
            found = [child.pid for child in psutil.Process(pid).children()]
    return found


def descendants(pid: int) -> Iterator[int]:
    """Everything below `pid`, parents before their children, found as it is asked for: what is born may be missing."""
    level = children(pid)
    while level:
        yield from level
        level = [grandchild for child in level for grandchild in children(child)]


def kill_trees(roots: Collection[int], spare_groups: Collection[int] = ()) -> None:
    """Kill each of `roots`, its process group unless that is to be spared, and all that is below it.

    A group first, because the kernel lets none of it fork meanwhile: a bomb of ten thousand is over at once. What has
    left the group is stopped, parents before children, and then killed: what is stopped forks no more, so that this
    gains on a bomb, and reaps no more, so that no number comes to mean another process before it is used.
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
        # A signal takes its time: what was forking when it was stopped has one more child than it had.
        fresh = [child for pid in seen for child in children(pid) if child not in seen]
    for pid in seen:
        _signal(pid, signal.SIGKILL)


def kill_group(group: int) -> bool:
    """Kill a process group at one instant, what is being forked too; whether there is one."""
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


def kill_children(spare: Collection[int] = (), patience: float = 5.0) -> int:
    """Kill and reap every child of this process but `spare`, and what then falls to it, until there is none.

    Only a subreaper whose children no one else waits for may call this. Returns how many were killed; gives up on
    what the kernel will not let die (uninterruptible sleep) after `patience` seconds.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while strangers := [child for child in children(os.getpid()) if child not in spare]:
        kill_trees(strangers)
        killed.update(strangers)
        for child in strangers:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                    time.sleep(0.001)
        if time.monotonic() >= deadline:
            break
    return len(killed)


def marker(pid: int) -> str:
    """The value of `MARKER` for the supervisor `pid`: no other process, before or after it, has the same."""
    return f"{pid}:{_start_time(pid)}:{_pid_namespace('self')}"


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot (Linux 4.13); 0 if it does not tell."""
    with contextlib.suppress(OSError), open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def kill_survivors() -> list[int]:
    """Kill processes whose supervisor is gone, and return their pids. Last resort: see `MARKER`."""
    killed: list[int] = []
    prefix = MARKER.encode() + b"="
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            started = _start_time(int(name))
            with open(f"/proc/{name}/environ", "rb") as file:
                values = [item[len(prefix) :] for item in file.read().split(b"\0") if item.startswith(prefix)]
            if not values or is_alive(values[0].decode("ascii", "replace")):
                continue
            process = os.pidfd_open(int(name))
        except (OSError, ValueError):
            continue  # it is gone, or another user's
        try:
            # The pidfd holds the process; had the pid been reused meanwhile, its start time would differ.
            if _start_time(int(name)) == started:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                killed.append(int(name))
        except (OSError, ValueError):
            continue
        finally:
            os.close(process)
    return killed


def is_alive(value: str) -> bool:
    """Whether the supervisor with this marker is alive."""
    try:
        pid, started, namespace = map(int, value.split(":"))
        if namespace != _pid_namespace("self"):
            return True  # its number means nothing here: it is for its own container to judge
        return _start_time(pid) == started
    except (OSError, ValueError):
        return False


def _pid_namespace(pid: str) -> int:
    return os.stat(f"/proc/{pid}/ns/pid").st_ino


def state(pid: int) -> str:
    """One letter, as in proc(5): R running, S sleeping, T stopped, Z zombie, …; X if there is no such process."""
    try:
        return _stat(pid)[0].decode()
    except OSError:
        return "X"


def _start_time(pid: int) -> int:
    """Clock ticks from boot to the start of `pid`."""
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[bytes]:
    """/proc/PID/stat from its third field, the state, on: proc(5)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name before it, in parentheses, may hold anything, parentheses and spaces too.
        return file.read().rpartition(b")")[2].split()
