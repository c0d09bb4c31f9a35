"""A slot: takes one job at a time from the server's queue and sees it to its end.

To the server, each slot is a worker of its own. The slots share a `WorkerContext`.
"""

import asyncio
import contextlib
import dataclasses
import json
import re
from collections.abc import Coroutine, Iterable
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from loguru import logger
from rich.filesize import decimal

from app.formats import refuse_constant
from ipc.messages import Cause, StepName
from supervisor.api.client import PolledJob
from supervisor.api.errors import SessionError
from supervisor.isolation import sampler
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.sampler import Usage
from supervisor.jobs.job_run import Checkpoint, JobRun
from supervisor.jobs.model import Job, JobError, read_job, unescape
from supervisor.jobs.record import Failure, job_record, now
from supervisor.jobs.task_run import JobObserver, TaskRun
from supervisor.worker.control import Stage, WorkerContext
from supervisor.worker.heartbeat import WorkerHeartbeat
from supervisor.worker.journal import Journal, JournalError, OutboxItem, UnfinishedJob
from supervisor.worker.outbox import why_not_ours

MAX_STARTS = 3
"""Starts of a job that the supervisor may not have survived. After these, the job is failed."""

JOB_ID_KEY = re.compile(rb'"job_id"\s*:\s*"([^"\\]+)"')
"""Finds a job's id in a broken response, which need not be JSON."""

SHUTDOWN: Literal["shutdown"] = "shutdown"
"""Failure reason of a job interrupted by a shutdown; such a job is requeued."""

_T = TypeVar("_T")


