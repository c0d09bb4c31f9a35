"""The `mkvextract` module, with the real mkvextract and tiny films."""

import os
import re
import shlex
import shutil
import stat
import struct
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError
from modules.base import location
from modules.mkvextract import Mkvextract, arguments, extractions, sizes
from modules.mkvtoolnix import identify
from modules.output import Output
from tests import steps
from tests.media import Interrupted, look, make_clip, terminated_when
from tests.supervised import Supervised, job, until
from tests.test_mkvmerge import (
    MODULES,
    ODD_NAMES,
    SUBTITLES,
    damage,
    ffmpeg,
    files_limited_to,
    halve,
    make_film,
    make_silence,
    mkvmerge,
)

EVERYTHING: dict[str, Any] = {
    "tracks": [
        {"id": 0, "filename": "video.h264"},
        {"id": 0, "track_type": "audio", "language": "jpn", "filename": "sound.aac"},
        {"id": 1, "track_type": "subtitles", "language": "ja", "filename": "subs.srt"},
        {"id": 1, "language": "eng", "filename": "english.srt"},
    ],
    "attachments": [{"id": 2, "filename": "note.txt"}, {"id": 1, "filename": "font.ttf"}],
    "chapters": "chapters.xml",
    "tags": "tags.xml",
    "timestamps": [{"id": 0, "filename": "times.txt"}, {"id": 3, "filename": "times3.txt"}],
    "cues": [{"id": 0, "filename": "cues.txt"}],
}
"""Task data that extracts something of each kind."""

FILES = [
    "video.h264", "sound.aac", "subs.srt", "english.srt", "note.txt", "font.ttf", "chapters.xml", "tags.xml",
    "times.txt", "times3.txt", "cues.txt",
]  # fmt: skip


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file that takes some time to extract: 200 MB of silence, compressed."""
    directory = tmp_path_factory.mktemp("large")
    silence = make_silence(directory / "a.wav", 200 << 20)
    mkvmerge("-o", directory / "large.mkv", "--compression", "0:zlib", silence)
    return directory / "large.mkv"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


carry_out = partial(steps.carry_out, Mkvextract)
problems = partial(steps.problems, Mkvextract)
refusal = partial(steps.refusal, Mkvextract)
failure = partial(steps.failure, Mkvextract)


def sound(source: object, target: object, **more: Any) -> dict[str, Any]:
    """A task that extracts one track."""
    return {"source": str(source), "tracks": [{"id": 0, "filename": str(target)}], **more}


@pytest.fixture(scope="session")
def vobsub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film with pictures for subtitles, as they are on a DVD: two of them, of a few pixels."""
    directory = tmp_path_factory.mktemp("vobsub")
    lines = ["# VobSub index file, v7 (do not modify this line!)", "size: 720x480", "palette: " + ", ".join(["0"] * 16)]
    lines.append("id: en, index: 0")
    stream = b""
    for second in (1, 2):
        lines.append(f"timestamp: 00:00:{second:02}:000, filepos: {len(stream):09x}")
        ticks = second * 90000
        stamp = bytes([0x21, ticks >> 22 & 255, ticks >> 14 & 254 | 1, ticks >> 7 & 255, ticks << 1 & 254 | 1])
        show = bytes.fromhex("0000 001f 01 033210 04ffff 05000003000001 0600040006 ff")
        hide = bytes.fromhex("005a 001f 02 ff")
        picture = struct.pack(">HH", 8 + len(show) + len(hide), 8) + bytes.fromhex("01000100") + show + hide
        packet = bytes.fromhex("818005") + stamp + b"\x20" + picture
        pack = bytes.fromhex("000001ba 44000400040100 0003f8 000001bd") + struct.pack(">H", len(packet)) + packet
        padding = 2048 - len(pack) - 6
        stream += pack + bytes.fromhex("000001be") + struct.pack(">H", padding) + b"\xff" * padding
    (directory / "v.sub").write_bytes(stream)
    (directory / "v.idx").write_text("\n".join(lines) + "\n")
    mkvmerge("-o", directory / "vobsub.mkv", directory / "v.idx")
    return directory / "vobsub.mkv"


