"""The guard of a step: says when a task's tree has used more than it may, or does nothing any more."""

from rich.filesize import decimal

from supervisor.isolation.clock import Clock
from supervisor.isolation.limits import Limits
from supervisor.isolation.sampler import Usage
from supervisor.isolation.task_process import Stop

IDLE_SHARE = 0.005
"""Share of a processor below which a tree counts as doing nothing: waiting in a loop that looks ten times a second
takes a twentieth of it."""

IDLE_SECONDS = 0.02
"""CPU time that is always within the noise: the kernel counts in hundredths of a second."""


class Guard:
    """Judges one step of a task by what its tree uses and what it reports."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._active_at = self._progressed_at = clock.now()
        self._idle_from = Usage()
        self._reports = 0
        self._progress: float | None = None

    def judge(self, usage: Usage, reports: int, progress: float | None) -> Stop | None:
        """The order to stop, if a limit is passed. `reports` counts what the module has told its heartbeat."""
        return self._too_much(usage) or self._too_long(usage, reports, progress)

    def _too_much(self, usage: Usage) -> Stop | None:
        limits = self._limits
        if limits.memory and usage.memory > limits.memory.bytes:
            value = decimal(usage.memory)
            return Stop(
                "memory",
                f"its processes used {value} of memory, over the limit of {limits.memory.text}",
                limits.memory.text,
                value,
                now=True,  # by the time it has stopped when asked, a leak would have taken the machine
            )
        if limits.processes and usage.processes > limits.processes:
            return Stop(
                "processes",
                f"it had {usage.processes} live processes, over the limit of {limits.processes}",
                str(limits.processes),
                str(usage.processes),
                now=True,
            )
        return None

    def _too_long(self, usage: Usage, reports: int, progress: float | None) -> Stop | None:
        now = self._clock.now()
        if progress != self._progress:
            self._progress, self._progressed_at = progress, now
        if reports != self._reports or self._is_active(usage, now):
            self._reports, self._active_at, self._idle_from = reports, now, usage
        stall, standstill = self._limits.stall_timeout, self._limits.progress_timeout
        if stall and now - self._active_at > stall.seconds:
            message = f"it did nothing for {stall.text}: no report, no CPU time, no input or output"
            return Stop("stall", message, stall.text)
        if standstill and progress is not None and now - self._progressed_at > standstill.seconds:
            message = f"its progress stayed at {progress:g} % for {standstill.text}"
            return Stop("stall", message, standstill.text)
        return None

    def _is_active(self, usage: Usage, now: float) -> bool:
        before = self._idle_from
        idle = max(IDLE_SECONDS, IDLE_SHARE * (now - self._active_at))
        # A process that ends takes its share of the sums with it: less is a change like more.
        return usage.io_bytes != before.io_bytes or abs(usage.cpu_seconds - before.cpu_seconds) > idle
