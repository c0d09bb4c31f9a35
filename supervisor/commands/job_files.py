"""Job files: JSON that a person has written."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.formats import STRICT_NUMBERS, refuse_duplicates
from supervisor.jobs.model import Job, JobError, read_job


def read_document(name: str) -> Any:
    """The JSON in a file. No key may stand twice in an object.

    Raises:
        JobError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(Path(name).read_bytes(), **STRICT_NUMBERS, object_pairs_hook=refuse_duplicates)
    except OSError as error:
        raise JobError(f"{name}: cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise JobError(f"{name}: line {error.lineno}, column {error.colno}: is not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{name}: byte {error.start}: is not JSON: not UTF-8") from error
    except RecursionError as error:
        raise JobError(f"{name}: is nested too deeply") from error
    except ValueError as error:
        raise JobError(f"{name}: is not JSON: {error}") from error


def read_job_of(name: str, document: Any, modules: Iterable[str]) -> Job:
    """The job of a document, which was read from a file; its tasks may name these modules.

    Raises:
        JobError: It is no job.
    """
    try:
        return read_job(document, modules, default_title=Path(name).stem)
    except JobError as error:
        raise JobError(f"{name}: {error}") from error


def modules_of(document: Any) -> set[str]:
    """Return the modules that a job names: each worker decides which of them it has enabled."""
    tasks = document.get("tasks") if isinstance(document, dict) else None
    named = [task.get("module") for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
    return {name for name in named if isinstance(name, str)}
