"""How a task process ended, as a `Cause`; and the order to end one, which carries the cause beforehand."""

import os

import msgspec

from ipc.messages import Cause
from ipc.words import signal_words


class StopOrder(msgspec.Struct, frozen=True):
    """An order to stop in the middle of a step. `cause` goes on the record, whatever the process says of its end."""

    cause: Cause
    now: bool = False
    """Kill at once, without asking."""


def explain_status(status: int) -> Cause:
    """The cause that a wait status tells, of a task process that ended in the middle of a step."""
    if os.WIFSIGNALED(status):
        name, words = signal_words(os.WTERMSIG(status))
        return Cause("signal", f"the task process was killed by {name} ({words})", signal=name)
    code = os.waitstatus_to_exitcode(status)
    return Cause("exit", f"the task process exited with status {code} in the middle of the step", exit_status=code)
