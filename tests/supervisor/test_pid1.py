"""The client as process 1 of a PID namespace, as in a container without an init."""

import os
import signal

import psutil
import pytest

from tests.support.client import Client, Held, await_idle
from tests.support.waiting import until

NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
CONTAINER = [*NAMESPACE, "--pid", "--kill-child", "--mount-proc", "sh", "-c", '(sleep 1 &); exec "$@"', "sh"]
"""Its process 1 has an orphan before it becomes the client."""


@pytest.fixture
def first(client: Client) -> psutil.Process:
    """Process 1 of a client that has just become it, and forked."""
    client.launcher = CONTAINER
    launcher = psutil.Process(client.start().pid)
    until(lambda: len(launcher.children()) == 1, "process 1")
    (first,) = launcher.children()
    until(lambda: any(child.name() not in ("sh", "sleep") for child in first.children()), "the client")
    return first


def test_it_drains_and_reaps(client: Client, first: psutil.Process, held: Held) -> None:
    """At SIGTERM to process 1 a client finishes its job and ends with 0. Orphans of the container are reaped."""
    client.farm.post(held.job)
    held.await_running()
    first.send_signal(signal.SIGTERM)
    until(lambda: any("taking no more jobs" in line for line in client.log), "the drain")
    until(lambda: len(first.children()) == 1, "the orphan to be reaped")
    held.let_go()

    assert client.process.wait(60) == 0
    assert [verdict.failed for verdict in client.farm.verdicts] == [False]


def test_a_signal_at_the_start(client: Client, first: psutil.Process) -> None:
    """A signal that comes before the client has a handler is not lost."""
    first.send_signal(signal.SIGTERM)

    assert client.process.wait(60) in (0, 128 + signal.SIGTERM)


def test_a_killed_client_ends_the_container(client: Client, first: psutil.Process) -> None:
    """If the client is killed, process 1 ends with the status that tells so, and all else with it."""
    await_idle(client.farm)
    next(child for child in first.children() if child.name() != "sleep").kill()

    assert client.process.wait(60) == 128 + signal.SIGKILL
