"""Cgroups, where the client may make them: a task's processes as one thing that the kernel limits, stops and kills.

Version 2 only, and never required. Version 1 cannot kill a group, and its freezer cannot be killed while it is frozen.
What is at hand differs: systemd with `Delegate=yes` and root have all, containers mostly nothing. So it is tried at the
start, in a cgroup of the client's own, and said in one log line.

Source: Documentation/admin-guide/cgroup-v2.rst of the Linux kernel.
"""

import contextlib
import os
import time
from pathlib import Path

from ipc import linux

PREFIX = "sisyphus-"

SUPERVISOR = f"{PREFIX}supervisor"
"""Where the client goes itself, beside its tasks' cgroups, if that is what it takes to have controllers."""

THREADS = 128
"""Threads that a process of a task may have on average, where `processes` is limited: pids.max counts threads."""

EMPTY_TIMEOUT = 2.0
"""Seconds to wait until what was killed in a cgroup is gone."""


class Cgroup:
    """One task's cgroup."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def limit(self, memory: int | None, processes: int | None) -> None:
        """Have the kernel enforce what it can here: `memory` in bytes, `processes` live at once."""
        if memory is not None:
            self._write("memory.max", str(memory))
            self._write("memory.oom.group", "1")
        if processes is not None:
            # Only what stops a fork bomb at once: the limit itself is of processes, and held by measuring.
            self._write("pids.max", str(processes * THREADS))

    def add(self, pid: int) -> None:
        """Put a process in; what it starts from then on is in as well.

        Raises:
            OSError: it is gone, or the cgroup is.
        """
        (self._path / "cgroup.procs").write_text(str(pid))

    def takes_processes(self) -> bool:
        """Whether it is not `domain invalid`, as all children of a threaded domain are at first."""
        return (self._path / "cgroup.type").read_text().strip() == "domain"

    def freeze(self, frozen: bool) -> None:
        """Stop everything in it, or let it go on. Killing works either way.

        Raises:
            OSError: the kernel refuses.
        """
        (self._path / "cgroup.freeze").write_text("1" if frozen else "0")

    def kill(self) -> None:
        """Kill everything in it at one instant, what is being forked too (Linux 5.14; before, the zygote alone)."""
        self._write("cgroup.kill", "1")

    def out_of_memory_kills(self) -> int:
        """How many processes the kernel has killed for want of memory, be it this cgroup's limit or one above it."""
        return self._event("memory.events", "oom_kill")

    def over_its_memory(self) -> bool:
        """Whether memory ran out at this cgroup's own limit."""
        return self._event("memory.events", "oom") > 0

    def await_empty(self) -> None:
        """Wait until no process is left in it, but not for ever."""
        deadline = time.monotonic() + EMPTY_TIMEOUT
        while self._event("cgroup.events", "populated") and time.monotonic() < deadline:
            time.sleep(0.001)

    def remove(self) -> None:
        """Remove the empty cgroup."""
        with contextlib.suppress(OSError):
            for child in self._path.iterdir():  # a module may have made some below
                if child.is_dir():
                    Cgroup(child).remove()
            self._path.rmdir()

    def _event(self, name: str, key: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            for line in (self._path / name).read_text().splitlines():
                if line.split()[0] == key:
                    return int(line.split()[1])
        return 0

    def _write(self, name: str, value: str) -> None:
        with contextlib.suppress(OSError):  # not there: an older kernel, or a controller that we may not use
            (self._path / name).write_text(value)


class Cgroups:
    """The client's own part of the hierarchy. Made by `probe`.

    Attributes:
        controllers: Which of `memory` and `pids` its tasks' cgroups have.
    """

    def __init__(self, base: Path, controllers: frozenset[str]) -> None:
        self.controllers = controllers
        self._base = base

    def __str__(self) -> str:
        limits = "".join(f", {name}.max" for name in sorted(self.controllers))
        return f"each task gets a cgroup below {self._base}: freeze, kill{limits}"

    def make(self, number: int) -> Cgroup | None:
        """A cgroup for a task, if one can still be made."""
        path = self._base / f"task-{number}"
        with contextlib.suppress(OSError):
            path.mkdir()
            return Cgroup(path)
        return None

    def close(self) -> None:
        """Remove what is there of ours, and go back to where this process was started: another may be started there."""
        Cgroup(self._base).remove()
        own = self._base.parent
        with contextlib.suppress(OSError):  # not moved, or another client needs it still
            if str(os.getpid()) in (own / SUPERVISOR / "cgroup.procs").read_text().split():
                (own / "cgroup.subtree_control").write_text("-memory -pids")
                (own / "cgroup.procs").write_text(str(os.getpid()))
                (own / SUPERVISOR).rmdir()


def probe(own: Path | None = None) -> tuple[Cgroups | None, str]:
    """Try to make a cgroup, after removing what killed clients left; what came of it, and in words.

    Also moves this process into a cgroup of its own, if that is what it takes to have controllers.
    """
    own = own or _own_path()
    if own is None:
        return None, "no cgroups: version 2 is not mounted"
    if own.name == SUPERVISOR:  # an earlier probe has moved this process, or its parent, there
        own = own.parent
    try:
        _remove_stale(own)
        controllers = _enable_controllers(own)
        base = own / f"{PREFIX}{linux.marker(os.getpid()).replace(':', '-')}"
        base.mkdir()
    except OSError as error:
        return None, f"no cgroups: {own} cannot be written ({error.strerror})"
    for name in controllers:
        Cgroup(base)._write("cgroup.subtree_control", f"+{name}")
    found = Cgroups(base, frozenset((base / "cgroup.subtree_control").read_text().split()) & {"memory", "pids"})
    trial = found.make(0)
    if trial is None or not trial.takes_processes():
        found.close()
        return None, f"no cgroups: {base} does not take any"
    trial.remove()
    return found, str(found)


def _enable_controllers(own: Path) -> list[str]:
    """Hand down what controllers there are. A cgroup that does must have no process itself (but for the root).

    All in one write: `pids` alone would be accepted beside processes, and make a threaded domain of the cgroup, whose
    other children can then hold no process at all.
    """
    wanted = {"memory", "pids"} & set((own / "cgroup.controllers").read_text().split())
    if _is_kept_by_systemd(own):
        return []
    processes = (own / "cgroup.procs").read_text().split() if (own / "cgroup.type").exists() else []
    if processes == [str(os.getpid())]:
        inner = own / SUPERVISOR
        inner.mkdir(exist_ok=True)
        (inner / "cgroup.procs").write_text(str(os.getpid()))
        processes = []
    if wanted and not processes:
        with contextlib.suppress(OSError):
            (own / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
    return sorted(wanted & set((own / "cgroup.subtree_control").read_text().split()))


def _is_kept_by_systemd(own: Path) -> bool:
    """Whether it is that of a unit without `Delegate=`: systemd then puts other processes of the unit (ExecReload=,
    ExecStop=) in it, which is impossible beside controllers, and stops a service in which one is killed for memory.
    """
    names = {name.partition(".")[2] for name in os.listxattr(own)}
    return "invocation_id" in names and "delegate" not in names


def _remove_stale(own: Path) -> None:
    """Kill and remove the cgroups of clients that are gone."""
    for path in own.glob(f"{PREFIX}*-*"):
        if not linux.is_alive(path.name.removeprefix(PREFIX).replace("-", ":")):
            stale = Cgroup(path)
            stale.kill()
            stale.await_empty()
            stale.remove()


def _own_path() -> Path | None:
    """This process's cgroup, if version 2 is mounted so that it is seen."""
    path = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), "/")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            top, mount = before.split()[3:5]  # containers may see a part of the hierarchy, or the host's, as "/../.."
            if f"{path}/".startswith(f"{top.rstrip('/')}/"):
                return Path(mount, path.removeprefix(top.rstrip("/")).lstrip("/"))
    return None
