"""Live workers, in memory: each worker's last heartbeat, and the job that it names.

A heartbeat costs no disk access. Servers that share a database tell each other of heartbeats about once a second
(`server.storage.beats`). After a restart a server knows only lost workers, but the others beat again within seconds.

A worker has vanished when it has sent no heartbeat for `vanished_after` seconds; then its job goes back to the queue.
A running job that no live worker names is lost after twice that time: its worker may have died before it named the job,
or the job is done and the client still retries to send the verdict. Only time counts in which this server could receive
heartbeats (`AwakeClock`), from its own start on.

A worker that comes back, perhaps after a network outage, goes on with its job. If that job is in the queue by then, it
is taken out again, or another worker would do the same work.
"""

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from server.storage.needs import Ability
from server.storage.settings import Standing

LISTED_FOR = 86400.0
"""Seconds for which a worker that vanished is listed as lost."""


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
class Beat:
    """A heartbeat, or a worker's leave: then it has no status."""

    number: str
    """Differs from beat to beat."""
    status: dict[str, Any] | None
    at: float
    """By this server's clock."""
    seen_at: float
    """In seconds since 1970."""


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Last evidence that a job runs: the heartbeat naming it, or (worker unknown) the first time we saw it running."""

    worker_id: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a running job is held to be lost, who had it, if that is known, and since when."""

    worker_id: str | None
    reason: str
    taken_at: datetime | None


@dataclass(frozen=True, slots=True)
class Changes:
    """The result of one comparison of running jobs and heartbeats."""

    lost: dict[str, Lost]
    """Running jobs that no worker works on, in the order given."""
    returned: list[str]
    """Jobs that a worker names though they are not running."""


