"""Cgroups, where the client may make them: the kernel limits and kills all processes of a task together.

Version 2 only, and never required: version 1 cannot kill a group. A pause does without them (`sampler.freeze`), for it
must work everywhere.
Permissions differ: under systemd with `Delegate=yes` and for root everything works, in most containers nothing. So the
client tries at the start, in a cgroup of its own, and logs the result in one line.

Source: Documentation/admin-guide/cgroup-v2.rst of the Linux kernel.
"""

import contextlib
import os
import time
from pathlib import Path

from ipc import ownership

PREFIX = "sisyphus_"
"""Begins the names of our cgroups. The first clients kill what is in `sisyphus-*-*` if they cannot read the name."""

SUPERVISOR = "supervisor"
"""The supervisor's own cgroup, beside those of its tasks. It moves there if it gets no controllers otherwise."""

THREADS = 128
"""Threads that a task's processes may have on average, where `processes` is limited: pids.max counts threads."""

EMPTY_TIMEOUT = 2.0
"""Seconds to wait until the processes that were killed in a cgroup are gone."""


class Cgroup:
    """One task's cgroup."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def limit(self, memory: int | None, processes: int | None) -> None:
        """Let the kernel hold the limits, as far as it can: `memory` in bytes, `processes` alive at once."""
        if memory is not None:
            self._write("memory.max", str(memory))
            self._write("memory.oom.group", "1")
        if processes is not None:
            # A coarse limit that stops a fork bomb at once. The guard holds the exact one, which counts processes.
            self._write("pids.max", str(processes * THREADS))

    def add(self, pid: int) -> None:
        """Put a process in. Processes that it starts from then on are in it as well.

        Raises:
            OSError: it is gone, or the cgroup is.
        """
        (self._path / "cgroup.procs").write_text(str(pid))

    def takes_processes(self) -> bool:
        """False for a cgroup of the type `domain invalid`, as all children of a threaded domain are at first."""
        return (self._path / "cgroup.type").read_text().strip() == "domain"

    def kill(self) -> None:
        """Kill all its processes at one instant, also those being forked. Without Linux 5.14, the zygote kills them."""
        self._write("cgroup.kill", "1")

    def out_of_memory_kills(self) -> int:
        """The number of processes that the kernel has killed because memory ran out, here or in a cgroup above."""
        return self._event("memory.events", "oom_kill")

    def over_its_memory(self) -> bool:
        """True if memory ran out at this cgroup's own limit."""
        return self._event("memory.events", "oom") > 0

    def await_empty(self) -> None:
        """Wait until it has no process left, at most `EMPTY_TIMEOUT`."""
        deadline = time.monotonic() + EMPTY_TIMEOUT
        while self._event("cgroup.events", "populated") and time.monotonic() < deadline:
            time.sleep(0.001)

    def remove(self) -> None:
        """Remove the empty cgroup."""
        with contextlib.suppress(OSError):
            self._path.rmdir()  # the usual case: to look at each of its files first takes 0.5 ms
            return
        with contextlib.suppress(OSError):
            for child in self._path.iterdir():  # a module may have made cgroups below
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
        with contextlib.suppress(OSError):  # no such file: an older kernel, or a controller that we may not use
            (self._path / name).write_text(value)


class Cgroups:
    """The client's part of the cgroup hierarchy. Made by `probe`.

    Attributes:
        controllers: Those of `memory` and `pids` that its tasks' cgroups have.
    """

    def __init__(self, base: Path, controllers: frozenset[str]) -> None:
        self.controllers = controllers
        self._base = base

    def __str__(self) -> str:
        limits = "".join(f", {name}.max" for name in sorted(self.controllers))
        return f"each task gets a cgroup below {self._base}: kill{limits}"

    def make(self, number: int) -> Cgroup | None:
        """Make a cgroup for a task; `None` if that fails."""
        path = self._base / f"task-{number}"
        with contextlib.suppress(OSError):
            path.mkdir()
            return Cgroup(path)
        return None

    def close(self) -> None:
        """Remove all our cgroups, and move this process back to the one where it was started."""
        own, base = self._base.parent, Cgroup(self._base)
        base.remove()  # but for the one with this process in it
        with contextlib.suppress(OSError):  # this process was not moved, or another client needs the controllers
            if str(os.getpid()) in (self._base / SUPERVISOR / "cgroup.procs").read_text().split():
                (self._base / "cgroup.subtree_control").write_text("-memory -pids")
                (own / "cgroup.subtree_control").write_text("-memory -pids")
                (own / "cgroup.procs").write_text(str(os.getpid()))
        base.remove()


