"""A slot: takes one job at a time from the server's queue and sees it to its end.

To the server, each slot is a worker of its own. The slots share a `WorkerContext`.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Collection, Coroutine, Iterable
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from loguru import logger
from rich.filesize import decimal

from ipc.messages import Cause
from supervisor.api.client import LOGS, PolledJob, WorkerOrders
from supervisor.api.errors import SessionError
from supervisor.isolation import sampler
from supervisor.isolation.failure import StopOrder
from supervisor.jobs.job_run import Checkpoint, JobRun, Verdict
from supervisor.jobs.model import Job, JobError, decode_job, read_job
from supervisor.jobs.record import Failure, job_record, now
from supervisor.jobs.task_state import JobObserver
from supervisor.worker import unfit
from supervisor.worker.control import SlotStanding, Stage, WorkerContext
from supervisor.worker.heartbeat import WorkerHeartbeat
from supervisor.worker.hook import hook_run, run_quietly
from supervisor.worker.intake import Intake
from supervisor.worker.journal import JournalError, OutboxItem, UnfinishedJob, verdict_items
from supervisor.worker.observer import SlotObserver, cancel_if_deleted
from supervisor.worker.outbox import why_not_ours

MAX_STARTS = 3
"""Starts of a job that the supervisor may not have survived. After these, the job is failed."""

KEPT = 600.0
"""Seconds for which a job waits for a worker that is in trouble, before it goes back to the queue."""

SHUTDOWN: Literal["shutdown"] = "shutdown"
"""Failure reason of a job interrupted by a shutdown; such a job is requeued."""

CANCELLED = StopOrder(Cause("cancelled", "the job was cancelled on the server"))

_T = TypeVar("_T")


class Slot:
    """One slot."""

    def __init__(self, context: WorkerContext, worker_id: str, heartbeat: WorkerHeartbeat) -> None:
        self.worker_id = worker_id
        self.job: JobRun | None = None
        self.observer: SlotObserver | None = None
        self._counted: str | None = None
        """The job in hand, while this start of it counts in the journal."""
        self._context = context
        self._control = context.control
        self._heartbeat = heartbeat
        self._settings = msgspec.structs.replace(context.settings, host_uuid=worker_id)
        self.standing = SlotStanding(context.control, worker_id)
        self._intake = Intake(context, worker_id, self.standing)
        self._adjusting = asyncio.Lock()
        heartbeat.on_orders = self._obey
        heartbeat.closed, heartbeat.paused = context.control.closed, self.standing.is_paused

    async def work(self) -> None:
        """Resume unfinished jobs, then take jobs until the client is told to stop."""
        while self._context.unfinished and self._control.stage is Stage.WORK:
            await self._resume(self._context.unfinished.popleft())
        await self._control.stopping_or(self._heartbeat.is_known)
        self._heartbeat.set_idle()
        while (polled := await self._intake.take()) is not None:
            await self._begin(polled)

    def _obey(self, orders: WorkerOrders) -> None:
        if self.standing.obey(orders, self._heartbeat.job_id):
            self._control.start_task(self.adjust())

    async def adjust(self) -> None:
        """Do as operators want, after a signal or an order of the server: pause, resume or cancel, take jobs or not."""
        self.standing.update()
        self._intake.interrupt()
        async with self._adjusting:
            self._heartbeat.closed, paused = self._control.closed, self.standing.is_paused
            if self.job and self.standing.is_cancelled.is_set():
                self.job.stop(CANCELLED)
            if self.job and paused != self._heartbeat.paused:
                await (self.job.pause() if paused else self.job.resume())
            self._heartbeat.paused = paused

    def stop(self) -> None:
        """Stop the job in hand, if there is one; it goes back to the queue."""
        if self.job:
            self.job.stop(StopOrder(Cause(SHUTDOWN, "the client was told to stop")))

    async def spare(self) -> None:
        """The client is told to stop. What ends it from now on is no crash, and does not count against the job."""
        counted, self._counted = self._counted, None
        if counted:
            await self._write(self._context.journal.uncount_start(counted))

    def describe(self) -> list[str]:
        """Describe the job and its processes for the log, a line each. Reads the state of every process: blocks."""
        job, observer = self.job, self.observer
        if job is None or observer is None or observer.at is None:
            follows = job and not observer and f"job {job.job.job_id} has ended, and {job.job.job_title!r} runs"
            return [follows or "no job"]
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

    async def _begin(self, polled: PolledJob) -> None:
        """Write a polled job to the journal, and run it."""
        context, job_id = self._context, polled.job_id
        if context.outbox.holds(job_id) or job_id in context.in_hand:
            logger.bind(job=job_id).warning("The server gave a job that this client has already")
            return
        context.in_hand.add(job_id)
        job = UnfinishedJob(job_id, polled.document, now(self._settings).isoformat(), 1, verbatim=polled.verbatim)
        try:
            if self._control.stage is Stage.WORK:
                await context.journal.begin(job_id, polled.document, job.began, polled.verbatim)
            await context.outbox.recognize(polled)
        except JournalError as error:
            logger.bind(job=job_id).error("The job cannot be written down, and goes back to the queue: {}", error)
            context.trouble.note(str(error))
            await self._queue_return(job)
            return
        if self._control.stage is Stage.WORK:
            await self._read_and_run(job)
        else:  # the order to stop came while the server was giving it
            await self._queue_return(job)

    async def _resume(self, job: UnfinishedJob) -> None:
        """Resume, requeue or fail an unfinished job, as ON_RESTART says."""
        context, log = self._context, logger.bind(job=job.job_id)
        with contextlib.suppress(SessionError):  # the server cannot be reached: the job must not wait for that
            if gone := await why_not_ours(context.session, job.job_id, context.ours):
                log.info("Not resumed: {}", gone)
                await self._write(context.journal.drop(job.job_id))
                context.in_hand.discard(job.job_id)
                await self._cleanup_interrupted(job)
                return
        if self._control.stage is not Stage.WORK:
            return  # the order to stop came meanwhile: the journal keeps it for the next start
        times, wanted = f" {job.starts} times" if job.starts >= MAX_STARTS else "", self._settings.on_restart
        if times or wanted == "fail" or (wanted == "requeue" and job.failure):
            await self._give_up(job, f"the client went down{times} while this job ran")
        elif wanted == "requeue":
            log.info("The client went down while it ran: it goes back to the queue")
            await self._queue_return(job)
        else:
            log.info("Resumed after {} of its tasks", len(job.tasks))
            await self._write(context.journal.resume(job.job_id))
            await self._read_and_run(job, _checkpoint(job))
            return
        await self._cleanup_interrupted(job)

    async def _cleanup_interrupted(self, job: UnfinishedJob) -> None:
        """Let an interrupted task remove its temporary files. The job's end is in the journal by now."""
        if job.running != len(job.tasks):
            return
        with contextlib.suppress(JobError):  # such as: its module is not enabled any more
            self.job = self._job_run(await self._read(job), JobObserver(), _checkpoint(job))
            try:
                await self.job.cleanup_interrupted()
            finally:
                self.job = None

    # --- run it ---

    async def _read_and_run(self, unfinished: UnfinishedJob, checkpoint: Checkpoint | None = None) -> None:
        """Run a job that is in the journal, and queue its verdict or its return."""
        try:
            job = await self._read(unfinished)
        except JobError as error:
            cause = Cause("unfit" if error.unfit else "exception", str(error))
            failure = Failure(cause, "init", error.module, error.task or 0)
            if error.unfit and not unfinished.tasks:
                if await self._hand_on(unfinished, failure):
                    return
                failure = unfit.explained(unfinished.document, self._settings.hostname, failure)
            await self._refuse(unfinished, failure)
            return
        logger.bind(job=job.job_id).info("Job {!r} begins ({} tasks)", job.job_title, len(job.tasks))
        self.standing.is_cancelled.clear()
        self._heartbeat.set_job(job)
        self._counted = job.job_id
        try:
            if self._control.stage is not Stage.WORK:
                await self.spare()
            await self._execute(unfinished, job, checkpoint)
        except asyncio.CancelledError:
            await self.spare()
            raise
        finally:
            self._counted = None
            self._heartbeat.set_idle()

    async def _execute(self, unfinished: UnfinishedJob, job: Job, checkpoint: Checkpoint | None) -> None:
        verdict = await self._run(job, checkpoint)
        while verdict.failure and verdict.failure.cause.trouble:
            unfinished = _advanced(unfinished, verdict)
            if not await self._outlast_trouble(unfinished, verdict.failure.cause.message):
                return
            verdict = await self._run(job, _checkpoint(unfinished))
        await self._conclude(unfinished, job, verdict)

    async def _run(self, job: Job, checkpoint: Checkpoint | None) -> Verdict:
        self.observer = SlotObserver(job, self._heartbeat, self._context)
        self.job = self._job_run(job, self.observer, checkpoint)
        if self._control.stage >= Stage.CANCEL:  # the order came while the job was read
            self.stop()
        elif self.standing.is_cancelled.is_set():
            self.job.stop(CANCELLED)
        elif self.standing.is_paused:
            await self.job.pause()
        watching = asyncio.create_task(cancel_if_deleted(self.job, self._context))
        try:
            return await self.job.run()
        finally:
            self.job = None
            watching.cancel()

    async def _outlast_trouble(self, job: UnfinishedJob, why: str) -> bool:
        """Keep a job until this worker is well again, and return true; if that takes too long, it goes back.

        One that is partly done stays: another worker might not find what its first tasks have taken or left.
        """
        trouble = self._context.trouble
        trouble.note(why)
        logger.bind(job=job.job_id).warning("The job waits until the worker is well again: {}", why)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if job.tasks else KEPT):
                await self._control.stopping_or(trouble.well, self.standing.is_cancelled)
        if self.standing.is_cancelled.is_set():
            await self._refuse(job, _failure(job) or Failure(CANCELLED.cause, "run", task=len(job.tasks)))
            return False
        if trouble.well.is_set() and self._control.stage < Stage.CANCEL:
            return True
        if not job.tasks:
            await self._queue_return(job)
        return False

    async def _conclude(self, unfinished: UnfinishedJob, job: Job, verdict: Verdict) -> None:
        log, failure, info = logger.bind(job=job.job_id), verdict.failure, verdict.info
        if failure and failure.cause.reason == SHUTDOWN:
            log.info("Job {!r} is stopped, and goes back to the queue", job.job_title)
            await self._queue_return(unfinished)
            return
        if failure and failure.cause.reason == "unfit" and not any(run.result == "completed" for run in verdict.tasks):
            if await self._hand_on(unfinished, failure):
                return
            failure = unfit.explained(unfinished.document, self._settings.hostname, failure)
            info = info | {"message": failure.headline, "error": failure.record()}
        if failure:
            log.error("Job {!r} failed: {}", job.job_title, failure.headline)
        else:
            log.info("Job {!r} is completed, in {:.1f} s", job.job_title, info["seconds"])
        await self._queue_verdict(unfinished, info)

    async def _read(self, job: UnfinishedJob) -> Job:
        # In a thread: a job may be large, and unescaping it asks the file system.
        modules, tags = self._context.runtime.client.modules, self._settings.worker_tags
        return await asyncio.to_thread(_read_document, job, modules, tags)

    def _job_run(self, job: Job, observer: JobObserver, checkpoint: Checkpoint | None) -> JobRun:
        runtime = dataclasses.replace(self._context.runtime, settings=self._settings)
        return JobRun(job, runtime, observer, checkpoint, self._context.session.exchange)

    # --- how it ended ---

    async def _hand_on(self, job: UnfinishedJob, failure: Failure) -> bool:
        """Give the job to another worker, if one is left that has not tried it. Returns whether it does."""
        context = self._context
        document = unfit.marked(job.document, self._settings.hostname, context.workers, failure.headline)
        if not await unfit.may_go_on(context.session, document):
            return False
        log = logger.bind(job=job.job_id)
        log.warning("This worker cannot do the job, which goes back to the queue for others: {}", failure.headline)
        again = unfit.is_marked(job.document, context.ours)
        await self._queue_return(msgspec.structs.replace(job, document=document))
        if again:  # nobody else has taken it meanwhile: leave it to the others, who may be busy
            await self._control.rest(self._settings.network_retry_interval)
            while self._control.stage is Stage.WORK and await unfit.is_all_for_others(context.session, context.ours):
                await self._control.rest(self._settings.network_retry_interval)
        return True

    async def _give_up(self, job: UnfinishedJob, why: str) -> None:
        await self._refuse(job, _failure(job) or Failure(Cause("lost", why), "run", task=len(job.tasks)))

    async def _refuse(self, job: UnfinishedJob, failure: Failure) -> None:
        """End a job that is not run, or not run any further."""
        logger.bind(job=job.job_id).error("{}", failure.headline)
        began = datetime.fromisoformat(job.began)
        seconds = max(0.0, (now(self._settings) - began).total_seconds())
        await self._queue_verdict(job, job_record(self._settings, began, seconds, failure, job.tasks))

    async def _queue_verdict(self, job: UnfinishedJob, info: dict[str, Any]) -> None:
        verdict = {"failed": not info["completed"], "info": info}
        reason = info.get("error", {}).get("reason")
        result = "cancelled" if reason == "cancelled" else "failed" if verdict["failed"] else "completed"
        self._context.results[result] += 1
        with_log = LOGS in self._context.session.offers or not self._context.session.asked.is_set()
        items = await self._write(self._context.journal.queue_verdict(job.job_id, verdict, with_log))
        item, *logs = items or verdict_items(job.job_id, verdict, with_log)
        self._context.owe(item)
        try:
            await self._run_hook(job, info)
        finally:  # its lines belong to the log
            for log in logs:
                self._context.log_outbox.add(log)

    async def _run_hook(self, job: UnfinishedJob, info: dict[str, Any]) -> None:
        """Run the operator's command for a job that has its verdict. Signals and orders act on it as on a job."""
        hook = await hook_run(self._context, self._settings, job, info)
        if hook is None or self._control.stage >= Stage.CANCEL:
            return
        self._heartbeat.set_idle()
        self.standing.is_cancelled.clear()
        self.job, self.observer, self._counted = hook, None, None
        try:
            await run_quietly(hook, self.standing.is_paused)
        finally:
            self.job = None

    async def _queue_return(self, job: UnfinishedJob) -> None:
        self._context.results["returned"] += 1
        item = await self._write(self._context.journal.queue_return(job.job_id, job.document))
        self._context.owe(item or OutboxItem(None, job.job_id, "return", job.document))

    async def _write(self, writing: Coroutine[Any, Any, _T]) -> _T | None:
        """Write to the journal; on failure note it and go on. The change is lost if the client crashes now."""
        try:
            return await writing
        except JournalError as error:
            self._context.trouble.note(str(error))
            return None


