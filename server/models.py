"""The bodies of requests and responses, as the OpenAPI page shows them.

Requests are read strictly: unknown keys, nulls, and numbers in the place of strings are refused. Text is any JSON
string, even one with lone surrogates, which pydantic's own `str` would refuse.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, InstanceOf, model_validator
from pydantic_core import PydanticCustomError

from server.storage.tables import MAX_KEY, to_text

Text = InstanceOf[str]


def _check_tag(text: str) -> str:
    if not text or text != text.strip() or "," in text:  # workers list theirs with commas: none could have it
        raise PydanticCustomError("tag", "a tag is not empty, and has no comma and no space around it")
    return text


Tag = Annotated[Text, AfterValidator(_check_tag)]
Object = InstanceOf[dict[str, Any]]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TaskBody(BaseModel):
    """One task of a job. Unknown keys are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow")

    module: Text = Field(description="The name of the module that does the task.")
    data: Object = Field(default={}, description="The module's input; the worker checks it.")
    requires: list[Tag] = Field(default=[], description="Tags that a worker must have for this task.")


class NewJobBody(_Strict):
    """A job to submit."""

    job_title: Text
    tasks: list[TaskBody] = Field(description="They run one after the other.")
    priority: int = Field(default=0, ge=-(2**31), lt=2**31, description="Higher ones come first.")
    requires: list[Tag] = Field(default=[], description="Tags that a worker must have to get this job.")

    @model_validator(mode="after")
    def _check_need(self) -> Self:
        for names in (self.modules, self.tags):
            if len(to_text(sorted(names))) > MAX_KEY:
                raise PydanticCustomError("too_long", "the names of its modules, or its tags, are too long together")
        return self

    @property
    def modules(self) -> frozenset[str]:
        """The modules that its tasks name."""
        return frozenset(task.module for task in self.tasks)

    @property
    def tags(self) -> frozenset[str]:
        """The tags that a worker must have for all of its tasks."""
        return frozenset(self.requires).union(*(task.requires for task in self.tasks))


class JobIdBody(BaseModel):
    """The id of a job."""

    job_id: str


class JobBody(BaseModel):
    """A job as it was submitted, with its id and time."""

    job_title: Text
    tasks: list[TaskBody]
    job_id: str
    added: str = Field(description="The time of the submission, ISO 8601.")


class AttributesBody(_Strict):
    """The operator's setting for the queue or for a worker: while it is disabled, clients take no jobs."""

    disabled: bool


class WorkerAttributesBody(_Strict):
    """The operator's settings for a worker: to take no jobs; to pause the one that it runs. One or both."""

    disabled: bool | None = None
    paused: bool | None = None


class QueueBody(BaseModel):
    """All queued jobs, the head first."""

    queue: list[JobBody]
    entries: int
    attributes: AttributesBody


class PlaceBody(_Strict):
    """Another place in the queue: one of both."""

    priority: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    position: Literal["head"] | None = None


class StateBody(BaseModel):
    """The state that a job had."""

    state: Literal["queued", "running"]


class ListedJobBody(BaseModel):
    """A job in any state, without its tasks. What is not known is left out."""

    job_id: str
    job_title: Text
    state: Literal["queued", "running", "completed", "failed", "cancelled"]
    priority: int
    modules: list[Text] = Field(description="The modules that its tasks name.")
    requires: list[Text] = Field(description="The tags that a worker must have.")
    added_at: str
    started_at: str = Field(default="", description="The last time that a worker took it.")
    ended_at: str = ""
    worker_id: Text = ""
    hostname: Text = ""
    message: Text = Field(default="", description="Why it failed.")
    retry_of: str = Field(default="", description="The job of which this one is a copy.")
    cancelled_by: Text = ""


class HistoryBody(BaseModel):
    """A page of jobs."""

    jobs: list[ListedJobBody]
    next: int = Field(default=0, description="The `cursor` of the next page; missing on the last one.")


class RecordBody(ListedJobBody):
    """Everything of a job."""

    tasks: list[TaskBody]
    attempts: list[dict[str, Any]] = Field(description="Who had it, from when to when, and how that ended.")
    info: Object = Field(default={}, description="The job's record, as the worker wrote it.")
    why: str = Field(default="", description="Why a queued job waits.")


class OrdersBody(BaseModel):
    """What the operator wants of a worker."""

    cancel: list[str] = Field(description="The jobs to end.")
    paused: bool
    disabled: bool


class NamesBody(BaseModel):
    """Names under which something is stored."""

    names: list[Text]


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


class WorkerAbilitiesBody(AttributesBody):
    """The operator's settings for a worker, and the modules and tags that its polls have told."""

    paused: bool | None = None
    modules: list[str] | None = None
    tags: list[str] | None = None


class WorkerBody(HeartbeatBody):
    """A worker's last heartbeat."""

    worker_id: str
    attributes: WorkerAbilitiesBody


class WorkersBody(BaseModel):
    """The live workers, and those that vanished in the last day."""

    workers: list[WorkerBody]
    count: int
    lost: list[dict[str, Any]]


class ConfigurationBody(BaseModel):
    """The server's software and uptime."""

    backend: dict[str, str]
    version: str
    uptime: float = Field(description="Seconds since the server started.")
    vanished_after: float = Field(description="Seconds of a worker's silence after which its job goes back.")
    offers: list[str] = Field(description="What workers may use besides the calls of sisyphus-server.")


class HealthBody(BaseModel):
    """The server responds."""

    status: Literal["online"]
    database: Literal["online", "offline"]
    message: str = ""


class ProblemBody(BaseModel):
    """Why a request was refused, for a person."""

    message: str