class Slot:
    """One slot."""

    def __init__(self, context: WorkerContext, worker_id: str, heartbeat: WorkerHeartbeat) -> None:
        self.worker_id = worker_id
        self.job: JobRun | None = None
        self.observer: SlotObserver | None = None
        self._context = context
        self._control = context.control
        self._heartbeat = heartbeat
        self._settings = msgspec.structs.replace(context.settings, host_uuid=worker_id)

    async def work(self) -> None:
        """Resume unfinished jobs, then take jobs until the client is told to stop."""
        while self._context.unfinished and self._control.stage is Stage.WORK:
            await self._resume(self._context.unfinished.popleft())
        await self._control.stopping_or(self._heartbeat.is_known)
        self._heartbeat.set_idle()
        while (polled := await self._take()) is not None:
            await self._begin(polled)

    async def pause(self, paused: bool) -> None:
        """Stop the job's processes where they are, or let them continue."""
        self._heartbeat.paused = paused
        if self.job:
            await (self.job.pause() if paused else self.job.resume())

    def stop(self) -> None:
        """Stop the job in hand, if there is one; it goes back to the queue."""
        if self.job:
            self.job.stop(StopOrder(Cause(SHUTDOWN, "the client was told to stop")))

    def describe(self) -> list[str]:
        """Describe the job and its processes for the log, a line each. Reads the state of every process: blocks."""
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
        """Wait for a job of the server; `None` when the client is told to stop."""
        settings = self._settings
        while self._control.stage is Stage.WORK:
            interval = settings.queue_poll_interval
            try:
                if self._control.going.is_set() and (polled := await self._poll()):
                    return polled
            except SessionError:  # the session has logged it
                interval = settings.network_retry_interval
            if self._control.going.is_set():
                await self._control.rest(interval)
            else:
                await self._control.stopping_or(self._control.going)
        return None

    async def _poll(self) -> PolledJob | None:
        if await self._context.flags.disabled(self.worker_id) or self._control.stage is not Stage.WORK:
            return None
        try:
            return await self._context.session.poll()
        except SessionError as error:
            if polled := await self._salvage(error):
                return polled
            raise

    async def _salvage(self, error: SessionError) -> PolledJob | None:
        """Recover a job from a broken poll response: if the part that came holds its id, fetch it by that."""
        found = JOB_ID_KEY.search(error.partial)
        if not found:
            return None
        job_id = found[1].decode("utf-8", "replace")
        log = logger.bind(job=job_id)
        log.warning("The response that gave the job was broken: fetching the job again")
        while self._control.stage is Stage.WORK:
            try:
                response = await self._context.session.job(job_id)
            except SessionError:
                await self._control.rest(self._settings.network_retry_interval)
            else:
                if response is None:
                    return None
                document = response.body.decode("utf-8", "replace")
                return PolledJob(job_id, document, response.from_embedded_server)
        log.error("The job may be lost: the server has given it, and it could not be fetched before the client stops")
        return None

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
            await self._queue_return(job)
            await self._control.rest(self._settings.network_retry_interval)
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
        if job.starts >= MAX_STARTS:
            await self._give_up(job, f"the client went down {job.starts} times while this job ran")
        elif self._settings.on_restart == "fail":
            await self._give_up(job, "the client went down while this job ran")
        elif self._settings.on_restart == "requeue":
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
            await self._refuse(
                unfinished, Failure(Cause("exception", str(error)), "init", error.module, error.task or 0)
            )
            return
        logger.bind(job=job.job_id).info("Job {!r} begins ({} tasks)", job.job_title, len(job.tasks))
        self._heartbeat.set_job(job)
        try:
            await self._execute(unfinished, job, checkpoint)
        except asyncio.CancelledError:
            with contextlib.suppress(JournalError):
                await self._context.journal.uncount_start(unfinished.job_id)
            raise
        finally:
            self._heartbeat.set_idle()

    async def _execute(self, unfinished: UnfinishedJob, job: Job, checkpoint: Checkpoint | None) -> None:
        self.observer = SlotObserver(job, self._heartbeat, self._context.journal)
        self.job = self._job_run(job, self.observer, checkpoint)
        if self._control.stage >= Stage.CANCEL:  # the order came while the job was read
            self.stop()
        elif not self._control.going.is_set():
            await self.job.pause()
        watching = asyncio.create_task(self._cancel_if_deleted(self.job))
        try:
            verdict = await self.job.run()
        finally:
            self.job = None
            watching.cancel()
        log = logger.bind(job=job.job_id)
        if verdict.failure and verdict.failure.cause.reason == SHUTDOWN:
            log.info("Job {!r} is stopped, and goes back to the queue", job.job_title)
            await self._queue_return(unfinished)
            return
        if verdict.failure:
            log.error("Job {!r} failed: {}", job.job_title, verdict.failure.headline)
        else:
            log.info("Job {!r} is completed, in {:.1f} s", job.job_title, verdict.info["seconds"])
        await self._queue_verdict(unfinished, verdict.info)

    async def _read(self, job: UnfinishedJob) -> Job:
        # In a thread: a job may be large, and unescaping it asks the file system.
        return await asyncio.to_thread(_read_document, job, self._context.runtime.client.modules)

    def _job_run(self, job: Job, observer: JobObserver, checkpoint: Checkpoint | None) -> JobRun:
        runtime = dataclasses.replace(self._context.runtime, settings=self._settings)
        return JobRun(job, runtime, observer, checkpoint, self._context.session.exchange)

    async def _cancel_if_deleted(self, job: JobRun) -> None:
        """Stop the job when the operator has deleted it on the server, if CANCEL_DELETED_JOBS wants that."""
        if not self._settings.cancel_deleted_jobs:
            return
        while True:
            await asyncio.sleep(self._settings.queue_poll_interval)
            with contextlib.suppress(SessionError):
                if await self._context.session.job(job.job.job_id) is None:
                    job.stop(StopOrder(Cause("cancelled", "the job was deleted on the server")))
                    return

    # --- how it ended ---

    async def _give_up(self, job: UnfinishedJob, why: str) -> None:
        await self._refuse(job, Failure(Cause("lost", why), "run", task=len(job.tasks)))

    async def _refuse(self, job: UnfinishedJob, failure: Failure) -> None:
        """End a job that is not run, or not run any further."""
        logger.bind(job=job.job_id).error("{}", failure.headline)
        began = datetime.fromisoformat(job.began)
        seconds = max(0.0, (now(self._settings) - began).total_seconds())
        await self._queue_verdict(job, job_record(self._settings, began, seconds, failure, job.tasks))

    async def _queue_verdict(self, job: UnfinishedJob, info: dict[str, Any]) -> None:
        verdict = {"failed": not info["completed"], "info": info}
        item = await self._write(self._context.journal.queue_verdict(job.job_id, verdict))
        self._queue(item or OutboxItem(None, job.job_id, "verdict", json.dumps(verdict)))

    async def _queue_return(self, job: UnfinishedJob) -> None:
        item = await self._write(self._context.journal.queue_return(job.job_id, job.document))
        self._queue(item or OutboxItem(None, job.job_id, "return", job.document))

    def _queue(self, item: OutboxItem) -> None:
        self._context.outbox.add(item)
        self._context.in_hand.discard(item.job_id)

    async def _write(self, writing: Coroutine[Any, Any, _T]) -> _T | None:
        """Write to the journal; on failure log it and go on. The change is lost if the client crashes now."""
        try:
            return await writing
        except JournalError as error:
            logger.error("{}", error)
            return None


class SlotObserver(JobObserver):
    """Tells the heartbeat which task runs, and the journal which tasks are completed."""

    def __init__(self, job: Job, heartbeat: WorkerHeartbeat, journal: Journal) -> None:
        self.at: TaskRun | None = None
        self.step: StepName = "init"
        self.usage = Usage()
        self._job = job
        self._heartbeat = heartbeat
        self._journal = journal

    async def on_task_starting(self, run: TaskRun) -> None:
        await self._note(self._journal.run_task(self._job.job_id, run.index))

    async def on_state_saved(self, run: TaskRun) -> None:
        await self._note(self._journal.save_state(self._job.job_id, run.saved_state))

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


def _checkpoint(job: UnfinishedJob) -> Checkpoint:
    interrupted = job.running == len(job.tasks)
    return Checkpoint(datetime.fromisoformat(job.began), job.tasks, interrupted, job.saved_state)


def _read_document(job: UnfinishedJob, enabled: Iterable[str]) -> Job:
    """Read a job as the server gave it.

    Raises:
        JobError: it is not JSON, or malformed.
    """
    try:
        document = json.loads(job.document, parse_constant=refuse_constant)
        document = document if job.verbatim else unescape(document)
    except (ValueError, RecursionError) as error:
        raise JobError(f"the job is not JSON: {error}") from error
    if isinstance(document, dict):
        document["job_id"] = job.job_id  # the id that the server knows, whatever the document says
    return read_job(document, enabled, from_server=True)
