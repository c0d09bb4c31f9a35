"""How the `ffmpeg` module fails, with the real ffmpeg and tiny clips."""

import os
import re
import resource
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError
from modules.ffmpeg import Ffmpeg
from modules.ffmpeg.expect import used_shares
from modules.output import Output
from tests.modules.ffmpeg.scene import FAST, carry_out, mapped, refusal, remade, task
from tests.support.media import Interrupted, terminated_when

pytestmark = pytest.mark.tools


def test_no_media(tmp_path: Path) -> None:
    """A source that is no media is an error that names it."""
    source = tmp_path / "text.mkv"
    source.write_text("no film")
    data = task(source, tmp_path / "out.mkv")
    said = refusal(data)
    with pytest.raises(RunError, match=r"text\.mkv"):
        Ffmpeg(data).run()

    assert said == f"sources[0]: {source}: is no media that ffprobe can read"
    assert os.listdir(tmp_path) == ["text.mkv"]


def test_killed(clip: Path, tmp_path: Path) -> None:
    """An ffmpeg that a signal kills is a RunError that names the signal; nothing is left."""

    class Killing(Ffmpeg):
        def report(self, progress: float | None = None, *args: Any, **kwargs: Any) -> None:
            for child in psutil.Process().children():
                child.kill()

    with pytest.raises(RunError, match=r"ffmpeg was killed by SIGKILL \(killed\)") as caught:
        Killing(task(clip, tmp_path / "out.mkv", input_options={"re": True, "stream_loop": -1})).run()

    assert caught.value.signal == "SIGKILL"
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_interrupted(clip: Path, tmp_path: Path) -> None:
    """A run that is asked to stop takes ffmpeg and the unfinished file with it; the old file stays."""
    target = tmp_path / "out.mkv"
    target.write_text("old")
    data = task(clip, target, input_options={"re": True, "stream_loop": -1}, overwrite=True)
    temporary = Output(str(target)).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Ffmpeg(data).run()

    assert psutil.Process().children() == []
    assert os.listdir(tmp_path) == ["out.mkv"]
    assert target.read_text() == "old"


def test_cleanup_of_a_killed_run(clip: Path, tmp_path: Path) -> None:
    """A fresh instance removes what a killed process of the same job left, and nothing more."""
    data = task(clip, tmp_path / "out.mkv")
    Path(Output(data["output_file"]).temporary).touch()
    (tmp_path / "out.mkv").touch()

    Ffmpeg(data).cleanup()

    assert os.listdir(tmp_path) == ["out.mkv"]


def test_resumed_after_the_output_had_its_name(clip: Path, tmp_path: Path) -> None:
    """A resumed attempt takes a whole output for its own, and anything else of that name for somebody's."""
    data = task(clip, tmp_path / "out.mkv", overwrite=False)
    written = carry_out(data).task.output_file
    before = os.stat(written)
    again = Ffmpeg(data)
    again.resumed = True

    again.validate()
    again.run()
    Path(written).write_bytes(b"something else")

    with pytest.raises(RunError, match="exists, and is not to be overwritten"):
        again.run()
    assert list(again.sisyphus_context.warnings) == [
        f"{written} is there and whole: taken for written by an earlier attempt"
    ]
    assert os.stat(written).st_ino == before.st_ino


