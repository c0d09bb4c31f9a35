"""A job's order: initialise all tasks, validate all, then run one after the other."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from loguru import logger

from ipc.messages import Inspection, StepName
from supervisor.isolation import scratch
from supervisor.isolation.failure import StopOrder
from supervisor.isolation.runtime import Runtime
from supervisor.isolation.task_process import ServerExchange, without_server
from supervisor.jobs.control import JobControl
from supervisor.jobs.model import Job, Task
from supervisor.jobs.record import Failure, job_record, now
from supervisor.jobs.task_run import Inspected, JobContext, TaskRun
from supervisor.jobs.task_state import JobObserver

Prepare = Callable[[TaskRun], Awaitable[Failure | None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job ended."""

    failure: Failure | None
    tasks: tuple[TaskRun, ...]
    info: dict[str, Any]
    """The job's record, as the server gets it."""
    earlier: Failure | None = None
    """The job's failure, if `failure` is only the client's own trouble in a task that runs after failures."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a job had come when the client was interrupted."""

    began: datetime
    """The job's first start."""
    tasks: tuple[dict[str, Any], ...]
    """The records of the tasks that have their results."""
    interrupted: bool
    """The task after these had been started."""
    saved_state: str = ""
    """The state that this task had saved last, as JSON text."""
    failure: Failure | None = None
    """The failure of one of these tasks: only tasks that run after failures are left."""


