"""Fixtures of all tests: every one ends with no process alive that it started."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ipc import linux
from tests.supervised import Supervised

SURVIVAL = 2.0
"""Seconds after which nothing may be alive."""


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> None:
    """What a supervisor under test leaves behind falls to this process, where it is seen, whatever it did to hide."""
    linux.become_subreaper()


def living() -> list[psutil.Process]:
    """Processes below this one that are alive, counted by psutil and not by the code under test; zombies are reaped."""
    alive = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
            elif process.ppid() == os.getpid():
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return alive


def await_none_alive() -> list[psutil.Process]:
    """Wait until nothing is alive below this process; returns what still is when the time is over."""
    deadline = time.monotonic() + SURVIVAL
    while (alive := living()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive


@pytest.fixture(autouse=True)
def _no_survivors() -> Iterator[None]:
    yield
    alive = await_none_alive()
    described = [(process.pid, process.cmdline()) for process in alive if process.is_running()]
    for process in alive:
        process.kill()
    await_none_alive()
    assert not described, f"still alive {SURVIVAL} s after the test: {described}"


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the state or the settings of the one who runs it."""
    for name in ("API_URL", "API_TIMEZONE", "HOSTNAME_OVERRIDE", "HOST_UUID", "SISYPHUS_CONFIG", "LOGURU_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SISYPHUS_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """A client with the test modules enabled, to run jobs with."""
    supervised = Supervised(tmp_path)
    yield supervised
    supervised.close()
