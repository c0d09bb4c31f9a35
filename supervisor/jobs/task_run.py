"""One task's life: its process, its steps and attempts, and its cleanup."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from app.module_settings import ModuleSettings
from ipc.messages import (
    NO_TASKS,
    Cause,
    Data,
    Done,
    Exited,
    Failed,
    Inspection,
    Put,
    Ready,
    Request,
    Save,
    Start,
    Step,
    StepName,
)
from supervisor.isolation import scratch
from supervisor.isolation.guard import Guard
from supervisor.isolation.limits import Duration, LimitError
from supervisor.isolation.runtime import Runtime
from supervisor.isolation.sampler import Sampler
from supervisor.isolation.task_process import Sandbox, ServerExchange, TaskProcess
from supervisor.isolation.zygote import SpawnError
from supervisor.jobs.control import JobControl
from supervisor.jobs.model import Job, Task
from supervisor.jobs.record import Failure, file_sizes
from supervisor.jobs.status import Status, read_status
from supervisor.jobs.task_state import JobObserver, TaskState

SAMPLE_INTERVAL = 0.5
"""Seconds between two measurements of a task's process tree during a step. Each takes 0.04 ms for every process."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """Shared by all tasks of one job."""

    job: Job
    runtime: Runtime
    observer: JobObserver
    control: JobControl
    exchange: ServerExchange
    """Asks the API server on behalf of the modules."""

    @property
    def directory(self) -> Path:
        """A directory for files that the job's tasks share. It need not exist."""
        return self.runtime.jobs / f"job-{self.job.job_id}"


Inspected = Literal["inspect", "probe", "schema"]
"""Steps that look at a module."""


