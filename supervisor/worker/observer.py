"""What a slot makes of its job's progress, and of its deletion on the server."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import msgspec
from loguru import logger

from ipc.messages import Cause, StepName
from supervisor.api.errors import SessionError
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.sampler import Usage
from supervisor.jobs.job_run import JobRun
from supervisor.jobs.model import Job
from supervisor.jobs.record import Failure
from supervisor.jobs.task_state import JobObserver, TaskState
from supervisor.worker.control import WorkerContext
from supervisor.worker.heartbeat import WorkerHeartbeat
from supervisor.worker.journal import JournalError


class SlotObserver(JobObserver):
    """Tells the heartbeat which task runs, and the journal which tasks have ended well."""

    def __init__(self, job: Job, heartbeat: WorkerHeartbeat, context: WorkerContext) -> None:
        self.at: TaskState | None = None
        self.step: StepName = "init"
        self.usage = Usage()
        self._job = job
        self._heartbeat = heartbeat
        self._journal = context.journal
        self._trouble = context.trouble

    async def on_task_starting(self, run: TaskState) -> None:
        await self._note(self._journal.run_task(self._job.job_id, run.index))

    async def on_state_saved(self, run: TaskState) -> None:
        await self._note(self._journal.save_state(self._job.job_id, run.saved_state))

    def on_step_started(self, run: TaskState, step: StepName) -> None:
        self.at, self.step = run, step
        self._heartbeat.set_task(run, step)
        logger.bind(job=self._job.job_id, task=run.label).debug("Step {}", step)

    def on_usage(self, run: TaskState, usage: Usage) -> None:
        if run is self.at:
            self.usage = usage

    def on_unwatched(self, why: str) -> None:
        self._trouble.note(why)

    async def on_task_finished(self, run: TaskState) -> None:
        logger.bind(job=self._job.job_id, task=run.label).info("Task {}", run.described())
        if run.result in ("completed", "skipped"):
            await self._note(self._journal.finish_task(self._job.job_id, run.index, run.record()))

    async def on_job_failed(self, run: TaskState, failure: Failure) -> None:
        text = msgspec.json.encode(failure).decode()
        await self._note(self._journal.finish_task(self._job.job_id, run.index, run.record(), text))

    async def _note(self, writing: Coroutine[Any, Any, None]) -> None:
        try:
            await writing
        except JournalError as error:
            self._trouble.note(str(error))


async def cancel_if_deleted(run: JobRun, context: WorkerContext) -> None:
    """Stop a job when the operator has deleted it on the server, if CANCEL_DELETED_JOBS wants that."""
    while context.settings.cancel_deleted_jobs:
        await asyncio.sleep(context.settings.queue_poll_interval)
        with contextlib.suppress(SessionError):
            if await context.session.job(run.job.job_id) is None:
                run.stop(StopOrder(Cause("cancelled", "the job was deleted on the server")))
                return