class Workers:
    """The workers that are live or were so in the last day. Any thread may call the methods.

    `clock` returns seconds and never goes back.

    Attributes:
        abilities: What workers can do, of those that told it.
    """

    def __init__(self, ttl: float, vanished_after: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._vanished_after = vanished_after
        self._clock = clock
        self._numbers = (f"{prefix}-{number}" for prefix in [secrets.token_hex(8)] for number in itertools.count())
        self._beats: dict[str, Beat] = {}
        self._unsent: dict[str, Beat] = {}
        self.abilities: dict[str, Ability] = {}
        self._named: dict[str, _Evidence] = {}  # jobs named since the last comparison
        self._evidence: dict[str, _Evidence] = {}  # jobs that ran at the last comparison
        self._taken: Mapping[str, datetime | None] = {}  # when each of them was taken
        self._lock = threading.Lock()

    def beat(self, worker_id: str, status: dict[str, Any] | None) -> None:
        """Take a heartbeat. Its `job_id` names the worker's job; without one, the worker has none."""
        with self._lock:
            beat = Beat(next(self._numbers), status, self._clock(), time.time())
            self._unsent[worker_id] = beat
            self._keep(worker_id, beat)

    def set_ability(self, worker_id: str, ability: Ability) -> None:
        """Take what a worker can do."""
        with self._lock:
            if self.abilities.get(worker_id) != ability:
                self.abilities[worker_id] = ability
                if beat := self._beats.get(worker_id):
                    self._unsent.setdefault(worker_id, beat)

    def merge(
        self, number: str, worker_id: str, status: dict[str, Any] | None, ability: Ability | None, age: float
    ) -> None:
        """Take a heartbeat that another server got so many seconds ago, or that this one has sent."""
        with self._lock:
            if ability:
                self.abilities[worker_id] = ability
            known = self._beats.get(worker_id)
            if worker_id not in self._unsent and (known is None or known.number != number):
                self._keep(worker_id, Beat(number, status, self._clock() - age, time.time() - age))

    def _keep(self, worker_id: str, beat: Beat) -> None:
        self._beats[worker_id] = beat
        if beat.status and (job_id := beat.status.get("job_id")):
            known = self._named.get(job_id)
            # A server that starts hears of workers that vanished long ago. The job that such a one had may be
            # another's by now, whose heartbeats count.
            is_old = self._clock() - beat.at > self._vanished_after
            if not is_old and (known is None or known.at <= beat.at):
                self._named[job_id] = _Evidence(worker_id, beat.at)

    def take_unsent(self) -> dict[str, Beat]:
        """Return the heartbeats that other servers do not know, the last of each worker; they count as sent."""
        with self._lock:
            unsent, self._unsent = self._unsent, {}
            return unsent

    def resend(self, unsent: dict[str, Beat]) -> None:
        """Take heartbeats back that could not be sent."""
        with self._lock:
            self._unsent = unsent | self._unsent

    def excuse(self, seconds: float) -> None:
        """Count so many seconds less since all heartbeats: nothing could be heard of other servers' workers."""
        with self._lock:
            now = self._clock()
            self._beats = {name: replace(beat, at=min(now, beat.at + seconds)) for name, beat in self._beats.items()}
            for known in (self._named, self._evidence):
                known.update({job: replace(seen, at=min(now, seen.at + seconds)) for job, seen in known.items()})

    def get(self, worker_id: str) -> dict[str, Any] | None:
        """Return the last status of a worker that is live."""
        return self.all().get(worker_id)

    def all(self) -> dict[str, dict[str, Any]]:
        """Return the last status of every live worker, by its id."""
        return {name: beat.status or {} for name, beat in self._known().items() if self._is_live(beat)}

    def lost(self) -> dict[str, Beat]:
        """Return the last heartbeats of the workers that vanished in the last day, by their ids."""
        return {name: beat for name, beat in self._known().items() if not self._is_live(beat)}

    def vanished(self) -> dict[str, Beat]:
        """Return the last heartbeats of those that this server has had the time to miss, by their ids."""
        now = self._clock()  # seconds since the start: a worker may still beat that was heard of before
        return {name: beat for name, beat in self._known().items() if now - max(beat.at, 0.0) > self._vanished_after}

    def seen(self) -> dict[str, float]:
        """Return when each of these workers was heard of last, in seconds since 1970, by their ids."""
        return {name: beat.seen_at for name, beat in self._known().items()}

    def forget(self, worker_id: str) -> bool:
        """Drop a worker's status; returns whether the worker was live."""
        was_live = self.get(worker_id) is not None
        if was_live:
            self.beat(worker_id, None)
        return was_live

    def _known(self) -> dict[str, Beat]:
        with self._lock:
            return {name: beat for name, beat in self._beats.items() if beat.status is not None}

    def _is_live(self, beat: Beat) -> bool:
        return self._clock() - beat.at <= self._ttl

    def look(self, running: Callable[[], Mapping[str, datetime | None]]) -> Changes:
        """Compare the running jobs with the jobs that workers name. Only one thread may call this.

        `running` returns the ids of the running jobs, and when each was taken. A job that is found lost counts as new
        if it is returned again, and so does one that was taken again: another server has put it back.
        """
        with self._lock:
            named, self._named = self._named, {}
        # Read after `named`: a job runs before a heartbeat names it, so one that is missing here runs no more.
        taken = running()
        now = self._clock()
        known = {job_id: seen for job_id, seen in self._evidence.items() if taken.get(job_id) == self._taken[job_id]}
        self._taken = taken
        self._evidence = {job_id: named.get(job_id) or known.get(job_id) or _Evidence(None, now) for job_id in taken}
        lost = {
            job_id: Lost(evidence.worker_id, why, taken[job_id])
            for job_id, evidence in self._evidence.items()
            if (why := self._why_lost(evidence, now))
        }
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
        with self._lock:
            self._beats = {name: beat for name, beat in self._beats.items() if now - beat.at <= LISTED_FOR}
            self.abilities = {name: ability for name, ability in self.abilities.items() if name in self._beats}


def describe_worker(
    worker_id: str, status: dict[str, Any], standing: Standing, ability: Ability | None
) -> dict[str, Any]:
    """A live worker as the API shows it, with the modules and tags that its polls have told."""
    attributes: dict[str, Any] = {"disabled": worker_id in standing.disabled}
    attributes |= {"paused": True} if worker_id in standing.paused else {}
    attributes |= {"modules": sorted(ability.modules)} if ability and ability.modules is not None else {}
    attributes |= {"tags": sorted(ability.tags)} if ability and ability.tags else {}
    return {**status, "worker_id": worker_id, "attributes": attributes}


def describe_workers(workers: Workers, standing: Standing) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The live workers as the API shows them, and the lost ones."""
    known = workers.abilities
    live = [describe_worker(name, status, standing, known.get(name)) for name, status in workers.all().items()]
    lost = [
        {
            **(beat.status or {}),
            "worker_id": name,
            "status": "lost",
            "seen_at": datetime.fromtimestamp(beat.seen_at, UTC).isoformat(),
        }
        for name, beat in workers.lost().items()
    ]
    return live, lost
