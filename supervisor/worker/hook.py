"""The operator's command that runs after each job's verdict: `job_ended` in `[tool.client.hooks]`.

It runs as the only task of a job of its own. So it is no child of the supervisor, has limits, and its tree is gone
when it is over; the supervisor needs no second way to start and stop processes.

It runs at most once for a job: its verdict is on the way by then, and nothing of the job is in the journal any more.
"""

import asyncio
import dataclasses
from typing import Any

import msgspec
from loguru import logger

from app.config import Settings
from supervisor.isolation.limits import HOOK
from supervisor.jobs.job_run import JobRun
from supervisor.jobs.model import Job, Task, decode_job
from supervisor.jobs.task_state import JobObserver
from supervisor.worker.control import WorkerContext
from supervisor.worker.journal import UnfinishedJob

MODULES = {HOOK: "child.hook.Hook"}

MAX_TOLD = 8 << 20
"""Characters of a job's document. The tasks of a longer job are left out: the message to a task process has a limit."""


async def hook_run(
    context: WorkerContext, settings: Settings, job: UnfinishedJob, record: dict[str, Any]
) -> JobRun | None:
    """Return the run of the command for a job with this record; `None` if there is no command."""
    client = context.runtime.client
    if not (command := client.hooks.get("job_ended")):
        return None
    document = {"job_id": job.job_id, **await asyncio.to_thread(_describe, job), "record": record}
    client = msgspec.structs.replace(client, modules=MODULES, paths=())
    runtime = dataclasses.replace(context.runtime, client=client, settings=settings)
    task = Task(HOOK, {"command": command, "document": document})
    return JobRun(Job(job.job_id, HOOK, (task,)), runtime, JobObserver())


async def run_quietly(hook: JobRun, is_paused: bool) -> None:
    """Run the command to its end. Whatever comes of it, the verdict stands."""
    if is_paused:
        await hook.pause()
    if failure := (await hook.run()).failure:
        words = "The hook job_ended failed, and the verdict stands: {}"
        logger.bind(job=hook.job.job_id).warning(words, failure.cause.message)


def _describe(job: UnfinishedJob) -> dict[str, Any]:
    """The job's title and tasks, as far as it has them: one that was refused may be anything."""
    try:
        document = decode_job(job.document, job.verbatim) if len(job.document) <= MAX_TOLD else None
    except (ValueError, RecursionError):
        return {}
    known = document if isinstance(document, dict) else {}
    return {key: known[key] for key in ("job_title", "tasks") if key in known}
