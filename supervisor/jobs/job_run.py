"""One job, step by step: initialise and validate every task, then run them one after the other."""

import asyncio
import html
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import psutil
from loguru import logger

from app.config import VERSION
from ipc.messages import Data, Done, Get, Inspection, Put, Ready, Start, Step, StepName
from ipc.queue import MAX_REQUEST
from supervisor.isolation import scratch
from supervisor.isolation.clock import Clock
from supervisor.isolation.failure import Failure
from supervisor.isolation.guard import Guard
from supervisor.isolation.limits import Duration, LimitError, Limits
from supervisor.isolation.runtime import Runtime
from supervisor.isolation.sampler import Sampler, Usage
from supervisor.isolation.task_process import Sandbox, StepResult, Stop, TaskProcess
from supervisor.isolation.zygote import Lost, SpawnError
from supervisor.jobs.status import Status, read_status

MAX_TASKS = 1000
"""Tasks in one job: each has a process from its initialisation on."""

JOB_ID = re.compile(r"[A-Za-z0-9._@+-]{1,200}")
"""What an id may be: it stands in log lines, process titles and names of temporary files."""

SAMPLE_INTERVAL = 0.5
"""Seconds between two measurements of a task's process tree during a step: 0.04 ms each for every process of it."""

Result = Literal["completed", "failed", "not run"]


class JobError(Exception):
    """A job is not as it should be; the text is one line that says where.

    Attributes:
        task: The place of the task at fault, from 0, if it is one task's.
        module: What that task gives as its module, if it is a name.
    """

    def __init__(self, message: str, task: int | None = None, module: str = "") -> None:
        super().__init__(message)
        self.task = task
        self.module = module


class Task(msgspec.Struct, frozen=True):
    """One task of a job: a module's name and its data; or a module alone, to be inspected."""

    module: str
    data: dict[str, Any] | None


class Job(msgspec.Struct, frozen=True):
    """A job as it was posted."""

    job_id: str
    job_title: str
    tasks: tuple[Task, ...]


def read_job(
    document: Any, enabled: Iterable[str], default_title: str = "", refused: list[JobError] | None = None
) -> Job:
    """Make a job of decoded JSON. `job_name` is taken for `job_title`; unknown keys are the sender's own business.

    Raises:
        JobError: it has no tasks, no title, a task that is not well formed, or a module that is not in `enabled`.
            With a list `refused`, what is wrong with single tasks goes there instead, and the job is without those.
    """
    if not isinstance(document, dict):
        raise JobError("a job is an object with the keys job_title and tasks")
    tasks = document.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise JobError("tasks: the job has no tasks (a list of at least one is needed)")
    if len(tasks) > MAX_TASKS:
        raise JobError(f"tasks: the job has {len(tasks)} tasks; at most {MAX_TASKS} are possible")
    title = document.get("job_title", document.get("job_name", default_title))
    if not isinstance(title, str) or not title:
        raise JobError("job_title: the job has no title")
    title = title.encode("utf-8", "backslashreplace").decode()
    job_id = document.get("job_id") or str(uuid.uuid4())
    if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id):
        raise JobError("job_id: expected letters, digits and . _ - @ +, at most 200 of them")
    names = sorted(enabled)
    read = []
    for index, task in enumerate(tasks):
        try:
            read.append(_read_task(task, index, names))
        except JobError as error:
            if refused is None:
                raise
            refused.append(error)
    return Job(job_id, title, tuple(read))


def _read_task(document: Any, index: int, enabled: list[str]) -> Task:
    where = f"tasks[{index}]"
    if not isinstance(document, dict):
        raise JobError(f"{where}: expected an object with the keys module and data", index)
    module = document.get("module")
    if not isinstance(module, str) or not module:
        raise JobError(f"{where}.module: a task needs the name of a module", index)
    if module not in enabled:
        known = ", ".join(enabled) or "none"
        raise JobError(f"{where}.module: {module[:100]!r} is not enabled (enabled: {known})", index, module)
    data = document.get("data", {})
    if not isinstance(data, dict):
        raise JobError(f"{where}.data: expected an object", index, module)
    if len(json.dumps(data)) > MAX_REQUEST - (1 << 20):
        size = MAX_REQUEST >> 20
        raise JobError(f"{where}.data: is larger than a task's data may be ({size} MiB)", index, module)
    return Task(module, data)


