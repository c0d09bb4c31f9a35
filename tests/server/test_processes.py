"""Several processes on one PostgreSQL, which may be away for a while."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.server.postgresql import postgresql
from tests.support.api_server import BEAT, Process, connected, serving
from tests.support.waiting import until


def children(process: Process) -> list[psutil.Process]:
    """The server processes."""
    return psutil.Process(process.pid).children()


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    """Two processes serve one port; when one is killed, the other serves on, and at the end none is left."""
    process = Process(tmp_path, postgresql().make_database(), processes=2)
    try:
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
    finally:
        process.kill()

    assert polled == ids
    assert len(second) == 2
    assert first[1] in second
    assert status == 0
    assert "Traceback" not in process.log


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
        away = [
            api.status("GET", "/queue"),
            api.status("POST", "/workers/w", BEAT),
            api.status("GET", "/status/health"),
        ]
        postgresql().allow_connections(database, True)
        until(lambda: api.status("GET", "/queue") == 200, "the server to go on")
        waiting = pool.submit(_wait, api.url)
        second = api.submit()
        given = waiting.result(30)
        running = api.status("GET", f"/jobs/{job_id}")

    assert away == [503, 204, 200]
    assert given == second
    assert running == 200
    assert len([line for line in logged if "Looking for lost jobs failed" in line]) <= 1


def _wait(url: str) -> str:
    with connected(url) as api:
        return str(api("GET", "/queue/poll?wait=30").json()["job_id"])
