"""A slot: takes one job at a time from the server's queue and sees it to its end.

To the server each slot is a worker of its own. What they share is the `WorkerContext`: the session, the journal, the
outbox, and what the operator wants.
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

import msgspec
from loguru import logger
from rich.filesize import decimal

from app.config import Settings
from ipc.messages import Cause, Reason, StepName
from supervisor.api.client import PolledJob, Session, SessionError, refuse_constant
from supervisor.isolation import sampler
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.runtime import Runtime
from supervisor.isolation.sampler import Usage
from supervisor.jobs.job_run import Checkpoint, JobRun
from supervisor.jobs.model import Job, JobError, read_job, unescape
from supervisor.jobs.record import Failure, job_record, now
from supervisor.jobs.task_run import JobObserver, TaskRun
from supervisor.worker.heartbeat import JITTER, Heartbeat
from supervisor.worker.journal import Journal, JournalError, OutboxItem, UnfinishedJob
from supervisor.worker.outbox import Outbox, why_not_ours

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


class Control:
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


class DisabledFlags:
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
class WorkerContext:
    """What the slots of a client share."""

    session: Session
    journal: Journal
    outbox: Outbox
    control: Control
    flags: DisabledFlags
    runtime: Runtime
    """Replaced when the operator has the configuration read again: what runs keeps what it began with."""
    settings: Settings
    unfinished: deque[UnfinishedJob]
    """Jobs that an earlier run of the client left."""
    in_hand: set[str]
    """The ids of those and of the jobs that run."""
    workers: tuple[str, ...]
    """The ids of all slots."""
    ours: frozenset[str]
    """Those, and the ids that this client's workers had before: with more slots, or another HOST_UUID."""

    def now(self) -> str:
        """The time, in the zone that the settings want."""
        return now(self.settings).isoformat()


