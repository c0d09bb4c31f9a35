"""How the `mkvmerge` module fails, with the real mkvmerge and tiny films."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError
from modules.mkvmerge import Mkvmerge
from modules.mkvmerge.expect import expect_tracks, used_shares
from modules.mkvtoolnix import identify
from modules.output import Output
from tests.modules.mkvmerge.scene import carry_out, failure, task
from tests.support.disks import files_limited_to
from tests.support.films import make_silence, payload
from tests.support.media import Interrupted, terminated_when

pytestmark = pytest.mark.tools


def test_refusal_of_mkvmerge(clip: Path, tmp_path: Path) -> None:
    """mkvmerge's own error goes on the record, with the exit status, the command line and the last lines."""
    error = failure(
        task(clip, tmp_path / "out.mkv", tracks=[{"source": 0, "track": 0, "options": {"language": "xxyy"}}])
    )

    assert error.message.startswith("mkvmerge exited with status 2: 'xxyy' is not a valid IETF BCP 47")
    assert "; the command was: mkvmerge --gui-mode --output" in error.message
    assert error.exit_status == 2
    assert "mkvmerge v" in error.stderr[0]
    assert os.listdir(tmp_path) == []


def test_abort_on_warnings(film: Path, tmp_path: Path) -> None:
    """Where mkvmerge is told to give up at a warning, exit status 1 is no success."""
    data = task(film, tmp_path / "out.mkv", options={"abort-on-warnings": None})
    data["sources"].append(data["sources"][0])

    assert failure(data).message == "mkvmerge gave up at a warning, as abort-on-warnings tells it to"
    assert os.listdir(tmp_path) == []


def test_missing_tracks(clip: Path, tmp_path: Path) -> None:
    """An output without a track or an attachment that was asked for is no success."""

    class Careless(Mkvmerge):
        def _execute(self, argv: Sequence[str], durations: Any) -> bool:
            return super()._execute([*argv[:4], "--no-audio", str(clip)], durations)

    pictures = task(clip, tmp_path / "out.mkv", attachments=[{"filename": str(clip)}])
    pictures["sources"][0]["options"] = {"_copy-video-tracks": None}
    with pytest.raises(RunError, match="the output has 0 audio tracks of 1"):
        Careless(task(clip, tmp_path / "out.mkv")).run()
    with pytest.raises(RunError, match="the output has 0 attachments of 1"):
        Careless(pictures).run()
    assert os.listdir(tmp_path) == []


def test_no_tracks(film: Path, tmp_path: Path) -> None:
    """An output without any track is no success, though mkvmerge makes one without a word."""
    data = task(film.with_name("a.srt"), tmp_path / "out.mkv")
    data["sources"][0]["options"] = {"_copy-video-tracks": None}

    assert failure(data).message == "the output has no tracks"
    assert os.listdir(tmp_path) == []


def test_nothing_written(clip: Path, tmp_path: Path) -> None:
    """An option that makes mkvmerge do something else leaves no empty file."""
    assert failure(task(clip, tmp_path / "out.mkv", options={"capabilities": None})).message == "mkvmerge wrote nothing"
    assert os.listdir(tmp_path) == []


def test_killed(tmp_path: Path) -> None:
    """A mkvmerge that a signal kills is a RunError that names the signal; nothing is left."""

    class Killing(Mkvmerge):
        def report(self, *args: Any, **kwargs: Any) -> None:
            for child in psutil.Process().children():
                child.kill()

    source = make_silence(tmp_path / "a.wav", 512 << 20)
    with pytest.raises(RunError, match=r"mkvmerge was killed by SIGKILL \(killed\)") as caught:
        Killing(task(source, tmp_path / "out.mkv")).run()

    assert caught.value.signal == "SIGKILL"
    assert os.listdir(tmp_path) == ["a.wav"]


