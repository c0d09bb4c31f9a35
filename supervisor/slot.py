"""A slot: takes one job at a time from the server's queue and sees it to its end.

To the server each slot is a worker of its own. What they share is the `Farm`: the session, the journal, the outbox, and
what the operator wants.
"""

import asyncio
import contextlib
import dataclasses
import enum
import json
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from loguru import logger
from rich.filesize import decimal

from app.config import VERSION, Settings
from ipc.messages import Reason, StepName
from supervisor import tree
from supervisor.failure import Failure
from supervisor.heartbeat import JITTER, Heartbeat
from supervisor.job import Earlier, Job, JobError, JobRun, TaskRun, Watcher, read_job, unescape
from supervisor.journal import Debt, Entry, Journal, JournalError
from supervisor.means import Means
from supervisor.outbox import Outbox, why_not_ours
from supervisor.session import Given, Session, SessionError, refuse_constant
from supervisor.task_process import Stop
from supervisor.tree import Usage

MAX_STARTS = 3
"""How often a job may take the supervisor down with it."""

JOB_ID_KEY = re.compile(rb'"job_id"\s*:\s*"([^"\\]+)"')
"""Finds a job's id in what is not, or not all of, the job's JSON."""

RETURNED: Literal["shutdown"] = "shutdown"
"""The reason of what ends because the client stops: the job goes back to the queue."""

_T = TypeVar("_T")


class Stage(enum.IntEnum):
    """How far the client has been told to stop. It only goes up."""

    WORK = 0
    DRAIN = 1
    """Take no new job, finish those in hand."""
    CANCEL = 2
    """Stop those in hand, and return them to the queue."""
    KILL = 3
    """Kill everything. The journal keeps the jobs for the next start."""


class Orders:
    """What the operator wants of all slots. Only the loop changes it."""

    def __init__(self) -> None:
        self.stage = Stage.WORK
        self.stopping = asyncio.Event()
        """Set in every stage but the first."""
        self.going = asyncio.Event()
        """Not set while paused."""
        self.going.set()

    async def stopping_or(self, event: asyncio.Event) -> None:
        """Wait for `event`, and not when it is time to stop."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self.stopping, event)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def rest(self, seconds: float) -> None:
        """Wait, not to the second as other clients do, and not when it is time to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(1 - JITTER, 1)):  # noqa: S311 - no secret
                await self.stopping.wait()


class Flags:
    """Whether the operator has disabled the queue or a worker on the server; looked up once per interval."""

    def __init__(self, session: Session, interval: float) -> None:
        self._session = session
        self._interval = interval
        self._found: dict[str, tuple[float, bool]] = {}
        self._looking = asyncio.Lock()

    async def disabled(self, worker_id: str) -> bool:
        """Whether this worker is to take no jobs.

        Raises:
            SessionError: the server does not tell.
        """
        async with self._looking:  # one look at the queue for all slots
            queue = await self._look("the queue", self._session.queue_disabled)
            return await self._look(f"worker {worker_id}", lambda: self._session.worker_disabled(worker_id)) or queue

    async def _look(self, what: str, ask: Callable[[], Awaitable[bool]]) -> bool:
        now = asyncio.get_running_loop().time()
        looked_at, disabled = self._found.get(what, (float("-inf"), False))
        if now - looked_at < self._interval:
            return disabled
        was, disabled = disabled, await ask()
        self._found[what] = now, disabled
        if disabled != was:
            subject = what[0].upper() + what[1:]
            words = "disabled on the server: no jobs are taken" if disabled else "enabled again"
            logger.info("{} is {}", subject, words)
        return disabled


@dataclasses.dataclass(slots=True)
class Farm:
    """What the slots of a client share."""

    session: Session
    journal: Journal
    outbox: Outbox
    orders: Orders
    flags: Flags
    means: Means
    """Replaced when the operator has the configuration read again: what runs keeps what it began with."""
    settings: Settings
    unfinished: deque[Entry]
    """Jobs that an earlier run of the client left."""
    in_hand: set[str]
    """The ids of those and of the jobs that run."""
    workers: tuple[str, ...]
    """The ids of all slots."""
    ours: frozenset[str]
    """Those, and the ids that this client's workers had before: with more slots, or another HOST_UUID."""

    def now(self) -> str:
        """The time, in the zone that the settings want."""
        return datetime.now(tz=ZoneInfo(self.settings.api_timezone)).isoformat()