class Slot:
    """One slot."""

    def __init__(self, context: WorkerContext, worker_id: str, heartbeat: Heartbeat) -> None:
        self.worker_id = worker_id
        self.job: JobRun | None = None
        self.observer: SlotObserver | None = None
        self._context = context
        self._control = context.control
        self._heartbeat = heartbeat
        self._settings = msgspec.structs.replace(context.settings, host_uuid=worker_id)

    async def work(self) -> None:
        """Finish what was left, then take jobs until it is time to stop."""
        while self._context.unfinished and self._control.stage is Stage.WORK:
            await self._resume(self._context.unfinished.popleft())
        await self._control.stopping_or(self._heartbeat.is_known)
        self._heartbeat.set_idle()
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
            self.job.stop(StopOrder(Cause(RETURNED, "the client was told to stop")))

    def describe(self) -> list[str]:
        """What it is doing, for a person: a line for the job, and one for each process. Looks at every process."""
        job, observer = self.job, self.observer
        if job is None or observer is None or observer.at is None:
            return ["no job"]
        run = observer.at
        progress = "" if run.status.progress is None else f", {run.status.progress:.1f} %"
        lines = [
            f"job {job.job.job_id} {job.job.job_title!r}, task {run.label}, step {observer.step}{progress}, "
            f"{decimal(observer.usage.memory)} of memory"
        ]
        for process in (run.process for run in job.tasks if run.process):
            lines += sampler.describe(process.pid)
        return lines

    # --- take a job ---

    async def _take(self) -> PolledJob | None:
        """Wait for a job; `None` when it is time to stop."""
        settings = self._context.settings
        while self._control.stage is Stage.WORK:
            interval = settings.queue_poll_interval
            try:
                if self._control.going.is_set() and (given := await self._ask()):
                    return given
            except SessionError:  # the session has logged it
                interval = settings.network_retry_interval
            if self._control.going.is_set():
                await self._control.rest(interval)
            else:
                await self._control.stopping_or(self._control.going)
        return None

    async def _ask(self) -> PolledJob | None:
        if await self._context.flags.disabled(self.worker_id) or self._control.stage is not Stage.WORK:
            return None
        try:
            return await self._context.session.poll()
        except SessionError as error:
            if given := await self._salvage(error):
                return given
            raise

    async def _salvage(self, error: SessionError) -> PolledJob | None:
        """The job of a poll whose answer was broken, if what came of it names it: the server still tells of it."""
        found = JOB_ID_KEY.search(error.partial)
        if not found:
            return None
        job_id = found[1].decode("utf-8", "replace")
        log = logger.bind(job=job_id)
        log.warning("The answer that gave the job was broken: asking for it again")
        while self._control.stage is Stage.WORK:
            try:
                answer = await self._context.session.job(job_id)
            except SessionError:
                await self._control.rest(self._context.settings.network_retry_interval)
            else:
                return PolledJob(job_id, answer.body.decode("utf-8", "replace")) if answer else None
        log.error("The job may be lost: the server has given it, and it could not be fetched before the client stops")
        return None

    async def _begin(self, given: PolledJob) -> None:
        """Write a job down that the server has given, and run it."""
        context, job_id = self._context, given.job_id
        if context.outbox.holds(job_id) or job_id in context.in_hand:
            logger.bind(job=job_id).warning("The server gave a job again that this client has")
            return
        context.in_hand.add(job_id)
        entry = UnfinishedJob(job_id, given.document, context.now(), 1)
        try:
            if self._control.stage is Stage.WORK:
                await context.journal.begin(job_id, given.document, entry.began)
            await context.outbox.recognize(given)
        except JournalError as error:
            logger.bind(job=job_id).error("The job cannot be written down, and goes back to the queue: {}", error)
            await self._queue_return(entry)
            await self._control.rest(context.settings.network_retry_interval)
            return
        if self._control.stage is Stage.WORK:
            await self._run(entry)
        else:  # the order to stop came while the server was giving it
            await self._queue_return(entry)

    async def _resume(self, entry: UnfinishedJob) -> None:
        """Go on with a job that an earlier run of the client left, or do with it what the operator wants."""
        context, log = self._context, logger.bind(job=entry.job_id)
        with contextlib.suppress(SessionError):  # unreachable: the work is not to wait for it
            if gone := await why_not_ours(context.session, entry.job_id, context.ours):
                log.info("Not resumed: {}", gone)
                await self._write(context.journal.drop(entry.job_id))
                context.in_hand.discard(entry.job_id)
                await self._clear(entry)
                return
        if self._control.stage is not Stage.WORK:
            return  # the order to stop came meanwhile: the journal keeps it for the next start
        if entry.starts >= MAX_STARTS:
            await self._give_up(entry, f"the client went down {entry.starts} times while this job ran")
        elif context.settings.on_restart == "fail":
            await self._give_up(entry, "the client went down while this job ran")
        elif context.settings.on_restart == "requeue":
            log.info("The client went down while it ran: it goes back to the queue")
            await self._queue_return(entry)
        else:
            log.info("Resumed after {} of its tasks", len(entry.tasks))
            await self._write(context.journal.resume(entry.job_id))
            await self._run(entry, _earlier(entry))
            return
        await self._clear(entry)

    async def _clear(self, entry: UnfinishedJob) -> None:
        """Remove what an interrupted task left: temporary files. What becomes of the job is written down by now."""
        if entry.running != len(entry.tasks):
            return
        with contextlib.suppress(JobError):  # such as of a module that is no longer enabled
            job = await asyncio.to_thread(_read, entry, self._context.runtime.client.modules)
            try:
                self.job = JobRun(
                    job, self._context.runtime, JobObserver(), _earlier(entry), self._context.session.exchange
                )
                await self.job.cleanup_interrupted()
            finally:
                self.job = None

    # --- run it ---

    async def _run(self, entry: UnfinishedJob, earlier: Checkpoint | None = None) -> None:
        """Run a job that is written down, and see that the server is told how it ended."""
        try:
            # In a thread: it may be large, and unescaping asks the file system.
            job = await asyncio.to_thread(_read, entry, self._context.runtime.client.modules)
        except JobError as error:
            info = self._refusal(entry, error)
            logger.bind(job=entry.job_id).error("{}", info["message"])
            await self._queue_verdict(entry, info)
            return
        logger.bind(job=job.job_id).info("Job {!r} begins ({} tasks)", job.job_title, len(job.tasks))
        self._heartbeat.set_job(job)
        try:
            await self._run_job(entry, job, earlier)
        except asyncio.CancelledError:
            with contextlib.suppress(JournalError):
                await self._context.journal.uncount_start(entry.job_id)
            raise
        finally:
            self._heartbeat.set_idle()

    async def _run_job(self, entry: UnfinishedJob, job: Job, earlier: Checkpoint | None) -> None:
        context = self._context
        runtime = dataclasses.replace(context.runtime, settings=self._settings)
        self.observer = SlotObserver(job, self._heartbeat, context.journal)
        self.job = JobRun(job, runtime, self.observer, earlier, context.session.exchange)
        if self._control.stage >= Stage.CANCEL:  # told so just before
            self.stop()
        elif not self._control.going.is_set():
            await self.job.pause()
        watching = (
            asyncio.create_task(self._cancel_if_deleted(self.job)) if self._settings.cancel_deleted_jobs else None
        )
        try:
            verdict = await self.job.run()
        finally:
            self.job = None
            if watching:
                watching.cancel()
        log = logger.bind(job=job.job_id)
        if verdict.failure and verdict.failure.cause.reason == RETURNED:
            log.info("Job {!r} is stopped, and goes back to the queue", job.job_title)
            await self._queue_return(entry)
            return
        if verdict.failure:
            log.error("Job {!r} failed: {}", job.job_title, verdict.failure.headline)
        else:
            log.info("Job {!r} is completed, in {:.1f} s", job.job_title, verdict.info["runtime"])
        await self._queue_verdict(entry, verdict.info)

    async def _cancel_if_deleted(self, job: JobRun) -> None:
        """Stop the job when its record on the server is gone: the operator has deleted it."""
        while True:
            await asyncio.sleep(self._context.settings.queue_poll_interval)
            with contextlib.suppress(SessionError):
                if await self._context.session.job(job.job.job_id) is None:
                    job.stop(StopOrder(Cause("cancelled", "the job was deleted on the server")))
                    return

    # --- how it ended ---

    async def _queue_verdict(self, entry: UnfinishedJob, info: dict[str, Any]) -> None:
        verdict = {"failed": not info["completed"], "info": info}
        item = await self._write(self._context.journal.queue_verdict(entry.job_id, verdict))
        self._context.outbox.add(item or OutboxItem(-1, entry.job_id, "verdict", json.dumps(verdict)))
        self._context.in_hand.discard(entry.job_id)

    async def _queue_return(self, entry: UnfinishedJob) -> None:
        item = await self._write(self._context.journal.queue_return(entry.job_id, entry.document))
        self._context.outbox.add(item or OutboxItem(-1, entry.job_id, "return", entry.document))
        self._context.in_hand.discard(entry.job_id)

    async def _write(self, writing: Coroutine[Any, Any, _T]) -> _T | None:
        """Write to the journal; if that cannot be done, say so and go on without, which a crash now would show."""
        try:
            return await writing
        except JournalError as error:
            logger.error("{}", error)
            return None

    async def _give_up(self, entry: UnfinishedJob, why: str) -> None:
        error = JobError(why)
        info = self._refusal(entry, error, "lost", "run", len(entry.tasks))
        logger.bind(job=entry.job_id).error("{}", info["message"])
        await self._queue_verdict(entry, info)

    def _refusal(
        self,
        entry: UnfinishedJob,
        error: JobError,
        reason: Reason = "exception",
        step: StepName = "init",
        tasks: int = 0,
    ) -> dict[str, Any]:
        """The record of a job that is not run."""
        failure = Failure(Cause(reason, str(error)), step, error.module, tasks if error.task is None else error.task)
        began = datetime.fromisoformat(entry.began)
        seconds = max(0.0, (now(self._settings) - began).total_seconds())
        return job_record(self._settings, began, seconds, failure, entry.tasks)


