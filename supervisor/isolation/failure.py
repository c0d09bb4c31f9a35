"""How it ended is a value: why a step failed, with the evidence, and the text that tells a person."""

import os
import signal
from typing import Any

import msgspec

from ipc.messages import Reason, StepName

ERROR_TYPES: dict[StepName, str] = {
    "init": "InitializationError",
    "validate": "ValidationError",
    "run": "RunError",
    "cleanup": "CleanupError",
}

PREFIXES: dict[StepName, str] = {
    "init": "Could not initialize task",
    "validate": "Could not validate task data",
    "run": "Failed to run task",
    "cleanup": "Failed to cleanup task",
}


class Failure(msgspec.Struct, frozen=True):
    """Why a step failed. What is not known is `None` or empty, and left out of the record."""

    reason: Reason
    step: StepName
    message: str
    """For a person: what happened. The record puts the step before it."""
    module: str = ""
    task: int = 0
    signal: str | None = None
    exit_status: int | None = None
    limit: str | None = None
    value: str | None = None
    progress: float | None = None
    problems: tuple[str, ...] = ()
    """What the message joins, if it is several things."""
    log: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the step had warned of; goes to the task's record, not the error's."""
    unusable: bool = False
    """The configuration is at fault, not the job: the module cannot be imported."""
    tool_died: bool = False
    """A signal killed a tool, and the task process lives: another attempt may do better."""

    @property
    def headline(self) -> str:
        """The message with the step before it."""
        return f"{PREFIXES[self.step]}: {self.message}"

    def record(self) -> dict[str, Any]:
        """As it stands on the job's record: no nulls."""
        fields = {"type": ERROR_TYPES[self.step]} | msgspec.to_builtins(self)
        del fields["unusable"], fields["warnings"], fields["tool_died"]
        kept = {"reason", "step", "module", "task", "message", "type"}
        return {key: value for key, value in fields.items() if key in kept or (value is not None and value != [])}


class Ending(msgspec.Struct, frozen=True):
    """How a process ended without saying why."""

    reason: Reason
    message: str
    signal: str | None = None
    exit_status: int | None = None


def explain_status(status: int) -> Ending:
    """What a wait status says about a task process that ended in the middle of a step."""
    if os.WIFSIGNALED(status):
        name, words = signal_words(os.WTERMSIG(status))
        return Ending("signal", f"the task process was killed by {name} ({words})", signal=name)
    code = os.waitstatus_to_exitcode(status)
    return Ending("exit", f"the task process exited with status {code} in the middle of the step", exit_status=code)


def signal_words(number: int) -> tuple[str, str]:
    """A signal's name, such as SIGSEGV, and the system's words for it."""
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return name, (signal.strsignal(number) or "unknown").lower()
