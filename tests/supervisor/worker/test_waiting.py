"""Polls that wait at the embedded server: whom they give jobs, what ends them, and what breaks them."""

import contextlib
import itertools
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.support.api_server import Process
from tests.support.client import Held, Served, complaints
from tests.support.supervised import BENIGN, job
from tests.support.waiting import until


class CuttingProxy:
    """Stands before a server, and closes each connection whose request is not answered within `patience` seconds."""

    def __init__(self, url: str, patience: float) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._patience = patience
        self.polls: list[float] = []
        """When polls came, on the monotonic clock."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Pass one request on, and its answer back; then close, as the client is told to expect."""
        with connection, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            request = b""
            while not (end := re.search(rb"\r\n\r\n", request)):
                if not (data := connection.recv(1 << 16)):
                    return
                request += data
            if request.startswith(b"GET /queue/poll"):
                self.polls.append(time.monotonic())
            length = re.search(rb"(?i)content-length: (\d+)", request)
            while length and len(request) < end.end() + int(length[1]):
                request += connection.recv(1 << 16)
            server.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
            server.settimeout(self._patience)
            while data := server.recv(1 << 16):
                connection.sendall(data)


# The intervals of `served` are a minute: whatever happens sooner happens because a poll waits.


def test_a_job_begins_when_it_is_submitted(served: Served) -> None:
    """An idle worker takes one job after the other without an interval between, and leaves at once when asked."""
    served.client.start()
    served.await_beat()
    jobs = [served.await_state(served.submit(), "completed") for _ in range(5)]

    assert served.client.stop() == 0
    assert len(jobs) == 5


def test_slots_share_one_poll(served: Served, tmp_path: Path) -> None:
    """Of all idle slots one waits at the server, and each gets a job all the same."""
    slots = 8
    with contextlib.closing(CuttingProxy(served.api.url, 60.0)) as proxy:
        served.client.start(API_URL=proxy.url, WORKER_SLOTS=str(slots))
        until(lambda: served.idle_workers() == slots and proxy.polls, "all workers, and the poll of one")
        polls = len(proxy.polls)
        held = [Held(tmp_path, f"job{number}") for number in range(slots)]
        ids = [served.submit(each.job) for each in held]
        for each in held:
            each.await_running()
            each.let_go()
        workers = {served.await_state(job_id, "completed")["worker_id"] for job_id in ids}
        served.client.stop()

    assert polls == 1
    assert len(workers) == slots


def test_a_worker_gets_what_it_can_do(served: Served) -> None:
    """The poll tells tags and modules: jobs for others stay in the queue, behind which a job is taken."""
    served.client.start(WORKER_TAGS="gpu, fast,gpu")
    foreign = [served.submit(requires=["tape"]), served.submit(job(("unknown", {})))]
    taken = [served.await_state(served.submit(requires=tags), "completed") for tags in (["gpu", "fast"], ["fast"], [])]
    why = [served.record(job_id)["why"] for job_id in foreign]

    assert len(taken) == 3
    assert why == ["no live worker has the tag tape", "no live worker has the module unknown"]


def test_modules_that_are_enabled_later(served: Served) -> None:
    """SIGHUP ends the poll that names the former modules."""
    served.client.start()
    served.await_beat()
    job_id = served.submit(job(("later", {})))
    config = served.client.directory / "client.toml"
    config.write_text(config.read_text().replace("benign =", 'later = "tests.hostile.Benign"\nbenign ='))
    served.client.process.send_signal(signal.SIGHUP)

    assert served.await_state(job_id, "completed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR2], ids=lambda number: number.name)
def test_no_job_is_lost_that_is_given_when_a_poll_ends(served: Served, number: signal.Signals) -> None:
    """A job that comes in the instant of a signal is run, or goes back to the queue."""
    served.client.start()
    served.await_beat()
    served.client.process.send_signal(number)
    ids = [served.submit() for _ in range(3)]
    if number is not signal.SIGUSR2:
        assert served.client.process.wait(60) == 0
        served.client.start()
    else:
        served.client.process.send_signal(number)
    until(lambda: not served.api.queued(), "the queue to be empty", 60)
    until(lambda: served.api("GET", "/jobs?state=running").json()["jobs"] == [], "nothing to run", 60)
    ended = served.api("GET", "/jobs?state=completed").json()["jobs"]

    assert len(ended) >= len(ids)


def test_a_server_that_is_killed_and_comes_back(served_by_it: Served, server: Process) -> None:
    """It costs the log one line when it goes and one when it comes, and the worker takes its jobs at once."""
    served, client = served_by_it, served_by_it.client
    client.start()
    served.await_beat()
    server.kill()
    until(lambda: any("cannot be reached" in line for line in client.log), "the outage")
    server.start()

    assert served.await_state(served.submit(), "completed")
    assert client.stop() == 0
    assert len([line for line in client.log if "cannot be reached" in line]) == 1
    assert not [line for line in client.log if "/queue/poll" in line]


@pytest.mark.slow
def test_a_proxy_without_patience(served: Served) -> None:
    """Polls that a proxy cuts become shorter; none is repeated in a hurry, and the log says it once."""
    proxy = CuttingProxy(served.api.url, 2.0)
    with contextlib.closing(proxy):
        served.client.start(API_URL=proxy.url)
        until(lambda: len(proxy.polls) > 6, "some polls", 60)
        completed = served.await_state(served.submit(BENIGN), "completed")
        warnings = complaints(served.client)
        served.client.stop()

    assert completed
    assert len(warnings) == 1, warnings
    assert "Polls are cut after 2 s" in warnings[0]
    assert min(later - earlier for earlier, later in itertools.pairwise(proxy.polls[:6])) > 1.0
