"""Requests that are too large, torn, or no text."""

import socket

import pytest

from server import transport
from server.transport import BIG_BODIES, BIG_BODY, MAX_BODIES, MAX_BODY
from tests.support.api_server import BEAT, JOB, UNKNOWN, Api


def test_an_address_that_is_not_utf8_is_refused(api: Api) -> None:
    """Bytes that are no text are a 400."""
    assert api.status("GET", "/data/a/%FF") == 400


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    """More than the limit is a 413, announced or not, and the server goes on; the limit itself is let through."""
    large = b'{"x": "' + b"x" * (MAX_BODIES["/data/"] - 9) + b'"}'
    beat = api("POST", "/workers/w", BEAT | {"task": "x" * MAX_BODIES["/workers/"]})
    job = api("POST", "/queue", JOB | {"job_title": "x" * MAX_BODY})
    within = api("POST", "/data/a/large", large)
    announced = api("POST", "/data/a/too-large", large + b" ")
    streamed = api("POST", "/data/a/too-large", data=iter([large, b" "]), headers={"Content-Type": "application/json"})
    api("DELETE", "/data/a/large")

    assert [within.status_code, announced.status_code, streamed.status_code] == [204, 413, 413]
    assert beat.json() == {"message": "The body is larger than 64 KiB."}
    assert job.json() == {"message": "The body is larger than 16 MiB."}
    assert announced.json() == streamed.json() == {"message": "The body is larger than 4 MiB."}
    assert api.status("GET", "/data/a/too-large") == 404


def test_a_client_that_goes_away_half_way_harms_nobody(api: Api, logged: list[str]) -> None:
    """A body that never ends is dropped with its connection, and nothing is stored."""
    host, port = api.url.removeprefix("http://").split(":")
    rest = b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    for call in (b"POST /queue", b"PUT /jobs/x/log", b"POST /farm/check", b"POST /farm/login"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(call + rest)

    assert api.poll() is None
    assert api.status("GET", "/status/health") == 200
    assert not [line for line in logged if "Traceback" in line or "rror" in line]


def test_a_body_that_does_not_arrive_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Big ones that stop half way hold others up for a bounded time only, and so does one at the page's door."""
    monkeypatch.setattr(transport, "BODY_TIME", 1.0)
    host, port = api.url.removeprefix("http://").split(":")
    head = (
        b"POST /queue HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n"
    )
    slow = [socket.create_connection((host, int(port))) for _ in range(BIG_BODIES + 1)]
    for each in slow[1:]:
        each.sendall(head + b" " * (BIG_BODY + 1))
    slow[0].sendall(b"POST /farm/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
    big = api("POST", "/data/a/big", b'{"x": "' + b"x" * BIG_BODY + b'"}')
    answers = [each.recv(1000) for each in slow]
    for each in slow:
        each.close()
    api("DELETE", "/data/a/big")

    assert big.status_code in (204, 408)
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/queue", "DELETE, GET, HEAD, PATCH, POST"),
        ("HEAD", "/queue/poll", "GET"),
        ("PUT", f"/jobs/{UNKNOWN}", "DELETE, GET, HEAD, PATCH"),
        ("GET", f"/jobs/{UNKNOWN}/retry", "POST"),
        ("PATCH", "/data/a/b", "DELETE, GET, HEAD, POST"),
        ("POST", "/events", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(api: Api, method: str, path: str, allowed: str) -> None:
    """`Allow` names all methods that the path has."""
    answer = api(method, path)

    assert answer.status_code == 405
    assert method == "HEAD" or list(answer.json()) == ["message"]
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    ["/queue", "/jobs", f"/jobs/{UNKNOWN}", "/workers", "/status/health", "/metrics", "/events", "/doc/", "/farm"],
)
def test_a_head_is_as_with_get(api: Api, path: str) -> None:
    """HEAD has the status and the type of GET, and no body, of an endless stream, too."""
    answer = api("HEAD", path)
    got = api("GET", path, stream=True)
    got.close()

    assert (answer.status_code, answer.content) == (got.status_code, b"")
    assert answer.headers["Content-Type"] == got.headers["Content-Type"]
