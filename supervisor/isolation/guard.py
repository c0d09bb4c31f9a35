"""The guard of a step: finds out when a task's process tree exceeds a limit, or hangs."""

from rich.filesize import decimal

from ipc.messages import Cause
from supervisor.isolation.cgroup import THREADS
from supervisor.isolation.clock import Clock
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.limits import Limits
from supervisor.isolation.sampler import Usage

IDLE_SHARE = 0.005
"""Share of a processor below which a tree counts as idle. A loop that polls ten times a second takes a twentieth of
this."""

IDLE_SECONDS = 0.02
"""CPU time that always counts as idle: the kernel counts in hundredths of a second."""


NEARLY_DONE = 99.9
"""Percent at which a module waits for the end of work that takes longer than it had predicted: see
`BaseModule.report`. That is no standstill."""


class Guard:
    """Judges one step of a task by the usage of its process tree and by the module's reports."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._active_at = self._progressed_at = clock.now()
        self._idle_from = Usage()
        self._reports = 0
        self._progress: float | None = None

    def judge(self, usage: Usage, reports: int, progress: float | None) -> StopOrder | None:
        """The order to stop, if a limit is exceeded.

        `reports` is the number of the module's reports so far, `progress` the last percentage.
        """
        if cause := self._too_much(usage):
            return StopOrder(cause, now=True)  # while it was asked, a leak or a fork bomb would take the machine
        cause = self._too_long(usage, reports, progress)
        return StopOrder(cause) if cause else None

    def _too_much(self, usage: Usage) -> Cause | None:
        memory, processes = self._limits.memory, self._limits.processes
        if memory and usage.memory > memory.bytes:
            value = decimal(usage.memory)
            message = f"its processes used {value} of memory, over the limit of {memory.text}"
            return Cause("memory", message, limit=memory.text, value=value)
        if processes and usage.processes > processes:
            message = f"it had {usage.processes} live processes, over the limit of {processes}"
            return Cause("processes", message, limit=str(processes), value=str(usage.processes))
        if processes and usage.threads > processes * THREADS:
            message = f"it had {usage.threads} threads, over {THREADS} for each process of the limit of {processes}"
            return Cause("processes", message, limit=str(processes), value=f"{usage.threads} threads")
        return None

    def _too_long(self, usage: Usage, reports: int, progress: float | None) -> Cause | None:
        now = self._clock.now()
        if progress != self._progress:
            self._progress, self._progressed_at = progress, now
        if reports != self._reports or self._is_active(usage, now):
            self._reports, self._active_at, self._idle_from = reports, now, usage
        stall, standstill = self._limits.stall_timeout, self._limits.progress_timeout
        if stall and now - self._active_at > stall.seconds:
            message = f"it did nothing for {stall.text}: no report, no CPU time, no input or output"
            return Cause("stall", message, limit=stall.text)
        is_judged = progress is not None and progress < NEARLY_DONE
        if standstill and is_judged and now - self._progressed_at > standstill.seconds:
            message = f"its progress stayed at {progress:g} % for {standstill.text}"
            return Cause("stall", message, limit=standstill.text)
        return None

    def _is_active(self, usage: Usage, now: float) -> bool:
        before = self._idle_from
        idle = max(IDLE_SECONDS, IDLE_SHARE * (now - self._active_at))
        # A process that ends takes its share out of the sums, so a smaller sum is activity, too.
        return usage.io_bytes != before.io_bytes or abs(usage.cpu_seconds - before.cpu_seconds) > idle
