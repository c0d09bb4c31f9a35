"""A real PostgreSQL that hangs, crashes or is replaced by another one, while clients submit, take and complete jobs."""

import contextlib
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.postgresql import Crashing
from tests.server.relay import Relay
from tests.server.traffic import Traffic, all_jobs
from tests.support.api_server import Api, serving
from tests.support.waiting import until


def hang(first: Crashing, _second: Crashing | None, _relay: Relay, api: Api) -> None:
    """Be stopped, and go on when that was noticed."""
    first.send(signal.SIGSTOP)
    try:
        _until_noticed(api)
    finally:
        first.send(signal.SIGCONT)


def crash(first: Crashing, _second: Crashing | None, _relay: Relay, api: Api) -> None:
    """Be killed, and started again when that was noticed."""
    first.send(signal.SIGKILL)
    _until_noticed(api)
    first.start()


def lose_a_backend(first: Crashing, _second: Crashing | None, _relay: Relay, _api: Api) -> None:
    """Lose one process of many."""
    first.kill_backend()


def fail_over(first: Crashing, second: Crashing | None, relay: Relay, api: Api) -> None:
    """Be replaced by a copy that has every commit."""
    assert second
    relay.refuse()
    first.send(signal.SIGKILL)
    _until_noticed(api)
    second.promote()
    relay.switch(second.cluster.port)


def _until_noticed(api: Api) -> None:
    until(lambda: api.status("GET", "/queue") == 503, "calls to be refused", 60)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("happen", [hang, crash, lose_a_backend, fail_over])
def test_no_job_is_lost_or_doubled(
    happen: Callable[[Crashing, Crashing | None, Relay, Api], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are 503 meanwhile and go on by themselves; each job that was acknowledged is there once, and given once."""
    monkeypatch.setattr("server.storage.database.HANG", 2.0)
    with contextlib.ExitStack() as opened:
        first = _started(opened)
        second = None
        relay = opened.enter_context(Relay(first.cluster.port))
        database = first.cluster.make_database("test", relay.port)
        if happen is fail_over:
            second = first.make_standby(_directory(opened))
            opened.callback(second.send, signal.SIGKILL)
        with serving(database, vanished_after=300.0) as api:
            traffic = Traffic(api.url)
            with traffic.running():
                until(lambda: len(traffic.completed) > 20, "traffic")
                happen(first, second, relay, api)
                until(lambda: api.status("GET", "/queue") == 200, "the server to go on", 60)
                goal = len(traffic.completed) + 20
                until(lambda: len(traffic.completed) > goal, "traffic again", 60)
            while traffic.work(api):
                pass
            jobs = all_jobs(api)

    titles = [job["job_title"] for job in jobs]
    running = [job["job_title"] for job in jobs if job["state"] == "running"]
    assert len(set(titles)) == len(titles)
    assert set(traffic.submitted) <= set(titles) <= set(traffic.asked)
    assert len(set(traffic.taken)) == len(traffic.taken)
    assert sorted(traffic.completed) == sorted(job["job_title"] for job in jobs if job["state"] == "completed")
    assert len(running) <= traffic.unclear
    assert len(jobs) == len(traffic.completed) + len(running)
    assert set(traffic.statuses) <= {200, 204, 404, 503}
    assert not traffic.broken


def _started(opened: contextlib.ExitStack) -> Crashing:
    crashing = Crashing(_directory(opened))
    opened.callback(crashing.send, signal.SIGKILL)
    crashing.start()
    return crashing


def _directory(opened: contextlib.ExitStack) -> Path:
    """A directory that every user can reach, unlike `tmp_path`: PostgreSQL refuses root."""
    return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="sisyphus-postgresql-")))
