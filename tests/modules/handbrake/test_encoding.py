"""The `handbrake` module encodes, with the real HandBrakeCLI and tiny clips."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from modules.handbrake import Handbrake
from tests.modules.handbrake.scene import SLOW, carry_out, duration, kinds, refusal, task
from tests.support.media import look, make_clip

pytestmark = pytest.mark.tools


def test_encode(film: Path, tmp_path: Path) -> None:
    """An encode leaves the whole file under its name, with the tracks asked for, and nothing else."""
    audio = {"audio": [2, 1], "aencoder": ["opus", "av_aac"], "aname": ["One, two", "Three"]}
    module = carry_out(
        task(film, tmp_path / "out.mkv", audio=audio, subtitles={"subtitle": [2, 1], "subtitle_default": 2})
    )
    streams = look(tmp_path / "out.mkv")["streams"]

    assert os.listdir(tmp_path) == ["out.mkv"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert [stream["codec_type"] for stream in streams] == ["video", "audio", "audio", "subtitle", "subtitle"]
    assert [(stream["codec_name"], stream["tags"]["title"]) for stream in streams[1:3]] == [
        ("opus", "One, two"),
        ("aac", "Three"),
    ]
    assert [stream["disposition"]["default"] for stream in streams[3:]] == [0, 1]
    assert module.sisyphus_context.status["task"] == "handbrake"
    assert module.sisyphus_context.status["progress"] == 100
    assert module.sisyphus_context.warnings == ()


@pytest.mark.slow
def test_filter_settings_are_taken(film: Path, tmp_path: Path) -> None:
    """A filter's settings arrive: 1.6.1 ignores those that are an argument of their own."""
    carry_out(task(film, tmp_path / "out.mkv", filters={"rotate": {"angle": 90}}))
    video = look(tmp_path / "out.mkv")["streams"][0]

    assert (video["width"], video["height"]) == (120, 160)


@pytest.mark.slow
def test_two_passes(long: Path, tmp_path: Path) -> None:
    """Over both passes the progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    phases: dict[str, list[float]] = {}

    class Watched(Handbrake):
        def report(self, progress: float | None = None, info: Any = None, *, done: bool = False) -> None:
            super().report(progress, info, done=done)
            if "progress" in self.sisyphus_context.status:
                seen.append((self.sisyphus_context.status["progress"], (tmp_path / "out.mkv").exists()))
            if progress is not None and (told := self.sisyphus_context.status["info"])["phase"].startswith("pass"):
                phases.setdefault(told["phase"], []).append(self.sisyphus_context.status["progress"])
                assert all(math.isfinite(value) for key, value in told.items() if key != "phase")
                assert 0 <= told["current_frame"] <= told["total_frames"]

    video = {"two_pass": True, "vb": 300, "encoder_preset": "fast"}
    Watched(task(long, tmp_path / "out.mkv", video=video, source={"stop_at": {"seconds": 8}})).run()

    assert list(phases) == ["pass 1 of 2", "pass 2 of 2"]
    assert max(phases["pass 1 of 2"]) <= 50 <= min(phases["pass 2 of 2"])
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)


@pytest.mark.parametrize(
    "name",
    [
        "-quote'\" $(x)\nline:.mkv",
        "\udcff.mkv",
        *(pytest.param(name, marks=SLOW) for name in ["-dash.mkv", "new\nline.mkv", "co:lon.mkv"]),
    ],
)
def test_odd_names(name: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and outputs of odd names work, in the working directory too."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.symlink(film, name)

    carry_out(task(name, name + " out.mkv", source={"stop_at": {"seconds": 1}}))

    assert sorted(os.listdir()) == sorted([name, name + " out.mkv"])
    assert sorted(os.listdir(tmp_path)) == ["here"]


@pytest.mark.slow
def test_directory(film: Path, tmp_path: Path) -> None:
    """A source may be a directory: the structure of a disc, or files, each of which is a title."""
    directory = tmp_path / "disc"
    directory.mkdir()
    os.link(make_clip(tmp_path / "clip.mkv", seconds=1), directory / "a.mkv")
    os.link(film, directory / "b.mkv")
    carry_out(task(directory, tmp_path / "out.mkv", source={"title": 2}, audio={"audio": [2, 1]}))

    assert kinds(tmp_path / "out.mkv") == ["video", "audio", "audio"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert refusal(task(directory, directory / "out.mkv", source={"title": 2})) == (
        f"output_file: {directory}/out.mkv: is in the directory {directory}, whose files HandBrakeCLI numbers as titles"
    )


@pytest.mark.slow
def test_without_stdbuf(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stdbuf, the encode works all the same."""
    (tmp_path / "bin").mkdir()
    for name in ("HandBrakeCLI", "ffprobe"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    module = Handbrake(task(film, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}}))

    module.run()

    assert module.plan()[0].startswith("HandBrakeCLI --json")
    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_overwriting(film: Path, tmp_path: Path) -> None:
    """A target that is there is replaced, as HandBrakeCLI would, and the record says so."""
    target = tmp_path / "out.mkv"
    target.write_text("old")

    module = carry_out(task(film, target, source={"stop_at": {"seconds": 1}}))

    assert kinds(target) == ["video", "audio"]
    assert module.sisyphus_context.warnings == (f"{target} was there already: it is replaced",)
