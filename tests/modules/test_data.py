"""A module outside of the client, as an author's own tests use it, and server-side data for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import Config
from app.exceptions import ClientError, ValidationError
from ipc.messages import MAX_BODY, MAX_NAME
from modules.base import BaseModule
from modules.data import ServerData
from tests.support.exchanges import Server, serving


def test_base_module_outside_the_client(tmp_path: Path) -> None:
    """An author's test can use a module without a client: schema, files, duration."""

    class Picky(BaseModule):
        schema = {"type": "object", "required": ["x"], "additionalProperties": False, "properties": {"x": {}}}

    with pytest.raises(ValidationError, match="'x'"):
        Picky({}).validate()
    module = Picky({"x": 1})
    module.validate()
    module.run()
    module.cleanup()

    assert module.get_duration().total_seconds() >= 0
    assert not module.will_exist(str(tmp_path / "none"))
    assert module.will_exist(str(tmp_path))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that wants no token, at the address that modules outside the client know."""
    with serving() as server:
        monkeypatch.setattr(Config, "API_URL", server.url)
        yield server


class Archive(BaseModule):
    """A module that an author tests by calling it."""


def test_outside_the_client(server: Server) -> None:
    """Called by an author's test, a module reaches the server by plain HTTP, under its class's name."""
    module = Archive({})
    module.put_data("a/b c", {"options": [1]})

    assert module.get_data("a/b c") == {"options": [1]}
    assert module.get_data("spam") is None
    assert server.kept == {"/data/archive/a%2Fb%20c": {"options": [1]}}
    assert server.seen[0] == "POST /data/archive/a%2Fb%20c"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("500", "/data/m/500 answers with status 500"),
        ("302", "/data/m/302 answers with status 302"),
        ("text", "/data/m/text does not answer with JSON: "),
        ("latin", "/data/m/latin does not answer with JSON: "),
        ("deep", "/data/m/deep does not answer with JSON: "),
        ("list", "/data/m/list does not answer with a JSON object"),
    ],
)
def test_bad_answers(server: Server, name: str, reason: str) -> None:
    """What is not an object, or not given, is an error that names the address."""
    with pytest.raises(ClientError) as caught:
        ServerData().get("m", name)

    assert caught.value.message.startswith(server.url + reason)


@pytest.mark.parametrize("status", ["404", "500", "302"])
def test_refused_by_the_server(server: Server, status: str) -> None:
    """An object that the server does not take is an error, 404 too."""
    with pytest.raises(ClientError, match=f"/data/m/{status} answers with status {status}"):
        ServerData().put("m", status, {})

    assert len(server.seen) == 1


def test_no_server(server: Server) -> None:
    """A server that is not there is named."""
    server.shutdown()
    server.server_close()

    with pytest.raises(ClientError, match=rf"^{server.url} does not answer: .*refused"):
        ServerData().get("m", "x")


CYCLE: dict[str, Any] = {}

CYCLE["cycle"] = CYCLE


@pytest.mark.parametrize(
    ("object", "reason"),
    [
        ({"x": float("nan")}, "can keep only what JSON can hold: Out of range float values are not JSON compliant"),
        ({"x": b"bytes"}, "can keep only what JSON can hold: Object of type bytes is not JSON serializable"),
        ({"x": {1}}, "can keep only what JSON can hold: Object of type set is not JSON serializable"),
        ({(1, 2): 3}, "can keep only what JSON can hold: keys must be str"),
        (CYCLE, "can keep only what JSON can hold: Circular reference"),
        ([1], "can keep an object (a dict), not a list"),
        ("text", "can keep an object (a dict), not a str"),
        (None, "can keep an object (a dict), not a NoneType"),
        ({"name": 1}, "cannot keep the key 'name': it is the server's own"),
        ({"_id": 1}, "cannot keep the key '_id': it is the server's own"),
        ({"x": "y" * MAX_BODY}, f"cannot be sent {MAX_BODY + 9} bytes of JSON; at most {MAX_BODY} can be"),
    ],
)
def test_what_cannot_be_kept(server: Server, object: Any, reason: str) -> None:
    """What JSON cannot hold, no object, and too much of it is refused before anybody is asked."""
    with pytest.raises(ClientError) as caught:
        ServerData().put("m", "x", object)

    assert caught.value.message.startswith(f"{server.url}/data/m/x {reason}")
    assert server.seen == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * (MAX_NAME + 1), "the name 'xxx"),
        ("", "'' cannot be a name of server-side data"),
        (".", "'.' cannot be a name of server-side data"),
        ("..", "'..' cannot be a name of server-side data"),
        ("\udcff", "'\\udcff' cannot be a name of server-side data: it is no UTF-8"),
        (7, "the name of server-side data must be text, not int"),
    ],
)
def test_what_cannot_be_a_name(server: Server, name: Any, reason: str) -> None:
    """A name that is too long, or would lead elsewhere, is refused before anybody is asked."""
    for module, data_name in ((name, "x"), ("m", name)):
        with pytest.raises(ClientError) as caught:
            ServerData().get(module, data_name)
        assert caught.value.message.startswith(reason)
        with pytest.raises(ClientError):
            ServerData().put(module, data_name, {})

    assert server.seen == []