def test_interrupted(tmp_path: Path) -> None:
    """A run that is asked to stop takes mkvmerge and the unfinished file with it; the old file stays."""
    source, target = make_silence(tmp_path / "a.wav", 512 << 20), tmp_path / "out.mkv"
    target.write_text("old")
    data = task(source, target, options={"title": "@home"})
    temporary = Output(str(target)).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Mkvmerge(data).run()

    assert psutil.Process().children() == []
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "out.mkv"]
    assert target.read_text() == "old"


def test_cleanup_of_a_killed_run(clip: Path, tmp_path: Path) -> None:
    """A fresh instance removes what a killed process of the same job left, and nothing more."""
    data = task(clip, tmp_path / "out.mkv")
    Path(Output(data["output_file"]).temporary).touch()
    (tmp_path / "out.mkv").touch()

    Mkvmerge(data).cleanup()

    assert os.listdir(tmp_path) == ["out.mkv"]


def test_stale_temporaries(clip: Path, tmp_path: Path) -> None:
    """What a killed process of another job left of this target is removed."""
    stale = Path(Output(str(tmp_path / "out.mkv"), tag="another").temporary)
    stale.touch()

    carry_out(task(clip, tmp_path / "out.mkv"))

    assert os.listdir(tmp_path) == ["out.mkv"]


def test_full_disk(film: Path, tmp_path: Path) -> None:
    """A file system that takes no more is an error that says so, and no file is left."""
    with files_limited_to(60_000):
        error = failure(task(film, tmp_path / "out.mkv"))

    assert error.message.startswith(f"{tmp_path}/out.mkv: cannot be written: File too large; mkvmerge was killed by")
    assert error.signal == "SIGXFSZ"
    assert os.listdir(tmp_path) == []


def test_no_room(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mux for which there is no room does not begin."""
    monkeypatch.setattr("modules.context.current.free_space", (0.5, 1 << 60))

    assert (
        "free, and 1.2 EB must be for the output (the limit free_space: 50% of its inputs'"
        in failure(task(clip, tmp_path / "a")).message
    )
    assert os.listdir(tmp_path) == []


def test_shares(film: Path, clip: Path) -> None:
    """Of a source whose tracks are counted, those count that are copied, and its attachments; of others, all of it."""
    size, sound, subtitles, attached = film.stat().st_size, payload(film, 1), 30, 2567

    def share(options: dict[str, Any], *numbers: int, source: Path = film, twice: bool = False) -> float:
        data = task(source, "out.mkv", tracks=[{"source": 0, "track": number} for number in numbers])
        data["sources"][0]["options"] = options
        data["sources"] *= 1 + twice
        media = [identify(str(source))] * len(data["sources"])
        return round(used_shares(data, media, expect_tracks(data, media))[str(source)] * source.stat().st_size)

    assert share({}) == attached
    assert share({}, 2, 4) == sound + subtitles + attached
    assert share({"_copy-audio-tracks": True}) == 2 * sound + attached
    assert share({"_copy-audio-tracks": True}, twice=True) == 4 * sound + 2 * attached
    assert share({"_copy-video-tracks": True, "_copy-audio-tracks": True}, 0, twice=True) == size
    assert share({"audio-tracks": 2}) == size
    assert share({}, 1, source=clip) == clip.stat().st_size
    assert share({}, source=clip) == 0


def test_target_directory_vanishes(tmp_path: Path) -> None:
    """A directory that is removed during the mux is an error that names the file."""
    (tmp_path / "d").mkdir()

    class Removing(Mkvmerge):
        def report(self, progress: float | None = None, *args: Any, **kwargs: Any) -> None:
            if progress is not None:
                shutil.rmtree(tmp_path / "d", ignore_errors=True)

    source, target = make_silence(tmp_path / "a.wav", 100 << 20), str(tmp_path / "d" / "out.mkv")
    with pytest.raises(RunError) as caught:
        Removing(task(source, target)).run()

    assert caught.value.message == f"{Output(target).temporary}: No such file or directory"