def test_target_appears(clip: Path, tmp_path: Path) -> None:
    """A file that appears under the target's name during the encode is not replaced."""
    target = tmp_path / "out.mkv"

    class Racing(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            target.write_text("someone else's")

    module = Racing(task(clip, target))
    target.unlink()
    with pytest.raises(RunError, match="exists, and is not to be overwritten"):
        module.run()

    assert target.read_text() == "someone else's"
    assert os.listdir(tmp_path) == ["out.mkv"]


@pytest.mark.parametrize("share", [1e9, 0.0])
def test_no_room(share: float, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the output, a share of the source's size and an amount, nothing is begun."""
    monkeypatch.setattr("modules.context.current.free_space", (share, 1 << 60))
    with pytest.raises(RunError, match=r"must be for the output \(the limit free_space"):
        Ffmpeg(task(clip, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == []


def test_room_for_a_part(clip: Path) -> None:
    """What a cut leaves out needs no room, nor what is not mapped; what is looped needs more."""
    data = task(clip, "out.mkv", input_options={"ss": "0.5", "t": "1"})
    data["sources"] += ["unmapped.mkv", {"filename": "loop.mkv", "options": {"stream_loop": 3, "t": "8"}}]
    probes = [{"format": {"duration": "2.0"}}] * 3
    data["source_maps"].append({"source": 2})

    assert used_shares(data, probes, 1.0) == {str(clip): 0.5, "loop.mkv": 0.5}
    assert used_shares(data, probes, 8.0) == {str(clip): 1.0, "loop.mkv": 4.0}


def test_full_disk(clip: Path, tmp_path: Path, full_disk: None) -> None:
    """That there was no more room comes first in the error, and then what ffmpeg says; nothing is left."""
    target = tmp_path / "out.mkv"
    with pytest.raises(
        RunError, match=f"^{target}: cannot be written: File too large; ffmpeg .*the command was: ffmpeg"
    ):
        Ffmpeg(task(clip, target)).run()

    assert os.listdir(tmp_path) == []


def test_two_passes(clip: Path, tmp_path: Path) -> None:
    """Two passes of one encode are two tasks of a job, and each says which it is."""
    told: list[str] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            told.append(self.sisyphus_context.status.get("info", {}).get("phase"))

    notes = str(tmp_path / "notes")
    for number, target in ((1, os.devnull), (2, tmp_path / "out.mkv")):
        data = task(clip, target)
        data["source_maps"], data["output_maps"] = data["source_maps"][:1], data["output_maps"][:1]
        own = {"b": "200k", "pass": number, "passlogfile": notes} | ({"f": "null"} if number == 1 else {})
        data["output_maps"][0]["options"] = FAST | own
        carry_out(data, Watched)

    assert list(dict.fromkeys(filter(None, told))) == ["pass 1", "pass 2", "checking"]


def test_disk_that_fills_at_the_end(film: Path, tmp_path: Path) -> None:
    """A file whose end could not be written, after which ffmpeg 5.1 exits with 0, is an error and no file."""
    whole = remade(film, tmp_path / "whole.aac", "-map", "0:a", "-c", "copy").stat().st_size
    data = mapped(film, tmp_path / "out.aac", "a", {"codec": "copy"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 5000, hard))
    try:
        with pytest.raises(RunError, match=r"out\.aac: cannot be written: File too large"):
            carry_out(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert os.listdir(tmp_path) == ["whole.aac"]


@pytest.mark.parametrize(
    ("options", "target", "said"),
    [
        ({"codec": "libx264", "preset": "spam"}, "out.mkv", "Error setting preset/tune spam"),
        ({"codec": "libx264", "vf": "spam=1"}, "out.mkv", "No such filter: 'spam'|Error parsing filterchain 'spam=1'"),
        ({"codec": "libx264", "spam": "1"}, "out.mkv", "Unrecognized option 'spam:v:0'"),
        ({"codec": "libx264"}, "out.spam", "Unable to (find a suitable|choose an) output format"),
        ({"codec": "libx264", "b": "200k", "pass": 2, "passlogfile": "none"}, "out.mp4", "ratecontrol_init"),
    ],
)
def test_reason_is_in_the_message(
    options: dict[str, Any], target: str, said: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the cause, in the words of ffmpeg 5 or 7, and not only the news that there was an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AV_LOG_FORCE_COLOR", "1")
    with pytest.raises(RunError) as caught:
        Ffmpeg(mapped(clip, tmp_path / target, "v", options)).run()

    assert re.search(said, caught.value.message)
    assert "\x1b" not in caught.value.message + "".join(caught.value.stderr)