# --- the command line ---


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            EVERYTHING,
            "tracks 0:video.h264 2:sound.aac 5:subs.srt 3:english.srt attachments 2:note.txt 1:font.ttf "
            "chapters chapters.xml tags tags.xml timestamps_v2 0:times.txt 3:times3.txt cues 0:cues.txt",
        ),
        ({"cues": [{"id": 1, "filename": "a"}], "chapters": "b"}, "chapters b cues 1:a"),
        ({"tracks": [{"id": 1, "track_type": "audio", "filename": "a"}]}, "tracks 2:a"),
        ({"tracks": [{"id": 2, "language": "jpn", "filename": "a"}]}, "tracks 5:a"),
        ({"tracks": [{"id": 0.0, "track_type": "video", "language": "und", "filename": "a"}]}, "tracks 0:a"),
        ({"tracks": [{"id": 0, "track_type": "subtitles", "filename": "a b'c"}]}, 'tracks "3:a b\'c"'),
        ({"attachments": [], "tags": "new/a"}, "tags new/a"),
    ],
)
def test_arguments(data: dict[str, Any], expected: str, film: Path) -> None:
    """Each kind of task data makes exactly these arguments."""
    wanted = list(extractions(data, identify(str(film))))

    argv = arguments("film.mkv", wanted, {name: name for each in wanted for name in each.files})

    assert argv == ["mkvextract", "film.mkv", "--gui-mode", *shlex.split(expected)]


@pytest.mark.parametrize(("source", "expected"), [("tracks", "./tracks"), ("@a", "./@a"), ("-a", "./-a"), ("/a", "/a")])
def test_source_argument(source: str, expected: str) -> None:
    """A source that has the name of a mode, or of an option file, is told from it."""
    assert arguments(source, [], {}) == ["mkvextract", expected, "--gui-mode"]


def test_plan(film: Path, here: Path) -> None:
    """The plan is the command line of the run, with the temporary names, and the renamings that follow."""
    Path("@d").mkdir()

    line, *renamings = Mkvextract(
        {"source": str(film), "tracks": [{"id": 3, "filename": "a b"}], "tags": "@d/t"}
    ).plan()

    first, second = Output("a b").temporary, Output("@d/t").temporary
    assert shlex.split(line) == ["mkvextract", str(film), "--gui-mode", "tracks", f"3:{first}", "tags", f"./{second}"]
    assert [shlex.split(renaming) for renaming in renamings] == [
        ["mv", "--", first, "a b"],
        ["mv", "--", second, "@d/t"],
    ]


def test_plan_without_source(here: Path) -> None:
    """Of a source that is not there yet, the plan says which track is meant."""
    tracks = [{"id": 1, "track_type": "subtitles", "language": "jpn", "filename": "a"}, {"id": 7, "filename": "b"}]

    line, *renamings = Mkvextract({"source": "later.mkv", "tracks": tracks}).plan()

    first, second = (Output(name).temporary for name in "ab")
    assert shlex.split(line) == [
        "mkvextract", "later.mkv", "--gui-mode", "tracks", f"<subtitles jpn 1>:{first}", f"7:{second}",
    ]  # fmt: skip
    assert renamings == [f"mv -- {first} a", f"mv -- {second} b"]


@pytest.mark.parametrize("name", ["a.srt", "new\nline", "\udcff.srt"])
def test_plan_can_be_pasted(name: str, film: Path, here: Path) -> None:
    """A shell that is given the plan does what the run does, the detour for odd names included."""
    data = {"source": str(film), "tracks": [{"id": 3, "filename": name}]}
    lines = Mkvextract(data).plan()

    for line in lines:
        subprocess.run(["bash", "-c", os.fsencode(line)], check=True, stdout=subprocess.DEVNULL)
    for line in lines[:-2]:
        Path(shlex.split(line)[-1]).unlink()

    assert "Hello" in Path(name).read_text()
    assert os.listdir() == [name]