class JobRun:
    """Runs one job, once. With a `checkpoint`, the tasks that had their result then are not run again."""

    def __init__(
        self,
        job: Job,
        runtime: Runtime,
        observer: JobObserver,
        checkpoint: Checkpoint | None = None,
        exchange: ServerExchange = without_server,
    ) -> None:
        self.job = job
        self._checkpoint = checkpoint
        self._failed = checkpoint.failure if checkpoint else None
        self._finished = b""
        self._told = 0
        self._changes: dict[bool, tuple[int, dict[bytes, bool]]] = {}
        self._control = JobControl()
        self._pausing = asyncio.Lock()
        self._parallel = asyncio.Semaphore(len(os.sched_getaffinity(0)))
        self._context = JobContext(job, runtime, observer, self._control, exchange)
        self.tasks = tuple(self._task_run(index, task, checkpoint) for index, task in enumerate(job.tasks))
        if self.tasks:
            self.tasks[0].warnings.extend(job.warnings)  # the record has no other place for warnings

    def _task_run(self, index: int, task: Task, checkpoint: Checkpoint | None) -> TaskRun:
        if checkpoint is None:
            return TaskRun(self._context, index, task)
        if index < len(checkpoint.tasks):
            return TaskRun(self._context, index, task, earlier_record=checkpoint.tasks[index])
        resumed = checkpoint.interrupted and index == len(checkpoint.tasks)
        return TaskRun(
            self._context, index, task, resumed=resumed, saved_state=checkpoint.saved_state if resumed else ""
        )

    async def run(self) -> Verdict:
        """Take the job through all its steps. No process of it is alive when this returns or raises."""
        settings = self._context.runtime.settings
        began, clock = now(settings), time.monotonic()
        try:
            # After a failure nothing else is prepared: the tasks that are left are not those that failed.
            failure = (None if self._failed else await self._prepare()) or await self._run_tasks()
        finally:
            await self._close()
            await scratch.discard(self._context.directory)
        if failure:
            self.tasks[failure.task].result = "failed"
        seconds = time.monotonic() - clock
        if self._checkpoint:  # the time before the restart is known by the wall clock only
            seconds += max(0.0, (began - self._checkpoint.began).total_seconds())
            began = self._checkpoint.began
        info = job_record(settings, began, seconds, failure, [run.record() for run in self.tasks])
        return Verdict(failure, self.tasks, info, self._failed if self._failed is not failure else None)

    async def cleanup_interrupted(self) -> None:
        """Let the interrupted task remove what it left: this client does not continue the job.

        The module is initialised and cleaned up, nothing else, and only if its class sets `cleanup_on_failure`: another
        worker may have the job by now. A failure is logged.
        """
        run = self.tasks[len(self._checkpoint.tasks) if self._checkpoint else 0]
        inspected = TaskRun(
            self._context, run.index, Task(run.task.module, None)
        )  # loads the class, runs nothing of it
        try:
            failure = await inspected.initialize(for_cleanup=True)
            if failure is None and inspected.ready.cleanup_on_failure:
                failure = await run.initialize(for_cleanup=True) or await run.cleanup()
        finally:
            await inspected.close()
            await run.close()
            await scratch.discard(self._context.directory)
        if failure:
            log = logger.bind(job=self.job.job_id, task=run.label)
            log.warning("What the interrupted task left may still be there: {}", failure.cause.message)

    async def check(self) -> list[Failure | None]:
        """Initialise and validate every task, also after a failure. Returns each task's failure, in their order."""
        try:
            failures = await asyncio.gather(*(self._prepare_one(run, "init", TaskRun.initialize) for run in self.tasks))

            async def validate(run: TaskRun, failure: Failure | None) -> Failure | None:
                return failure or await self._prepare_one(run, "validate", self._validate)

            return await asyncio.gather(*map(validate, self.tasks, failures))
        finally:
            await self._close()

    async def inspect(self, what: Inspected) -> list[Inspection | Failure]:
        """Load every task's module, and look at it: see `TaskRun.inspect`."""
        try:
            return [  # one after the other: an encoder that is tried needs the whole machine
                await self._prepare_one(run, "init", TaskRun.initialize) or await run.inspect(what)
                for run in self.tasks
            ]
        finally:
            await self._close()

    async def plan(self) -> tuple[Failure | None, list[tuple[TaskRun, tuple[str, ...]]]]:
        """Initialise and validate every task, and return the command lines that each would run, up to a failure."""
        plans: list[tuple[TaskRun, tuple[str, ...]]] = []
        try:
            if failure := await self._prepare():
                return failure, plans
            for run in self.tasks:
                lines = await run.plan()
                if isinstance(lines, Failure):
                    return lines, plans
                plans.append((run, lines))
            return None, plans
        finally:
            await self._close()

    # --- the operator's orders ---

    def stop(self, order: StopOrder) -> None:
        """Stop the steps under way, and begin no other task."""
        self._control.stop(order)
        for run in self.tasks:
            if run.process is not None:
                run.process.stop(order)

    async def pause(self) -> None:
        """Stop every process of the job where it is, and begin no step, until `resume`. Timeouts do not run."""
        async with self._pausing:
            if self._control.order:
                return  # a process that is asked to stop must run to do so
            self._control.pause()
            await asyncio.gather(*(run.process.pause() for run in self.tasks if run.process))

    async def resume(self) -> None:
        """Continue after `pause`."""
        async with self._pausing:
            await asyncio.gather(*(run.process.resume() for run in self.tasks if run.process))
            self._control.resume()

    # --- its tasks ---

    async def _prepare(self) -> Failure | None:
        return await self._first_failure("init", TaskRun.initialize) or await self._first_failure(
            "validate", self._validate
        )

    async def _run_tasks(self) -> Failure | None:
        """Run the tasks in their order. Returns the first failure, or trouble of the client's own after it."""
        for run in self.tasks:
            if run.earlier_record:
                await run.close()
                continue
            if reason := self._why_skipped(run):
                await run.skip(reason)
            elif self._failed and run.task.when == "success":
                await run.close()
            elif failure := run.refuse("run") or await self._run_task(run):
                if not (self._note_failure(run, failure) if self._failed else self._goes_on(run, failure)):
                    return failure
                self._failed = self._failed or failure
            if self._failed and self._control.order is None:
                await self._context.observer.on_job_failed(run, self._failed)
        return self._failed

    async def _run_task(self, run: TaskRun) -> Failure | None:
        if run.process is None:  # the job had failed before the client was restarted, and no task was prepared
            failure = await self._prepare_one(run, "init", TaskRun.initialize)
            if failure := failure or await self._prepare_one(run, "validate", self._validate):
                return failure
        for each in self.tasks[self._told : run.index]:
            self._finished += b"," * bool(self._finished) + msgspec.json.encode(each.finished())
        self._told = run.index
        return await run.run(msgspec.Raw(b"[" + self._finished + b"]"))

    def _why_skipped(self, run: TaskRun) -> str:
        if self._failed or run.task.when == "always":
            return ""
        if run.task.when == "failure":
            return "no task before it has failed"
        skipped = next(
            (each for each in self.tasks[: run.index] if each.result == "skipped" and each.task.when != "failure"), None
        )
        # It may be to delete a source that the skipped task was to encode.
        return f"task {skipped.label} was skipped: {skipped.reason}" if skipped else ""

    def _goes_on(self, run: TaskRun, failure: Failure) -> bool:
        """True if the job has failed for good, and has tasks for this.

        It has not if the client itself is in trouble or was told to stop, nor if another worker may do all of it.
        """
        is_begun = any(each.result == "completed" for each in self.tasks)
        is_ours = failure.cause.trouble or self._control.order or (failure.cause.reason == "unfit" and not is_begun)
        return not is_ours and any(each.task.when != "success" for each in self.tasks[run.index + 1 :])

    def _note_failure(self, run: TaskRun, failure: Failure) -> bool:
        """Note the failure of a task that runs after failures: the first one stays the job's. False for trouble."""
        if run.attempts or self._control.order is None:
            run.result = "failed"
            run.warnings.append(f"after the failure of the job, this too: {failure.headline}")
        return not failure.cause.trouble

    async def _first_failure(self, step: StepName, prepare: Prepare) -> Failure | None:
        """Prepare all tasks, as many at a time as there are processors. The first failure in task order decides."""
        preparations = [asyncio.create_task(self._prepare_one(run, step, prepare)) for run in self.tasks]
        try:
            for preparation in preparations:
                if failure := await preparation:
                    return failure
            return None
        finally:
            for preparation in preparations:
                preparation.cancel()
            await asyncio.wait(preparations)

    async def _prepare_one(self, run: TaskRun, step: StepName, prepare: Prepare) -> Failure | None:
        async with self._parallel:
            failure = run.refuse(step) or await prepare(run)
        if failure and run.earlier_record and self._control.order is None:
            # The task is completed already. Its inputs may legitimately have been removed since.
            log = logger.bind(job=self.job.job_id, task=run.label)
            log.debug("Completed before the restart; it could not be prepared again: {}", failure.cause.message)
            return None
        return failure

    async def _validate(self, run: TaskRun) -> Failure | None:
        return await run.validate(self._files_before(run))

    def _files_before(self, run: TaskRun) -> dict[bytes, bool]:
        """The files that earlier tasks will write (true) and remove (false).

        To a task that runs after failures, nothing is certain: it may find what is removed, and what is written.
        """
        is_certain = run.task.when == "success"
        # Tasks are validated in their order, so each goes on from the one before.
        begin, files = self._changes.get(is_certain, (0, {}))
        for earlier in self.tasks[begin : run.index]:
            if earlier.earlier_record or (is_certain and earlier.task.when == "failure"):
                continue  # a completed task's changes are on the disk already, and the other does not run before this
            removed = dict.fromkeys(earlier.ready.removes if is_certain else (), False)
            if changed := removed | dict.fromkeys(earlier.ready.outputs, True):
                files = files | changed  # a new one: the task before keeps its own
        self._changes[is_certain] = run.index, files
        return files

    async def _close(self) -> None:
        await asyncio.gather(*(run.close() for run in self.tasks))
