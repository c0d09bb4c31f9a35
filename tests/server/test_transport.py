"""Requests that are too large, torn, or no text."""

import socket

from server.transport import MAX_BODY
from tests.support.api_server import Api

# --- odd names ---


def test_an_address_that_is_not_utf8_is_refused(api: Api) -> None:
    """Bytes that are no text are a 400."""
    assert api.status("GET", "/data/a/%FF") == 400


# --- bodies that are wrong ---


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    """More than the limit is a 413, announced or not, and the server goes on; the limit itself is let through."""
    large = b'{"x": "' + b"x" * (MAX_BODY - 9) + b'"}'
    within = api("POST", "/data/a/large", large)
    announced = api("POST", "/data/a/too-large", large + b" ")
    streamed = api("POST", "/data/a/too-large", data=iter([large, b" "]), headers={"Content-Type": "application/json"})
    api("DELETE", "/data/a/large")

    assert [within.status_code, announced.status_code, streamed.status_code] == [204, 413, 413]
    assert announced.json() == streamed.json() == {"message": "The body is larger than 64 MiB."}
    assert api.status("GET", "/data/a/too-large") == 404


def test_a_client_that_goes_away_half_way_harms_nobody(api: Api, logged: list[str]) -> None:
    """A body that never ends is dropped with its connection, and nothing is stored."""
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /queue HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )

    assert api.poll() is None
    assert api.status("GET", "/status/health") == 200
    assert not [line for line in logged if "Traceback" in line or "rror" in line]
