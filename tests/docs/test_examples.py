"""The modules in examples/modules: each does what it is for, with real tools and servers."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.testing import ModuleTester
from tests.support.receiver import Receiver

pytest_plugins = ["app.testing"]

EXAMPLES = Path(__file__).parents[2] / "examples" / "modules"


@pytest.fixture(autouse=True)
def enabled(sisyphus: ModuleTester) -> None:
    for name in ("ssim", "loudness"):
        sisyphus.enable(name, f"modules.{name}.{name.capitalize()}", paths=[EXAMPLES])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with contextlib.closing(Receiver()) as receiver:
        yield receiver


def test_ssim(sisyphus: ModuleTester) -> None:
    """A film is like itself, and not like another one; the likeness is on the record also of a task that fails."""
    source = sisyphus.make_clip("source.mkv", audio="")
    other = sisyphus.make_clip("other.mkv", audio="", video="mandelbrot=size=320x240:rate=24")

    same = sisyphus.run(("ssim", {"source": str(source), "encode": "source.mkv"}))
    different = sisyphus.run(("ssim", {"source": str(source), "encode": str(other)}))
    silent = sisyphus.run(("ssim", {"source": str(source), "encode": str(sisyphus.make_clip("a.mkv", video=""))}))

    assert same["tasks"][0]["results"] == {"ssim": 1.0}
    assert not different["completed"]
    assert different["tasks"][0]["results"]["ssim"] < 0.9
    assert different["message"].startswith(f"Failed to run task: {other} is not close enough to its source")
    assert not silent["completed"]


def test_loudness(sisyphus: ModuleTester) -> None:
    """Sound is brought to the loudness that is wanted; what has it already is skipped, with the job's other tasks."""
    sisyphus.enable("cleanup", "modules.cleanup.Cleanup")
    source = sisyphus.make_clip(seconds=4, audio="sine=frequency=1000,volume=-20dB")
    first = sisyphus.run(("loudness", {"source": source.name, "target": "new.mkv"}))
    again = sisyphus.run(
        ("loudness", {"source": "new.mkv", "target": "newer.mkv"}), ("cleanup", {"delete": ["new.mkv"]})
    )

    assert first["completed"], first
    assert first["tasks"][0]["results"]["lufs"] < -30
    assert again["completed"], again
    assert [task["result"] for task in again["tasks"]] == ["skipped", "skipped"]
    assert abs(again["tasks"][0]["results"]["lufs"] + 23) <= 1
    assert sorted(path.name for path in sisyphus.directory.iterdir()) == ["clip.mkv", "new.mkv"]


def test_loudness_of_silence(sisyphus: ModuleTester) -> None:
    """Silence has none."""
    sisyphus.make_clip(audio="anullsrc")
    record = sisyphus.run(("loudness", {"source": "clip.mkv", "target": "new.mkv"}))

    assert record["message"] == "Failed to run task: clip.mkv: is silent"


def test_webhook(sisyphus: ModuleTester, receiver: Receiver) -> None:
    """It posts what the tasks before it came to, with the operator's token, which no record shows."""
    settings = {"url": f"{receiver.url}/hook?key=pepper-4711", "token": "pepper-4711"}
    sisyphus.enable("webhook", "modules.webhook.Webhook", settings=settings)
    source = str(sisyphus.make_clip(audio=""))
    compare = ("ssim", {"source": source, "encode": source})
    record = sisyphus.run(compare, ("webhook", {"text": "done"}))
    receiver.status = 500
    refused = sisyphus.run(("webhook", {}))

    assert record["tasks"][1]["results"] == {"status": 200}
    told = receiver.taken[0]
    body = told.json
    assert (told.path, told.headers["Authorization"]) == ("/hook?key=pepper-4711", "Bearer pepper-4711")
    assert body["text"] == "done"
    assert body["tasks"] == [{"module": "ssim", "result": "completed", "results": {"ssim": 1.0}}]
    assert refused["message"].startswith("Failed to run task: the webhook was not taken: 500 Server Error")
    assert "4711" not in json.dumps(refused)


def test_refresh(sisyphus: ModuleTester, receiver: Receiver) -> None:
    """It tells the library's server which files have changed; without its settings, nothing is run."""
    receiver.status = 204
    sisyphus.enable("refresh", "modules.refresh.Refresh", settings={"url": f"{receiver.url}/", "token": "pepper"})
    sisyphus.enable("bare", "modules.refresh.Refresh")
    record = sisyphus.run(("refresh", {"paths": ["/media/film.mkv"]}))
    bare = sisyphus.run(("bare", {"paths": ["/media/film.mkv"]}))

    assert record["completed"], record
    update = {"Path": "/media/film.mkv", "UpdateType": "Modified"}
    (told,) = receiver.taken
    assert (told.path, told.json) == ("/Library/Media/Updated", {"Updates": [update]})
    assert told.headers["Authorization"] == 'MediaBrowser Token="pepper"'
    assert bare["error"]["step"] == "validate"
    assert len(bare["error"]["problems"]) == 2


@pytest.mark.slow
def test_types(tmp_path: Path) -> None:
    """An author's strictest checks find nothing in them: the types of what the client offers are complete."""
    argv = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", tmp_path / "cache", EXAMPLES]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