class TaskRun(TaskState):
    """One task under way.

    Attributes:
        process: Its process, while it has one.
        limits: The limits of its module.
    """

    def __init__(
        self,
        context: JobContext,
        index: int,
        task: Task,
        earlier_record: dict[str, Any] | None = None,
        resumed: bool = False,
        saved_state: str = "",
    ) -> None:
        """`resumed`: an earlier attempt at this task was interrupted, and may have done a part of it."""
        super().__init__(index, task, earlier_record, saved_state)
        self.limits = context.runtime.limits[task.module]
        self._settings = context.runtime.client.settings.get(task.module, ModuleSettings())
        self.process: TaskProcess | None = None
        self._context = context
        self._control = context.control
        self._observer = context.observer
        self._resumed = resumed
        self._reports = 0
        self._losses = 0
        self._scratch: Path | None = None
        self._files: Mapping[bytes, bool] = {}
        self._before = NO_TASKS

    # --- its steps ---

    async def initialize(self, for_cleanup: bool = False) -> Failure | None:
        """Start a process and initialise the module there. `for_cleanup`: do so even after an order to stop."""
        failure = await self._initialize(for_cleanup)
        if failure and self._begins_again(failure):
            await self.close()
            return await self.initialize(for_cleanup)
        return failure

    async def _initialize(self, for_cleanup: bool) -> Failure | None:
        try:
            await self._start_process()
        except LimitError as error:
            return self._failure("init", Cause("unfit", str(error)))
        except (SpawnError, OSError) as error:
            return self._failure("init", Cause("lost", f"its process could not be started: {error}", trouble=True))
        assert self.process is not None
        if self._control.order and not for_cleanup:  # it came while there was no process yet to stop
            self.process.stop(self._control.order)
        answer = await self._step("init", self._start_message(), self.limits.init_timeout)
        if isinstance(answer, Ready):
            self.ready = answer
        return _failure_in(answer)

    async def validate(self, files: Mapping[bytes, bool]) -> Failure | None:
        """Validate the task's data.

        `files` are the changes that earlier tasks of the job will make: absolute paths, and whether each will exist.
        """
        if self.process is None:
            # Only a task that was completed before the restart: its process could not be started this time.
            return None
        self._files = files
        request = Step("validate", tuple(files.items()))
        failure = _failure_in(await self._do("validate", request, self.limits.validate_timeout))
        return await self._prepare_again() if failure and self._begins_again(failure) else failure

    async def run(self, before: msgspec.Raw) -> Failure | None:
        """Run the task, clean up after it and end its process; again where its tool died or the zygote was lost.

        `before` are the tasks of the job before this one, as `Step` has them.
        """
        clock = time.monotonic()
        self._before = before
        await self._observer.on_task_starting(self)
        lost = self.process and self.process.lost  # while it waited for its turn
        failure = (await self._prepare_again() if lost else None) or await self._attempt()
        while failure and self._may_try_again(failure):
            self.warnings.append(f"attempt {self.attempts}: {failure.cause.message}")
            failure = await self._prepare_again() or await self._attempt()
        self._before = NO_TASKS  # those of a thousand tasks would take 20 MB
        leftovers = await self.close()
        if leftovers and not failure:
            self.warnings.append(f"{leftovers} of its processes were still alive after it and were killed")
        self.seconds = time.monotonic() - clock
        if failure:
            self.reason = ""
        self.result = "failed" if failure else "skipped" if self.reason else "completed"
        await self._observer.on_task_finished(self)
        return failure

    async def skip(self, reason: str) -> None:
        """Do not run the task."""
        await self.close()
        self.result, self.reason = "skipped", reason
        await self._observer.on_task_finished(self)

    async def cleanup(self) -> Failure | None:
        """Call the module's `cleanup`."""
        request = Step("cleanup", tasks=self._before)
        return _failure_in(await self._do("cleanup", request, self.limits.cleanup_timeout))

    async def plan(self) -> tuple[str, ...] | Failure:
        """The command lines that the task would run."""
        answer = await self._do("run", Step("plan"), self.limits.validate_timeout)
        return answer if isinstance(answer, Failure) else answer.lines

    async def inspect(self, what: Inspected) -> Inspection | Failure:
        """The module's file and tools, with `probe` the encoders that work here too, or the schema of its data."""
        timeout = self.limits.run_timeout if what == "probe" else self.limits.validate_timeout
        answer = await self._do("run", Step(what), timeout)
        return answer if isinstance(answer, Failure) else answer.inspection or Inspection()

    async def close(self) -> int:
        """End the task's process, if it has one, and remove its scratch directory.

        Returns how many processes it had left alive; they are killed.
        """
        process, self.process = self.process, None
        exited = await process.close() if process else None
        if self._scratch:
            await scratch.discard(self._scratch)
            self._scratch = None
        if not isinstance(exited, Exited):
            return 0
        self.cpu_seconds += exited.cpu_seconds
        self.peak_memory = max(self.peak_memory, exited.peak_memory)
        return exited.leftovers

    def refuse(self, step: StepName) -> Failure | None:
        """The failure of a step that must not begin, because the job was ordered to stop; `None` if it may."""
        order = self._control.order
        return self._failure(step, order.cause) if order else None

    # --- attempts ---

    async def _attempt(self) -> Failure | None:
        self.attempts += 1
        if self.ready.inputs:  # now: a later task may remove them
            self.inputs = await asyncio.to_thread(file_sizes, self.ready.inputs)
        answer = await self._do("run", Step("run", tasks=self._before), self.limits.run_timeout)
        if isinstance(answer, Failure):
            if self.ready.cleanup_on_failure and not self._begins_again(answer):
                await self._cleanup_after_failure()
            return answer
        self.reason = answer.skipped
        # As after a failure: a stranger's cleanup may take the work for done, and remove its source.
        return await self.cleanup() if self.ready.cleanup_on_failure or not self.reason else None

    def _may_try_again(self, failure: Failure) -> bool:
        if self._begins_again(failure):
            self._resumed = True  # it had no chance to remove what it had done
            return True
        # Encoders crash now and then. A task that ran out of memory, or was stopped, would end like that again.
        crashed = failure.cause.tool_died and failure.cause.reason == "signal"
        return crashed and self._control.order is None and self.attempts - self._losses < self.limits.max_attempts

    def _begins_again(self, failure: Failure) -> bool:
        """True if its process was lost with the zygote, or could not be started, and this may happen once more."""
        lost = failure.cause.reason == "lost"
        return lost and self._control.order is None and self._losses <= self.limits.max_attempts

    async def _prepare_again(self) -> Failure | None:
        """Start a fresh process for another attempt, and validate there: `run` may need what `validate` found."""
        await self.close()
        self.status, self.reason, self.results = Status(), "", {}
        return await self.initialize() or await self.validate(self._files)

    async def _cleanup_after_failure(self) -> None:
        """Clean up in the same process if it lives, else in a fresh one. An error here must not hide that of `run`."""
        if self._control.order and self._control.order.now:
            return
        failure = None
        if self.process is None or not self.process.alive:
            await self.close()
            failure = await self.initialize(for_cleanup=True)
        if failure := failure or await self.cleanup():
            self.warnings.append(f"after the failure, this too: {failure.headline}")

    # --- one step ---

    async def _do(self, name: StepName, request: Step, timeout: Duration) -> Done | Failure:
        answer = await self._step(name, request, timeout)
        assert not isinstance(answer, Ready)  # the answer to `Start` alone
        return answer

    async def _step(self, name: StepName, request: Start | Step, timeout: Duration) -> Ready | Done | Failure:
        """Have the process do a step. Its warnings are kept for the record."""
        process = self.process
        assert process is not None
        await self._control.going.wait()
        self._observer.on_step_started(self, name)
        watches: list[asyncio.Task[None]] = []  # most steps end before the first measurement, and need none
        timer = asyncio.get_running_loop().call_later(
            SAMPLE_INTERVAL, lambda: watches.append(asyncio.create_task(self._watch(process)))
        )
        try:
            answer = await process.step(name, request, timeout, self.limits.grace.seconds)
        finally:
            timer.cancel()
            for watch in watches:
                watch.cancel()
        answer = self._settings.redact(answer)
        if not isinstance(answer, Ready):
            self.warnings += answer.warnings
            try:
                self.take_results(answer.results)
            except ValueError as error:
                answer = Failed(Cause("protocol", f"the task process sent wrong results: {error}"))
        return self._failure(name, answer.cause) if isinstance(answer, Failed) else answer

    async def _watch(self, process: TaskProcess) -> None:
        """Measure the process tree now and at a steady interval while a step lasts, and stop it over a limit."""
        guard = Guard(self.limits, self._control.clock)
        memory = self.limits.memory.bytes if self.limits.memory else None
        sampler = Sampler(process.pid, memory, self.limits.processes)
        order, told, wait = None, "", 0.0
        while order is None:
            await asyncio.sleep(wait)
            wait = SAMPLE_INTERVAL
            if self._control.clock.paused:
                continue
            try:
                usage = await asyncio.to_thread(sampler.sample)
            except Exception as error:  # noqa: BLE001 - outermost frame: the watch over limits must not end unnoticed
                if (why := f"the limits of its tasks cannot be watched: {error}") != told:
                    self._observer.on_unwatched(why)
                told = why
                continue
            self.memory, self.peak_memory = usage.memory, max(self.peak_memory, usage.memory)
            self._observer.on_usage(self, usage)
            order = guard.judge(usage, self._reports, self.status.progress)
        process.stop(order)

    def _failure(self, step: StepName, cause: Cause) -> Failure:
        self._losses += cause.reason == "lost"
        return Failure(cause, step, self.task.module, self.index, self.status.progress)

    # --- its process ---

    async def _start_process(self) -> None:
        runtime = self._context.runtime
        if self._scratch is None:
            self._scratch = runtime.scratch.make(self.index)
        self.process = await TaskProcess.start(
            Sandbox(runtime.zygote, runtime.cgroups, self.limits, self._control.clock),
            self.label,
            self._context.job.job_id,
            self._on_status,
            self._exchange,
            self._settings.redact,
        )

    def _start_message(self) -> Start:
        job, client = self._context.job, self._context.runtime.client
        return Start(
            job_id=job.job_id,
            job_title=job.job_title,
            task=self.index,
            module=self.task.module,
            target=client.modules[self.task.module],
            data=None if self.task.data is None else json.dumps(self.task.data),
            paths=client.paths,
            modules=client.modules,
            open_files=self.limits.open_files,
            free_space=(space.share, space.bytes) if (space := self.limits.free_space) else None,
            environment={"TMPDIR": str(self._scratch), "SISYPHUS_JOB_DIR": str(self._context.directory)},
            resumed=self._resumed,
            saved_state=self.saved_state,
            roots=self.limits.roots,
            network=self.limits.network,
            core_files=self.limits.core_files,
            settings=self._settings.values,
        )

    def _on_status(self, raw: msgspec.Raw) -> None:
        self.status = self._settings.redact(read_status(raw))
        self._reports += 1
        self._observer.on_status(self)

    async def _exchange(self, request: Request) -> Data:
        """Save the module's state, read server-side data for it, or store its own."""
        if isinstance(request, Save):
            self.saved_state = request.state
            await self._observer.on_state_saved(self)
            return Data(204)
        if isinstance(request, Put) and request.module != self.task.module:
            return Data(0, error=f"a task of module {self.task.module} may not store data of {request.module}")
        return await self._context.exchange(request)


def _failure_in(answer: Ready | Done | Failure) -> Failure | None:
    return answer if isinstance(answer, Failure) else None
