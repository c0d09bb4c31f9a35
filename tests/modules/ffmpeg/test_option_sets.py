"""Option sets of the `ffmpeg` module, kept by the server."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.config import Config
from app.exceptions import RunError, ValidationError
from modules.ffmpeg import Ffmpeg
from tests.modules.ffmpeg.scene import refusal, task


class Server(ThreadingHTTPServer):
    """An API server with a record, and answers that are none."""

    requests: list[str]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Server)
            self.server.requests.append(self.path)
            good = {"_id": "1", "name": "good", "options": {"codec": "libx264", "preset": "ultrafast", "crf": 40}}
            answers = {
                "good": good,
                "a%2Fb%20c": good,
                "bad": {"options": {"crf": None}},
                "list": [],
            }
            name = self.path.removeprefix("/data/ffmpeg/")
            body = json.dumps(answers.get(name)) if name != "text" else "<html>"
            self.send_response(200 if name in {*answers, "text"} else 500 if name == "broken" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Server.Handler) as server:
        server.requests = []
        monkeypatch.setattr(Config, "API_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def with_set(clip: Path, target: Path, name: str) -> dict[str, Any]:
    data = task(clip, target)
    data["output_maps"][0] = {"specifier": "v", "stream": 0, "options": {"crf": 1, "g": 5}, "option_set": name}
    return data


@pytest.mark.parametrize("validated", [True, False])
def test_option_set(validated: bool, server: Server, clip: Path, tmp_path: Path) -> None:
    """A set's options lie over the output map's own, and are fetched once."""
    module = Ffmpeg(with_set(clip, tmp_path / "out.mkv", "good"))
    if validated:
        module.validate()
    module.run()

    assert "-crf:v:0 40 -g:v:0 5 -codec:v:0 libx264 -preset:v:0 ultrafast -codec:a:0 copy" in module.plan()[0]
    assert server.requests == ["/data/ffmpeg/good"]


def test_option_set_name_is_quoted(server: Server, clip: Path, tmp_path: Path) -> None:
    """A set's name may hold anything."""
    Ffmpeg(with_set(clip, tmp_path / "out.mkv", "a/b c")).validate()

    assert server.requests == ["/data/ffmpeg/a%2Fb%20c"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "there is none at http://127.0.0.1"),
        ("broken", "answers with status 500"),
        ("text", "does not answer with JSON"),
        ("list", "does not answer with a JSON object"),
        ("..", "'..' cannot be a name of server-side data"),
        ("bad", "options.crf: expected a string, a number, true or false, an object or a list, got null"),
    ],
)
def test_bad_option_set(name: str, reason: str, server: Server, clip: Path, tmp_path: Path) -> None:
    """A set that is missing or malformed is named, with the reason."""
    message = refusal(with_set(clip, tmp_path / "out.mkv", name))

    assert message.startswith(f"output_maps[0].option_set: option set '{name}': ")
    assert reason in message


def test_no_server(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is named, by validation, plan and run alike."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(Config, "API_URL", f"http://127.0.0.1:{port}")
    data = with_set(clip, tmp_path / "out.mkv", "good")

    assert f"option set 'good': http://127.0.0.1:{port} does not answer" in refusal(data)
    with pytest.raises(ValidationError, match="does not answer"):
        Ffmpeg(data).plan()
    with pytest.raises(RunError, match="does not answer"):
        Ffmpeg(data).run()
