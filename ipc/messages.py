"""The messages between the processes: small frozen types, sent as JSON and told apart by the key `type`.

supervisor → task process   Start, Step, Data
task process → supervisor   Ready, Progress, Get, Put, Done, Failed
supervisor → zygote         Prepare, Spawn, Terminate, Kill
zygote → supervisor         Spawned, Exited
"""

from typing import Annotated, Any, Literal

import msgspec

MAX_NAME = 1000
"""Characters in a name of server-side data."""

MAX_BODY = 4 << 20
"""Characters of server-side data that a task process may store at once."""

MAX_STATE = 64 << 10
"""Characters of a state that a task saves for its next attempt."""

MAX_REASON = 1000
"""Characters of the reason why a task was skipped. Each later task of the job has it, too."""

MAX_RESULTS = 8 << 10
"""Characters of a task's results. A job of 1000 tasks then still fits into one message, and into its record."""

DataName = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern="[^.]")]
"""A name that becomes a part of a URL's path. It must not be dots alone: `/data/../queue` would be another path, which
the supervisor would ask for with its token, and `requests` reads quoted dots as dots."""

StepName = Literal["init", "validate", "run", "cleanup"]

Reason = Literal[
    "exception",
    "exit",
    "signal",
    "memory",
    "timeout",
    "stall",
    "processes",
    "protocol",
    "cancelled",
    "shutdown",
    "lost",
    "unfit",
]


TASK_REASONS: frozenset[Reason] = frozenset({"exception", "exit", "signal", "unfit"})
"""The reasons that a task process may give. The others are the supervisor's alone: at `shutdown`, for one, it returns
the job to the queue, and a module that could say so would be run for ever."""


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a step, a process or a job ended. What is not known is `None` or empty."""

    reason: Reason
    message: str
    """For a person. Does not name the step."""
    signal: str | None = None
    """The signal's name, such as SIGSEGV."""
    exit_status: int | None = None
    limit: str | None = None
    """The limit that was exceeded, as the operator wrote it."""
    value: str | None = None
    """The measured value that was over the limit."""
    problems: tuple[str, ...] = ()
    """The single problems, if `message` joins several."""
    log: tuple[str, ...] = ()
    """The last lines of the task's log."""
    stderr: tuple[str, ...] = ()
    """The last lines of the tool that failed or, if none did, of the task process."""
    tool_died: bool = False
    """A signal killed a tool, and the task process is alive: another attempt may succeed."""
    trouble: bool = False
    """The client itself cannot work now: no process, no scratch directory. Any job would have ended like this."""
    unusable: bool = False
    """The module cannot be imported: a mistake in the configuration, not in the job."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """Base of all messages."""


# --- supervisor → task process ---


class Start(Message, frozen=True):
    """Order to be this task: load its module and initialise it. The answer is `Ready` or `Failed`."""

    job_id: str
    job_title: str
    task: int
    """The task's index in the job, from 0."""
    module: str
    target: str
    """The module's class, as `package.module.Class`."""
    data: str | None
    """The task's data as JSON text in ASCII, because it may hold lone surrogates, which UTF-8 cannot. Without data, the
    module is loaded and not initialised, to be inspected."""
    paths: tuple[str, ...]
    modules: dict[str, str]
    open_files: int | None
    """The limit of open files; `None` for the supervisor's own. The process sets this limit itself, unlike others: from
    outside it would come in the middle of the process closing the zygote's descriptors."""
    environment: dict[str, str]
    """Environment variables of this task. The others are inherited."""
    resumed: bool = False
    """An earlier attempt at this task was interrupted, and may have done a part of it."""
    saved_state: str = ""
    """The state that an earlier attempt saved last, as JSON text; empty if it saved none."""
    free_space: tuple[float, int] | None = None
    """Required free space where a task writes: a share of the inputs' size, and bytes besides."""
    roots: tuple[str, ...] | None = None
    """The only directories in which the task and its tools find files, besides what tools need to run."""
    network: bool = True
    """They may use the network."""
    core_files: bool = False
    """The kernel may write core files of them."""
    settings: dict[str, Any] = {}
    """The operator's settings for the module, with secrets: no other module's process gets them."""


class FinishedTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an earlier task of the job came to."""

    module: str
    result: str
    reason: str = ""
    """Why it was skipped."""
    results: str = ""
    """Its results, as `Done` has them."""


NO_TASKS = msgspec.Raw(b"[]")


class Step(Message, frozen=True):
    """Order to do a step. The answer is `Done` or `Failed`.

    Four steps are not part of a task's run: `plan` lists the commands that `run` would start, `inspect` lists the
    module's tools, `probe` also tries its encoders, and `schema` asks for the schema of its data.
    """

    step: Literal["validate", "run", "cleanup", "plan", "inspect", "probe", "schema"]
    files: tuple[tuple[bytes, bool], ...] = ()
    """The files that earlier tasks of the job will change, as (absolute path, exists afterwards)."""
    tasks: msgspec.Raw = NO_TASKS
    """The `FinishedTask`s of the job before this one, for `run` and what follows it. Few modules read them."""


class Data(Message, frozen=True):
    """The answer to a `Get` or `Put`. There is none if the step ends first."""

    status: int
    """The HTTP status; 0 if the server did not respond."""
    body: str = ""
    """The response's text."""
    error: str = ""
    """Why the server did not respond, for a person."""


# --- task process → supervisor ---


class Ready(Message, frozen=True):
    """The module is initialised."""

    outputs: tuple[bytes, ...] = ()
    """Absolute paths of the files that the task will write."""
    removes: tuple[bytes, ...] = ()
    """Absolute paths of the files that the task will remove."""
    inputs: tuple[bytes, ...] = ()
    """Absolute paths of the files that the task will read."""
    cleanup_on_failure: bool = False


class Progress(Message, frozen=True):
    """The status that the module last gave its heartbeat."""

    status: msgspec.Raw


class Get(Message, frozen=True):
    """Request for `/data/{module}/{name}` of the API server. Only during a step, and one `Get` or `Put` at a time."""

    module: DataName
    name: DataName


class Put(Message, frozen=True):
    """Request to store `body` as `/data/{module}/{name}` on the API server. The rules of `Get` apply."""

    module: DataName
    name: DataName
    body: Annotated[str, msgspec.Meta(max_length=MAX_BODY)]
    """JSON text in ASCII."""


class Save(Message, frozen=True):
    """Request to keep `state` for the next attempt at this task, on disk before the answer. `Get`'s rules apply."""

    state: Annotated[str, msgspec.Meta(max_length=MAX_STATE)]
    """JSON text in ASCII."""


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A program that a module needs."""

    name: str
    path: str = ""
    version: str = ""
    problem: str = ""
    """Why it cannot be run."""


class Encoder(msgspec.Struct, frozen=True, omit_defaults=True):
    """An encoder of a module's tool."""

    name: str
    problem: str = ""
    """Why it does not work here, if it does not."""


class Inspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """The parts of a module."""

    file: str = ""
    """The file that its class was loaded from."""
    tools: tuple[Tool, ...] = ()
    encoders: tuple[Encoder, ...] = ()
    schema: str = ""
    """The JSON schema of its data, as text in ASCII; empty if it has none, or if it was not asked for."""


class Done(Message, frozen=True):
    """The step succeeded."""

    warnings: tuple[str, ...] = ()
    results: str = ""
    """All results that the module has set by now, as a JSON object in ASCII; empty if it has set none."""
    skipped: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""
    """Why `run` found nothing to do; empty if it did its work."""
    lines: tuple[str, ...] = ()
    """The answer to `plan`: the commands that `run` would start, a line each."""
    inspection: Inspection | None = None
    """The answer to `inspect`, `probe` and `schema`."""


class Failed(Message, frozen=True):
    """The step failed, for one of `TASK_REASONS`. The task process lives on."""

    cause: Cause
    warnings: tuple[str, ...] = ()
    results: str = ""
    """As in `Done`."""


# --- supervisor → zygote ---


class Prepare(Message, frozen=True):
    """The settings, which are the same for all tasks. The first message, sent once."""

    settings: dict[str, Any]


class Spawn(Message, frozen=True):
    """Order to fork a task process. The descriptors of its queue, log and output come with it, in this order."""

    task: int
    """A number for the task process in all messages about it. Never used twice."""


class Terminate(Message, frozen=True):
    """Order to ask the task process to stop: SIGTERM, then SIGCONT, without which a stopped process would not act."""

    task: int


class Kill(Message, frozen=True):
    """Order to kill the task process and all that it started."""

    task: int


# --- zygote → supervisor ---


class Spawned(Message, frozen=True):
    """The task process was forked; or it could not be, and `error` says why."""

    task: int
    pid: int = 0
    error: str = ""


class Exited(Message, frozen=True):
    """The task process ended, and nothing that it started is alive."""

    task: int
    status: int
    """Its wait status: waitpid(2)."""
    cpu_seconds: float
    """User and system time of the task process and of its descendants."""
    peak_memory: int
    """Resident set of the largest single process of its tree, in bytes."""
    leftovers: int = 0
    """The number of processes that were alive after it, and were killed."""


Request = Get | Put | Save
"""Requests of a task process. Each is answered by `Data`."""

FromTask = Ready | Progress | Request | Done | Failed
ToTask = Start | Step | Data
FromZygote = Spawned | Exited
ToZygote = Prepare | Spawn | Terminate | Kill
