"""A job as its submitter posts it: how to read one, and the errors that it can hold."""

import json
import os
import re
import uuid
from collections.abc import Iterable
from typing import Any, Literal, get_args

import msgspec

from app.formats import ID, ID_FORM, refuse_constant
from ipc.queue import MAX_REQUEST
from ipc.words import encodable, suggestion

MAX_TASKS = 1000
"""Tasks in one job. Each of them has a process from its initialisation on."""

_ENTITIES = {
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
    "&#39;": "'",
    "&#x27;": "'",
    "&#34;": '"',
}
_ENTITY = re.compile("|".join(_ENTITIES))

JOB_KEYS = ("$schema", "job_title", "job_name", "tasks", "job_id", "added")
TASK_KEYS = ("module", "data", "when", "requires", "handed_back", "unfit")
"""The keys of a job and of a task. `$schema` is for editors. The last two of a task are the client's own: see
`worker.outbox` and `worker.unfit`."""

When = Literal["success", "failure", "always"]
"""Whether a task runs: if no task before it has failed, if one has, or in both cases."""

MAX_DATA = MAX_REQUEST - (1 << 20)
"""Bytes of a task's data as JSON. The message that carries them to the task process needs some room for the rest."""


class JobError(Exception):
    """A job is malformed. The text is one line that says where.

    Attributes:
        task: The index of the task at fault, from 0. `None` if the error is not in a single task.
        module: The module that this task names; empty if it names none.
        unfit: The job may be in order: another worker may have the module enabled.
    """

    def __init__(self, message: str, task: int | None = None, module: str = "", unfit: bool = False) -> None:
        super().__init__(message)
        self.task = task
        self.module = module
        self.unfit = unfit


class Task(msgspec.Struct, frozen=True):
    """One task of a job. `data` is `None` if the module is only to be loaded and inspected."""

    module: str
    data: dict[str, Any] | None
    when: When = "success"
    requires: tuple[str, ...] = ()
    """Tags that a worker must have for it."""


class Job(msgspec.Struct, frozen=True):
    """A job as it was posted. `warnings` are for its record."""

    job_id: str
    job_title: str
    tasks: tuple[Task, ...]
    warnings: tuple[str, ...] = ()


def read_job(
    document: Any,
    enabled: Iterable[str],
    default_title: str = "",
    refused: list[JobError] | None = None,
    *,
    from_server: bool = False,
) -> Job:
    """Make a job of decoded JSON. `enabled` are the names of the enabled modules.

    `job_name` is an alias of `job_title`. A job without an id gets one. Unknown keys are an error in a file, and a
    warning in a job from a server: they may be another program's. With a list `refused`, the errors of single tasks
    are appended to it, and the job is returned without these tasks.

    Raises:
        JobError: the job has no tasks or no title, its id is malformed, a task is malformed, or its module is not
            enabled.
    """
    if not isinstance(document, dict):
        raise JobError("a job is an object with the keys job_title and tasks")
    tasks = document.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise JobError("tasks: the job has no tasks (a list of at least one is needed)")
    if len(tasks) > MAX_TASKS:
        raise JobError(f"tasks: the job has {len(tasks)} tasks; at most {MAX_TASKS} are possible")
    title = _read_title(document, default_title)
    job_id = document.get("job_id") or str(uuid.uuid4())
    if not isinstance(job_id, str) or not ID.fullmatch(job_id):
        raise JobError(f"job_id: expected {ID_FORM}")
    unknown = _unknown_keys(document)
    if unknown and not from_server:
        raise JobError("; ".join(unknown))
    return Job(job_id, title, _read_tasks(tasks, sorted(enabled), refused), tuple(unknown))


def _unknown_keys(document: dict[str, Any]) -> list[str]:
    """A line for each key of a job and its tasks that nothing reads."""
    problems = [f"{key}: unknown key{suggestion(key, JOB_KEYS)}" for key in document if key not in JOB_KEYS]
    for index, task in enumerate(document["tasks"]):
        keys = task if isinstance(task, dict) else ()
        problems += [
            f"tasks[{index}].{key}: unknown key{suggestion(key, TASK_KEYS)}" for key in keys if key not in TASK_KEYS
        ]
    return problems


def _read_title(document: dict[str, Any], default: str) -> str:
    title = document.get("job_title", document.get("job_name", default))
    if not isinstance(title, str) or not title:
        raise JobError("job_title: the job has no title")
    return encodable(title)  # neither the log nor the server takes a lone surrogate, which JSON can hold


def _read_tasks(documents: list[Any], enabled: list[str], refused: list[JobError] | None) -> tuple[Task, ...]:
    tasks = []
    for index, document in enumerate(documents):
        try:
            tasks.append(_read_task(document, index, enabled))
        except JobError as error:
            if refused is None:
                raise
            refused.append(error)
    return tuple(tasks)


def _read_task(document: Any, index: int, enabled: list[str]) -> Task:
    where = f"tasks[{index}]"
    if not isinstance(document, dict):
        raise JobError(f"{where}: expected an object with the keys module and data", index)
    module = document.get("module")
    if not isinstance(module, str) or not module:
        raise JobError(f"{where}.module: a task needs the name of a module", index)
    if module not in enabled:
        known = ", ".join(enabled) or "none"
        raise JobError(f"{where}.module: {module[:100]!r} is not enabled (enabled: {known})", index, module, unfit=True)
    data = document.get("data", {})
    if not isinstance(data, dict):
        raise JobError(f"{where}.data: expected an object", index, module)
    if len(json.dumps(data)) > MAX_DATA:
        size = MAX_REQUEST >> 20
        raise JobError(f"{where}.data: is larger than a task's data may be ({size} MiB)", index, module)
    when, tags = document.get("when", "success"), document.get("requires", [])
    if when not in get_args(When):  # from a server, too: a task that removes files must not run at the wrong time
        hint = suggestion(str(when), get_args(When))
        raise JobError(f"{where}.when: expected success, failure or always, got {when!r:.60}{hint}", index, module)
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise JobError(f"{where}.requires: expected a list of tags, such as ['nvenc']", index, module)
    return Task(module, data, when, tuple(tags))


def decode_job(text: str, verbatim: bool) -> Any:
    """Decode a job as the server gave it. It may look at the file system, as `unescape` does.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deep.
    """
    document = json.loads(text, parse_constant=refuse_constant)
    return document if verbatim else unescape(document)


def unescape(document: Any) -> Any:
    """Undo HTML escaping in every string of a decoded job: `&amp;` becomes `&`. Keys stay as they are.

    Only what submitters' escape functions write is undone. Python's own table would also turn `&copy=2` into `©=2`.

    A string stays as it is, too, if it names an existing path and the unescaped string does not: a file may really be
    called so. This looks at the file system, so do not call it in the event loop.
    """
    match document:
        case str():
            plain = _ENTITY.sub(lambda found: _ENTITIES[found[0]], document)
            return document if plain == document or (_exists(document) and not _exists(plain)) else plain
        case list():
            return list(map(unescape, document))
        case dict():
            return {key: unescape(value) for key, value in document.items()}
        case _:
            return document


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL character: no path
        return False