class SlotObserver(JobObserver):
    """Tells the heartbeat which task runs, and the journal which are completed."""

    def __init__(self, job: Job, heartbeat: Heartbeat, journal: Journal) -> None:
        self.at: TaskRun | None = None
        self.step: StepName = "init"
        self.usage = Usage()
        self._job = job
        self._heartbeat = heartbeat
        self._journal = journal

    async def on_task_starting(self, run: TaskRun) -> None:
        await self._note(self._journal.run_task(self._job.job_id, run.index))

    def on_step_started(self, run: TaskRun, step: StepName) -> None:
        self.at, self.step = run, step
        self._heartbeat.set_task(run, step)
        logger.bind(job=self._job.job_id, task=run.label).debug("Step {}", step)

    def on_usage(self, run: TaskRun, usage: Usage) -> None:
        if run is self.at:
            self.usage = usage

    async def on_task_finished(self, run: TaskRun) -> None:
        logger.bind(job=self._job.job_id, task=run.label).info("Task {}", run.result)
        if run.result == "completed":
            await self._note(self._journal.finish_task(self._job.job_id, run.index, run.record()))

    async def _note(self, writing: Coroutine[Any, Any, None]) -> None:
        try:
            await writing
        except JournalError as error:
            logger.error("{}", error)


def _earlier(entry: UnfinishedJob) -> Checkpoint:
    return Checkpoint(datetime.fromisoformat(entry.began), entry.tasks, entry.running == len(entry.tasks))


def _read(entry: UnfinishedJob, enabled: Iterable[str]) -> Job:
    """The job of a document as the server gave it.

    Raises:
        JobError: it is not as it should be.
    """
    try:
        document = json.loads(entry.document, parse_constant=refuse_constant)
        return read_job(unescape(document) | {"job_id": entry.job_id}, enabled)
    except (ValueError, RecursionError) as error:
        raise JobError(f"the job is not JSON: {error}") from error