# --- extracting ---


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
    assert module.sisyphus_status == {
        "status": "in_progress", "task": "mkvextract", "progress": 100, "info": {"phase": "checking"}
    }  # fmt: skip
    assert module.sisyphus_warnings == ()


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

    assert list(module.sisyphus_warnings) == ["a was there already: it is replaced"]
    assert "Chapters" in Path("a").read_text()
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o600


def test_progress(large: Path, here: Path) -> None:
    """The progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    infos: list[dict[str, Any]] = []

    class Watched(Mkvextract):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append((self.sisyphus_status.get("progress", 0), Path("a.wav").exists()))
            infos.append(self.sisyphus_status.get("info", {"phase": "extracting"}))

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
    assert list(module.sisyphus_warnings) == ["tracks[0]: out: mkvextract wrote nothing"]
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "b.mkv")
    with pytest.raises(RunError, match=r"^tracks\[0\]: out2: mkvextract wrote nothing$"):
        Emptied(sound("b.mkv", "out2")).run()
    assert not Path("out2").exists()


# --- failures ---


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

    assert failure(sound(name, "a")).message.startswith(problem)
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
    monkeypatch.setattr(Mkvextract, "sisyphus_free_space", (0.5, 1 << 60))

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
    assert expected(film, tracks=tracks(0, 1, 4), **everything) == {"0": 40165, "1": 17671, "4": 30, **nothing}
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


# --- validation ---


def test_all_problems_at_once(here: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    data = {
        "source": "none.mkv",
        "tracks": [{"id": 0, "filename": "no/a"}, {"id": 0, "filename": "./x"}, {"id": 1, "filename": "x"}],
        "attachments": [{"id": 1, "filename": "."}],
        "chapters": "/dev/null",
        "tags": "none.mkv",
        "timestamps": [{"id": 0, "filename": "link"}],
    }
    Path("link").symlink_to("x")

    assert problems(data) == [
        "source: none.mkv: no such file",
        "tracks[0]: no/a: there is no directory no",
        "tracks[1]: is the same as tracks[0], and mkvextract extracts nothing twice",
        "tracks[2]: x is written by tracks[1] already",
        "attachments[0]: .: is a directory",
        "chapters: /dev/null: is no regular file (a device or a pipe): it is not replaced",
        "tags: none.mkv is also the source",
        "timestamps[0]: link is written by tracks[1] already",
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "missing key 'source'"),
        ({"source": "a"}, "expected 'tracks', 'attachments', 'chapters', 'tags', 'timestamps' or 'cues'"),
        ({"source": "a", "tracks": []}, "there is nothing to extract"),
        ({"source": "a", "chapter": "b"}, "chapter: unknown key (did you mean 'chapters'?)"),
        ({"source": "a", "tracks": [{"id": 0, "filname": "b"}]}, "tracks[0].filname: unknown key (did you mean 'file"),
        ({"source": "a", "tracks": [{"id": 0, "filname": "b"}]}, "tracks[0]: missing key 'filename'"),
        (
            {"source": "a", "tracks": [{"id": 0, "track_type": "subtitle", "filename": "b"}]},
            'tracks[0].track_type: expected "video", "audio", "subtitles" or "buttons", got "subtitle"',
        ),
        ({"source": "a", "tracks": [{"id": "0", "filename": "b"}]}, 'tracks[0].id: expected a whole number, got "0"'),
        ({"source": "a", "tracks": [{"id": -1, "filename": "b"}]}, "tracks[0].id: expected 0 or more, got -1"),
        ({"source": "a", "attachments": [{"id": 0, "filename": "b"}]}, "attachments[0].id: expected 1 or more, got 0"),
        ({"source": "a", "cues": [{"id": 0, "filename": "b", "language": "jpn"}]}, "cues[0].language: unknown key"),
        ({"source": "a", "chapters": ["b"]}, "chapters: expected a string, got a list"),
        ({"source": "a\0", "tags": "\ud800"}, "source: expected text without NUL"),
        ({"source": "a" * 100_000, "tags": "b"}, "file name too long"),
    ],
)  # fmt: skip
def test_bad_data(data: dict[str, Any], problem: str) -> None:
    """Data that is not as it should be is a ValidationError that says where."""
    assert problem in refusal(data)


def test_files_of_earlier_tasks(here: Path) -> None:
    """What an earlier task makes need not be there yet; what it will change is not judged by what it is now."""
    Path("there.mkv").write_text("no film yet")
    for name in ("soon.mkv", "there.mkv"):
        module = Mkvextract({"source": name, "tracks": [{"id": 9, "track_type": "video", "filename": "new/a"}]})
        module.sisyphus_files = {location(each): True for each in ("soon.mkv", "there.mkv", "new/other")}

        module.validate()


def test_missing_tools(film: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not installed are named before anything runs, and also if they vanish afterwards."""
    module = Mkvextract(sound(film, "a"))
    module.validate()
    monkeypatch.setenv("PATH", str(here))

    assert refusal(sound(film, "a")) == (
        "mkvextract is not installed, or not on PATH (install mkvtoolnix); "
        "mkvmerge is not installed, or not on PATH (install mkvtoolnix)"
    )
    with pytest.raises(RunError, match=r"^mkvmerge is not installed, or not on PATH"):
        module.run()