class Slot:
    """One slot."""

    def __init__(self, farm: Farm, worker_id: str, heartbeat: Heartbeat) -> None:
        self.worker_id = worker_id
        self.job: JobRun | None = None
        self.watcher: SlotWatcher | None = None
        self._farm = farm
        self._orders = farm.orders
        self._heartbeat = heartbeat

    async def work(self) -> None:
        """Finish what was left, then take jobs until it is time to stop."""
        while self._farm.unfinished and self._orders.stage is Stage.WORK:
            await self._resume(self._farm.unfinished.popleft())
        await self._orders.stopping_or(self._heartbeat.is_known)
        self._heartbeat.be_idle()
        while (taken := await self._take()) is not None:
            await self._begin(taken)

    async def pause(self, paused: bool) -> None:
        """Stop the job's processes where they are, or let them go on."""
        self._heartbeat.paused = paused
        if self.job:
            await (self.job.pause() if paused else self.job.resume())

    def stop(self) -> None:
        """Stop the job in hand, if there is one."""
        if self.job:
            self.job.stop(Stop(RETURNED, "the client was told to stop"))

    def describe(self) -> list[str]:
        """What it is doing, for a person: a line for the job, and one for each process. Looks at every process."""
        job, watcher = self.job, self.watcher
        if job is None or watcher is None or watcher.at is None:
            return ["no job"]
        run = watcher.at
        progress = "" if run.status.progress is None else f", {run.status.progress:.1f} %"
        lines = [
            f"job {job.job.job_id} {job.job.job_title!r}, task {run.label}, step {watcher.step}{progress}, "
            f"{decimal(watcher.usage.memory)} of memory"
        ]
        for process in (run.process for run in job.tasks if run.process):
            lines += tree.describe(process.pid)
        return lines

    # --- take a job ---

    async def _take(self) -> Given | None:
        """Wait for a job; `None` when it is time to stop."""
        settings = self._farm.settings
        while self._orders.stage is Stage.WORK:
            interval = settings.queue_poll_interval
            try:
                if self._orders.going.is_set() and (given := await self._ask()):
                    return given
            except SessionError:  # the session has logged it
                interval = settings.network_retry_interval
            if self._orders.going.is_set():
                await self._orders.rest(interval)
            else:
                await self._orders.stopping_or(self._orders.going)
        return None

    async def _ask(self) -> Given | None:
        if await self._farm.flags.disabled(self.worker_id) or self._orders.stage is not Stage.WORK:
            return None
        try:
            return await self._farm.session.poll()
        except SessionError as error:
            if given := await self._salvage(error):
                return given
            raise

    async def _salvage(self, error: SessionError) -> Given | None:
        """The job of a poll whose answer was broken, if what came of it names it: the server still tells of it."""
        found = JOB_ID_KEY.search(error.partial)
        if not found:
            return None
        job_id = found[1].decode("utf-8", "replace")
        log = logger.bind(job=job_id)
        log.warning("The answer that gave the job was broken: asking for it again")
        while self._orders.stage is Stage.WORK:
            try:
                answer = await self._farm.session.job(job_id)
            except SessionError:
                await self._orders.rest(self._farm.settings.network_retry_interval)
            else:
                return Given(job_id, answer.body.decode("utf-8", "replace")) if answer else None
        log.error("The job may be lost: the server has given it, and it could not be fetched before the client stops")
        return None

    async def _begin(self, given: Given) -> None:
        """Write a job down that the server has given, and run it."""
        farm, job_id = self._farm, given.job_id
        if farm.outbox.owes(job_id) or job_id in farm.in_hand:
            logger.bind(job=job_id).warning("The server gave a job again that this client has")
            return
        farm.in_hand.add(job_id)
        entry = Entry(job_id, given.document, farm.now(), 1)
        try:
            if self._orders.stage is Stage.WORK:
                await farm.journal.begin(job_id, given.document, entry.began)
            await farm.outbox.recognize(given)
        except JournalError as error:
            logger.bind(job=job_id).error("The job cannot be written down, and goes back to the queue: {}", error)
            await self._owe_return(entry)
            await self._orders.rest(farm.settings.network_retry_interval)
            return
        if self._orders.stage is Stage.WORK:
            await self._run(entry)
        else:  # the order to stop came while the server was giving it
            await self._owe_return(entry)

    async def _resume(self, entry: Entry) -> None:
        """Go on with a job that an earlier run of the client left, or do with it what the operator wants."""
        farm, log = self._farm, logger.bind(job=entry.job_id)
        with contextlib.suppress(SessionError):  # unreachable: the work is not to wait for it
            if gone := await why_not_ours(farm.session, entry.job_id, farm.ours):
                log.info("Not resumed: {}", gone)
                await self._write(farm.journal.drop(entry.job_id))
                farm.in_hand.discard(entry.job_id)
                await self._clear(entry)
                return
        if self._orders.stage is not Stage.WORK:
            return  # the order to stop came meanwhile: the journal keeps it for the next start
        if entry.starts >= MAX_STARTS:
            await self._give_up(entry, f"the client went down {entry.starts} times while this job ran")
        elif farm.settings.on_restart == "fail":
            await self._give_up(entry, "the client went down while this job ran")
        elif farm.settings.on_restart == "requeue":
            log.info("The client went down while it ran: it goes back to the queue")
            await self._owe_return(entry)
        else:
            log.info("Resumed after {} of its tasks", len(entry.tasks))
            await self._write(farm.journal.resume(entry.job_id))
            await self._run(entry, _earlier(entry))
            return
        await self._clear(entry)

    async def _clear(self, entry: Entry) -> None:
        """Remove what an interrupted task left: temporary files. What becomes of the job is written down by now."""
        if entry.running != len(entry.tasks):
            return
        with contextlib.suppress(JobError):  # such as of a module that is no longer enabled
            job = await asyncio.to_thread(_read, entry, self._farm.means.client.modules)
            try:
                self.job = JobRun(job, self._farm.means, Watcher(), _earlier(entry))
                await self.job.clear()
            finally:
                self.job = None

    # --- run it ---

    async def _run(self, entry: Entry, earlier: Earlier | None = None) -> None:
        """Run a job that is written down, and see that the server is told how it ended."""
        try:
            # In a thread: it may be large, and unescaping asks the file system.
            job = await asyncio.to_thread(_read, entry, self._farm.means.client.modules)
        except JobError as error:
            info = self._refusal(entry, error)
            logger.bind(job=entry.job_id).error("{}", info["message"])
            await self._owe_verdict(entry, info)
            return
        logger.bind(job=job.job_id).info("Job {!r} begins ({} tasks)", job.job_title, len(job.tasks))
        self._heartbeat.be_at(job)
        try:
            await self._run_job(entry, job, earlier)
        except asyncio.CancelledError:
            with contextlib.suppress(JournalError):
                await self._farm.journal.excuse(entry.job_id)
            raise
        finally:
            self._heartbeat.be_idle()

    async def _run_job(self, entry: Entry, job: Job, earlier: Earlier | None) -> None:
        farm = self._farm
        settings = msgspec.structs.replace(farm.settings, host_uuid=self.worker_id)
        means = dataclasses.replace(farm.means, settings=settings)
        self.watcher = SlotWatcher(job, self._heartbeat, farm.journal)
        self.job = JobRun(job, means, self.watcher, earlier)
        if self._orders.stage >= Stage.CANCEL:  # told so just before
            self.stop()
        elif not self._orders.going.is_set():
            await self.job.pause()
        watching = asyncio.create_task(self._watch_record(self.job)) if settings.cancel_deleted_jobs else None
        try:
            verdict = await self.job.run()
        finally:
            self.job = None
            if watching:
                watching.cancel()
        log = logger.bind(job=job.job_id)
        if verdict.failure and verdict.failure.reason == RETURNED:
            log.info("Job {!r} is stopped, and goes back to the queue", job.job_title)
            await self._owe_return(entry)
            return
        if verdict.failure:
            log.error("Job {!r} failed: {}", job.job_title, verdict.failure.headline)
        else:
            log.info("Job {!r} is completed, in {:.1f} s", job.job_title, verdict.info["runtime"])
        await self._owe_verdict(entry, verdict.info)

    async def _watch_record(self, job: JobRun) -> None:
        """Stop the job when its record on the server is gone: the operator has deleted it."""
        while True:
            await asyncio.sleep(self._farm.settings.queue_poll_interval)
            with contextlib.suppress(SessionError):
                if await self._farm.session.job(job.job.job_id) is None:
                    job.stop(Stop("cancelled", "the job was deleted on the server"))
                    return

    # --- how it ended ---

    async def _owe_verdict(self, entry: Entry, info: dict[str, Any]) -> None:
        verdict = {"failed": not info["completed"], "info": info}
        debt = await self._write(self._farm.journal.owe_verdict(entry.job_id, verdict))
        self._farm.outbox.add(debt or Debt(-1, entry.job_id, "verdict", json.dumps(verdict)))
        self._farm.in_hand.discard(entry.job_id)

    async def _owe_return(self, entry: Entry) -> None:
        debt = await self._write(self._farm.journal.owe_return(entry.job_id, entry.document))
        self._farm.outbox.add(debt or Debt(-1, entry.job_id, "return", entry.document))
        self._farm.in_hand.discard(entry.job_id)

    async def _write(self, writing: Coroutine[Any, Any, _T]) -> _T | None:
        """Write to the journal; if that cannot be done, say so and go on without, which a crash now would show."""
        try:
            return await writing
        except JournalError as error:
            logger.error("{}", error)
            return None

    async def _give_up(self, entry: Entry, why: str) -> None:
        error = JobError(why)
        info = self._refusal(entry, error, "lost", "run", len(entry.tasks))
        logger.bind(job=entry.job_id).error("{}", info["message"])
        await self._owe_verdict(entry, info)

    def _refusal(
        self, entry: Entry, error: JobError, reason: Reason = "exception", step: StepName = "init", tasks: int = 0
    ) -> dict[str, Any]:
        """The record of a job that is not run."""
        farm = self._farm
        failure = Failure(reason, step, str(error), error.module, tasks if error.task is None else error.task)
        began, now = datetime.fromisoformat(entry.began), datetime.fromisoformat(farm.now())
        return {
            "start_time": entry.began,
            "end_time": now.isoformat(),
            "runtime": round(max(0.0, (now - began).total_seconds()), 3),
            "worker": farm.settings.hostname,
            "worker_id": self.worker_id,
            "version": VERSION,
            "completed": False,
            **({"module": failure.module} if failure.module else {}),
            "message": failure.headline,
            "error": failure.record(),
            "tasks": list(entry.tasks),
        }


