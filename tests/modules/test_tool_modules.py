"""What the modules that run a tool have in common: what is lacking, what ends them, what is left."""

import math
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError
from modules.base import BaseModule, location
from modules.ffmpeg import Ffmpeg
from modules.handbrake import Handbrake
from modules.mkvextract import Mkvextract
from modules.mkvmerge import Mkvmerge
from modules.output import Output
from tests.cases import tasks
from tests.modules import steps
from tests.support.films import make_silence
from tests.support.media import Interrupted, terminated_when

pytestmark = pytest.mark.tools

KINDS: dict[str, type[BaseModule]] = {
    "ffmpeg": Ffmpeg,
    "handbrake": Handbrake,
    "mkvmerge": Mkvmerge,
    "mkvextract": Mkvextract,
}
OF_EACH = pytest.mark.parametrize("name", KINDS)
CAREFUL = {"encoder_preset": "placebo", "encoder_tune": "zerolatency", "vb": 50_000, "quality": False}
"""Slow, but what is encoded is written at once, if the target is an MP4."""

Lasting = Callable[..., dict[str, Any]]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for scratch files; the working directory is another one, and empty."""
    for name in ("scratch", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "scratch"


def task(name: str, source: object, target: object, **more: Any) -> dict[str, Any]:
    """The data of a task with one source and one output."""
    make = getattr(tasks, name)
    data: dict[str, Any] = make(str(source), target=str(target), **more)["data"]
    return data


@pytest.fixture
def lasting(scratch: Path, clip: Path, long: Path, large: Path) -> Lasting:
    """Makes a task that lasts some seconds at least."""

    def make(name: str, target: object) -> dict[str, Any]:
        endless = {"input_options": {"re": True, "stream_loop": -1}, "overwrite": True}
        silence = make_silence(scratch.parent / "a.wav", 512 << 20)
        sources = {"ffmpeg": clip, "handbrake": long, "mkvmerge": silence, "mkvextract": large}
        more = {"ffmpeg": endless, "handbrake": {"video_options": CAREFUL}, "mkvmerge": {"options": {"title": "@home"}}}
        return task(name, sources[name], target, **more.get(name, {}))

    return make


@OF_EACH
def test_missing_tools(name: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not installed are named before anything runs, and also if they vanish afterwards."""
    module = KINDS[name](task(name, film, tmp_path / "out.mkv"))
    module.validate()
    monkeypatch.setenv("PATH", str(tmp_path))

    said = steps.problems(KINDS[name], task(name, film, tmp_path / "none" / "out.mkv"))
    assert [line for line in said if "is not installed" in line] == [
        f"{tool} is not installed, or not on PATH (install {package})"
        for tool in KINDS[name].tools
        for package in ["handbrake-cli" if "Hand" in tool else "ffmpeg" if tool.startswith("ff") else "mkvtoolnix"]
    ]
    assert f"there is no directory {tmp_path}/none" in " ".join(said)
    for step in (module.run, *([module.plan] if name == "handbrake" else [])):
        with pytest.raises(RunError, match="is not installed"):
            step()


@OF_EACH
def test_killed(name: str, lasting: Lasting) -> None:
    """A tool that a signal kills is a RunError that names it and the signal; nothing is left."""

    class Killing(KINDS[name]):
        def report(self, *args: Any, **kwargs: Any) -> None:
            for child in psutil.Process().children():
                child.kill()

    with pytest.raises(RunError, match=rf"{KINDS[name].tools[0]} was killed by SIGKILL \(killed\)") as caught:
        Killing(lasting(name, "out.mkv")).run()

    assert caught.value.signal == "SIGKILL"
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("name", "target"),
    [("ffmpeg", "out.mkv"), ("handbrake", "out.mp4"), ("mkvmerge", "out.mkv"), ("mkvextract", "new\nline")],
)
def test_interrupted(name: str, target: str, lasting: Lasting, scratch: Path) -> None:
    """A run that is asked to stop takes the tool and all unfinished files with it; the old file stays."""
    Path(target).write_text("old")
    temporary = Output(target).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        KINDS[name](lasting(name, target)).run()

    assert psutil.Process().children() == []
    assert os.listdir() == [target]
    assert Path(target).read_text() == "old"
    assert os.listdir(scratch) == []


@OF_EACH
def test_cleanup_of_a_killed_run(name: str, scratch: Path) -> None:
    """A fresh instance removes what a killed process of the same job left, and nothing more; the source may be gone."""
    for left in ("a.b", *(("a.idx", "a.sub") if name == "mkvextract" else ())):
        Path(Output(left).temporary).touch()
    Path("a.b").touch()

    KINDS[name](task(name, "gone.mkv", "a.b")).cleanup()

    assert os.listdir() == ["a.b"]


