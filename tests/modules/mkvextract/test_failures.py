"""How the `mkvextract` module fails, with the real mkvextract and tiny films."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError
from modules.mkvextract import Mkvextract, extractions, sizes
from modules.mkvtoolnix import identify
from modules.output import Output
from tests.modules.mkvextract.scene import carry_out, failure, refusal, sound
from tests.support.disks import files_limited_to
from tests.support.films import (
    SUBTITLES,
    damage,
    halve,
    mkvmerge,
    payload,
)
from tests.support.media import Interrupted, make_clip, terminated_when

pytestmark = pytest.mark.tools


def test_all_or_nothing(film: Path, here: Path) -> None:
    """If one of several files cannot be had, none is there, and what was there before stays."""
    Path("a").write_text("old")
    tracks = [{"id": 0, "filename": "a"}, {"id": 1, "filename": "b"}]

    error = failure({"source": str(film), "tracks": tracks, "cues": [{"id": 1, "filename": "c"}]})

    assert error.message.startswith("mkvextract exited with status 2: There are no cues for track ID 1.")
    assert f"; the command was: mkvextract {film} --gui-mode tracks 0:./.a." in error.message
    assert error.exit_status == 2
    assert any("Extracting track 0" in line for line in error.stderr)
    assert Path("a").read_text() == "old"
    assert os.listdir() == ["a"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"tracks": [{"id": 9, "filename": "a"}]}, "tracks[0].id: the source has no track 9, only: 0 (video und)"),
        (
            {"tracks": [{"id": 1, "track_type": "audio", "language": "jpn", "filename": "a"}]},
            "tracks[0].id: the source has no number 1 (from 0) of audio jpn tracks, only: 0 (video und), 1 (audio en",
        ),
        (
            {"attachments": [{"id": 3, "filename": "a"}]},
            "attachments[0].id: the source has no attachment 3, only: 1, 2",
        ),
        ({"timestamps": [{"id": 6, "filename": "a"}]}, "timestamps[0].id: the source has no track 6, only: 0 (video"),
        ({"cues": [{"id": 6, "filename": "a"}]}, "cues[0].id: the source has no track 6, only: 0 (video"),
    ],
)
def test_what_is_not_there(more: dict[str, Any], problem: str, film: Path, here: Path) -> None:
    """A track or an attachment that the source lacks is named, with what it has, by validation and by the run."""
    data = {"source": str(film), **more}

    assert refusal(data).startswith(problem)
    assert failure(data).message.startswith(problem)
    assert os.listdir() == []


def test_nothing_to_extract(here: Path) -> None:
    """Chapters, tags and attachments of a source without any are an error, where mkvextract exits with 0."""
    Path("a.srt").write_text(SUBTITLES)
    mkvmerge("-o", "a.mkv", "--disable-track-statistics-tags", "a.srt")
    mkvmerge("-o", "b.mkv", "a.srt")
    data = {"source": "a.mkv", "chapters": "c", "tags": "t", "attachments": [{"id": 1, "filename": "a"}]}
    problem = (
        "attachments[0].id: the source has no attachment 1, only: none; chapters: the source has none; "
        "tags: the source has none"
    )

    assert refusal(data) == failure(data).message == problem
    carry_out({"source": "b.mkv", "tags": "t"})  # the statistics are tags, too
    assert sorted(os.listdir()) == ["a.mkv", "a.srt", "b.mkv", "t"]


@pytest.mark.parametrize("key", ["tracks", "timestamps", "cues", "tags"])
def test_truncated_source(key: str, film: Path, here: Path) -> None:
    """A source that ends in the middle is an error, though mkvextract exits with 0; nothing is left."""
    cut = shutil.move(halve(film, "cut.mkv"), here / "cut.mkv")
    data = {"source": "cut.mkv", key: "a" if key == "tags" else [{"id": 0, "filename": "a"}]}

    for message in (refusal(data), failure(data).message):
        assert message.startswith("source: cut.mkv: is cut short: it has ")
    assert os.listdir(cut.parent) == ["cut.mkv"]


def test_whole_part_of_a_truncated_source(film: Path, here: Path) -> None:
    """What is at the beginning of a source can be had, though its end is missing."""
    shutil.move(halve(film, "cut.mkv"), here / "cut.mkv")

    carry_out({"source": "cut.mkv", "attachments": [{"id": 1, "filename": "a"}], "chapters": "c"})

    assert Path("a").read_bytes() == film.with_name("font.ttf").read_bytes()
    assert Path("c").read_text().rstrip().endswith("</Chapters>")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "pipe", "directory", "none.mkv"])
def test_no_matroska(name: str, here: Path) -> None:
    """A source that is no Matroska file is named, with what it is."""
    problem = f"source: {name}: "
    match name:
        case "a.mp4":
            make_clip(here / name, seconds=1)
            problem += "is QuickTime/MP4; mkvextract reads Matroska only"
        case "a.txt":
            Path(name).write_text("no film")
            problem += "is no media that mkvmerge can read"
        case "pipe":
            os.mkfifo(name)
            problem += "is no regular file"
        case "directory":
            Path(name).mkdir()
            problem += "The file"
        case _:
            problem += "The file"

    message = failure(sound(name, "a")).message.replace("MP4/QuickTime", "QuickTime/MP4")  # as newer versions say
    assert message.startswith(problem)
    assert not Path("a").exists()


def test_killed(large: Path, here: Path) -> None:
    """A mkvextract that a signal kills is a RunError that names the signal; nothing is left."""

    class Killing(Mkvextract):
        def report(self, *args: Any, **kwargs: Any) -> None:
            for child in psutil.Process().children():
                child.kill()

    with pytest.raises(RunError, match=r"mkvextract was killed by SIGKILL \(killed\)") as caught:
        Killing(sound(large, "a.wav")).run()

    assert caught.value.signal == "SIGKILL"
    assert os.listdir() == []


@pytest.mark.parametrize("name", ["a.wav", "new\nline"])
def test_interrupted(name: str, large: Path, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run that is asked to stop takes mkvextract, the unfinished file and the links with it; the old file stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    Path(name).write_text("old")
    temporary = Output(name).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Mkvextract(sound(large, name)).run()

    assert psutil.Process().children() == []
    assert os.listdir() == [name]
    assert Path(name).read_text() == "old"
    assert os.listdir(tmp_path / "scratch") == []


def test_cleanup_of_a_killed_run(here: Path) -> None:
    """A fresh instance removes what a killed process of the same job left, and nothing more; the source may be gone."""
    data = sound("gone.mkv", "a.b", chapters="c", tags="t")
    for name in ("a.b", "a.idx", "a.sub", "c", "t"):
        Path(Output(name).temporary).touch()
    Path("c").touch()

    Mkvextract(data).cleanup()

    assert os.listdir() == ["c"]


def test_stale_temporaries(film: Path, here: Path) -> None:
    """What a killed process of another job left of a target is removed."""
    Path(Output("a", tag="another").temporary).touch()

    carry_out(sound(film, "a"))

    assert os.listdir() == ["a"]


@pytest.mark.parametrize("mode", ["tracks", "attachments", "chapters", "tags", "timestamps", "cues"])
def test_full_disk(mode: str, film: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is full is an error, though mkvextract exits with 0 then, or aborts; no file is left."""
    wrapper = tmp_path / "mkvextract"  # so that the limit is an error to the program, and not a signal
    wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {shutil.which('mkvextract')} \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    entry: Any = {"chapters": "a", "tags": "a", "cues": [{"id": 0, "filename": "a"}]}
    data = {"source": str(film), mode: entry.get(mode, [{"id": 1, "filename": "a"}])}

    with files_limited_to(100):
        error = failure(data)

    assert error.message.startswith("a: cannot be written: File too large")
    assert os.listdir() == []