class SlotWatcher(Watcher):
    """Tells the heartbeat which task runs, and the journal which are completed."""

    def __init__(self, job: Job, heartbeat: Heartbeat, journal: Journal) -> None:
        self.at: TaskRun | None = None
        self.step: StepName = "init"
        self.usage = Usage()
        self._job = job
        self._heartbeat = heartbeat
        self._journal = journal

    async def running(self, run: TaskRun) -> None:
        await self._note(self._journal.run_task(self._job.job_id, run.place))

    def began(self, run: TaskRun, step: StepName) -> None:
        self.at, self.step = run, step
        self._heartbeat.be_running(run, step)
        logger.bind(job=self._job.job_id, task=run.label).debug("Step {}", step)

    def used(self, run: TaskRun, usage: Usage) -> None:
        if run is self.at:
            self.usage = usage

    async def ended(self, run: TaskRun) -> None:
        logger.bind(job=self._job.job_id, task=run.label).info("Task {}", run.result)
        if run.result == "completed":
            await self._note(self._journal.finish_task(self._job.job_id, run.place, run.record()))

    async def _note(self, writing: Coroutine[Any, Any, None]) -> None:
        try:
            await writing
        except JournalError as error:
            logger.error("{}", error)


def _earlier(entry: Entry) -> Earlier:
    return Earlier(datetime.fromisoformat(entry.began), entry.tasks, entry.running == len(entry.tasks))


def _read(entry: Entry, enabled: Iterable[str]) -> Job:
    """The job of a document as the server gave it.

    Raises:
        JobError: it is not as it should be.
    """
    try:
        document = json.loads(entry.document, parse_constant=refuse_constant)
        return read_job(unescape(document) | {"job_id": entry.job_id}, enabled)
    except (ValueError, RecursionError) as error:
        raise JobError(f"the job is not JSON: {error}") from error
