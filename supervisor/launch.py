"""The start of the zygote's process.

It imports little: the zygote is started before the rest of the supervisor is imported, so that both get ready at the
same time, each on a processor.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import NamedTuple

from app import MODULE_PREFIX, NOTIFY_PREFIX, SECRETS
from ipc import ownership
from supervisor.isolation import systemd

_TOLD_LATER = frozenset({"API_URL", "LOGURU_LEVEL"})
"""Settings that the zygote gets when they are read and known to be right: the first may hold a password, and loguru
fails to import at a name that is no level."""


COMMANDS = frozenset({"run", "validate", "modules", "schema", "start"})
"""The commands that need a zygote."""


class Launched(NamedTuple):
    """The zygote's process, which waits for its `Prepare` and ends when `control` is closed."""

    process: "subprocess.Popen[bytes]"
    control: socket.socket


_early: list[Launched] = []


def launch() -> Launched:
    """Start the zygote.

    Raises:
        OSError: it cannot be started.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would lose exit statuses
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                # -P: a file in the working directory must not stand in for a module of Python's library.
                [sys.executable, "-P", "-m", "child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
    return Launched(process, ours)


def launch_early() -> None:
    """Start the zygote. If that fails, a second attempt, when there is a log, tells why."""
    with contextlib.suppress(OSError):
        launched = launch()
        atexit.register(launched.process.kill)  # it may never be used: the job's file, or the configuration, is wrong
        _early.append(launched)


def take_early() -> Launched | None:
    """Return the zygote that `launch_early` has started, if it has and nobody else has taken it."""
    return _early.pop() if _early else None


def _environment() -> dict[str, str]:
    """The environment of the zygote, the tasks and their tools: the supervisor's, without secrets and systemd's."""
    own = {
        ownership.MARKER: ownership.marker(os.getpid()),
        # setproctitle would write a process's title over its environment, where the next start looks for the marker.
        "SPT_NOENV": "1",
        "LOGURU_AUTOINIT": "0",  # the zygote makes the only handler
    }
    hidden = SECRETS | systemd.VARIABLES | _TOLD_LATER
    prefixes = (NOTIFY_PREFIX, MODULE_PREFIX)
    shown = {name: value for name, value in os.environ.items() if not (name in hidden or name.startswith(prefixes))}
    return shown | own
