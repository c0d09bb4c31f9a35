"""Ownership: a client kills what a dead client of its own kind has certainly left behind, and touches nothing else.

Each supervisor has a marker: the boot, the namespaces and the user of the supervisor, then its pid and start time. Only
a client with the same boot, namespaces and user can tell whether that supervisor is dead. Elsewhere, the same pid is
another process, and in another time namespace, the same process has another start time. Whatever cannot be read or
understood belongs to somebody else.
"""

import contextlib
import os
import re
import signal
from pathlib import Path

from ipc import linux

MARKER = "SISYPHUS_OWNER"
"""Environment variable of every process below a supervisor; its value is the supervisor's marker. If supervisor and
zygote are both killed at one instant, the next start finds the surviving processes by this variable. The first
clients looked at SISYPHUS_SUPERVISOR, and killed what had a marker there that they could not read."""

_NAMESPACES = ("pid", "time", "user")


def marker(pid: int) -> str:
    """Return the marker of the supervisor `pid`. No other process has the same, earlier or later."""
    return f"{_origin()}-{pid}-{linux.start_time(pid)}"


def is_of_our_kind(text: str) -> bool:
    """Return whether `text` is the marker of a supervisor, dead or alive, of our boot, namespaces and user."""
    return _read(text) is not None


def is_left_behind(text: str) -> bool:
    """Return whether `text` is the marker of a supervisor of our kind that is certainly dead."""
    if (owner := _read(text)) is None:
        return False
    pid, started = owner
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # the pid is another user's now; its start time shows that
    try:
        return linux.start_time(pid) != started
    except OSError:
        return False  # it lives, and /proc hides it from us (hidepid)


def kill_survivors() -> list[int]:
    """Kill processes that bear the marker of a dead supervisor and run as our user; returns their pids."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _kill_survivor(int(name))]


def require_own_proc() -> None:
    """Check that /proc shows this process's PID namespace: in another one, every pid that we read is a stranger's.

    Raises:
        OSError: it does not.
    """
    try:
        pids = _status("NSpid") or [os.readlink("/proc/self")]
    except OSError:
        pids = []
    if pids != [str(os.getpid())]:
        raise OSError("/proc does not show the PID namespace of this process: mount it anew (unshare --mount-proc)")


def _kill_survivor(pid: int) -> bool:
    try:
        started = linux.start_time(pid)
        # A dead client's tool that runs as another user now is left alone, too: that user may have forged the marker.
        if pid == os.getpid() or os.stat(f"/proc/{pid}").st_uid != os.geteuid() or not _is_survivor(pid):
            return False
        process = os.pidfd_open(pid)
    except OSError:
        return False  # it has ended, or belongs to another user
    try:
        # The pidfd refers to one process. If the pid was reused before it was opened, the start time differs.
        if linux.start_time(pid) != started:
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(process)
    return True


def _is_survivor(pid: int) -> bool:
    prefix = MARKER.encode() + b"="
    variables = Path(f"/proc/{linux.living_thread(pid)}/environ").read_bytes().split(b"\0")
    values = [item.removeprefix(prefix) for item in variables if item.startswith(prefix)]
    return len(values) == 1 and is_left_behind(os.fsdecode(values[0]))


def _read(text: str) -> tuple[int, int] | None:
    """The pid and the start time in a marker of our kind."""
    match = re.fullmatch(re.escape(_origin()) + "-([1-9][0-9]{0,8})-([0-9]{1,19})", text)
    return (int(match[1]), int(match[2])) if match else None


def _origin() -> str:
    """The boot, the namespaces and the user of this process: together, where a pid means the same process."""
    return "-".join([_boot(), *map(_namespace, _NAMESPACES), str(os.getuid())])


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.urandom(16).hex()  # it is hidden: equal to nobody's, so that nothing is certain


def _namespace(kind: str) -> str:
    try:
        return str(os.stat(f"/proc/self/ns/{kind}").st_ino)
    except FileNotFoundError:
        return "0"  # the kernel has none of this kind, so all processes share one


def _status(field: str) -> list[str]:
    """A field of /proc/self/status; empty if the kernel does not have it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1:]
    return []
