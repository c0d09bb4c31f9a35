"""What a module may raise: an error for each step of a task, and from `run` also `Skipped`, which is none.

ClientError
├── InitializationError   __init__
├── ValidationError       validate
├── RunError              run
└── CleanupError          cleanup
"""

from collections.abc import Sequence


class Unfit(str):
    """A problem of this machine and not of the task, for a person: another worker may be able to do the task."""

    __slots__ = ()


class ClientError(Exception):
    """A step of a task failed. All attributes go on the job's record.

    Attributes:
        message: The reason, for a person. If it is not given, it is made of `problems`.
        problems: If there are several reasons: each of them, for a person.
        stderr: The last lines of the tool that failed, if one did.
        exit_status: The exit status of that tool.
        signal: The name of the signal that killed that tool.

    If all problems are `Unfit`, or the message is, the job goes to another worker.
    """

    # Defaults for an author's own subclass that does not call this `__init__`.
    message: str = ""
    problems: Sequence[str] = ()
    stderr: Sequence[str] = ()
    exit_status: int | None = None
    signal: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        problems: Sequence[str] = (),
        stderr: Sequence[str] = (),
        exit_status: int | None = None,
        signal: str | None = None,
    ) -> None:
        if isinstance(problems, str):  # else each letter would be one
            problems = (problems,)
        message = message or _joined(problems)
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.stderr = tuple(stderr)
        self.exit_status = exit_status
        self.signal = signal


def _joined(problems: Sequence[str]) -> str:
    text = "; ".join(problems)
    return Unfit(text) if problems and all(isinstance(problem, Unfit) for problem in problems) else text


Error = ClientError
"""The field's name for it."""


class Skipped(Exception):  # noqa: N818 - it is no error
    """Raised by `run`: there is nothing to do, for the reason that is the text. The task did not fail.

    The job is completed, and its tasks after this one are skipped, too: what they would work on is not there. Those
    with `"when": "always"` run.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class InitializationError(ClientError):
    """A module could not be set up."""


class NetworkError(ClientError):
    """Something could not be reached. The client raises none: the name is for modules of the field."""


class ValidationError(ClientError):
    """The task's data is wrong. No task of the job has run."""


class RunError(ClientError):
    """The task's work failed."""


class CleanupError(ClientError):
    """The task's work was done, but the cleanup after it failed."""