def _checkpoint(job: UnfinishedJob) -> Checkpoint:
    interrupted = job.running == len(job.tasks)
    return Checkpoint(datetime.fromisoformat(job.began), job.tasks, interrupted, job.saved_state, _failure(job))


def _failure(job: UnfinishedJob) -> Failure | None:
    """The failure that a job has had before it was interrupted. It stays the job's, whatever comes after."""
    return msgspec.json.decode(job.failure, type=Failure) if job.failure else None


def _advanced(job: UnfinishedJob, verdict: Verdict) -> UnfinishedJob:
    """The job as far as it has come in a run that the worker's trouble ended."""
    settled = [run for run in verdict.tasks if run.result in ("completed", "skipped")]
    if verdict.failure and verdict.earlier:  # a job that has failed passes over tasks, and has noted all of them
        settled = list(verdict.tasks[: verdict.failure.task])
        job = msgspec.structs.replace(job, failure=msgspec.json.encode(verdict.earlier).decode())
    done, at = tuple(run.record() for run in settled), verdict.tasks[len(settled)]
    return msgspec.structs.replace(
        job, tasks=done, running=at.index if at.attempts else job.running, saved_state=at.saved_state
    )


def _read_document(job: UnfinishedJob, enabled: Iterable[str], tags: Collection[str]) -> Job:
    """Read a job as the server gave it, for a worker with these tags.

    Raises:
        JobError: it is not JSON, or malformed, or requires other tags, of which not every server takes note.
    """
    try:
        document = decode_job(job.document, job.verbatim)
    except (ValueError, RecursionError) as error:
        raise JobError(f"the job is not JSON: {error}") from error
    if isinstance(document, dict):
        document["job_id"] = job.job_id  # the id that the server knows, whatever the document says
    found = read_job(document, enabled, from_server=True)
    for index, task in enumerate(found.tasks):
        if lacking := [tag for tag in task.requires if tag not in tags]:
            words = f"tasks[{index}].requires: this worker does not have the tag {lacking[0]!r}"
            raise JobError(words, index, task.module, unfit=True)
    return found
