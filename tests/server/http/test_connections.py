"""Clients that open connections and say nothing, and HTTPS."""

import contextlib
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from server.errors import ServerError
from server.http import connections
from tests.support.api_server import JOB, Api, Process, connected, serving


@contextlib.contextmanager
def silent(api: Api, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that send this and no more."""
    host, port = api.url.rpartition("/")[2].split(":")
    with contextlib.ExitStack() as opened:
        yield [_open(opened, host, int(port), sent) for _ in range(count)]


def _open(opened: contextlib.ExitStack, host: str, port: int, sent: bytes) -> socket.socket:
    connection = opened.enter_context(socket.create_connection((host, port)))
    connection.sendall(sent)
    return connection


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /queue HTTP/1.1\r\nHost: x\r\n",
        b"POST /farm/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
    ],
)
def test_silent_clients_take_nobodys_place(tmp_path: Path, sent: bytes) -> None:
    """More than there are descriptors: good clients go on, old and new ones, and the log stays small."""
    server = contextlib.closing(Process(tmp_path, tmp_path / "jobs.db", descriptors=400))
    with server as process, connected(process.start()) as old, silent(old, 1000, sent):
        statuses = [old.status("POST", "/queue", JOB) for _ in range(3)]
        with connected(old.url) as new:
            statuses += [new.status("GET", "/queue") for _ in range(3)]

    assert statuses == [200] * 6
    assert len(process.log) < 20_000


def test_a_head_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not keep a connection."""
    monkeypatch.setattr(connections, "HEAD_TIME", 0.5)
    with serving(tmp_path / "jobs.db") as api, silent(api, 1, b"GET /queue HTTP/1.1\r\n") as [slow]:
        slow.settimeout(0.1)
        with contextlib.suppress(ConnectionError):
            while True:
                slow.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    if not slow.recv(1):
                        break
        ended = api.status("GET", "/queue")

    assert ended == 200


# --- HTTPS ---


def test_clients_that_shake_no_hands_take_nobodys_place(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """Connections count before they are encrypted: more of them than descriptors hold nobody up, nor do they fill the
    log."""
    cert, key = map(str, certificate)
    process = Process(tmp_path, tmp_path / "jobs.db", descriptors=400, tls_cert=cert, tls_key=key)
    with contextlib.closing(process), connected(process.start()) as old:
        old.session.verify = cert
        statuses = [old.status("POST", "/queue", JOB)]
        with silent(old, 700), silent(old, 300, b"no hello"):
            statuses += [old.status("POST", "/queue", JOB) for _ in range(3)]
            statuses.append(requests.get(f"{old.url}/queue", verify=cert, timeout=60).status_code)
        process.send(signal.SIGTERM)
        status = process.wait()

    assert statuses == [200] * 5
    assert status == 0
    assert len(process.log) < 20_000


def test_it_serves_https(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """With a certificate, clients that trust it are served."""
    cert, key = map(str, certificate)
    with serving(tmp_path / "jobs.db", tls_cert=cert, tls_key=key) as api:
        answer = requests.get(f"{api.url}/queue", verify=cert, timeout=60)

    assert api.url.startswith("https://")
    assert answer.status_code == 200


@pytest.mark.parametrize("wrong", ["missing", "no PEM", "no key", "another key", "no certificate"])
def test_a_wrong_certificate_is_told_in_one_line(tmp_path: Path, certificate: tuple[Path, Path], wrong: str) -> None:
    """The server does not start, and the line names the file."""
    cert, key = map(str, certificate)
    (tmp_path / "none").write_text("nothing")
    other = tmp_path / "other"
    subprocess.run(["openssl", "genrsa", "-out", str(other), "2048"], check=True, capture_output=True)
    settings = {
        "missing": {"tls_cert": "/nowhere", "tls_key": key},
        "no PEM": {"tls_cert": str(tmp_path / "none")},
        "no key": {"tls_cert": cert},
        "another key": {"tls_cert": cert, "tls_key": str(other)},
        "no certificate": {"tls_key": key},
    }[wrong]
    with pytest.raises(ServerError) as told, serving(tmp_path / "jobs.db", **settings):
        pass

    assert re.fullmatch(r"tls-(cert|key): .+", str(told.value))
    assert settings.get("tls_cert", "") in str(told.value)
    assert ("no key without a password" in str(told.value)) == (wrong in ("no PEM", "no key"))


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_of_another_protocol_is_passed_over(tmp_path: Path, logged: list[str], protocol: str) -> None:
    """The answer comes in HTTP/1.1, and the log does not advise to install what would change nothing."""
    with serving(tmp_path / "jobs.db") as api:
        answer = api("GET", "/queue", headers={"Connection": "Upgrade", "Upgrade": protocol})

    assert answer.status_code == 200
    assert not [line for line in logged if "pgrade" in line or "pip install" in line]


def test_behind_a_proxy_links_have_its_path(tmp_path: Path) -> None:
    """With `--root-path`, a proxy that takes the path off gets pages whose links have it."""
    with serving(tmp_path / "jobs.db", root_path="/sisyphus") as api:
        page = api("GET", "/doc/").text
        schema = api("GET", "/doc/openapi.json").json()
        to_page = api("GET", "/doc", allow_redirects=False).headers["location"]

    assert "/sisyphus/doc/openapi.json" in page
    assert schema["servers"] == [{"url": "/sisyphus"}]
    assert to_page == "/sisyphus/doc/"
