"""Whole jobs with the `handbrake` module."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.modules.handbrake.scene import CAREFUL, NOT_HERE, refusal, task
from tests.support.supervised import Supervised, job
from tests.support.waiting import until

pytestmark = pytest.mark.tools


@pytest.fixture
def client(supervised: Supervised) -> Supervised:
    """A client with the module enabled."""
    supervised.configure({"max_attempts": 1}, modules={"handbrake": "modules.handbrake.Handbrake"})
    return supervised


def test_problems_of_options_and_of_the_source_at_once(film: Path, tmp_path: Path) -> None:
    """The source is looked into even if the options are wrong."""
    sections = {"source": {"input": "x", "title": True}, "video": {"encoder": "x266"}, "audio": {"audio": [3]}}

    assert refusal(task(film, tmp_path / "out.mkv", **sections)).split("; ") == [
        f"source_options.input: {NOT_HERE.format('--input')}",
        "source_options.title: expected a value, got true: --title needs one",
        "video_options.encoder: this HandBrakeCLI has no 'x266' (did you mean 'x265'?)",
        f"audio_options.audio: 3, but {film} has only audio tracks 1 to 2",
    ]


def test_job(client: Supervised, film: Path, tmp_path: Path) -> None:
    """An encode whose output a later task moves away; what its dry run prints is what it starts."""
    data = task(film, "out.mkv", source={"stop_at": {"seconds": 1}}, audio={"audio": [2]})
    document = job(("handbrake", data), ("cleanup", {"move": [{"source": "out.mkv", "destination": "done/"}]}))

    plan = client.run(document, "--dry-run")
    record = client.record(document)

    assert plan.stdout.startswith("stdbuf -oL HandBrakeCLI --json --input")
    assert record["completed"], record
    assert os.listdir(tmp_path / "done") == ["out.mkv"]
    assert "out.mkv" not in os.listdir(tmp_path)


def test_job_explains_a_failure(client: Supervised, film: Path) -> None:
    """What HandBrakeCLI said is on the job's record, and the command line in the message."""
    error = client.record(job(("handbrake", task(film, "out.mkv", video={"encoder_level": "9.9"}))))["error"]

    assert (error["type"], error["reason"], error["exit_status"]) == ("RunError", "exit", 3)
    assert error["message"].startswith("HandBrakeCLI exited with status 3: ")
    assert "; the command was: HandBrakeCLI --json --input" in error["message"]
    assert any("Failure to initialise thread" in line for line in error["stderr"])


def test_interrupted_job_leaves_nothing(client: Supervised, long: Path, tmp_path: Path) -> None:
    """An interrupted encode is no success: no file under its name, nor under a temporary one."""
    before = {*os.listdir(tmp_path), "job.json", "state"}
    process = client.start(job(("handbrake", task(long, "out.mp4", video=CAREFUL))), "--json")
    until(lambda: [file for file in tmp_path.glob(".out.*.mp4") if file.stat().st_size], "the encode to be under way")

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()

    assert process.returncode == 130
    assert json.loads(out)["error"]["reason"] == "cancelled"
    assert set(os.listdir(tmp_path)) <= before
