"""The zygote, as the supervisor has it."""

import os
import signal

import pytest

from supervisor.isolation.zygote import ANSWER_TIMEOUT, Zygote
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
