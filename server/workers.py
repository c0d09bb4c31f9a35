"""Live workers, in memory: what each last said, and which job it works on.

A heartbeat costs no disk access. Nothing of this outlives the server, nor need it: workers beat again within seconds.

When is a worker gone? When it has sent no heartbeat for `vanished_after` seconds. And when is a job lost that no worker
names? Its worker may have died before it named it; or the job is done, and its verdict is still on its way: the client
sends that right after the job, and retries. Such a job gets twice that time. Only time counts in which this server was
able to hear a heartbeat (`AwakeClock`), from its own start on.

A worker that comes back, from an outage of the network perhaps, goes on with its job. If that waits in the queue by
then it is taken out again, or somebody else would do the same work.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


class AwakeClock:
    """Seconds in which this process ran: a gap between two looks at it of more than `longest_gap` seconds is left out.

    Such a gap is a process that was stopped, a suspended machine, or a loop too busy to hear anything. So somebody must
    look more often than that.
    """

    def __init__(self, longest_gap: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest_gap = longest_gap
        self._now = now
        self._looked_at = now()
        self._seconds = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Seconds since the start, without the gaps."""
        with self._lock:
            now = self._now()
            gap, self._looked_at = now - self._looked_at, now
            if gap <= self._longest_gap:
                self._seconds += gap
            return self._seconds


@dataclass(frozen=True, slots=True)
class _Beat:
    status: dict[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class _Sign:
    """The last sign of a running job: a heartbeat that named it, or none but that it was seen running."""

    worker_id: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the running jobs found."""

    lost: dict[str, str]
    """Running jobs that nobody works on, in the order given, and why."""
    returned: list[str]
    """Jobs that a worker works on though they are not running."""


class Workers:
    """The live workers. Methods may be called from any thread; `clock` gives seconds and never goes back."""

    def __init__(self, ttl: float, vanished_after: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._vanished_after = vanished_after
        self._clock = clock
        self._beats: dict[str, _Beat] = {}
        self._named: dict[str, _Sign] = {}  # jobs that were named since the last look
        self._signs: dict[str, _Sign] = {}  # jobs that ran at the last look
        self._lock = threading.Lock()

    def beat(self, worker_id: str, status: dict[str, Any]) -> None:
        """Take a heartbeat. It names a job under `job_id`, or none."""
        now = self._clock()
        with self._lock:
            self._beats[worker_id] = _Beat(status, now)
            if job_id := status.get("job_id"):
                self._named[job_id] = _Sign(worker_id, now)

    def get(self, worker_id: str) -> dict[str, Any] | None:
        """The last status of a worker, if it is no older than the time to live."""
        beat = self._beats.get(worker_id)
        return beat.status if beat and self._clock() - beat.at <= self._ttl else None

    def all(self) -> dict[str, dict[str, Any]]:
        """The last status of every live worker, by its id."""
        now = self._clock()
        with self._lock:
            return {worker_id: beat.status for worker_id, beat in self._beats.items() if now - beat.at <= self._ttl}

    def forget(self, worker_id: str) -> bool:
        """Drop a worker's status; returns whether it was live."""
        with self._lock:
            beat = self._beats.pop(worker_id, None)
        return beat is not None and self._clock() - beat.at <= self._ttl

    def look(self, running: Callable[[], Iterable[str]]) -> Changes:
        """Compare the jobs that run with those that are worked on. One thread calls it, again and again.

        `running` gives the ids of the running jobs. A job that is found lost counts as new if it is given again.
        """
        with self._lock:
            named, self._named = self._named, {}
        # Only now: a job that was named before must have been running by then.
        jobs = list(running())
        now = self._clock()
        self._signs = {job_id: named.get(job_id) or self._signs.get(job_id) or _Sign(None, now) for job_id in jobs}
        lost = {job_id: why for job_id, sign in self._signs.items() if (why := self._why_lost(sign, now))}
        for job_id in lost:
            del self._signs[job_id]
        self._drop_old(now)
        return Changes(lost, [job_id for job_id in named if job_id not in self._signs and job_id not in lost])

    def _why_lost(self, sign: _Sign, now: float) -> str:
        if sign.worker_id is None:
            if now - sign.at > 2 * self._vanished_after:
                return f"no worker has named it for {2 * self._vanished_after:g} s"
            return ""
        beat = self._beats.get(sign.worker_id)
        if now - max(sign.at, beat.at if beat else sign.at) > self._vanished_after:
            return f"worker {sign.worker_id!a} has sent no heartbeat for {self._vanished_after:g} s"
        if now - sign.at > 2 * self._vanished_after:
            return f"worker {sign.worker_id!a} has not named it for {2 * self._vanished_after:g} s"
        return ""

    def _drop_old(self, now: float) -> None:
        kept_for = max(self._ttl, 2 * self._vanished_after)
        with self._lock:
            self._beats = {worker_id: beat for worker_id, beat in self._beats.items() if now - beat.at <= kept_for}
