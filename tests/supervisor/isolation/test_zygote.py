"""The zygote, as the supervisor has it."""

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from supervisor.isolation.zygote import ANSWER_TIMEOUT, TOO_MANY_IN_FLIGHT, Zygote
from tests.support.lacking import launcher
from tests.support.supervised import BENIGN, Supervised


def test_zygote_that_is_stopped_is_replaced(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zygote that does not answer is killed with all it holds, and its job begins again under a new one."""
    stopped: list[int] = []

    def stop_once(zygote: Zygote) -> None:
        is_first = not stopped
        stopped.append(zygote.pid)
        # Short for the second job alone: the others' zygotes must have the time to start on a busy machine.
        monkeypatch.setattr("supervisor.isolation.zygote.ANSWER_TIMEOUT", 2.0 if is_first else ANSWER_TIMEOUT)
        if is_first:
            assert zygote.pid  # to process 0 would mean to the process group of the tests, which would stop for ever
            os.kill(zygote.pid, signal.SIGSTOP)

    verdicts = supervised.verdicts(BENIGN, BENIGN, BENIGN, between=stop_once)

    assert [each.failure for each in verdicts] == [None, None, None]
    assert stopped[1] != stopped[0]


@contextlib.contextmanager
def descriptors_on_their_way(count: int) -> Iterator[None]:
    """This user has as many of them in sockets, for which unix(7) has a limit."""
    with contextlib.ExitStack() as sockets:
        for _ in range(count // 250 + 1):
            sender, receiver = (sockets.enter_context(each) for each in socket.socketpair())
            socket.send_fds(sender, [b"x"], [receiver.fileno()] * 250)
        yield


def test_task_waits_for_a_way_for_its_descriptors(supervised: Supervised) -> None:
    """Others of this user have more descriptors on their way than the client may have: that is not the zygote's end."""
    supervised.launcher = [*launcher("capabilities"), "prlimit", "--nofile=512:512"]

    with descriptors_on_their_way(600):
        client = supervised.start(BENIGN)
        assert client.stderr
        line = next(line for line in client.stderr if "descriptors" in line)
    _, rest = client.communicate()

    assert f"A task waits: {TOO_MANY_IN_FLIGHT}" in line
    assert client.returncode == 0, rest
    assert "lost" not in rest


def test_task_does_not_wait_for_ever(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the others keep on their way is, in the end, an error that says so, and the zygote is still the same."""
    zygotes: list[int] = []
    supervised.verdicts(BENIGN, between=lambda zygote: zygotes.append(zygote.pid))
    monkeypatch.setattr("supervisor.isolation.zygote.ANSWER_TIMEOUT", 0.2)
    with monkeypatch.context() as refused:
        refused.setattr("socket.send_fds", _refuse)  # the kernel itself would refuse those of other tests, too
        cause = supervised.cause(BENIGN)
    supervised.verdicts(BENIGN, between=lambda zygote: zygotes.append(zygote.pid))

    assert cause.message == f"its process could not be started: {TOO_MANY_IN_FLIGHT}"
    assert zygotes[0] == zygotes[1]


def _refuse(*_: object) -> int:
    raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