def unescape(document: Any) -> Any:
    """A job as it was meant, of one whose strings a submitter may have escaped for HTML: `&amp;` is `&`.

    A string that names an existing path stays as it is if what it would become names none. Keys stay as they are.
    Asks the file system: not for the loop.
    """
    match document:
        case str():
            meant = html.unescape(document)
            return document if meant == document or (_exists(document) and not _exists(meant)) else meant
        case list():
            return list(map(unescape, document))
        case dict():
            return {key: unescape(value) for key, value in document.items()}
        case _:
            return document


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # NUL
        return False


@dataclass(slots=True)
class TaskRun:
    """One task under way, and what is to be said of it at the end."""

    index: int
    task: Task
    limits: Limits
    process: TaskProcess | None = None
    ready: Ready = field(default_factory=Ready)
    status: Status = field(default_factory=Status)
    reports: int = 0
    """How often the module has told its heartbeat something."""
    scratch: Path | None = None
    result: Result = "not run"
    seconds: float | None = None
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    attempts: int = 0
    warnings: list[str] = field(default_factory=list)
    earlier: dict[str, Any] | None = None
    """Its record, if it was completed before the client was interrupted: it is not run again."""

    @property
    def label(self) -> str:
        """What the task is called in logs and tables: its index in the job, from 0, and its module."""
        return f"{self.index}:{self.task.module}"

    def record(self) -> dict[str, Any]:
        """As it stands on the job's record."""
        if self.earlier:
            return self.earlier
        record: dict[str, Any] = {"module": self.task.module, "result": self.result}
        if self.seconds is not None:
            record["seconds"] = round(self.seconds, 3)
            record["cpu_seconds"] = round(self.cpu_seconds, 3)
            record["peak_memory"] = self.peak_memory
            record["attempts"] = self.attempts
        return record | {"warnings": self.warnings}


class JobObserver:
    """Is told how a job goes on. Does nothing; `display` has ones that show it."""

    def on_step_started(self, run: TaskRun, step: StepName) -> None:
        """A step of a task begins."""

    def on_status(self, run: TaskRun) -> None:
        """`run.status` is new."""

    def on_usage(self, run: TaskRun, usage: Usage) -> None:
        """The task's tree was measured."""

    async def on_task_starting(self, run: TaskRun) -> None:
        """The task is about to be run, and is not before this returns."""

    async def on_task_finished(self, run: TaskRun) -> None:
        """The task has its result. The next one does not begin before this returns."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job ended."""

    failure: Failure | None
    tasks: tuple[TaskRun, ...]
    info: dict[str, Any]
    """The job's record, as the server gets it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a job had come to when the client was interrupted."""

    began: datetime
    """When the job was first begun."""
    tasks: tuple[dict[str, Any], ...]
    """The records of the tasks that were completed."""
    interrupted: bool
    """Whether the task after those had been begun."""


