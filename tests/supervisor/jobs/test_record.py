"""The record of a job, from its parts."""

from datetime import UTC, datetime
from pathlib import Path

from app.config import VERSION, load_settings
from ipc.messages import Cause
from supervisor.jobs.record import Failure, file_sizes, job_record

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def test_error_leaves_out_what_is_unknown_or_empty() -> None:
    """Zero is a value; nulls and empty texts and lists are none, and what is for the client alone is not there."""
    cause = Cause("exit", "ffmpeg exited", exit_status=0, stderr=("a",), tool_died=True, unusable=True)

    assert Failure(cause, "run", "ffmpeg", 0, progress=0.0).record() == {
        "type": "RunError",
        "reason": "exit",
        "step": "run",
        "module": "ffmpeg",
        "task": 0,
        "message": "ffmpeg exited",
        "exit_status": 0,
        "progress": 0.0,
        "stderr": ("a",),
    }
    assert "module" not in Failure(cause, "init").record()


def test_jobs_that_ran_and_jobs_that_were_refused_have_the_same_record(tmp_path: Path) -> None:
    """A job that completed has no module, message or error; one that was refused has no module if it named none."""
    settings = load_settings({"HOST_UUID": "w", "HOSTNAME_OVERRIDE": "h"}, tmp_path)
    task = {"module": "ffmpeg", "result": "completed"}
    completed = job_record(settings, BEGAN, 1.23456, None, [task])
    refused = job_record(settings, BEGAN, 0.0, Failure(Cause("exception", "no tasks"), "init"), [])

    assert completed == {
        "start_time": "2026-01-01 00:00:00.000000+00:00",
        "end_time": completed["end_time"],
        "runtime": "0:00:01.234560",
        "seconds": 1.235,
        "worker": "h",
        "worker_id": "w",
        "version": VERSION,
        "completed": True,
        "tasks": [task],
    }
    assert refused.keys() - completed.keys() == {"message", "error"}
    assert refused["message"] == "Could not initialize task: no tasks"
    assert (refused["completed"], refused["seconds"], refused["tasks"]) == (False, 0.0, [])


def test_paths_that_are_none() -> None:
    """A module may have any bytes sent as a path; those that no file can have are no file's."""
    assert file_sizes([b"a\0b", b"x" * 100_000, b"", b"/"]) == []
