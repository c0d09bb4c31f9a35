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

from supervisor import kernel

PREFIX = "sisyphus-"

THREADS = 8
"""Threads that a process of a task may have on average, where `processes` is limited: pids.max counts threads."""

SPARE_THREADS = 128 + 8 * (os.cpu_count() or 1)
"""What encoders have above that: some threads for every processor. Not many more, for a fork bomb that may fill
thousands of places takes the processor from the supervisor before it can act (seen with 4600, without autogroups)."""

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
            self._write("pids.max", str(processes * THREADS + SPARE_THREADS))

    def add(self, pid: int) -> None:
        """Put a process in; what it starts from then on is in as well.

        Raises:
            OSError: it is gone, or the cgroup is.
        """
        (self._path / "cgroup.procs").write_text(str(pid))

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
        """How many processes the kernel has killed for want of memory."""
        return self._event("memory.events", "oom_kill")

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
        """Remove what is there of ours."""
        Cgroup(self._base).remove()


def probe(root: Path | None = None) -> tuple[Cgroups | None, str]:
    """Try to make a cgroup, after removing what killed clients left; what came of it, and in words.

    Also moves this process into a cgroup of its own, if that is what it takes to have controllers.
    """
    mount = root or _mount()
    if mount is None:
        return None, "no cgroups: version 2 is not mounted"
    own = mount / _own_path().lstrip("/")
    try:
        _remove_stale(own)
        controllers = _enable_controllers(own)
        base = own / f"{PREFIX}{kernel.marker(os.getpid()).replace(':', '-')}"
        base.mkdir()
    except OSError as error:
        return None, f"no cgroups: {own} cannot be written ({error.strerror})"
    for name in controllers:
        Cgroup(base)._write("cgroup.subtree_control", f"+{name}")
    found = Cgroups(base, frozenset((base / "cgroup.subtree_control").read_text().split()) & {"memory", "pids"})
    trial = found.make(0)
    if trial is None:
        found.close()
        return None, f"no cgroups: {base} does not take any"
    trial.remove()
    return found, str(found)


def _enable_controllers(own: Path) -> list[str]:
    """Hand down what controllers there are. A cgroup that does must have no process itself (but for the root)."""
    wanted = sorted({"memory", "pids"} & set((own / "cgroup.controllers").read_text().split()))
    for name in wanted:
        with contextlib.suppress(OSError):
            (own / "cgroup.subtree_control").write_text(f"+{name}")
    there = set((own / "cgroup.subtree_control").read_text().split())
    if set(wanted) <= there or (own / "cgroup.procs").read_text().split() != [str(os.getpid())]:
        return sorted(set(wanted) & there)
    inner = own / f"{PREFIX}supervisor"
    inner.mkdir(exist_ok=True)
    (inner / "cgroup.procs").write_text(str(os.getpid()))
    for name in wanted:
        with contextlib.suppress(OSError):
            (own / "cgroup.subtree_control").write_text(f"+{name}")
    return sorted(set(wanted) & set((own / "cgroup.subtree_control").read_text().split()))


def _remove_stale(own: Path) -> None:
    """Kill and remove the cgroups of clients that are gone."""
    for path in own.glob(f"{PREFIX}*-*"):
        if not kernel.is_alive(path.name.removeprefix(PREFIX).replace("-", ":")):
            stale = Cgroup(path)
            stale.kill()
            stale.await_empty()
            stale.remove()


def _own_path() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def _mount() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None
