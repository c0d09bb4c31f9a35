"""Live workers, in memory: each worker's last heartbeat, and the job that it names.

A heartbeat costs no disk access. After a restart the server knows no worker, but workers beat again within seconds.

A worker has vanished when it has sent no heartbeat for `vanished_after` seconds; then its job goes back to the queue.
A running job that no live worker names is lost after twice that time: its worker may have died before it named the job,
or the job is done and the client still retries to send the verdict. Only time counts in which this server could receive
heartbeats (`AwakeClock`), from its own start on.

A worker that comes back, perhaps after a network outage, goes on with its job. If that job is in the queue by then, it
is taken out again, or another worker would do the same work.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


class AwakeClock:
    """Counts seconds, but leaves out the time in which this process did not run.

    A gap of more than `longest_gap` seconds between two readings is such a time: the process was stopped, the machine
    was suspended, or the loop was too busy to receive heartbeats. So the clock must be read more often than that.
    """

    def __init__(self, longest_gap: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest_gap = longest_gap
        self._now = now
        self._read_at = now()
        self._seconds = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Return the seconds since the start, without the gaps."""
        with self._lock:
            now = self._now()
            gap, self._read_at = now - self._read_at, now
            if gap <= self._longest_gap:
                self._seconds += gap
            return self._seconds


@dataclass(frozen=True, slots=True)
class _Beat:
    status: dict[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Last evidence that a job runs: the heartbeat naming it, or (worker unknown) the first time we saw it running."""

    worker_id: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Changes:
    """The result of one comparison of running jobs and heartbeats."""

    lost: dict[str, str]
    """Running jobs that no worker works on, in the order given, each with the reason."""
    returned: list[str]
    """Jobs that a worker names though they are not running."""


class Workers:
    """The live workers. Any thread may call the methods. `clock` returns seconds and never goes back."""

    def __init__(self, ttl: float, vanished_after: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._vanished_after = vanished_after
        self._clock = clock
        self._beats: dict[str, _Beat] = {}
        self._named: dict[str, _Evidence] = {}  # jobs named since the last comparison
        self._evidence: dict[str, _Evidence] = {}  # jobs that ran at the last comparison
        self._lock = threading.Lock()

    def beat(self, worker_id: str, status: dict[str, Any]) -> None:
        """Take a heartbeat. Its `job_id` names the worker's job; without one, the worker has none."""
        now = self._clock()
        with self._lock:
            self._beats[worker_id] = _Beat(status, now)
            if job_id := status.get("job_id"):
                self._named[job_id] = _Evidence(worker_id, now)

    def get(self, worker_id: str) -> dict[str, Any] | None:
        """Return the last status of a worker that is live."""
        beat = self._beats.get(worker_id)
        return beat.status if beat and self._clock() - beat.at <= self._ttl else None

    def all(self) -> dict[str, dict[str, Any]]:
        """Return the last status of every live worker, by its id."""
        now = self._clock()
        with self._lock:
            return {worker_id: beat.status for worker_id, beat in self._beats.items() if now - beat.at <= self._ttl}

    def forget(self, worker_id: str) -> bool:
        """Drop a worker's status; returns whether the worker was live."""
        with self._lock:
            beat = self._beats.pop(worker_id, None)
        return beat is not None and self._clock() - beat.at <= self._ttl

    def look(self, running: Callable[[], Iterable[str]]) -> Changes:
        """Compare the running jobs with the jobs that workers name. Only one thread may call this.

        `running` returns the ids of the running jobs. A job that is found lost counts as new if it is returned again.
        """
        with self._lock:
            named, self._named = self._named, {}
        # Read after `named`: a job runs before a heartbeat names it, so one that is missing here runs no more.
        jobs = list(running())
        now = self._clock()
        self._evidence = {
            job_id: named.get(job_id) or self._evidence.get(job_id) or _Evidence(None, now) for job_id in jobs
        }
        lost = {job_id: why for job_id, evidence in self._evidence.items() if (why := self._why_lost(evidence, now))}
        for job_id in lost:
            del self._evidence[job_id]
        self._drop_old(now)
        return Changes(lost, [job_id for job_id in named if job_id not in self._evidence and job_id not in lost])

    def _why_lost(self, evidence: _Evidence, now: float) -> str:
        if evidence.worker_id is None:
            if now - evidence.at > 2 * self._vanished_after:
                return f"no worker has named it for {2 * self._vanished_after:g} s"
            return ""
        beat = self._beats.get(evidence.worker_id)
        if now - max(evidence.at, beat.at if beat else evidence.at) > self._vanished_after:
            return f"worker {evidence.worker_id!a} has sent no heartbeat for {self._vanished_after:g} s"
        if now - evidence.at > 2 * self._vanished_after:
            return f"worker {evidence.worker_id!a} has not named it for {2 * self._vanished_after:g} s"
        return ""

    def _drop_old(self, now: float) -> None:
        kept_for = max(self._ttl, 2 * self._vanished_after)
        with self._lock:
            self._beats = {worker_id: beat for worker_id, beat in self._beats.items() if now - beat.at <= kept_for}
