"""The `mkvextract` module extracts, with the real mkvextract and tiny films."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.mkvextract import Mkvextract
from tests.modules.mkvextract.scene import EVERYTHING, FILES, carry_out, sound
from tests.support.films import (
    ODD_NAMES,
    SUBTITLES,
    ffmpeg,
    mkvmerge,
)
from tests.support.media import look

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


@pytest.mark.parametrize("source", [*ODD_NAMES, "tracks", "chapters"])
def test_odd_names(source: str, film: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and outputs of odd names work, in the working directory and in odd ones, in any locale."""
    monkeypatch.setenv("LC_ALL", "C")
    os.link(film, source)
    Path(f"{source}.d").mkdir()
    inside = os.path.join(f"{source}.d", source)
    data = {
        "source": source,
        "tracks": [{"id": 3, "filename": f"{source}.3"}, {"id": 5, "filename": inside}],
        "attachments": [{"id": 2, "filename": f"{source}.2"}],
        "chapters": f"{source}.c",
        "tags": f"{inside}.t",
    }

    carry_out(data)

    assert sorted(os.listdir()) == sorted([source, *(f"{source}.{extension}" for extension in "3d2c")])
    assert sorted(os.listdir(f"{source}.d")) == [source, f"{source}.t"]
    assert "Hello" in Path(inside).read_text()
    assert "Two" in Path(f"{source}.c").read_text()
    assert os.environ["LC_ALL"] == "C"


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


def test_replaced_targets(film: Path, here: Path) -> None:
    """Files at the targets are replaced, as mkvextract does it, and that is on the record."""
    Path("a").write_text("old")
    Path("a").chmod(0o600)

    module = carry_out({"source": str(film), "chapters": "a", "tags": "b"})

    assert list(module.sisyphus_context.warnings) == ["a was there already: it is replaced"]
    assert "Chapters" in Path("a").read_text()
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o600


def test_progress(large: Path, here: Path) -> None:
    """The progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    infos: list[dict[str, Any]] = []

    class Watched(Mkvextract):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append((self.sisyphus_context.status.get("progress", 0), Path("a.wav").exists()))
            infos.append(self.sisyphus_context.status.get("info", {"phase": "extracting"}))

    Watched(sound(large, "a.wav")).run()

    assert len(seen) >= 5
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)
    assert {info["phase"] for info in infos} == {"extracting", "checking"}
    assert all(info["eta_seconds"] >= 0 for info in infos if "eta_seconds" in info)


def test_resumed(film: Path, here: Path) -> None:
    """A second attempt does the work again."""
    carry_out(sound(film, "a"))
    module = Mkvextract(sound(film, "a"))
    module.resumed = True

    module.validate()
    module.run()

    assert os.listdir() == ["a"]


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