def test_no_room(film: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extraction for which there is no room does not begin."""
    monkeypatch.setattr("modules.context.current.free_space", (0.5, 1 << 60))

    assert (
        "free, and 1.2 EB must be for the output (the limit free_space: 50% of its inputs'"
        in failure(sound(film, "a")).message
    )
    assert os.listdir() == []


def test_sizes(film: Path, large: Path, vobsub: Path, here: Path) -> None:
    """What is counted takes its bytes, text next to nothing, and all the rest as much as the source."""
    clip = make_clip(here / "clip.mkv")

    def expected(source: Path, **data: Any) -> dict[str, int]:
        media = identify(str(source))
        return sizes(str(source), list(extractions(data, media)), media)

    def tracks(*numbers: int) -> list[dict[str, Any]]:
        return [{"id": number, "filename": str(number)} for number in numbers]

    everything = {"chapters": "c", "tags": "t", "timestamps": [{"id": 0, "filename": "x"}]}
    nothing = dict.fromkeys("ctx", 0)
    assert expected(film, tracks=tracks(0, 1, 4), **everything) == {
        "0": payload(film, 0),
        "1": payload(film, 1),
        "4": 30,
        **nothing,
    }
    assert expected(film, attachments=[{"id": 1, "filename": "a"}, {"id": 2, "filename": "b"}]) == {"a": 2560, "b": 7}
    assert expected(large, tracks=tracks(0)) == {"0": 200 << 20}
    assert expected(vobsub, tracks=tracks(0)).keys() == {"0.sub"}
    half = clip.stat().st_size // 2
    assert expected(clip, tracks=tracks(0, 1), timestamps=[{"id": 0, "filename": "x"}]) == {
        "0": half,
        "1": half,
        "x": 0,
    }


def test_target_directory_vanishes(large: Path, here: Path) -> None:
    """A directory that is removed during the extraction is an error that names the file."""
    Path("d").mkdir()

    class Removing(Mkvextract):
        def report(self, progress: float | None = None, *args: Any, **kwargs: Any) -> None:
            if progress is not None:
                shutil.rmtree("d", ignore_errors=True)

    with pytest.raises(RunError, match=r"^d/\.a\..*\.wav: No such file or directory$"):
        Removing(sound(large, "d/a.wav")).run()


@pytest.mark.parametrize("writer", ["ffmpeg", "mkvmerge"])
def test_damaged_source(writer: str, here: Path, tmp_path: Path) -> None:
    """A source whose end was never written is an error, though mkvextract only warns; what is before it can be had."""
    damaged = damage(tmp_path, writer)

    error = failure({"source": str(damaged), "timestamps": [{"id": 1, "filename": "a"}]})

    assert re.match(rf"{damaged}: is damaged: nothing can be read after \d\.\d s of 6\.0 s; the command", error.message)
    assert os.listdir() == []
