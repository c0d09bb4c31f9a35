"""The record of a job: `info` in the verdict that the server gets, for jobs that ran and jobs that were refused.

No value in it is null, and none is an empty text or list but `tasks` of a job that was not run: a key that is there has
something to say.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from app.config import VERSION, Settings
from ipc.messages import Cause, StepName
from ipc.words import encodable

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
        """`error` in the job's record."""
        cause = self.cause
        return without_empty(
            {
                "type": ERROR_TYPES[self.step],
                "reason": cause.reason,
                "step": self.step,
                "module": self.module,
                "task": self.task,
                "message": cause.message,
                "signal": cause.signal,
                "exit_status": cause.exit_status,
                "limit": cause.limit,
                "value": cause.value,
                "progress": self.progress,
                "problems": cause.problems,
                "log": cause.log,
                "stderr": cause.stderr,
            }
        )


def job_record(
    settings: Settings, began: datetime, seconds: float, failure: Failure | None, tasks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The record of a job that ends now.

    `settings` are those of the worker that has the job (`host_uuid` is its id), `seconds` is how long the job took,
    `tasks` are the records of its tasks.
    """
    record = without_empty(
        {
            "start_time": field_time(began),
            "end_time": field_time(now(settings)),
            "runtime": field_duration(seconds),
            "seconds": round(seconds, 3),
            "worker": settings.hostname,
            "worker_id": settings.host_uuid,
            "version": VERSION,
            "completed": failure is None,
            "module": failure.module if failure else None,
            "message": failure.headline if failure else None,
            "error": failure.record() if failure else None,
        }
    )
    return record | {"tasks": list(tasks)}


def without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` without those that are `None`, an empty text, list or object. Zero and false stay."""
    return {key: value for key, value in fields.items() if value not in (None, "", (), [], {})}


def file_sizes(paths: Iterable[bytes]) -> list[dict[str, Any]]:
    """Path and size in bytes of each that is a file."""
    sizes = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # a module may have any bytes sent as a path
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                sizes[encodable(os.fsdecode(path))] = status.st_size
    return [{"path": path, "bytes": size} for path, size in sizes.items()]


def field_time(time: datetime) -> str:
    """A time as the field's programs write, compare and sort it: `2026-01-01 10:00:00.123456+00:00`."""
    return time.isoformat(" ", "microseconds")


def field_duration(seconds: float) -> str:
    """A duration as the field's programs write it, which is Python's way: `0:00:04.105488`."""
    text = str(timedelta(seconds=seconds))
    return text if "." in text else f"{text}.000000"


def now(settings: Settings) -> datetime:
    """The time in the zone that the settings want."""
    return datetime.now(tz=ZoneInfo(settings.api_timezone))
