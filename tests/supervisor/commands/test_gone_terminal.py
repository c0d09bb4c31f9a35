"""`sisyphus-client run` on a terminal that goes away while the job runs."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.client import Held
from tests.support.supervised import Supervised
from tests.support.waiting import until


@pytest.mark.parametrize("hangs_up", [False, True], ids=["in silence", "with SIGHUP"])
@pytest.mark.parametrize("options", [(), ("--json",), ("-q",)], ids=["bars", "record", "quiet"])
def test_status_without_a_terminal(
    supervised: Supervised, tmp_path: Path, options: tuple[str, ...], hangs_up: bool
) -> None:
    """A job goes on without its terminal and completes, or is stopped by the hangup: the exit status is the job's."""
    supervised.configure(modules={"reporter": "tests.support.modules.Reporter"})
    held = Held(tmp_path)
    ours, theirs = os.openpty()
    client = supervised.start(held.job, *options, stderr=theirs, env=os.environ | {"TERM": "xterm-256color"})
    os.close(theirs)
    until(lambda: "-q" in options or os.read(ours, 1 << 16), "the bars to be shown")
    held.await_running()
    os.close(ours)
    if hangs_up:
        client.send_signal(signal.SIGHUP)
    else:
        held.let_go()
    shown, _ = client.communicate()

    assert client.returncode == (129 if hangs_up else 0)
    assert ("SIGHUP" in shown) == hangs_up


def test_nohup(supervised: Supervised, tmp_path: Path) -> None:
    """Under nohup, a job outlives its terminal."""
    supervised.configure(modules={"reporter": "tests.support.modules.Reporter"})
    supervised.launcher = ["nohup"]
    held = Held(tmp_path)
    log = tmp_path / "log"
    with log.open("w") as file:
        client = supervised.start(held.job, stderr=file)
    held.await_running()
    client.send_signal(signal.SIGHUP)
    client.send_signal(signal.SIGUSR2)
    until(lambda: "SIGUSR2: pausing" in log.read_text(), "the signals to be taken")
    client.send_signal(signal.SIGUSR2)
    held.let_go()
    client.communicate()

    assert client.returncode == 0
    assert "SIGHUP" not in log.read_text()