class JobRun:
    """Runs one job, once; or goes on with it after the tasks that were completed `earlier`."""

    def __init__(self, job: Job, runtime: Runtime, observer: JobObserver, earlier: Checkpoint | None = None) -> None:
        self.job = job
        self.tasks = tuple(TaskRun(index, task, runtime.limits[task.module]) for index, task in enumerate(job.tasks))
        self._earlier = earlier
        for run, record in zip(self.tasks, earlier.tasks if earlier else (), strict=False):
            run.earlier, run.result = record, "completed"
        self._runtime = runtime
        self._observer = observer
        self._order: Stop | None = None
        self._clock = Clock()
        self._running = asyncio.Event()
        self._running.set()
        self._pausing = asyncio.Lock()
        self._parallel = asyncio.Semaphore(len(os.sched_getaffinity(0)))

    async def run(self) -> Verdict:
        """Take the job through all its steps. Whatever happens, nothing of it is alive afterwards."""
        began, clock = self._now(), time.monotonic()
        try:
            failure = await self._prepare() or await self._run_tasks()
        finally:
            await asyncio.gather(*map(self._end, self.tasks))
        if failure:
            self.tasks[failure.task].result = "failed"
        seconds = time.monotonic() - clock
        if self._earlier:  # what was before is known by the wall clock only
            seconds += max(0.0, (began - self._earlier.began).total_seconds())
            began = self._earlier.began
        return Verdict(failure, self.tasks, self._record(failure, began, seconds))

    async def clear(self) -> None:
        """Have the task that was interrupted remove what it left, since nobody goes on with it here.

        Its module is only initialised and cleaned up, and only if its class wants that after a failure: another worker
        may have the job by now. What goes wrong is logged.
        """
        run = self.tasks[len(self._earlier.tasks) if self._earlier else 0]
        kind = TaskRun(run.index, Task(run.task.module, None), run.limits)
        try:
            failure = await self._initialize(kind, for_cleanup=True)
            if failure is None and kind.ready.cleanup_on_failure:
                failure = await self._initialize(run, for_cleanup=True) or await self._cleanup(run)
        finally:
            await self._end(kind)
            await self._end(run)
        if failure:
            logger.bind(job=self.job.job_id, task=run.label).warning(
                "What it left may still be there: {}", failure.message
            )

    async def check(self) -> list[Failure | None]:
        """Initialise and validate every task, whatever is wrong with those before it; the failure of each, in order."""
        try:
            initialized = await asyncio.gather(*(self._one(run, "init", self._initialize) for run in self.tasks))

            async def validate(run: TaskRun, failure: Failure | None) -> Failure | None:
                return failure or await self._one(run, "validate", self._validate)

            return await asyncio.gather(*map(validate, self.tasks, initialized))
        finally:
            await asyncio.gather(*map(self._end, self.tasks))

    async def inspect(self, probe: bool) -> list[Inspection | Failure]:
        """Load every task's module, and ask each what it needs and has. With `probe`, encoders are tried."""

        async def one(run: TaskRun) -> Inspection | Failure:
            if failure := await self._one(run, "init", self._initialize):
                return failure
            timeout = run.limits.run_timeout if probe else run.limits.validate_timeout
            answer = await self._step(run, Step("probe" if probe else "inspect"), timeout)
            found = answer.inspection if isinstance(answer, Done) else None
            return self._note(run, answer) or found or Inspection()

        try:
            return [await one(run) for run in self.tasks]  # in turn: encoders are to have the machine for themselves
        finally:
            await asyncio.gather(*map(self._end, self.tasks))

    async def plan(self) -> tuple[Failure | None, list[tuple[TaskRun, tuple[str, ...]]]]:
        """Initialise and validate every task, and ask each what it would run."""
        lines: list[tuple[TaskRun, tuple[str, ...]]] = []
        try:
            failure = await self._prepare()
            for run in self.tasks if failure is None else ():
                answer = await self._step(run, Step("plan"), run.limits.validate_timeout)
                if failure := self._note(run, answer):
                    break
                lines.append((run, answer.lines if isinstance(answer, Done) else ()))
        finally:
            await asyncio.gather(*map(self._end, self.tasks))
        return failure, lines

    def stop(self, order: Stop) -> None:
        """Run no further task, and stop what is under way, for `order`'s reason."""
        if self._order is None or order.now:
            self._order = order
        self._go_on()
        for run in self.tasks:
            if run.process is not None:
                run.process.stop(order)

    async def pause(self) -> None:
        """Stop every process of the job where it is, and begin no step, until `resume`. No timeout runs meanwhile."""
        async with self._pausing:
            if self._order:
                return  # it is being stopped, which takes running
            self._clock.pause()
            self._running.clear()
            await asyncio.gather(*(run.process.pause() for run in self.tasks if run.process))

    async def resume(self) -> None:
        """Go on where it was."""
        async with self._pausing:
            await asyncio.gather(*(run.process.resume() for run in self.tasks if run.process))
            self._go_on()

    def _go_on(self) -> None:
        self._clock.resume()
        self._running.set()

    async def _prepare(self) -> Failure | None:
        return await self._first_failure("init", self._initialize) or await self._first_failure(
            "validate", self._validate
        )

    async def _run_tasks(self) -> Failure | None:
        for run in self.tasks:
            if run.earlier:
                await self._end(run)
            elif failure := self._stopped(run, "run") or await self._run_task(run):
                return failure
        return None

    async def _first_failure(
        self, step: StepName, prepare: Callable[[TaskRun], Awaitable[Failure | None]]
    ) -> Failure | None:
        """Prepare all tasks, as many at once as there are processors; the first failure in their order decides."""

        preparations = [asyncio.create_task(self._one(run, step, prepare)) for run in self.tasks]
        try:
            for preparation in preparations:
                if failure := await preparation:
                    return failure
            return None
        finally:
            for preparation in preparations:
                preparation.cancel()
            await asyncio.wait(preparations)

    async def _one(
        self, run: TaskRun, step: StepName, prepare: Callable[[TaskRun], Awaitable[Failure | None]]
    ) -> Failure | None:
        async with self._parallel:
            failure = self._stopped(run, step) or await prepare(run)
        if failure and run.earlier and self._order is None:
            logger.bind(job=self.job.job_id, task=run.label).debug("Completed earlier, and now: {}", failure.message)
            return None  # what it had used may rightly be gone
        return failure

    async def _initialize(self, run: TaskRun, for_cleanup: bool = False) -> Failure | None:
        try:
            if run.scratch is None:
                run.scratch = Path(tempfile.mkdtemp(dir=self._runtime.scratch, prefix=f"task-{run.index}-"))
            run.process = await TaskProcess.start(
                Sandbox(self._runtime.zygote, self._runtime.cgroups, run.limits, self._clock),
                run.label,
                self.job.job_id,
                lambda raw: self._on_status(run, raw),
                lambda request: self._exchange(run, request),
            )
        except LimitError as error:
            return self._failure(run, Failure("exception", "init", str(error)))
        except (SpawnError, OSError, psutil.Error) as error:
            return self._failure(run, Failure("lost", "init", f"its process could not be started: {error}"))
        if self._order and not for_cleanup:  # it came while there was no process yet to stop
            run.process.stop(self._order)
        answer = await self._step(run, self._start_message(run, run.scratch), run.limits.init_timeout)
        if isinstance(answer, Ready):
            run.ready = answer
            return None
        return self._note(run, answer)

    async def _validate(self, run: TaskRun) -> Failure | None:
        if run.process is None:
            return None  # completed earlier, and what it was could not even be started again
        request = Step("validate", tuple(self._files_before(run).items()))
        return self._note(run, await self._step(run, request, run.limits.validate_timeout))

    async def _run_task(self, run: TaskRun) -> Failure | None:
        clock = time.monotonic()
        await self._observer.on_task_starting(run)
        failure = await self._attempt(run)
        while failure and self._may_try_again(run, failure):
            run.warnings.append(f"attempt {run.attempts} of {run.limits.max_attempts}: {failure.message}")
            failure = await self._prepare_again(run) or await self._attempt(run)
        leftovers = await self._end(run)
        if leftovers and not failure:
            run.warnings.append(f"{leftovers} of its processes were still alive after it and were killed")
        run.seconds = time.monotonic() - clock
        run.result = "failed" if failure else "completed"
        await self._observer.on_task_finished(run)
        return failure

    def _may_try_again(self, run: TaskRun, failure: Failure) -> bool:
        """Encoders crash now and then; what ran out of memory, or was stopped, would do so again."""
        crashed = failure.tool_died and failure.reason == "signal"
        return crashed and self._order is None and run.attempts < run.limits.max_attempts

    async def _attempt(self, run: TaskRun) -> Failure | None:
        run.attempts += 1
        failure = self._note(run, await self._step(run, Step("run"), run.limits.run_timeout))
        if failure is None:
            return await self._cleanup(run)
        if run.ready.cleanup_on_failure:
            await self._cleanup_after_failure(run)
        return failure

    async def _prepare_again(self, run: TaskRun) -> Failure | None:
        """A fresh process for another attempt, validated too: `run` may rest on what `validate` found out."""
        await self._end(run)
        run.status = Status()
        return await self._initialize(run) or await self._validate(run)

    async def _cleanup(self, run: TaskRun) -> Failure | None:
        return self._note(run, await self._step(run, Step("cleanup"), run.limits.cleanup_timeout))

    async def _cleanup_after_failure(self, run: TaskRun) -> None:
        """In the same process if it lives, else in a fresh one; what it raises must not hide why `run` failed."""
        if self._order and self._order.now:
            return
        failure = None
        if run.process is None or not run.process.alive:
            await self._end(run)
            failure = await self._initialize(run, for_cleanup=True)
        if failure := failure or await self._cleanup(run):
            run.warnings.append(f"after the failure, this too: {failure.headline}")

    async def _step(self, run: TaskRun, request: Start | Step, timeout: Duration) -> StepResult:
        assert run.process is not None
        name: StepName = "init" if isinstance(request, Start) else "run"
        if isinstance(request, Step) and request.step in {"validate", "cleanup"}:
            name = request.step
        await self._running.wait()
        self._observer.on_step_started(run, name)
        guarding = asyncio.create_task(self._guard(run, run.process))
        try:
            return await run.process.step(name, request, timeout, run.limits.grace.seconds)
        finally:
            guarding.cancel()

    async def _end(self, run: TaskRun) -> int:
        """End the task's process, if it has one, and remove its scratch directory. Returns how much it left alive."""
        process, run.process = run.process, None
        exited = await process.close() if process else None
        if run.scratch:
            await asyncio.to_thread(scratch.remove, run.scratch)
            run.scratch = None
        if exited is None or isinstance(exited, Lost):
            return 0
        run.cpu_seconds += exited.cpu_seconds
        run.peak_memory = max(run.peak_memory, exited.peak_memory)
        return exited.leftovers

    async def _guard(self, run: TaskRun, process: TaskProcess) -> None:
        """Measure the task's tree at a steady interval for as long as a step takes, and end it over a limit."""
        guard = Guard(run.limits, self._clock)
        memory = run.limits.memory.bytes if run.limits.memory else None
        sampler = Sampler(process.pid, memory, run.limits.processes)
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL)
            if self._clock.paused:
                continue
            usage = await asyncio.to_thread(sampler.sample)
            run.peak_memory = max(run.peak_memory, usage.memory)
            self._observer.on_usage(run, usage)
            if order := guard.judge(usage, run.reports, run.status.progress):
                process.stop(order)
                return

    def _note(self, run: TaskRun, answer: StepResult) -> Failure | None:
        """Keep what an answer says for the record; the failure, if it is one."""
        if isinstance(answer, Failure):
            return self._failure(run, answer)
        run.warnings += answer.warnings if isinstance(answer, Done) else ()
        return None

    def _failure(self, run: TaskRun, failure: Failure) -> Failure:
        run.warnings += failure.warnings
        return msgspec.structs.replace(
            failure, module=run.task.module, task=run.index, progress=run.status.progress, warnings=()
        )

    def _stopped(self, run: TaskRun, step: StepName) -> Failure | None:
        if self._order is None:
            return None
        return self._failure(run, Failure(self._order.reason, step, self._order.message))

    async def _exchange(self, run: TaskRun, request: Get | Put) -> Data:
        """Fetch server-side data for a module, or store its own."""
        if isinstance(request, Put) and request.module != run.task.module:
            return Data(0, error=f"a task of module {run.task.module} may not store data of {request.module}")
        return await self._runtime.session().exchange(request)

    def _on_status(self, run: TaskRun, raw: msgspec.Raw) -> None:
        run.status = read_status(raw)
        run.reports += 1
        self._observer.on_status(run)

    def _files_before(self, run: TaskRun) -> dict[bytes, bool]:
        """What the tasks before this one do to files: whether each will be there."""
        files: dict[bytes, bool] = {}
        for earlier in self.tasks[: run.index]:
            if earlier.earlier:
                continue  # what it did to files is to be seen
            files |= dict.fromkeys(earlier.ready.removes, False) | dict.fromkeys(earlier.ready.outputs, True)
        return files

    def _start_message(self, run: TaskRun, directory: Path) -> Start:
        runtime = self._runtime
        return Start(
            job_id=self.job.job_id,
            job_title=self.job.job_title,
            task=run.index,
            module=run.task.module,
            target=runtime.client.modules[run.task.module],
            data=None if run.task.data is None else json.dumps(run.task.data),
            paths=runtime.client.paths,
            modules=runtime.client.modules,
            open_files=run.limits.open_files,
            free_space=(space.share, space.bytes) if (space := run.limits.free_space) else None,
            environment={"TMPDIR": str(directory)},
            resumed=self._was_interrupted(run),
        )

    def _was_interrupted(self, run: TaskRun) -> bool:
        """Whether an earlier attempt at this task may have done a part of it."""
        return self._earlier is not None and self._earlier.interrupted and run.index == len(self._earlier.tasks)

    def _now(self) -> datetime:
        return datetime.now(tz=ZoneInfo(self._runtime.settings.api_timezone))

    def _record(self, failure: Failure | None, began: datetime, seconds: float) -> dict[str, Any]:
        record: dict[str, Any] = {
            "start_time": began.isoformat(),
            "end_time": self._now().isoformat(),
            "runtime": round(seconds, 3),
            "worker": self._runtime.settings.hostname,
            "worker_id": self._runtime.settings.host_uuid,
            "version": VERSION,
            "completed": failure is None,
        }
        if failure:
            record |= {"module": failure.module, "message": failure.headline, "error": failure.record()}
        return record | {"tasks": [run.record() for run in self.tasks]}
