"""The record of a job."""

from typing import Any

import msgspec

from ipc.messages import Cause, StepName

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
    """Why a job failed, and where."""

    cause: Cause
    step: StepName
    module: str = ""
    """The failed task's module; empty if its name could not be read."""
    task: int = 0
    """The failed task's index."""
    progress: float | None = None
    """Percent, as the module last reported it."""

    @property
    def headline(self) -> str:
        """The cause in words, with the step before it."""
        return f"{PREFIXES[self.step]}: {self.cause.message}"

    def record(self) -> dict[str, Any]:
        """As it stands on the job's record: no nulls."""
        fields = {"type": ERROR_TYPES[self.step], "step": self.step, "module": self.module, "task": self.task}
        if self.progress is not None:
            fields["progress"] = self.progress
        evidence = msgspec.to_builtins(self.cause)
        return fields | {key: evidence[key] for key in evidence if key not in ("tool_died", "unusable")}
