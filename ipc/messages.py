"""The messages, small frozen types named for what they say. They travel as JSON, told apart by their `type`.

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
"""Characters of server-side data that a task process may send."""

DataName = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern="[^.]")]
"""Becomes a part of a path. What is nothing but dots would lead to another one: `/data/../queue`, with the
supervisor's token, and `requests` takes dots that are quoted for dots."""

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
]


TASK_REASONS: frozenset[Reason] = frozenset({"exception", "exit", "signal"})
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
    unusable: bool = False
    """The module cannot be imported: a mistake in the configuration, not in the job."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """Base of all messages."""


# --- supervisor → task process ---


class Start(Message, frozen=True):
    """Be this task: load its module and initialise it. Answered by `Ready` or `Failed`."""

    job_id: str
    job_title: str
    task: int
    """The task's place in the job, from 0."""
    module: str
    target: str
    """The class that serves it, as `package.module.Class`."""
    data: str | None
    """The task's data as JSON text in ASCII: it may hold what UTF-8 cannot, such as lone surrogates. Without data
    there is no task: the module is loaded, and not initialised, to be inspected."""
    paths: tuple[str, ...]
    modules: dict[str, str]
    open_files: int | None
    """The limit of open files, or the supervisor's. Others are set from outside, which for this one would race with
    what the process opens and closes to become a task process."""
    environment: dict[str, str]
    """Variables that are the task's own; the others are the supervisor's."""
    resumed: bool = False
    """Whether the client was killed in an earlier attempt at this task, which may have done a part of it."""
    free_space: tuple[float, int] | None = None
    """Share of the inputs' size, and bytes, that must be free where a task writes."""


class Step(Message, frozen=True):
    """Do this step. Answered by `Done` or `Failed`.

    Three are no steps of a task: `plan` says what `run` would do, and `inspect` and `probe` what the module needs
    and has.
    """

    step: Literal["validate", "run", "cleanup", "plan", "inspect", "probe"]
    files: tuple[tuple[bytes, bool], ...] = ()
    """What the earlier tasks of the job do to files, as (absolute path, stands afterwards)."""


class Data(Message, frozen=True):
    """Answers a `Get` or a `Put`, unless the step ends before."""

    status: int
    """The HTTP status; 0 if there was no answer."""
    body: str = ""
    """The answer's text."""
    error: str = ""
    """Why there was no answer, for a person."""


# --- task process → supervisor ---


class Ready(Message, frozen=True):
    """The module is initialised."""

    outputs: tuple[bytes, ...] = ()
    """Absolute paths of the files it will write."""
    removes: tuple[bytes, ...] = ()
    """Absolute paths of the files it will remove."""
    cleanup_on_failure: bool = False


class Progress(Message, frozen=True):
    """What the module last told its heartbeat."""

    status: msgspec.Raw


class Get(Message, frozen=True):
    """Fetch `/data/{module}/{name}` from the API server. Only during a step, and one `Get` or `Put` at a time."""

    module: DataName
    name: DataName


class Put(Message, frozen=True):
    """Store `body` as `/data/{module}/{name}` on the API server, under the same rules."""

    module: DataName
    name: DataName
    body: Annotated[str, msgspec.Meta(max_length=MAX_BODY)]
    """JSON text in ASCII."""


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A program that a module needs."""

    name: str
    path: str = ""
    version: str = ""
    problem: str = ""
    """Why it cannot be run."""


class Encoder(msgspec.Struct, frozen=True, omit_defaults=True):
    """An encoder that a module's tool has, and why it does not work here, if it does not."""

    name: str
    problem: str = ""


class Inspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a module is made of."""

    file: str = ""
    """Where its class was loaded from."""
    tools: tuple[Tool, ...] = ()
    encoders: tuple[Encoder, ...] = ()


class Done(Message, frozen=True):
    """The step succeeded."""

    warnings: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    """For `plan`: what `run` would do, a line each."""
    inspection: Inspection | None = None
    """For `inspect` and `probe`, which also tries the encoders."""


class Failed(Message, frozen=True):
    """The step failed, for one of `TASK_REASONS`. The task process lives on."""

    cause: Cause
    warnings: tuple[str, ...] = ()


# --- supervisor → zygote ---


class Prepare(Message, frozen=True):
    """What all tasks have in common. Comes first, and once."""

    settings: dict[str, Any]


class Spawn(Message, frozen=True):
    """Fork a task process. The queue, log and output descriptors come with it, in this order."""

    task: int
    """Names the task process in all messages about it; never used twice."""


class Terminate(Message, frozen=True):
    """Ask the task process to stop (SIGTERM, then SIGCONT so that a stopped one hears it)."""

    task: int


class Kill(Message, frozen=True):
    """Kill the task process and all that it started."""

    task: int


# --- zygote → supervisor ---


class Spawned(Message, frozen=True):
    """The task process runs; or could not be started, and `error` says why."""

    task: int
    pid: int = 0
    error: str = ""


class Exited(Message, frozen=True):
    """The task process ended, and nothing that it started is alive."""

    task: int
    status: int
    """As `waitpid` gives it."""
    cpu_seconds: float
    """User and system time of the task process and of all that ended with it."""
    peak_memory: int
    """Largest resident set of any one process of the tree, in bytes."""
    leftovers: int = 0
    """How many processes were still alive after it and were killed."""


FromTask = Ready | Progress | Get | Put | Done | Failed
ToTask = Start | Step | Data
FromZygote = Spawned | Exited
ToZygote = Prepare | Spawn | Terminate | Kill
