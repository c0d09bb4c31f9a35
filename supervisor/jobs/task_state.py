"""A task as its observers and its record see it: how far it has come, and what it came to."""

import json
from typing import Any, Literal

from loguru import logger

from ipc.messages import FinishedTask, Ready, StepName
from ipc.results import decode_results
from supervisor.isolation.sampler import Usage
from supervisor.jobs.model import Task
from supervisor.jobs.record import Failure, file_sizes, without_empty
from supervisor.jobs.status import Status

Result = Literal["completed", "failed", "skipped", "not run"]


class TaskState:
    """One task of a job.

    Attributes:
        index: Its place in the job, from 0.
        ready: The module's answer to its initialisation.
        status: The module's last report.
        result: What it came to.
        reason: Why it was skipped.
        results: The results that the module has set.
        seconds: How long it was run, all attempts together; `None` if it was not run.
        cpu_seconds: CPU time of all its processes so far.
        memory, peak_memory: Bytes of memory that its process tree used when it was measured last, and at most.
        inputs: Path and size of each file that it reads, as it began.
        saved_state: The state that the module saved last for another attempt, as JSON text; empty if there is none.
        earlier_record: Its record, if it was completed or skipped before the client was restarted. It is not run again.
    """

    def __init__(self, index: int, task: Task, earlier_record: dict[str, Any] | None, saved_state: str) -> None:
        self.index = index
        self.task = task
        self.ready = Ready()
        self.status = Status()
        known = earlier_record or {}
        self.result: Result = known.get("result", "not run")
        self.reason: str = known.get("reason", "")
        self.results: dict[str, Any] = known.get("results", {})
        self.seconds: float | None = None
        self.cpu_seconds = 0.0
        self.memory = self.peak_memory = 0
        self.attempts = 0
        self.warnings: list[str] = []
        self.inputs: list[dict[str, Any]] = []
        self.saved_state = saved_state
        self.earlier_record = earlier_record

    @property
    def label(self) -> str:
        """The task's name in logs and tables: its index and its module."""
        return f"{self.index}:{self.task.module}"

    def record(self) -> dict[str, Any]:
        """The task's entry in the job's record."""
        if self.earlier_record:
            return self.earlier_record
        record: dict[str, Any] = {"module": self.task.module, "result": self.result, "reason": self.reason}
        if self.seconds is not None:
            record |= {"seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)}
            record |= {"peak_memory": self.peak_memory, "attempts": self.attempts}
        record |= {"inputs": self.inputs, "outputs": self.outputs(), "results": self.results}
        return without_empty(record | {"warnings": self.warnings})

    def finished(self) -> FinishedTask:
        """What later tasks are told of this one."""
        results = json.dumps(self.results) if self.results else ""
        return FinishedTask(self.task.module, self.result, self.reason, results)

    def described(self) -> str:
        """Its result for a person, on one line, with the reason if it has one."""
        return f"{self.result}: {' '.join(self.reason.split())}" if self.reason else self.result

    def outputs(self) -> list[dict[str, Any]]:
        """Path and size of each file that the task has written, if it is completed, and that still exists."""
        return file_sizes(self.ready.outputs) if self.result == "completed" else []

    def take_results(self, text: str) -> None:
        """Take the results that a step has sent; an empty text are none.

        Raises:
            ValueError: They are malformed; the message says how.
        """
        if text:
            self.results = decode_results(text)


class JobObserver:
    """Observer of a job's progress. This base class ignores every event but `on_unwatched`, which it logs."""

    def on_step_started(self, run: "TaskState", step: StepName) -> None:
        """A step of the task begins."""

    def on_status(self, run: "TaskState") -> None:
        """The module has reported: `run.status` is new."""

    def on_usage(self, run: "TaskState", usage: Usage) -> None:
        """The task's process tree was measured."""

    def on_unwatched(self, why: str) -> None:
        """No task's process tree can be measured for now. `why` is a line for a person."""
        logger.warning("{}{}", why[0].upper(), why[1:])

    async def on_state_saved(self, run: "TaskState") -> None:
        """The module has saved `run.saved_state`. It continues when this returns."""

    async def on_task_starting(self, run: "TaskState") -> None:
        """The task is about to be run. It starts when this returns."""

    async def on_task_finished(self, run: "TaskState") -> None:
        """The task has its result. The next task starts when this returns."""

    async def on_job_failed(self, run: "TaskState", failure: Failure) -> None:
        """The job has failed, by `failure`, and goes on after this task with those that run after failures."""
