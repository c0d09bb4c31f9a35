"""The bodies that come in and go out, as the OpenAPI page shows them.

Those that come in are held to the letter: no unknown keys, no nulls, no numbers for strings. Text is any JSON string,
with lone surrogates too, which pydantic's own `str` would refuse.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

Text = InstanceOf[str]
Object = InstanceOf[dict[str, Any]]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Task(BaseModel):
    """One task of a job. More keys may stand here; they are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow")

    module: Text = Field(description="The name of the module that does it.")
    data: Object = Field(default={}, description="What the module is to do; the worker checks it.")


class NewJob(_Strict):
    """A job to be done."""

    job_title: Text
    tasks: list[Task] = Field(description="They run one after the other.")


class JobId(BaseModel):
    """The id of a job."""

    job_id: str


class Job(NewJob):
    """A job, as it was submitted, with its id and time."""

    job_id: str
    added: str = Field(description="When it was submitted, ISO 8601.")


class Attributes(_Strict):
    """Whether jobs are not to be taken: from the queue, or by the worker."""

    disabled: bool


class Queue(BaseModel):
    """All queued jobs, the head first."""

    queue: list[Job]
    entries: int
    attributes: Attributes


class Outcome(_Strict):
    """How a job ended."""

    failed: bool
    info: Object = Field(description="The job's record, as the worker wrote it.")


class Verdict(Outcome):
    """How a job ended, and which it was."""

    job_id: str
    job_title: Text
    completed_at: str = Field(description="When the verdict came, ISO 8601.")


class Beat(_Strict):
    """A heartbeat."""

    status: Literal["startup", "idle", "in_progress"]
    online_at: Text
    hostname: Text
    version: Text
    task: Text = Field(default="", description="The module at work.")
    job_id: Text = Field(
        default="", description="The job at work. Unless somebody names it, it goes back to the queue."
    )
    job_title: Text = ""
    progress: float = Field(default=0, description="Percent.")
    info: Object = {}


class Worker(Beat):
    """A worker's last heartbeat."""

    worker_id: str
    attributes: Attributes


class WorkerList(BaseModel):
    """The live workers."""

    workers: list[Worker]
    count: int


class Configuration(BaseModel):
    """What serves."""

    backend: dict[str, str]
    version: str
    uptime: float = Field(description="Seconds since the server was started.")


class Health(BaseModel):
    """That the server answers."""

    status: Literal["online"]


class Problem(BaseModel):
    """What was wrong, in words."""

    message: str