# --- whole jobs ---


def test_cancelled_job(supervised: Supervised, large: Path, tmp_path: Path) -> None:
    """A job that is cancelled in the middle leaves nothing, and its tool is gone."""
    supervised.configure(modules=MODULES)
    (tmp_path / "work").mkdir()
    client = supervised.start(job(("mkvextract", sound(large, "work/a.wav"))), "--json")
    until(lambda: [file for file in (tmp_path / "work").iterdir() if file.stat().st_size], "the file to grow")

    client.terminate()
    client.communicate()

    assert client.returncode == 143
    assert os.listdir(tmp_path / "work") == []


def test_failing_job(supervised: Supervised, film: Path, tmp_path: Path) -> None:
    """mkvextract's refusal is on the job's record, with its exit status and its words."""
    supervised.configure(modules=MODULES)
    (tmp_path / "work").mkdir()
    data = {"source": str(film), "cues": [{"id": 1, "filename": "work/a"}], "chapters": "work/c"}

    error = supervised.record(job(("mkvextract", data)))["error"]

    assert (error["type"], error["reason"], error["exit_status"]) == ("RunError", "exit", 2)
    assert "There are no cues for track ID 1." in error["message"]
    assert os.listdir(tmp_path / "work") == []


@pytest.mark.parametrize("asked", ["fra", "fre", "FRA"])
def test_two_codes_of_a_language(asked: str, tmp_path: Path) -> None:
    """A language that has two codes of three letters is found by both."""
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nBonjour\n")
    mkvmerge("-o", tmp_path / "a.mkv", "--language", "0:fre", tmp_path / "a.srt")
    entry = {"id": 0, "language": asked, "filename": str(tmp_path / "b.srt")}

    carry_out({"source": str(tmp_path / "a.mkv"), "tracks": [entry]})

    assert "Bonjour" in (tmp_path / "b.srt").read_text()


def test_half_an_extract(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that exits with 0, and has written half of a track, is not believed."""
    stand_in = tmp_path / "bin" / "mkvextract"
    stand_in.parent.mkdir()
    cut = f'for f in "{tmp_path}"/.half.*; do truncate -s $(($(stat -c %s "$f") / 2)) "$f"; done'
    stand_in.write_text(f'#!/bin/sh\n{shutil.which("mkvextract")} "$@"\n{cut}\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")

    error = failure({"source": str(film), "tracks": [{"id": 0, "filename": str(tmp_path / "half.h264")}]})

    assert "bytes of a track of" in error.message
    assert os.listdir(tmp_path) == ["bin"]