def probe(own: Path | None = None, zygote: int = 0) -> tuple[Cgroups | None, str]:
    """Remove the cgroups of killed clients, and try to make one. Returns the cgroups, and the result in words.

    Moves this process, and that of the zygote if it runs already, into a cgroup of their own, if there are no
    controllers otherwise.
    """
    own = own or _own_path()
    if own is None:
        return None, "no cgroups: version 2 is not mounted"
    if own.name == SUPERVISOR and ownership.is_of_our_kind(_owner(own.parent)):
        own = own.parent.parent  # an earlier probe has moved this process, or its parent, there
    base = own / f"{PREFIX}{ownership.marker(os.getpid())}"
    try:
        _remove_stale(own)
        base.mkdir()
        controllers = _enable_controllers(own, base, zygote)
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


def _enable_controllers(own: Path, base: Path, zygote: int) -> list[str]:
    """Enable the available controllers for the cgroups below `own`, such as `base`; returns those that are enabled.

    A cgroup that does so must have no process itself, unless it is the root. Both in one write: `pids` alone would be
    accepted beside processes, and make a threaded domain of the cgroup, whose other children can hold no process.
    """
    wanted = {"memory", "pids"} & set((own / "cgroup.controllers").read_text().split())
    if _is_kept_by_systemd(own):
        return []
    processes = (own / "cgroup.procs").read_text().split() if (own / "cgroup.type").exists() else []
    if processes and {os.getpid(), zygote}.issuperset(map(int, processes)):
        inner = base / SUPERVISOR
        inner.mkdir()
        for process in processes:
            (inner / "cgroup.procs").write_text(process)
        processes = []
    if wanted and not processes:
        with contextlib.suppress(OSError):
            (own / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
    return sorted(wanted & set((own / "cgroup.subtree_control").read_text().split()))


def _is_kept_by_systemd(own: Path) -> bool:
    """True for the cgroup of a unit without `Delegate=`.

    systemd then puts other processes of the unit (ExecReload=, ExecStop=) into it, which is impossible beside enabled
    controllers, and stops the service if one of its processes is killed for memory.
    """
    names = {name.partition(".")[2] for name in os.listxattr(own)}
    return "invocation_id" in names and "delegate" not in names


def _remove_stale(own: Path) -> None:
    """Kill and remove the cgroups of clients that are certainly gone."""
    for path in own.glob(f"{PREFIX}*"):
        if ownership.is_left_behind(_owner(path)):
            for task in map(Cgroup, path.glob("task-*")):
                task.kill()
                task.await_empty()
            Cgroup(path).remove()  # not if somebody else's process is in it: a client that the dead one had started


def _owner(path: Path) -> str:
    """The marker in the name of a cgroup; empty if it is not named like one of ours."""
    return path.name.removeprefix(PREFIX) if path.name.startswith(PREFIX) else ""


def _own_path() -> Path | None:
    """The path of this process's cgroup, if version 2 is mounted and shows it."""
    path = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), "/")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            top, mount = before.split()[3:5]  # in a container it may be a part of the hierarchy, or above it: "/../.."
            if f"{path}/".startswith(f"{top.rstrip('/')}/"):
                return Path(mount, path.removeprefix(top.rstrip("/")).lstrip("/"))
    return None
