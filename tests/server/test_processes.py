"""Several processes on one PostgreSQL, which may be away for a while."""

import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.server.postgresql import PASSWORD, postgresql
from tests.server.relay import Relay
from tests.support.api_server import BEAT, Api, Process, connected, serving
from tests.support.waiting import until


def children(process: Process) -> list[psutil.Process]:
    """The server processes."""
    return psutil.Process(process.pid).children()


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    """Two processes serve one port; when one is killed, the other serves on, and at the end none is left."""
    with contextlib.closing(Process(tmp_path, postgresql().make_database(), processes=2)) as process:
        url = process.start()
        first = until(lambda: [*children(process)] if process.log.count("Serving") == 2 else [], "both processes")
        with connected(url) as api:
            ids = {api.submit() for _ in range(20)}
            first[0].send_signal(signal.SIGKILL)
            until(lambda: process.log.count("Serving") == 3, "another process")
        polled = set()
        while len(polled) < len(ids):
            with connected(url) as api:
                polled.add(api.poll())
        second = children(process)
        process.send(signal.SIGTERM)
        status = process.wait()

    assert polled == ids
    assert len(second) == 2
    assert first[1] in second
    assert status == 0
    assert not {"Traceback", "Fatal"} & set(process.log.split())


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """A parent that is killed leaves no process behind."""
    process = Process(tmp_path, postgresql().make_database(), processes=2)
    process.start()
    started = until(lambda: [*children(process)] if process.log.count("Serving") == 2 else [], "both processes")
    process.kill()

    until(lambda: not any(child.is_running() and child.status() != "zombie" for child in started), "all to end")


def test_calls_go_on_when_postgresql_is_back(logged: list[str]) -> None:
    """While PostgreSQL is away calls are 503, and heartbeats are taken; then all goes on, waiting polls too."""
    database = postgresql().make_database()
    with serving(database) as api, ThreadPoolExecutor(1) as pool:
        job_id = api.submit()
        assert api.poll() == job_id
        postgresql().allow_connections(database, False)
        away = [api.status("GET", "/queue"), api.status("POST", "/workers/w", BEAT)]
        health = until(lambda: _unhealthy(api), "the server to notice")
        postgresql().allow_connections(database, True)
        until(lambda: api.status("GET", "/queue") == 200, "the server to go on")
        until(lambda: api.status("GET", "/status/health") == 200, "the server to be healthy")
        waiting = pool.submit(_wait, api.url)
        second = api.submit()
        given = waiting.result(30)
        running = api.status("GET", f"/jobs/{job_id}")

    assert away == [503, 204]
    assert (health["status"], health["database"]) == ("online", "offline")
    assert "database" in health["message"]
    assert PASSWORD not in health["message"]
    assert given == second
    assert running == 200
    assert len([line for line in logged if "Looking for lost jobs failed" in line]) <= 1


def _unhealthy(api: Api) -> dict[str, str] | None:
    answer = api("GET", "/status/health")
    return answer.json() if answer.status_code == 503 else None


def test_a_postgresql_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls wait for it, all are answered with 503, and all goes on when it does; so after a failover."""
    monkeypatch.setattr("server.storage.database.HANG", 1.0)
    with Relay(postgresql().port) as relay:
        database = postgresql().make_database(relay.port)
        with serving(database) as api, ThreadPoolExecutor(60) as pool:
            job_id = api.submit()
            for away, back in ((relay.hang, relay.go_on), (relay.refuse, relay.accept)):
                away()
                statuses = [asked.result() for asked in [pool.submit(_ask, api.url) for _ in range(60)]]
                unhealthy = until(lambda: _unhealthy(api), "the server to notice")
                beat = api.status("POST", "/workers/w", BEAT)
                back()
                until(lambda: api.status("GET", f"/jobs/{job_id}") == 200, "the server to go on")

                assert set(statuses) == {503}
                assert unhealthy["database"] == "offline"
                assert beat == 204


def test_stopping_while_postgresql_hangs(tmp_path: Path) -> None:
    """A server that is told to stop does not wait for PostgreSQL: a call that does gets 503, and the log one line."""
    with (
        Relay(postgresql().port) as relay,
        contextlib.closing(Process(tmp_path, postgresql().make_database(relay.port))) as process,
    ):
        url = process.start()
        waiting = HTTPConnection(urlsplit(url).netloc)
        relay.hang()
        waiting.request("GET", "/queue")
        with connected(url) as api:
            api.status("GET", "/doc/")  # answered after the other was read
        process.send(signal.SIGTERM)
        answer = waiting.getresponse()
        said = answer.status, answer.read()
        waiting.close()
        relay.go_on()
        status = process.wait()

    assert (said[0], status) == (503, 0), said
    assert "Traceback" not in process.log


def _ask(url: str) -> int:
    with connected(url) as api:
        return api.status("GET", "/queue")


def _wait(url: str) -> str:
    with connected(url) as api:
        return str(api("GET", "/queue/poll?wait=30").json()["job_id"])
