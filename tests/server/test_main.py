"""The server starts, stops, and says why it cannot."""

import contextlib
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from server.errors import ServerError
from tests.server.postgresql import PASSWORD, postgresql
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


def test_it_runs_in_the_background_and_stops(database: Path | str) -> None:
    """In a thread it serves at once, leaves no thread behind, and what it stored is there the next time."""
    threads = threading.active_count()
    with serving(database) as api:
        job_id = api.submit()
        url = api.url
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=60)
    with serving(database) as api:
        polled = api.poll()

    assert polled == job_id
    until(lambda: threading.active_count() <= threads, "the server's threads to end")


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    """The one who starts the server learns which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError) as told, serving(tmp_path / "jobs.db", port=port):
            pass

    assert str(told.value) == f"127.0.0.1:{port}: cannot be listened on: Address already in use"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"vanished_after": 0}, "vanished_after: 0 is not a number of seconds greater than 0"),
        ({"vanished_after": float("inf")}, "vanished_after: inf is not a number of seconds greater than 0"),
        ({"allow_host": ("farm:5000",)}, "allow-host: 'farm:5000' is not a name such as farm"),
        ({"cors_origin": ("https://farm/",)}, "cors-origin: 'https://farm/' is not an origin such as "),
        ({"host": "0.0.0.0"}, "0.0.0.0: other machines could reach this server"),
        *(
            ({"host": host, "port": port, "insecure": True}, f"{host}:{port}: cannot be listened on: ")
            for host, port in (("no.such.host.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 70000), ("x" * 99, 0))
        ),
        ({"processes": 2}, "processes: an SQLite file has one server; more need PostgreSQL"),
        ({"worker_token": "x"}, "WORKER_TOKEN: it needs an API_TOKEN beside it"),
        ({"token": "x", "worker_token": "x"}, "WORKER_TOKEN: it needs an API_TOKEN beside it, and another one"),
        ({"root_path": "sisyphus"}, "root-path: 'sisyphus' is not a path such as /sisyphus"),
        ({"root_path": "/farm"}, "root-path: /farm is a path of the server itself"),
        ({"keep": "-1d"}, "keep: '-1d' is not a time such as 12h or 90d, or 0 for ever"),
        ({"keep_failed": "90"}, "keep-failed: '90' is not a time such as 12h or 90d, or 0 for ever"),
        (
            {"database": "mysql://me:secret@farm/x"},
            "mysql: no such database is known; expected a file or postgresql://",
        ),
        ({"database": "postgresql://me:s@cret@farm/x"}, "the database's URL is wrong: expected postgresql://"),
        ({"database": "postgresql://me:%zz@farm/x"}, "the database's URL is wrong: expected postgresql://"),
        (
            {"database": "postgresql://me:secret@127.0.0.1:1/x"},
            "PostgreSQL, x on 127.0.0.1: the database cannot be used:",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_told_in_one_line(tmp_path: Path, setting: dict[str, Any], words: str) -> None:
    """The line names the setting, and never the password in a URL."""
    with pytest.raises(ServerError) as told, serving(**{"database": tmp_path / "jobs.db"} | setting):
        pass

    assert str(told.value).startswith(words)
    assert "\n" not in str(told.value)
    assert not {"secret", "s@cret", "cret@"} & set(re.findall(r"[\w@]+", str(told.value)))


def test_the_password_is_shown_nowhere(process: Process, database: Path | str) -> None:
    """Neither the log nor an answer shows it, not even when the database fails."""
    with connected(process.start()) as api:
        answers = [api("GET", "/status/config").text, api("GET", "/queue").text]
        if isinstance(database, str):
            postgresql().end_sessions()
        answers.append(api("GET", "/queue").text)
    process.send(signal.SIGTERM)
    process.wait()

    for text in (process.log, *answers):
        assert PASSWORD not in text
        assert quote(PASSWORD, safe="") not in text


def test_it_serves_ipv6(tmp_path: Path) -> None:
    """An IPv6 address stands in brackets in the URL."""
    with serving(tmp_path / "jobs.db", host="::1") as api:
        assert api.url.startswith("http://[::1]:")
        assert api("GET", "/status/health").status_code == 200
