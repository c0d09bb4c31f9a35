"""The bodies of requests and responses, as the OpenAPI page shows them.

Requests are read strictly: unknown keys, nulls, and numbers in the place of strings are refused. Text is any JSON
string, even one with lone surrogates, which pydantic's own `str` would refuse.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

Text = InstanceOf[str]
Object = InstanceOf[dict[str, Any]]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TaskBody(BaseModel):
    """One task of a job. Unknown keys are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow")

    module: Text = Field(description="The name of the module that does the task.")
    data: Object = Field(default={}, description="The module's input; the worker checks it.")


class NewJobBody(_Strict):
    """A job to submit."""

    job_title: Text
    tasks: list[TaskBody] = Field(description="They run one after the other.")


class JobIdBody(BaseModel):
    """The id of a job."""

    job_id: str


class JobBody(NewJobBody):
    """A job as it was submitted, with its id and time."""

    job_id: str
    added: str = Field(description="The time of the submission, ISO 8601.")


class AttributesBody(_Strict):
    """The operator's setting for the queue or for a worker: while it is disabled, clients take no jobs."""

    disabled: bool


class QueueBody(BaseModel):
    """All queued jobs, the head first."""

    queue: list[JobBody]
    entries: int
    attributes: AttributesBody


class OutcomeBody(_Strict):
    """How a job ended."""

    failed: bool
    info: Object = Field(description="The job's record, as the worker wrote it.")


class VerdictBody(OutcomeBody):
    """How a job ended, with the job's id and title."""

    job_id: str
    job_title: Text
    completed_at: str = Field(description="The time when the server got the verdict, ISO 8601.")


class HeartbeatBody(_Strict):
    """A worker's heartbeat."""

    status: Literal["startup", "idle", "in_progress"]
    online_at: Text
    hostname: Text
    version: Text
    task: Text = Field(default="", description="The module that runs.")
    job_id: Text = Field(
        default="", description="The job that runs. A running job that no heartbeat names goes back to the queue."
    )
    job_title: Text = ""
    progress: float = Field(default=0, description="Percent.")
    info: Object = {}


class WorkerBody(HeartbeatBody):
    """A worker's last heartbeat."""

    worker_id: str
    attributes: AttributesBody


class WorkersBody(BaseModel):
    """The live workers."""

    workers: list[WorkerBody]
    count: int


class ConfigurationBody(BaseModel):
    """The server's software and uptime."""

    backend: dict[str, str]
    version: str
    uptime: float = Field(description="Seconds since the server started.")
    vanished_after: float = Field(description="Seconds of a worker's silence after which its job goes back.")


class HealthBody(BaseModel):
    """The server responds."""

    status: Literal["online"]


class ProblemBody(BaseModel):
    """Why a request was refused, for a person."""

    message: str
