"""The sandbox of a task process: the kernel keeps it, and all that it starts, from harming the client and other tasks.

All of them run as one user, who may kill, stop and trace his own processes. So each task process enters a Landlock
domain of its own before any code of its module is loaded. It can then reach neither the client nor another slot's task.
Zygote and supervisor are in no domain and can reach it.
"""

import contextlib
import os
import resource

from child.roots import places
from ipc import landlock, linux, seccomp
from ipc.messages import Start

OOM_SCORE = 500
"""Out-of-memory score adjustment of task processes and their tools (-1000 to 1000, proc(5)): when memory runs out, the
kernel kills them before the supervisor and the zygote."""

_SCORE = "/proc/self/oom_score_adj"

REHEARSALS = 10
"""CPython 3.11 specialises a function's bytecode after eight calls."""


class Confinement:
    """The confinement of task processes, as far as this kernel can (see `supervisor.isolation.landlock`).

    It is prepared once, in the zygote. A task process then needs a few system calls and few pages of memory of its own,
    which takes 0.3 ms of its CPU time. To prepare it in each task process took 0.8 ms. With `roots`, it takes 1.6 ms.

    Attributes:
        descriptors: The ruleset, if there is one. A task process keeps it, maybe under another number, until `enter`.
    """

    def __init__(self) -> None:
        has_scopes = landlock.abi() >= landlock.SCOPES_ABI
        self.descriptors = [landlock.Ruleset(scopes=True).descriptor] if has_scopes else []
        self._filters = {
            network: seccomp.Filter(network=network) for network in (True, False) if seccomp.is_available()
        }
        self._raises_score = _read_score() < OOM_SCORE
        for _ in range(REHEARSALS):
            self._rehearse()

    def open_to_supervisor(self) -> None:
        """In the forked child: let the supervisor measure this process, and raise its out-of-memory score."""
        linux.set_dumpable(True)  # the zygote is not
        if self._raises_score:
            _write_score()  # the supervisor cannot: the file was root's until now

    def enter(self, start: Start) -> None:
        """Confine this process, and all that it starts, for good.

        Raises:
            OSError: The kernel refuses.
        """
        if not start.core_files:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        linux.forbid_new_privileges()
        if start.roots is not None:
            self._restrict_files(start)
        elif self.descriptors:
            landlock.restrict_self(self.descriptors[0])
        for descriptor in self.descriptors:
            os.close(descriptor)
        if self._filters:
            self._filters[start.network].apply()

    def _restrict_files(self, start: Start) -> None:
        # A ruleset of their own would not do: beside one without file rules, none can allow renames between
        # directories.
        ruleset = landlock.Ruleset(files=True, scopes=bool(self.descriptors))
        with contextlib.closing(ruleset):
            for root in start.roots or ():
                ruleset.allow(root, landlock.WRITE, real=True)
            for path, rights in places(start):
                ruleset.allow(path, rights)
            landlock.restrict_self(ruleset.descriptor)

    def _rehearse(self) -> None:
        """Run what each task process will run, with arguments that the kernel refuses: this is the zygote itself."""
        linux.set_dumpable(False)
        with contextlib.suppress(OSError):
            landlock.restrict_self(-1)
        for each in self._filters.values():
            with contextlib.suppress(OSError):
                each.apply(-1)


def _read_score() -> int:
    try:
        with open(_SCORE, "rb") as file:
            return int(file.read())
    except OSError:  # this kernel has no such file
        return OOM_SCORE


def _write_score() -> None:
    with contextlib.suppress(OSError):  # /proc may be read-only
        descriptor = os.open(_SCORE, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"%d" % OOM_SCORE)
        finally:
            os.close(descriptor)
