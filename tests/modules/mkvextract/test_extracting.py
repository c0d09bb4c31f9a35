"""The `mkvextract` module extracts and fails, with the real mkvextract and tiny films."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.mkvextract import Mkvextract, extractions, sizes
from modules.mkvtoolnix import identify
from tests.modules.mkvextract.scene import EVERYTHING, FILES, carry_out, failure, problems, refusal, sound
from tests.modules.steps import put_program
from tests.support.disks import files_limited_to
from tests.support.films import SUBTITLES, ffmpeg, halve, mkvmerge, payload
from tests.support.media import look, make_clip

pytestmark = pytest.mark.tools


def test_everything(film: Path, here: Path) -> None:
    """Something of each kind comes out in one pass, under its name, and nothing else is left."""
    module = carry_out({"source": str(film), **EVERYTHING})

    assert sorted(os.listdir()) == sorted(FILES)
    assert look(here / "video.h264")["streams"][0]["codec_name"] == "h264"
    assert look(here / "sound.aac")["streams"][0]["codec_name"] == "aac"
    for name in ("subs.srt", "english.srt"):
        assert Path(name).read_text(encoding="utf-8-sig").split() == SUBTITLES.split()
    assert Path("note.txt").read_bytes() == film.with_name("note.txt").read_bytes()
    assert Path("font.ttf").read_bytes() == film.with_name("font.ttf").read_bytes()
    assert "<ChapterString>Two</ChapterString>" in Path("chapters.xml").read_text()
    assert "<String>nobody</String>" in Path("tags.xml").read_text()
    assert Path("times.txt").read_text().startswith("# timestamp format v2\n")
    assert len(Path("times.txt").read_text().splitlines()) > 50
    assert Path("cues.txt").read_text().startswith("timestamp=")
    assert module.outputs() == FILES
    assert module.removes() == []
    assert module.sisyphus_context.status == {
        "status": "in_progress", "task": "mkvextract", "progress": 100, "info": {"phase": "checking"}
    }  # fmt: skip
    assert module.sisyphus_context.warnings == ()


@pytest.mark.parametrize("name", ["a.sub", "a.idx", "a.b.c", "plain", "new\nline.sub"])
def test_vobsub(name: str, vobsub: Path, here: Path) -> None:
    """mkvextract makes two files of a VobSub track, whatever extension it is given; both get their names."""
    module = carry_out(sound(vobsub, name))

    stem = os.path.splitext(name)[0]
    assert sorted(os.listdir()) == [f"{stem}.idx", f"{stem}.sub"]
    assert Path(f"{stem}.idx").read_text().count("timestamp:") == 2
    assert Path(f"{stem}.sub").stat().st_size == 4096
    if name in {"a.sub", "a.idx"}:
        assert module.outputs() == ["a.idx", "a.sub"]


def test_vobsub_behind_links(vobsub: Path, here: Path) -> None:
    """The two files of a VobSub track go where links of their names lead."""
    Path("one").mkdir()
    Path("a.idx").symlink_to("one/x")

    carry_out(sound(vobsub, "a.sub"))

    assert sorted(os.listdir()) == ["a.idx", "a.sub", "one"]
    assert os.listdir("one") == ["x"]
    assert "timestamp:" in Path("one/x").read_text()


def test_empty_tracks(here: Path) -> None:
    """A track of pictures for subtitles without any makes an empty file, with a warning; one of sound an error."""
    Path("a.srt").write_text(SUBTITLES)
    mkvmerge("-o", "a.mkv", "a.srt")

    class Emptied(Mkvextract):
        def _execute(self, argv: Any, durations: Any) -> bool:
            return super()._execute(["true"], durations)

    module = Emptied(sound("a.mkv", "out"))
    module.run()

    assert Path("out").stat().st_size == 0
    assert list(module.sisyphus_context.warnings) == ["tracks[0]: out: mkvextract wrote nothing"]
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "b.mkv")
    with pytest.raises(RunError, match=r"^tracks\[0\]: out2: mkvextract wrote nothing$"):
        Emptied(sound("b.mkv", "out2")).run()
    assert not Path("out2").exists()


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


def test_whole_part_of_a_truncated_source(film: Path, here: Path) -> None:
    """What is at the beginning of a source can be had, though its end is missing."""
    shutil.move(halve(film, "cut.mkv"), here / "cut.mkv")

    carry_out({"source": "cut.mkv", "attachments": [{"id": 1, "filename": "a"}], "chapters": "c"})

    assert Path("a").read_bytes() == film.with_name("font.ttf").read_bytes()
    assert Path("c").read_text().rstrip().endswith("</Chapters>")


@pytest.mark.parametrize("mode", ["tracks", "attachments", "chapters", "tags", "timestamps", "cues"])
def test_full_disk(mode: str, film: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is full is an error, though mkvextract exits with 0 then, or aborts; no file is left."""
    # so that the limit is an error to the program, and not a signal
    put_program(tmp_path, "mkvextract", "trap '' XFSZ\nexec mkvextract \"$@\"", monkeypatch)
    entry: Any = {"chapters": "a", "tags": "a", "cues": [{"id": 0, "filename": "a"}]}
    data = {"source": str(film), mode: entry.get(mode, [{"id": 1, "filename": "a"}])}

    with files_limited_to(100):
        error = failure(data)

    assert error.message.startswith("a: cannot be written: File too large")
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


def test_half_an_extract(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that exits with 0, and has written half of a track, is not believed."""
    cut = f'for f in "{tmp_path}"/.half.*; do truncate -s $(($(stat -c %s "$f") / 2)) "$f"; done'
    put_program(tmp_path / "bin", "mkvextract", f'mkvextract "$@"\n{cut}', monkeypatch)

    error = failure({"source": str(film), "tracks": [{"id": 0, "filename": str(tmp_path / "half.h264")}]})

    assert "bytes of a track of" in error.message
    assert os.listdir(tmp_path) == ["bin"]


def test_all_problems_at_once(here: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    data = {
        "source": "none.mkv",
        "tracks": [{"id": 0, "filename": "no/a"}, {"id": 0, "filename": "./x"}, {"id": 1, "filename": "x"}],
        "attachments": [{"id": 1, "filename": "."}],
        "chapters": "pipe",
        "tags": "none.mkv",
        "timestamps": [{"id": 0, "filename": "link"}],
    }
    Path("link").symlink_to("x")
    os.mkfifo("pipe")

    assert problems(data) == [
        "source: none.mkv: no such file",
        "tracks[0]: no/a: there is no directory no",
        "tracks[1]: is the same as tracks[0], and mkvextract extracts nothing twice",
        "tracks[2]: x is written by tracks[1] already",
        "attachments[0]: .: is a directory",
        "chapters: pipe: is no regular file (a device or a pipe): it is not replaced",
        "tags: none.mkv is also the source",
        "timestamps[0]: link is written by tracks[1] already",
    ]
