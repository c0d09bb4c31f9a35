"""The zygote, as the supervisor has it."""

import os
import signal

import pytest

from supervisor.isolation.zygote import Zygote
from tests.support.supervised import BENIGN, Supervised


def test_zygote_that_is_stopped_is_replaced(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zygote that does not answer is killed with all it holds, and the next job runs under a new one."""
    monkeypatch.setattr("supervisor.isolation.zygote.ANSWER_TIMEOUT", 1.0)
    stopped: list[int] = []

    def stop_once(zygote: Zygote) -> None:
        if not stopped:
            os.kill(zygote.pid, signal.SIGSTOP)
        stopped.append(zygote.pid)

    first, second, third = supervised.verdicts(BENIGN, BENIGN, BENIGN, between=stop_once)

    assert first.failure is None
    assert second.failure is not None
    assert second.failure.cause.reason == "lost"
    assert third.failure is None