@OF_EACH
def test_no_room(name: str, clip: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is no room for does not begin."""
    monkeypatch.setattr("modules.context.current.free_space", (0.5, 1 << 60))

    said = steps.failure(KINDS[name], task(name, clip, "out.mkv")).message
    assert "free, and 1.2 EB must be for the output (the limit free_space: 50% of its inputs'" in said
    assert os.listdir() == []


@OF_EACH
def test_progress(name: str, clip: Path, long: Path, large: Path, scratch: Path) -> None:
    """The progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    infos: list[dict[str, Any]] = []
    two_passes = {"two_pass": True, "vb": 300, "quality": False}
    more: dict[str, Any] = {
        "ffmpeg": {"input_options": {"re": True}},
        "handbrake": {"video_options": two_passes, "source_options": {"stop_at": {"seconds": 8}}},
    }
    silence = make_silence(scratch.parent / "a.wav", 100 << 20)
    source = {"ffmpeg": clip, "handbrake": long, "mkvmerge": silence, "mkvextract": large}[name]

    class Watched(KINDS[name]):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append((self.sisyphus_context.status.get("progress", 0), Path("out.mkv").exists()))
            infos.append(self.sisyphus_context.status.get("info", {}))

    Watched(task(name, source, "out.mkv", **more.get(name, {}))).run()

    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)
    assert infos[-1] == {"phase": "checking"}
    assert all(math.isfinite(value) for info in infos for key, value in info.items() if key != "phase")
    assert name != "handbrake" or {"pass 1 of 2", "pass 2 of 2"} <= {info.get("phase") for info in infos}


PASTED: dict[str, tuple[str, dict[str, Any]]] = {
    "ffmpeg": ("a b.mkv", {}),
    "handbrake": ("it's.mkv", {}),
    "mkvmerge": ("out.mkv", {"options": {"title": "@home 'x'"}}),
    "mkvextract": ("new\nline", {}),
}


@OF_EACH
def test_plan_can_be_pasted(name: str, clip: Path, scratch: Path) -> None:
    """A shell that is given the plan does what the run does: option files and links, the command, the renaming."""
    target, more = PASTED[name]
    module = KINDS[name](task(name, clip, target, **more))
    for line in module.plan():
        subprocess.run(["bash", "-c", line], check=True, capture_output=True)

    assert os.listdir() == module.outputs() == [target]
    assert module.removes() == []
    assert Path(target).stat().st_size > 1000
    assert name != "mkvmerge" or b"@home 'x'" in Path(target).read_bytes()


@pytest.mark.parametrize("source", ["soon.mkv", "there.mkv"])
@OF_EACH
def test_files_of_earlier_tasks(name: str, source: str, scratch: Path) -> None:
    """What an earlier task makes need not be there yet; what it will change is not judged by what it is now."""
    Path("there.mkv").write_text("no film yet")
    module = KINDS[name](task(name, source, "new/out.mkv"))
    module.sisyphus_context.files = {location(each): True for each in (source, "new/other")}

    module.validate()


@OF_EACH
def test_special_target(name: str, clip: Path, scratch: Path) -> None:
    """A device or a pipe is not overwritten."""
    os.mkfifo("pipe")

    assert "pipe: is no regular file (a device or a pipe)" in steps.refusal(KINDS[name], task(name, clip, "pipe"))


@pytest.mark.parametrize("source", ["pipe", "directory", "none.mkv"])
@OF_EACH
def test_source_vanishes(name: str, source: str, scratch: Path) -> None:
    """A source that is no file any more when its turn comes is named, and nobody waits for a pipe's writer."""
    os.mkfifo("pipe")
    os.mkdir("directory")

    assert source in steps.failure(KINDS[name], task(name, source, "out.mkv")).message.partition("; the command")[0]
    assert sorted(os.listdir()) == ["directory", "pipe"]


@pytest.mark.parametrize("name", ["mkvmerge", "mkvextract"])
def test_target_directory_vanishes(name: str, lasting: Lasting) -> None:
    """A directory that is removed meanwhile is an error that names the file."""
    os.mkdir("d")

    class Removing(KINDS[name]):
        def report(self, progress: float | None = None, *args: Any, **kwargs: Any) -> None:
            if progress is not None:
                shutil.rmtree("d", ignore_errors=True)

    with pytest.raises(RunError) as caught:
        Removing(lasting(name, "d/out.mkv")).run()

    assert caught.value.message == f"{Output('d/out.mkv').temporary}: No such file or directory"


ODD: dict[str, list[dict[str, Any]]] = {
    "ffmpeg": [
        {"sources": {}},
        {"sources": [""], "source_maps": 1, "output_maps": None, "output_file": []},
        task("ffmpeg", "a", "b", input_options={"ss": None}),
        task("ffmpeg", "a", "b", input_options={"f": {"x": 1}, "ss": "soon"}),
        task("ffmpeg", "a", "b", input_options={"items": {}, "keys": 1, "_box_config": 2}),
    ],
    "handbrake": [
        task("handbrake", "a", "b", items_options={}, video_options={"items": {}, "keys": 1, "_box_config": 2}),
        task("handbrake", "a", "b", video_options={"quality": math.inf, "rate": math.nan, "encoder": {"x": 1}}),
        task("handbrake", "a", "b", subtitles_options={"srt_file": True, "subtitle": {"a": 1}}),
        task("handbrake", "a", "b", audio_options={"audio": {"a": 1}, "aencoder": {}}),
    ],
}


@OF_EACH
def test_odd_data(name: str) -> None:
    """Odd data is a ValidationError and never another."""
    names = [("a\0b", "c\0d"), ("\ud800", "\ud900"), ("a" * 100_000, "b" * 100_000)]
    for data in [{}, *(task(name, *each) for each in names), *ODD.get(name, [])]:
        assert steps.refusal(KINDS[name], data)
