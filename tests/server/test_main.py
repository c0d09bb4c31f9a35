"""The server starts, stops, and says why it cannot."""

import contextlib
import signal
import socket
import threading
from pathlib import Path

import pytest
import requests

from server.main import ServerError
from tests.support.api_server import Process, connected, serving
from tests.support.waiting import until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_with_connections_open(process: Process, number: signal.Signals) -> None:
    """A signal ends it with status 0 and no traceback, whatever its clients are in the middle of; nothing is lost."""
    url = process.start()
    host, port = url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(connected(url))
        job_id = api.submit()
        api.submit()
        api.poll()
        for sent in (
            b"",
            b"GET /queue HTTP/1.1\r\nHost: x\r\n",
            b"POST /queue HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
        ):
            stack.enter_context(socket.create_connection((host, int(port)))).sendall(sent)
        process.send(number)
        status = process.wait()
    log = process.log
    with connected(process.start()) as api:
        statuses = api.status("GET", f"/jobs/{job_id}"), len(api.queued())

    assert status == 0
    assert "Traceback" not in log
    assert "Stopped serving" in log
    assert statuses == (200, 1)


def test_it_runs_in_the_background_and_stops(tmp_path: Path) -> None:
    """In a thread it serves at once, leaves no thread behind, and what it stored is there the next time."""
    threads = threading.active_count()
    with serving(tmp_path) as api:
        job_id = api.submit()
        url = api.url
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=60)
    with serving(tmp_path) as api:
        polled = api.poll()

    assert polled == job_id
    until(lambda: threading.active_count() <= threads, "the server's threads to end")


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    """The one who starts the server learns which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError) as told, serving(tmp_path, port=port):
            pass

    assert str(told.value) == f"127.0.0.1:{port}: cannot be listened on: Address already in use"


@pytest.mark.parametrize(
    ("host", "port"), [("no.such.host.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 70000), ("x" * 99, 0)]
)
def test_an_address_that_is_none_is_told_in_one_line(tmp_path: Path, host: str, port: int) -> None:
    """A host or port that cannot be listened on is named."""
    with (
        pytest.raises(ServerError, match=rf"^{host}:{port}: cannot be listened on: .+$"),
        serving(tmp_path, host=host, port=port),
    ):
        pass


def test_a_time_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    """No worker can vanish after no time."""
    with pytest.raises(ServerError, match=r"^vanished_after: 0 is not a number"), serving(tmp_path, vanished_after=0):
        pass


def test_it_serves_ipv6(tmp_path: Path) -> None:
    """An IPv6 address stands in brackets in the URL."""
    with serving(tmp_path, host="::1") as api:
        assert api.url.startswith("http://[::1]:")
        assert api("GET", "/status/health").status_code == 200
