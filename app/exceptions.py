"""The errors a module may raise, one for each step of a task.

ClientError
├── InitializationError   __init__
├── ValidationError       validate
├── RunError              run
└── CleanupError          cleanup
"""

from collections.abc import Sequence


class ClientError(Exception):
    """A step of a task failed, and `message` tells a person why.

    Of several `problems` each is a line for a person, and the message, if it is not given, all of them. `stderr` holds
    the last lines a tool wrote before it failed, if one did, and `exit_status` or `signal` how it ended. All of it goes
    on the job's record.
    """

    # Also for a class of an author's own that does not call this one's __init__.
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
        message = message or "; ".join(problems)
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.stderr = tuple(stderr)
        self.exit_status = exit_status
        self.signal = signal


class InitializationError(ClientError):
    """A module could not be set up."""


class ValidationError(ClientError):
    """The task's data is wrong; nothing of the job has run."""


class RunError(ClientError):
    """The task's work failed."""


class CleanupError(ClientError):
    """The work was done, but what it left could not be put in order."""
