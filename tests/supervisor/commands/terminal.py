"""The program on a terminal of 80 columns."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from fcntl import ioctl
from struct import pack
from termios import TIOCSWINSZ

from tests.support.supervised import CLIENT
from tests.support.waiting import until

SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What steers a terminal."""


def on_terminal(
    environ: Mapping[str, str], *words: str, act: Callable[["subprocess.Popen[bytes]", str], bool] | None = None,
    raw: bool = False, **options: object,
) -> tuple[int, str]:  # fmt: skip
    """Run the program on a terminal. `act` is called with what was shown so far, until it returns true.

    Returns the exit status and what was shown, without what steers the terminal unless it is wanted `raw`.
    """
    ours, theirs = os.openpty()
    ioctl(theirs, TIOCSWINSZ, pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(ours, False)
    own = dict(environ) | {"TERM": "xterm-256color"}
    process = subprocess.Popen([CLIENT, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=own, **options)  # type: ignore[call-overload]
    os.close(theirs)
    shown, acted = "", act is None

    def has_ended() -> bool:
        nonlocal shown, acted
        ended = process.poll() is not None
        with suppress(OSError):  # nothing new, or closed at the other end
            while data := os.read(ours, 1 << 16):
                shown += data.decode(errors="replace").replace("\r\n", "\n")
        if act and not acted:
            acted = act(process, shown)
        return ended

    until(has_ended, f"the end of {words}", 60)
    os.close(ours)
    return process.returncode, shown if raw else SEQUENCE.sub("", shown)
