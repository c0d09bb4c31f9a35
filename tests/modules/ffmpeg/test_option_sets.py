"""Option sets of the `ffmpeg` module, kept by the server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import Config
from app.exceptions import RunError, ValidationError
from modules.ffmpeg import Ffmpeg
from tests.modules.ffmpeg.scene import refusal, task
from tests.support.exchanges import Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        monkeypatch.setattr(Config, "API_URL", server.url)
        good = {"options": {"codec": "libx264", "preset": "ultrafast", "crf": 40}}
        server.kept |= {f"/data/ffmpeg/{name}": good for name in ("good", "a%2Fb%20c")}
        server.kept["/data/ffmpeg/bad"] = {"options": {"crf": None}}
        yield server


def with_set(clip: Path, target: Path, name: str) -> dict[str, Any]:
    data = task(clip, target)
    data["output_maps"][0] = {"specifier": "v", "stream": 0, "options": {"crf": 1, "g": 5}, "option_set": name}
    return data


@pytest.mark.parametrize(("validated", "name"), [(True, "good"), (False, "a/b c")])
def test_option_set(validated: bool, name: str, server: Server, clip: Path, tmp_path: Path) -> None:
    """A set's options lie over the output map's own, and are fetched once, whatever the name."""
    module = Ffmpeg(with_set(clip, tmp_path / "out.mkv", name))
    if validated:
        module.validate()
    module.run()

    assert "-crf:v:0 40 -g:v:0 5 -codec:v:0 libx264 -preset:v:0 ultrafast -codec:a:0 copy" in module.plan()[0]
    assert server.seen == ["GET /data/ffmpeg/good" if validated else "GET /data/ffmpeg/a%2Fb%20c"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "there is none at http://127.0.0.1"),
        ("500", "answers with status 500"),
        ("..", "'..' cannot be a name of server-side data"),
        ("bad", "options.crf: expected a string, a number, true or false, an object or a list, got null"),
    ],
)
def test_bad_option_set(name: str, reason: str, server: Server, clip: Path, tmp_path: Path) -> None:
    """A set that is missing or malformed is named, with the reason, by validation, plan and run alike."""
    data = with_set(clip, tmp_path / "out.mkv", name)
    message = refusal(data)

    assert message.startswith(f"output_maps[0].option_set: option set '{name}': ")
    assert reason in message
    with pytest.raises(ValidationError, match="option set"):
        Ffmpeg(data).plan()
    with pytest.raises(RunError, match="option set"):
        Ffmpeg(data).run()
