"""The processes below the test, as psutil sees them."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import psutil

from supervisor.isolation.zygote import Zygote
from tests.support.waiting import until

SURVIVAL = 2.0
"""Seconds after which nothing may be alive."""

_kept: list[Callable[[], set[int]]] = []


@contextlib.contextmanager
def kept(find: Callable[[], set[int]]) -> Iterator[None]:
    """Let the processes that `find` gives outlive tests: a supervisor shared by the tests of a file, and its zygote."""
    _kept.append(find)
    try:
        yield
    finally:
        _kept.remove(find)


def living() -> list[psutil.Process]:
    """Processes below this one that are alive and not `kept`, counted by psutil and not by the code under test.

    Zombies are reaped.
    """
    alive = []
    spared = {pid for find in _kept for pid in find()}
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1:  # the first may have ended alone
                alive.append(process)
            elif process.ppid() == os.getpid() and process.pid not in spared:
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return [process for process in alive if process.pid not in spared]


def await_none_alive() -> list[psutil.Process]:
    """Wait until nothing is alive below this process; returns what still is when the time is over."""
    deadline = time.monotonic() + SURVIVAL
    while (alive := living()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive


def none_below(zygote: Zygote) -> None:
    """Nothing but the zygote is alive below this supervisor."""
    until(
        lambda: [process.pid for process in living()] in ([zygote.pid], []), "everything but the zygote to be gone", 2
    )
