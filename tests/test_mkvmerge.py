"""The `mkvmerge` module, with the real mkvmerge and tiny films."""

import json
import os
import resource
import shlex
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from loguru import logger

from app.exceptions import RunError, ValidationError
from modules.base import location
from modules.containers import find_shortage
from modules.mkvextract import Mkvextract
from modules.mkvmerge import Mkvmerge, arguments, expect, shares, shielded
from modules.mkvtoolnix import Media, Track, identify
from modules.output import Output
from tests import steps
from tests.media import Interrupted, make_clip, terminated_when
from tests.supervised import Supervised, job

LEAD = ["mkvmerge", "--gui-mode", "--output", "/out/.muxed.part.mkv"]
MODULES = {"mkvmerge": "modules.mkvmerge.Mkvmerge", "mkvextract": "modules.mkvextract.Mkvextract"}
SUBTITLES = "1\n00:00:00,200 --> 00:00:01,500\nHello\n\n"
STYLED = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.20,0:00:01.50,Default,,0,0,0,,Konnichiwa
"""
CHAPTERS = "CHAPTER01=00:00:00.000\nCHAPTER01NAME=One\nCHAPTER02=00:00:01.000\nCHAPTER02NAME=Two\n"
TAGS = "<Tags><Tag><Simple><Name>ARTIST</Name><String>nobody</String></Simple></Tag></Tags>"


def mkvmerge(*arguments: object) -> bytes:
    """Run mkvmerge without the module, in a locale that it can live with."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["mkvmerge", *map(str, arguments)], stdout=subprocess.PIPE, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


def make_film(directory: Path) -> Path:
    """A film: 0 video, 1 English and 2 Japanese sound, 3 English and 4, 5 Japanese subtitles, and all the rest."""
    files = {"a.srt": SUBTITLES, "b.ass": STYLED, "c.srt": SUBTITLES, "chapters.txt": CHAPTERS, "tags.xml": TAGS}
    for name, text in files.items():
        (directory / name).write_text(text)
    (directory / "font.ttf").write_bytes(bytes(range(256)) * 10)
    (directory / "note.txt").write_text("a note\n")
    english, japanese = make_clip(directory / "english.mkv"), make_clip(directory / "japanese.mkv")
    film = directory / "film.mkv"
    mkvmerge(
        "-o", film, "--chapters", directory / "chapters.txt", "--global-tags", directory / "tags.xml",
        "--attach-file", directory / "font.ttf", "--attachment-mime-type", "text/x-note", "--attach-file",
        directory / "note.txt", "--language", "1:eng", english, "--no-video", "--language", "1:jpn", japanese,
        "--language", "0:eng", directory / "a.srt", "--language", "0:jpn", directory / "b.ass", "--language", "0:jpn",
        directory / "c.srt",
    )  # fmt: skip
    return film


def make_silence(path: Path, size: int) -> Path:
    """A WAV file that takes no room on the disk, and some time to read."""
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 2, 48000, 192000, 4, 16, b"data", size
    )
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    return path


def halve(path: Path, name: str) -> Path:
    """The first half of a file's bytes."""
    data = path.read_bytes()
    cut = path.with_name(name)
    cut.write_bytes(data[: len(data) // 2])
    return cut


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """For as long, no process of ours can write more bytes to a file: that is a full disk to each."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    logger.disable("modules")  # the log is in a file as well
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        logger.enable("modules")


def damage(directory: Path, writer: str, end: float = 1.0) -> Path:
    """Six seconds of film, in whose file there are zeros from the middle to `end`."""
    whole = make_clip(directory / "whole.mkv", seconds=6)
    if writer == "mkvmerge":  # which writes how long tracks are at the end, where it is lost
        mkvmerge("-o", directory / "muxed.mkv", "--cluster-length", "500ms", whole)
        whole = directory / "muxed.mkv"
    data = bytearray(whole.read_bytes())
    hole = slice(len(data) // 2, int(len(data) * end))
    data[hole] = bytes(len(data[hole]))
    damaged = directory / "damaged.mkv"
    damaged.write_bytes(data)
    return damaged


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and tone, written by ffmpeg."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv")


def task(source: object, target: object, **more: Any) -> dict[str, Any]:
    """A task that copies all pictures, sounds and subtitles."""
    options = {f"_copy-{name}-tracks": None for name in ("video", "audio", "subtitles")}
    return {
        "sources": [{"filename": str(source), "options": options}],
        "tracks": [],
        "output_file": str(target),
        **more,
    }


carry_out = partial(steps.carry_out, Mkvmerge)
problems = partial(steps.problems, Mkvmerge)
refusal = partial(steps.refusal, Mkvmerge)
failure = partial(steps.failure, Mkvmerge)


def look(path: object) -> dict[str, Any]:
    """What mkvmerge says of a file."""
    found: dict[str, Any] = json.loads(mkvmerge("-J", f"={path}"))
    return found


def tracks(path: object) -> list[tuple[str, str]]:
    """Types and languages of a file's tracks."""
    return [(track["type"], track["properties"]["language"]) for track in look(path)["tracks"]]


# --- the command line ---

EXAMPLE: dict[str, Any] = {
    "sources": [
        {"filename": "video.mkv", "options": {"no-chapters": None, "_copy-audio-tracks": None}},
        {"filename": "audio.ac3"},
    ],
    "tracks": [
        {"source": 0, "track": 0, "options": {"language": "und", "default-track": "yes", "track-name": "Video"}},
        {"source": 1, "track": 0, "options": {"language": "jpn"}},
    ],
    "options": {"no-global-tags": None, "title": "A Title"},
    "attachments": [{"name": "Font", "filename": "font.otf", "mime_type": "application/vnd.ms-opentype"}],
    "attachment_directories": ["/mnt/server/fonts"],
    "output_file": "/mnt/server/muxed.mkv",
}
VIDEO = Media("Matroska", (Track(0, "video"), Track(1, "audio"), Track(2, "audio"), Track(3, "subtitles")))
AUDIO = Media("AC-3", (Track(0, "audio"),))
MENUS = Media("Matroska", (Track(0, "video"), Track(1, "buttons")))
NONE = "--no-video --no-audio --no-subtitles --no-buttons"


def listed(*numbers: int, **more: Any) -> dict[str, Any]:
    return {
        "sources": [{"filename": "a.mkv"}],
        "tracks": [{"source": 0, "track": number} for number in numbers],
        "output_file": "b.mkv",
        **more,
    }


def with_source(**options: Any) -> dict[str, Any]:
    return {"sources": [{"filename": "a.mkv", "options": options}], "output_file": "b.mkv"}


def with_track(number: int, **options: Any) -> dict[str, Any]:
    return listed(tracks=[{"source": 0, "track": number, "options": options}])


@pytest.mark.parametrize(
    ("data", "media", "expected"),
    [
        (
            EXAMPLE,
            [VIDEO, AUDIO],
            "--no-global-tags --title 'A Title' "
            "--video-tracks 0 --no-subtitles --no-buttons --no-chapters --language 0:und --default-track 0:yes "
            "--track-name 0:Video '(' video.mkv ')' "
            "--no-video --audio-tracks 0 --no-subtitles --no-buttons --language 0:jpn '(' audio.ac3 ')' "
            "--attachment-mime-type application/vnd.ms-opentype --attachment-name Font --attach-file font.otf "
            "--attach-file /mnt/server/fonts/x.ttf --track-order 0:0,1:0",
        ),
        (listed(), [VIDEO], f"{NONE} '(' a.mkv ')'"),
        (
            listed(3, 2, 0, 1),
            [VIDEO],
            "--video-tracks 0 --audio-tracks 2,1 --subtitle-tracks 3 --no-buttons '(' a.mkv ')' "
            "--track-order 0:3,0:2,0:0,0:1",
        ),
        (
            listed(1),
            [MENUS],
            "--no-video --no-audio --no-subtitles --button-tracks 1 '(' a.mkv ')' --track-order 0:1",
        ),
        (
            listed(2, 0),
            [None],
            "--video-tracks 2,0 --audio-tracks 2,0 --subtitle-tracks 2,0 --button-tracks 2,0 '(' a.mkv ')' "
            "--track-order 0:2,0:0",
        ),
        (
            listed(0, 0),
            [VIDEO],
            "--video-tracks 0 --no-audio --no-subtitles --no-buttons '(' a.mkv ')' --track-order 0:0,0:0",
        ),
        (
            with_source(**{f"_copy-{name}-tracks": None for name in ("video", "audio", "subtitles", "buttons")}),
            [VIDEO],
            "'(' a.mkv ')'",
        ),
        (
            with_source(**{"_copy-video-tracks": True, "_copy-audio-tracks": False}),
            [VIDEO],
            "--no-audio --no-subtitles --no-buttons '(' a.mkv ')'",
        ),
        (
            with_source(**{"no-chapters": True, "no-attachments": False, "chapter-charset": "UTF-8"}),
            [VIDEO],
            f"{NONE} --no-chapters --chapter-charset UTF-8 '(' a.mkv ')'",
        ),
        (
            with_track(1, **{"sync": -300, "track-name": "a: b'c", "reduce-to-core": None, "no-track-tags": True}),
            [VIDEO],
            "--no-video --audio-tracks 1 --no-subtitles --no-buttons --sync 1:-300 --track-name '1:a: b'\"'\"'c' "
            "--reduce-to-core 1 --no-track-tags '(' a.mkv ')' --track-order 0:1",
        ),
        (
            with_track(0, **{"forced-display-flag": True, "default-track-flag": False, "aspect-ratio": 1.5}),
            [VIDEO],
            "--video-tracks 0 --no-audio --no-subtitles --no-buttons --forced-display-flag 0 --aspect-ratio 0:1.5 "
            "'(' a.mkv ')' --track-order 0:0",
        ),
        (
            listed(options={"cluster-length": 5.0, "title": ""}),
            [VIDEO],
            f"--cluster-length 5 --title '' {NONE} '(' a.mkv ')'",
        ),
        (
            listed(tracks=[{"source": 0.0, "track": 2.0, "options": {"track-name": "--x"}}], options={"title": "-y"}),
            [VIDEO],
            "--title -y --no-video --audio-tracks 2 --no-subtitles --no-buttons --track-name 2:--x '(' a.mkv ')' "
            "--track-order 0:2",
        ),
        (
            listed(attachments=[{"filename": "a"}, {"filename": "b", "mimetype": "text/plain"}]),
            [VIDEO],
            f"{NONE} '(' a.mkv ')' --attach-file a --attachment-mime-type text/plain --attach-file b",
        ),
        (
            listed(sources=[{"filename": "@a"}], attachments=[{"filename": "-b"}]),
            [AUDIO],
            f"{NONE} '(' ./@a ')' --attach-file ./-b",
        ),
    ],
)  # fmt: skip
def test_arguments(data: dict[str, Any], media: list[Media | None], expected: str) -> None:
    """Each kind of task data makes exactly these arguments."""
    attached = [f"{directory}/x.ttf" for directory in data.get("attachment_directories", [])]

    argv = arguments(data, media, attached, "/out/.muxed.part.mkv")

    assert argv == [*LEAD, *shlex.split(expected)]


def test_arguments_like_option_files() -> None:
    """An argument that begins with `@` goes into an option file, since mkvmerge would read one of that name."""
    argv, files = shielded(["mkvmerge", "--title", '@home "x"', "a@b"])

    ((name, text),) = files.items()
    assert argv == ["mkvmerge", "--title", f"@{name}", "a@b"]
    assert json.loads(text) == ['@home "x"']


def test_plan(film: Path, tmp_path: Path) -> None:
    """The plan is the command line of the run; of a source that is not there yet, tracks are selected by number."""
    data = task(film, tmp_path / "out.mkv", tracks=[{"source": 1, "track": 0}])
    data["sources"].append({"filename": str(tmp_path / "later.ac3")})
    module = Mkvmerge(data)

    line, renaming = module.plan()

    temporary = Output(str(tmp_path / "out.mkv")).temporary
    assert shlex.split(line) == [
        "mkvmerge", "--gui-mode", "--output", temporary, "--no-buttons", "(", str(film), ")",
        "--video-tracks", "0", "--audio-tracks", "0", "--subtitle-tracks", "0", "--button-tracks", "0",
        "(", str(tmp_path / "later.ac3"), ")", "--track-order", "1:0",
    ]  # fmt: skip
    assert shlex.split(renaming) == ["mv", "--", temporary, str(tmp_path / "out.mkv")]
    assert module.outputs() == [str(tmp_path / "out.mkv")]
    assert module.removes() == []


def test_plan_can_be_pasted(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that is given the plan does what the run does, option files included."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = task(film, tmp_path / "out.mkv", options={"title": "@home 'x'"}, attachment_directories=["/nowhere"])

    for line in Mkvmerge(data).plan():
        subprocess.run(["bash", "-c", line], check=True, stdout=subprocess.DEVNULL)

    assert look(tmp_path / "out.mkv")["container"]["properties"]["title"] == "@home 'x'"


# --- muxing ---


def test_mux(film: Path, tmp_path: Path) -> None:
    """Listed tracks come in the order of the list, with their options; nothing is left beside the output."""
    target = tmp_path / "out.mkv"
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "inner").mkdir()
    (tmp_path / "fonts" / "inner" / "no.ttf").write_text("x")
    (tmp_path / "fonts" / ".nomedia").touch()  # mkvmerge would refuse it
    for name in ("b.ttf", ".a.ttf"):
        (tmp_path / "fonts" / name).write_text(name)
    data = {
        "sources": [
            {"filename": str(film), "options": {"no-chapters": None, "no-attachments": True}},
            {"filename": str(film.with_name("b.ass"))},
        ],
        "tracks": [
            {"source": 0, "track": 2, "options": {"language": "fre", "track-name": "'Son'; $(x)"}},
            {
                "source": 1,
                "track": 0,
                "options": {"language": "jpn", "default-track": "no", "forced-display-flag": True},
            },
            {"source": 0, "track": 0},
        ],
        "options": {"no-global-tags": None, "title": "@home"},
        "attachments": [{"filename": str(film.with_name("note.txt")), "name": "Note", "mime_type": "text/x-note"}],
        "attachment_directories": [str(tmp_path / "fonts")],
        "output_file": str(target),
    }

    module = carry_out(data)
    found = look(target)

    assert sorted(os.listdir(tmp_path)) == ["fonts", "out.mkv"]
    assert tracks(target) == [("audio", "fre"), ("subtitles", "jpn"), ("video", "und")]
    assert found["tracks"][0]["properties"]["track_name"] == "'Son'; $(x)"
    assert found["tracks"][1]["properties"]["forced_track"]
    assert not found["tracks"][1]["properties"]["default_track"]
    assert found["container"]["properties"]["title"] == "@home"
    assert found["chapters"] == found["global_tags"] == []
    assert [(entry["file_name"], entry["content_type"]) for entry in found["attachments"]] == [
        ("Note", "text/x-note"),
        (".a.ttf", "font/ttf"),
        ("b.ttf", "font/ttf"),
    ]
    assert module.sisyphus_status == {
        "status": "in_progress", "task": "mkvmerge", "progress": 100, "info": {"phase": "checking"}
    }  # fmt: skip
    assert module.sisyphus_warnings == ()


def test_options_of_each_kind(clip: Path, tmp_path: Path) -> None:
    """Options of a track, a source and the file reach mkvmerge: HDR flags, values that begin with dashes."""
    track = {
        "track-name": "--no-video", "color-primaries": 9, "color-transfer-characteristics": "16",
        "color-matrix-coefficients": 9.0, "max-content-light": 1000, "min-luminance": 0.01, "original-flag": None,
        "hearing-impaired-flag": False, "display-dimensions": "640x360",
    }  # fmt: skip
    data = task(clip, tmp_path / "out.mkv", options={"title": "--dash", "no-date": True, "cluster-length": 2})
    data["sources"][0]["options"] |= {"no-global-tags": None, "no-track-tags": True, "no-chapters": False}
    data["tracks"] = [{"source": 0, "track": 0, "options": track}]

    carry_out(data)

    properties = look(tmp_path / "out.mkv")["tracks"][0]["properties"]
    container = look(tmp_path / "out.mkv")["container"]["properties"]
    assert properties["track_name"] == "--no-video"
    assert (properties["color_primaries"], properties["color_transfer_characteristics"]) == (9, 16)
    assert (properties["color_matrix_coefficients"], properties["max_content_light"]) == (9, 1000)
    assert properties["min_luminance"] == pytest.approx(0.01)
    assert properties["flag_original"]
    assert properties["display_dimensions"] == "640x360"
    assert container["title"] == "--dash"
    assert "date_utc" not in container


def test_copied_types(film: Path, tmp_path: Path) -> None:
    """All tracks of a type come with `_copy-…-tracks`, after those that are listed; of the rest, only those."""
    data = task(film, tmp_path / "out.mkv", tracks=[{"source": 0, "track": 4, "options": {"language": "und"}}])
    data["sources"][0]["options"] = {"_copy-audio-tracks": True, "_copy-subtitles-tracks": None}

    carry_out(data)

    sounds, subtitles = [("audio", "eng"), ("audio", "jpn")], [("subtitles", "eng"), ("subtitles", "jpn")]
    assert tracks(tmp_path / "out.mkv") == [("subtitles", "und"), *sounds, *subtitles]
    assert look(tmp_path / "out.mkv")["chapters"] == [{"num_entries": 2}]


def test_nothing_listed(film: Path, clip: Path, tmp_path: Path) -> None:
    """A source of which no track is listed gives its chapters, tags and attachments."""
    data = task(clip, tmp_path / "out.mkv")
    data["sources"].append({"filename": str(film)})

    carry_out(data)

    assert [kind for kind, _ in tracks(tmp_path / "out.mkv")] == ["video", "audio"]
    assert len(look(tmp_path / "out.mkv")["attachments"]) == 2
    assert look(tmp_path / "out.mkv")["chapters"] == [{"num_entries": 2}]


def test_selection_by_mkvmerge_itself(film: Path, clip: Path, tmp_path: Path) -> None:
    """A source's own selecting options reach mkvmerge, and what they leave out is not missed."""
    data = task(film, tmp_path / "out.mkv")
    data["sources"][0]["options"] |= {"no-video": None, "audio-tracks": 2}
    data["sources"].append({"filename": str(clip), "options": {"_copy-video-tracks": None}})

    carry_out(data)

    assert [kind for kind, _ in tracks(tmp_path / "out.mkv")] == ["audio", *["subtitles"] * 3, "video"]


def test_attachments_that_are_alike(film: Path, tmp_path: Path) -> None:
    """mkvmerge keeps one of two attachments that are alike, which is no loss."""
    font = str(film.with_name("font.ttf"))
    (tmp_path / "fonts").mkdir()
    shutil.copy(font, tmp_path / "fonts")

    carry_out(
        task(film, tmp_path / "out.mkv", attachments=[{"filename": font}], attachment_directories=[f"{tmp_path}/fonts"])
    )

    assert "font.ttf" in {entry["file_name"] for entry in look(tmp_path / "out.mkv")["attachments"]}


def test_many_attachments(clip: Path, tmp_path: Path) -> None:
    """A thousand attachments come in, and out again, though a process may have few files open."""
    (tmp_path / "fonts").mkdir()
    for number in range(1000):
        (tmp_path / "fonts" / f"{number}.ttf").write_text(str(number))
    film = tmp_path / "out.mkv"
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, most))
    try:
        carry_out(task(clip, film, attachment_directories=[f"{tmp_path}/fonts"]))
        names = {entry["id"]: entry["file_name"] for entry in look(film)["attachments"]}
        wanted = [{"id": number, "filename": f"{tmp_path}/{name}"} for number, name in names.items()]
        Mkvextract({"source": str(film), "attachments": wanted}).run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))

    assert {(tmp_path / f"{number}.ttf").read_text() for number in range(1000)} == set(map(str, range(1000)))


def test_output_among_attachments(clip: Path, tmp_path: Path) -> None:
    """An output in an attachment directory is not attached to itself, neither an old one nor the one being written."""
    (tmp_path / "font.ttf").write_text("x")
    data = task(clip, tmp_path / "out.mkv", attachment_directories=[str(tmp_path)])
    Path(Output(data["output_file"], tag="killed").temporary).touch()

    carry_out(data)
    carry_out(data)

    assert [entry["file_name"] for entry in look(tmp_path / "out.mkv")["attachments"]] == ["font.ttf"]
    assert sorted(os.listdir(tmp_path)) == ["font.ttf", "out.mkv"]


ODD_NAMES = [
    "with space.mkv", "quote'\".mkv", "new\nline.mkv", "-dash.mkv", "--identify", "@at.mkv", "+plus.mkv", "=is.mkv",
    "(", ")", "[", "]", "co:lon.mkv", "back\\slash.mkv", "ü.mkv", "\udcff.mkv", "%d$(x)*?.mkv", "#.mkv",
]  # fmt: skip


@pytest.mark.parametrize("locale", ["C", "xx_XX.UTF-8"])
def test_odd_sources(locale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and attachments of odd names work, in the working directory too, in any locale."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", locale)
    for name in ODD_NAMES:
        Path(name).write_text(SUBTITLES)
    count = len(ODD_NAMES)
    data = {
        "sources": [{"filename": name} for name in ODD_NAMES],
        "tracks": [{"source": index, "track": 0} for index in range(count)],
        "attachments": [{"filename": name} for name in ODD_NAMES],
        "output_file": "out.mkv",
    }

    carry_out(data)

    assert tracks("out.mkv") == [("subtitles", "und")] * count
    assert len(look("out.mkv")["attachments"]) == count
    assert sorted(os.listdir()) == sorted([*ODD_NAMES, "out.mkv"])
    assert os.environ["LC_ALL"] == locale


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_outputs(name: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of odd names work, in the working directory and in an odd one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C")
    Path(f"{name}2").mkdir()

    carry_out(task(film.with_name("a.srt"), name))
    Mkvmerge(task(name, os.path.join(f"{name}2", name))).run()

    assert len(tracks(name)) == len(tracks(os.path.join(f"{name}2", name))) == 1
    assert sorted(os.listdir()) == sorted([name, f"{name}2"])
    assert os.listdir(f"{name}2") == [name]


def test_numbered_siblings(tmp_path: Path) -> None:
    """A file of a numbered series is that file alone, when it is identified and when it is muxed."""
    video = ["-f", "lavfi", "-i", "testsrc=size=352x288:rate=25:duration=1"]
    ffmpeg(*video, "-c:v", "mpeg2video", "-f", "vob", tmp_path / "VTS_01_1.VOB")
    ffmpeg(*video, "-f", "lavfi", "-i", "sine=duration=1", "-c:v", "mpeg2video", "-f", "vob", tmp_path / "VTS_01_2.VOB")

    carry_out(task(tmp_path / "VTS_01_1.VOB", tmp_path / "out.mkv"))

    assert [kind for kind, _ in tracks(tmp_path / "out.mkv")] == ["video"]
    missing = refusal(task(tmp_path / "VTS_01_1.VOB", tmp_path / "x.mkv", tracks=[{"source": 0, "track": 1}]))
    assert missing == "tracks[0].track: 1, but sources[0] has only these tracks: 0 (video)"


def test_progress(tmp_path: Path) -> None:
    """The progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    infos: list[dict[str, Any]] = []

    class Watched(Mkvmerge):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append((self.sisyphus_status.get("progress", 0), (tmp_path / "out.mkv").exists()))
            infos.append(self.sisyphus_status.get("info", {"phase": "muxing"}))

    Watched(task(make_silence(tmp_path / "a.wav", 100 << 20), tmp_path / "out.mkv")).run()

    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)
    assert {info["phase"] for info in infos} == {"muxing", "checking"}
    assert all(info["eta_seconds"] >= 0 for info in infos if "eta_seconds" in info)


def test_progress_beyond_all(tmp_path: Path, film: Path) -> None:
    """What mkvmerge says beyond 100 %, or less than before, is not passed on."""
    seen: list[float] = []

    class Watched(Mkvmerge):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append(self.sisyphus_status.get("progress", 0))

        def said(self, *percents: str) -> None:
            script = "".join(f"echo '#GUI#progress {percent}';" for percent in percents)
            self._execute(["sh", "-c", script], {})

    Watched(task(film, tmp_path / "out.mkv")).said("0%", "5%", "669%", "4%", "nothing", "nan%", "100%")

    assert seen == [0, 0, 5, 5, 99.9, 99.9]


def test_replaced_target(clip: Path, tmp_path: Path) -> None:
    """A file at the target is replaced, as mkvmerge does it, and that is on the record."""
    target = tmp_path / "out.mkv"
    target.write_text("old")
    target.chmod(0o640)

    module = carry_out(task(clip, target))

    assert list(module.sisyphus_warnings) == [f"{target} was there already: it is replaced"]
    assert len(tracks(target)) == 2
    assert target.stat().st_mode & 0o777 == 0o640


def test_warnings(film: Path, tmp_path: Path) -> None:
    """Exit status 1 is a success, with what mkvmerge warned of on the record."""
    data = task(film, tmp_path / "out.mkv")
    data["sources"].append(data["sources"][0])

    module = carry_out(data)

    assert len(module.sisyphus_warnings) == 6
    assert "mkvmerge: '" in module.sisyphus_warnings[0]
    assert "Could not keep a track's UID" in module.sisyphus_warnings[0]
    assert len(tracks(tmp_path / "out.mkv")) == 12


def test_short_track_of_a_long_source(tmp_path: Path) -> None:
    """A warning of something else does not make a short track of a long source look cut short."""
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "a.ac3")
    video = make_clip(tmp_path / "a.mkv", seconds=6, audio=False)
    mkvmerge("--disable-track-statistics-tags", "-o", tmp_path / "b.mkv", video, tmp_path / "a.ac3")
    data = task(tmp_path / "b.mkv", tmp_path / "out.mkv")
    data["sources"][0]["options"] = {"_copy-audio-tracks": True}
    data["sources"].append(data["sources"][0])

    module = carry_out(data)

    assert len(module.sisyphus_warnings) == 1
    assert tracks(tmp_path / "out.mkv") == [("audio", "und")] * 2


def test_flood_of_warnings(film: Path, tmp_path: Path) -> None:
    """Of countless warnings the first are on the record, and how many more there were."""
    module = Mkvmerge(task(film, tmp_path / "out.mkv"))

    script = 'for i in $(seq 60); do echo "#GUI#warning no $i"; done; exit 1'

    assert module._execute(["sh", "-c", script], {})
    assert module.sisyphus_warnings[::25] == ("mkvmerge: no 1", "mkvmerge: no 26", "mkvmerge: 10 more warnings")


def test_resumed(clip: Path, tmp_path: Path) -> None:
    """A second attempt does the work again."""
    carry_out(task(clip, tmp_path / "out.mkv"))
    module = Mkvmerge(task(clip, tmp_path / "out.mkv"))
    module.resumed = True

    module.validate()
    module.run()

    assert os.listdir(tmp_path) == ["out.mkv"]


# --- lengths ---


VIDEOS = {
    "vfr.mkv": "-vf \"select='not(mod(n,7))+lt(n,9)'\" -fps_mode vfr",
    "b-frames.mkv": "-bf 3 -g 50",
    "a.mp4": "",
    "a.mov": "-movflags +faststart",
    "a.avi": "-c:v mpeg4",
    "a.ts": "",
    "a.h264": "",
}
SOUNDS = {
    "a.webm": "-c:a libopus",
    "opus.mkv": "-c:a libopus",
    "vorbis.mkv": "-c:a libvorbis",
    "flac.mkv": "-c:a flac",
    "mp3.mkv": "-c:a libmp3lame",
    "pcm.mkv": "-c:a pcm_s16le",
    "a.ogg": "-c:a libvorbis",
    "a.flac": "",
    "a.wav": "",
    "odd.wav": "-ac 1 -c:a pcm_u8 -af atrim=end_sample=15999",
    "a.m4a": "",
    "a.ac3": "",
}


def make_kinds(directory: Path) -> list[Path]:
    """Files of two seconds in all kinds of formats."""
    for source, kinds in (("testsrc=size=64x64:rate=25:duration=2", VIDEOS), ("sine=duration=2", SOUNDS)):
        outputs = [[*shlex.split(options), directory / name] for name, options in kinds.items()]
        ffmpeg("-f", "lavfi", "-i", source, *(argument for output in outputs for argument in output))
    return [directory / name for name in (*VIDEOS, *SOUNDS)]


def test_kinds_of_sources(tmp_path: Path) -> None:
    """Good sources of all kinds make a good output, which makes one again."""
    kinds = make_kinds(tmp_path)
    data = task(kinds[0], tmp_path / "out.mkv")
    data["sources"] = [{**data["sources"][0], "filename": str(kind)} for kind in kinds]

    carry_out(data)
    module = carry_out(task(tmp_path / "out.mkv", tmp_path / "again.mkv"))

    found = [kind for kind, _ in tracks(tmp_path / "again.mkv")]
    assert found == ["video"] * len(VIDEOS) + ["audio"] * len(SOUNDS)
    assert module.sisyphus_warnings == ()
    assert [find_shortage(str(kind)) for kind in kinds] == [None] * len(kinds)


@pytest.mark.parametrize(
    "options",
    [
        {"sync": "0:1500"},
        {"sync": "0:-1500"},
        {"sync": "0:0,1/2"},
        {"default-duration": "0:50fps"},
        {"disable-track-statistics-tags": None},
    ],
)
def test_timing_options(options: dict[str, Any], film: Path, clip: Path, tmp_path: Path) -> None:
    """Options that change how long tracks are make no output look cut short, wherever they stand."""
    sync = options.pop("sync", None)
    for index, source in enumerate((film, clip)):
        data = task(source, tmp_path / f"{index}.mkv")
        data["sources"][0]["options"] |= options | ({"sync": sync} if sync else {})
        Mkvmerge(data).run()
    if sync:
        entry = {"source": 0, "track": 0, "options": {"sync": sync.removeprefix("0:")}}
        Mkvmerge(task(film, tmp_path / "2.mkv", tracks=[entry])).run()
        Mkvmerge(task(film, tmp_path / "3.mkv", options={"sync": sync})).run()

    assert len(tracks(tmp_path / "0.mkv")) == 6


def test_late_tracks(clip: Path, tmp_path: Path) -> None:
    """Tracks that begin late, one or all of them, make no output look cut short: mkvmerge counts from the first one."""
    for name, options in (("one.mkv", ["-i", clip]), ("all.mkv", ["-itsoffset", "5", "-i", clip])):
        late = ["-itsoffset", "5", "-i", clip, *options, "-map", "0:v", "-map", "1:a"]
        ffmpeg(*late, "-c", "copy", "-copyts", "-avoid_negative_ts", "disabled", tmp_path / name)
        carry_out(task(tmp_path / name, tmp_path / f"out-{name}"))

    assert look(tmp_path / "all.mkv")["container"]["properties"]["duration"] > 6.9e9
    assert look(tmp_path / "out-all.mkv")["container"]["properties"]["duration"] < 2.1e9


def test_long_last_frame(tmp_path: Path) -> None:
    """How long the last frame is shown, ffmpeg counts and mkvmerge does not know: a difference that is no loss."""
    listing = tmp_path / "list.txt"
    picture = tmp_path / "a.png"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64", "-frames:v", "1", picture)
    listing.write_text(f"file {picture}\nduration 0.1\nfile {picture}\nduration 30\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-fps_mode", "vfr", "-c:v", "mpeg4", tmp_path / "a.mp4")
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-i", tmp_path / "a.mp4", "-c", "copy", "-bsf:v",
         "setts=duration=if(eq(N\\,1)\\,30/TB\\,DURATION)", tmp_path / "a.mkv"],
        check=True,
    )  # fmt: skip
    data = task(tmp_path / "a.mkv", tmp_path / "out.mkv")
    data["sources"].append(data["sources"][0])  # of which mkvmerge warns

    module = carry_out(data)

    durations = [identify(str(tmp_path / name)).duration or 0 for name in ("a.mkv", "out.mkv")]
    assert durations[1] < durations[0] - 10
    assert len(module.sisyphus_warnings) == 1


def test_stale_statistics(film: Path, tmp_path: Path) -> None:
    """Tags that a shorter file has from a longer one do not make it look cut short."""
    ffmpeg("-i", film, "-map", "0:v", "-map", "0:a", "-c", "copy", "-t", "0.5", tmp_path / "a.mkv")
    with open(tmp_path / "b.mkv", "wb") as file:  # to a pipe, ffmpeg leaves them as they are
        argv = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.mkv", "-map", "0", "-c", "copy", "-f", "matroska", "-"]
        file.write(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)

    carry_out(task(tmp_path / "a.mkv", tmp_path / "out.mkv"))
    carry_out(task(tmp_path / "b.mkv", tmp_path / "out2.mkv"))

    assert len(tracks(tmp_path / "out.mkv")) == len(tracks(tmp_path / "out2.mkv")) == 3


def test_empty_subtitles(clip: Path, tmp_path: Path) -> None:
    """A track of subtitles without any is copied."""
    (tmp_path / "a.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\n\n")
    data = task(clip, tmp_path / "out.mkv", tracks=[{"source": 1, "track": 0}])
    data["sources"].append({"filename": str(tmp_path / "a.srt")})
    carry_out(data)

    carry_out(task(tmp_path / "out.mkv", tmp_path / "again.mkv"))

    assert [kind for kind, _ in tracks(tmp_path / "again.mkv")] == ["subtitles", "video", "audio"]


# --- failures ---


@pytest.mark.parametrize("name", ["film.mkv", "clip.mkv", "a.mp4", "a.wav", "a.avi"])
def test_truncated_source(name: str, film: Path, clip: Path, tmp_path: Path) -> None:
    """A source that ends in the middle is an error, though mkvmerge exits with 0; nothing is left."""
    whole = tmp_path / name
    match name:
        case "film.mkv":
            shutil.copy(film, whole)
        case "clip.mkv":
            shutil.copy(clip, whole)
        case "a.wav":
            ffmpeg("-f", "lavfi", "-i", "sine=duration=1", whole)
        case _:
            video = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:duration=2", "-c:v", "mpeg4", "-b:v", "1M"]
            ffmpeg(*video, *(["-movflags", "+faststart"] if "mp4" in name else []), whole)
    cut = halve(whole, f"cut-{name}")
    whole.unlink()
    data = task(cut, tmp_path / "out.mkv")
    sizes = r": is cut short: it has \d+ bytes, and states \d+"

    with pytest.raises(ValidationError, match=f"sources.0..filename: {cut}{sizes}"):
        Mkvmerge(data).validate()
    with pytest.raises(RunError, match=f"sources.0..filename: {cut}{sizes}"):
        Mkvmerge(data).run()
    assert os.listdir(tmp_path) == [cut.name]


def test_truncated_anywhere(film: Path, tmp_path: Path) -> None:
    """Wherever a source ends too early, it is an error."""
    data = film.read_bytes()
    for share in (0.0, 0.0001, 0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999):
        (tmp_path / "cut.mkv").write_bytes(data[: int(len(data) * share)])

        assert failure(task(tmp_path / "cut.mkv", tmp_path / "out.mkv")).message.startswith("sources[0].filename: ")
        assert os.listdir(tmp_path) == ["cut.mkv"]


def test_last_byte(film: Path, clip: Path, tmp_path: Path) -> None:
    """That a Matroska file lacks its last byte is noticed; that it is a live recording is not held against it."""
    for source in (film, clip):
        (tmp_path / "cut.mkv").write_bytes(source.read_bytes()[:-1])
        assert "is cut short" in str(find_shortage(str(tmp_path / "cut.mkv")))
    ended = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", clip, "-c", "copy", "-f", "matroska", "-"], check=True, stdout=subprocess.PIPE
    )
    (tmp_path / "live.mkv").write_bytes(ended.stdout)

    carry_out(task(tmp_path / "live.mkv", tmp_path / "out.mkv"))
    assert len(tracks(tmp_path / "out.mkv")) == 2


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0", b"\0\0\0\x08ftyp" * 5, b"\xff" * 99]
)
def test_odd_beginnings(content: bytes, tmp_path: Path) -> None:
    """A file that only looks like one of a known kind is left to mkvmerge."""
    (tmp_path / "a").write_bytes(content)

    assert find_shortage(str(tmp_path / "a")) is None


@pytest.mark.parametrize("writer", ["ffmpeg", "mkvmerge"])
def test_damaged_source(writer: str, clip: Path, tmp_path: Path) -> None:
    """A source whose end was never written is an error, though mkvmerge only warns, whatever is taken from it."""
    damaged = damage(tmp_path, writer)
    loss = rf"{damaged}: is damaged: nothing can be read after \d\.\d s of 6\.0 s; the command was: mkvmerge "
    all_of_it = task(damaged, tmp_path / "out.mkv")
    sound = task(clip, tmp_path / "out.mkv", tracks=[{"source": 1, "track": 1, "options": {"sync": -100}}])
    sound["sources"].append({"filename": str(damaged)})

    for data in (all_of_it, sound):
        module = Mkvmerge(data)
        module.validate()
        with pytest.raises(RunError, match=loss):
            module.run()
        assert any("Error in the Matroska file structure" in warning for warning in module.sisyphus_warnings)
        assert not (tmp_path / "out.mkv").exists()


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    """A source with a hole is copied all the same, with mkvmerge's warnings on the record."""
    damaged = damage(tmp_path, "mkvmerge", end=0.6)

    module = carry_out(task(damaged, tmp_path / "out.mkv"))

    assert any("Error in the Matroska file structure" in warning for warning in module.sisyphus_warnings)
    assert look(tmp_path / "out.mkv")["container"]["properties"]["duration"] > 5.9e9


def test_broken_off_recording(tmp_path: Path) -> None:
    """A recording whose writer died, with a file longer than what it wrote, is copied as far as it goes."""
    live = tmp_path / "live.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", make_clip(tmp_path / "a.mkv"), "-c", "copy", "-f", "matroska", "-"]
    live.write_bytes(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout + bytes(50_000))

    carry_out(task(live, tmp_path / "out.mkv"))

    assert look(tmp_path / "out.mkv")["container"]["properties"]["duration"] > 1.9e9


def test_no_media(tmp_path: Path) -> None:
    """A source that is no media is named, by validation and by the run."""
    (tmp_path / "a.mkv").write_text("no film")
    data = task(tmp_path / "a.mkv", tmp_path / "out.mkv")

    assert refusal(data) == f"sources[0].filename: {tmp_path}/a.mkv: is no media that mkvmerge can read"
    assert failure(data).message == f"sources[0].filename: {tmp_path}/a.mkv: is no media that mkvmerge can read"


def test_source_vanishes(tmp_path: Path) -> None:
    """A source that is gone when its turn comes is named."""
    error = failure(task(tmp_path / "a.mkv", tmp_path / "out.mkv"))

    assert error.message.startswith(f"sources[0].filename: {tmp_path}/a.mkv: The file")
    assert "could not be opened" in error.message


def test_track_vanishes(clip: Path, tmp_path: Path) -> None:
    """A track that a source lacks when its turn comes is named."""
    error = failure(task(clip, tmp_path / "out.mkv", tracks=[{"source": 0, "track": 5}]))

    assert error.message == "tracks[0].track: 5, but sources[0] has only these tracks: 0 (video), 1 (audio)"


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
    monkeypatch.setattr(Mkvmerge, "sisyphus_free_space", (0.5, 1 << 60))

    assert (
        "free, and 1.2 EB must be for the output (the limit free_space: 50% of its inputs'"
        in failure(task(clip, tmp_path / "a")).message
    )
    assert os.listdir(tmp_path) == []


def test_shares(film: Path, clip: Path) -> None:
    """Of a source whose tracks are counted, those count that are copied, and its attachments; of others, all of it."""
    size, sound, subtitles, attached = film.stat().st_size, 17671, 30, 2567

    def share(options: dict[str, Any], *numbers: int, source: Path = film, twice: bool = False) -> float:
        data = task(source, "out.mkv", tracks=[{"source": 0, "track": number} for number in numbers])
        data["sources"][0]["options"] = options
        data["sources"] *= 1 + twice
        media = [identify(str(source))] * len(data["sources"])
        return round(shares(data, media, expect(data, media))[str(source)] * source.stat().st_size)

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


# --- validation ---


def test_all_problems_at_once(film: Path, tmp_path: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    (tmp_path / "text").write_text("no film")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    names = [tmp_path / "none.mkv", tmp_path, tmp_path / "text", tmp_path / "pipe"]
    data = {
        "sources": [*({"filename": str(name)} for name in names), {"filename": str(film), "options": {"split": 1}}],
        "tracks": [{"source": 4, "track": 9}, {"source": 5, "track": 0}, {"source": 0, "track": 7}],
        "options": {"split": "10s", "redirect-output": "x"},
        "attachments": [{"filename": f"{tmp_path}/none.ttf"}, {"filename": f"{tmp_path}/empty"}],
        "attachment_directories": [f"{tmp_path}/none", f"{tmp_path}/text"],
        "output_file": f"{tmp_path}/no/out.mkv",
    }

    assert problems(data) == [
        f"sources[0].filename: {tmp_path}/none.mkv: no such file",
        f"sources[1].filename: {tmp_path}: is a directory",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        f"attachments[0].filename: {tmp_path}/none.ttf: no such file",
        f"attachments[1].filename: {tmp_path}/empty: is empty, which mkvmerge does not attach",
        f"attachment_directories[0]: {tmp_path}/none: no such directory",
        f"attachment_directories[1]: {tmp_path}/text: is no directory",
        "options.split: mkvmerge writes several files, which the mkvmerge module does not support",
        "options.redirect-output: mkvmerge's messages would be lost",
        "sources[4].options.split: mkvmerge writes several files, which the mkvmerge module does not support",
        f"sources[2].filename: {tmp_path}/text: is no media that mkvmerge can read",
        f"sources[3].filename: {tmp_path}/pipe: is no regular file",
        "tracks[0].track: 9, but sources[4] has only these tracks: 0 (video), 1 (audio), 2 (audio), 3 (subtitles), "
        "4 (subtitles), 5 (subtitles)",
        "tracks[1].source: 5, but there are only sources 0 to 4",
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "missing key 'sources'; missing key 'output_file'"),
        (listed(sources=[]), "sources: expected at least one item"),
        (listed(sources=["a.mkv"]), 'sources[0]: expected an object, got "a.mkv"'),
        (listed(0, trakcs=[]), "trakcs: unknown key (did you mean 'tracks'?)"),
        (listed(tracks=[{"source": 0, "tarck": 1}]), "tracks[0].tarck: unknown key (did you mean 'track'?)"),
        (listed(tracks=[{"source": 0}]), "tracks[0]: missing key 'track'"),
        (listed(tracks=[{"source": "0", "track": 0}]), 'tracks[0].source: expected a whole number, got "0"'),
        (listed(tracks=[{"source": -1, "track": 0.5}]), "tracks[0].source: expected 0 or more, got -1"),
        (listed(tracks=[{"source": -1, "track": 0.5}]), "tracks[0].track: expected a whole number, got 0.5"),
        (with_track(0, language=["jpn"]), "expected a string, a number, true or false or null, got a list"),
        (with_source(**{"_copy-subtitle-tracks": None}), '"_copy-subtitle-tracks" is no option name'),
        (with_source(**{"--no-audio": None}), '"--no-audio" is no option name (no leading dash'),
        (listed(options={"title": "a\0b"}), "options.title: expected text without NUL"),
        (listed(options={"sync": float("nan")}), "options.sync: expected a finite number"),
        (listed(attachments=[{"filename": "a", "mimetpye": "x"}]), "mimetpye: unknown key (did you mean 'mimetype'?)"),
        (listed(output_file=""), "output_file: expected a string that is not empty"),
        (listed(sources=[{"filename": "a" * 100_000}]), "file name too long"),
        (listed(sources=[{"filename": "\ud800"}]), "sources[0].filename: expected text without NUL"),
    ],
)  # fmt: skip
def test_bad_data(data: dict[str, Any], problem: str) -> None:
    """Data that is not as it should be is a ValidationError that says where."""
    assert problem in refusal(data)


def test_problems_of_unsound_data(tmp_path: Path) -> None:
    """A misspelt key hides nothing of what else is wrong."""
    data = listed(sources=[{"filename": "none.mkv"}], output_file=f"{tmp_path}/no/b.mkv", trakcs=[], attachments=[{}])

    assert problems(data) == [
        "trakcs: unknown key (did you mean 'tracks'?)",
        "attachments[0]: missing key 'filename'",
        "sources[0].filename: none.mkv: no such file",
        f"output_file: {tmp_path}/no/b.mkv: there is no directory {tmp_path}/no",
        "tracks: none is listed, and no source has an option such as _copy-video-tracks: none would be muxed",
    ]


def test_options_without_their_values(film: Path, tmp_path: Path) -> None:
    """A bare option that needs a value would swallow the next one; a file that an option names must be there."""
    data = task(film, tmp_path / "out.mkv", tracks=[{"source": 0, "track": 0, "options": {"language": None}}])
    data["tracks"].append({"source": 0, "track": 1, "options": {"tags": f"{tmp_path}/tags.xml"}})
    data["options"] = {"title": None, "chapters": f"{tmp_path}/none.txt"}

    assert problems(data) == [
        "options.title: expected a value: --title needs one",
        f"options.chapters: {tmp_path}/none.txt: no such file",
        "tracks[0].options.language: expected a value: --language needs one",
        f"tracks[1].options.tags: {tmp_path}/tags.xml: no such file",
    ]


def test_output_is_a_source(film: Path, tmp_path: Path) -> None:
    """An output that is one of the sources or attachments, by whatever name, is an error."""
    link = tmp_path / "link.mkv"
    link.symlink_to(film)

    assert refusal(task(film, link)) == f"output_file: {link} is also sources[0]"
    attached = task(film, tmp_path / "x", attachments=[{"filename": f"{tmp_path}/./x"}])
    (tmp_path / "x").write_text("x")
    assert refusal(attached) == f"output_file: {tmp_path}/x is also attachments[0]"


def test_files_of_earlier_tasks(tmp_path: Path) -> None:
    """What an earlier task makes need not be there yet; what it will change is not judged by what it is now."""
    (tmp_path / "there.mkv").write_text("no film yet")
    data = task(tmp_path / "soon.mkv", tmp_path / "new" / "out.mkv", tracks=[{"source": 1, "track": 9}])
    data["sources"].append({"filename": str(tmp_path / "there.mkv")})
    data["attachments"] = [{"filename": str(tmp_path / "new" / "a.ttf")}]
    data["attachment_directories"] = [str(tmp_path / "new")]
    module = Mkvmerge(data)
    module.sisyphus_files = {
        location(str(tmp_path / name)): True for name in ("soon.mkv", "there.mkv", "new/a.ttf", "new/other")
    }

    module.validate()


def test_missing_tools(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is not installed is named before anything runs, and also if it vanishes afterwards."""
    module = Mkvmerge(task(clip, tmp_path / "out.mkv"))
    module.validate()
    monkeypatch.setenv("PATH", str(tmp_path))

    problem = "mkvmerge is not installed, or not on PATH (install mkvtoolnix)"
    assert refusal(task(clip, tmp_path / "out.mkv")) == problem
    with pytest.raises(RunError, match="mkvmerge is not installed"):
        module.run()


# --- whole jobs ---


def test_job(supervised: Supervised, film: Path, tmp_path: Path) -> None:
    """A job that extracts, muxes what it has extracted, and puts the result in its place."""
    supervised.configure(modules=MODULES)
    subtitles = {"id": 1, "track_type": "subtitles", "language": "jpn", "filename": "work/subs.srt"}
    (tmp_path / "work").mkdir()
    mux = {
        "sources": [{"filename": str(film)}, {"filename": "work/subs.srt"}],
        "tracks": [{"source": 0, "track": 0}, {"source": 1, "track": 0, "options": {"language": "ger"}}],
        "attachments": [{"filename": "work/font.ttf"}],
        "output_file": "work/muxed.mkv",
    }
    document = job(
        (
            "mkvextract",
            {"source": str(film), "tracks": [subtitles], "attachments": [{"id": 1, "filename": "work/font.ttf"}]},
        ),
        ("mkvmerge", mux),
        (
            "cleanup",
            {
                "delete": ["work/subs.srt", "work/font.ttf"],
                "move": [{"source": "work/muxed.mkv", "destination": "done/"}],
            },
        ),
    )

    plan = supervised.run(document, "--dry-run")
    record = supervised.record(document)

    assert plan.returncode == 0, plan.stderr
    assert "mkvextract" in plan.stdout
    assert "--subtitle-tracks 0 --button-tracks 0 --language 0:ger '(' work/subs.srt ')'" in plan.stdout
    assert record["completed"], record
    assert [entry["warnings"] for entry in record["tasks"]] == [[], [], []]
    assert tracks(tmp_path / "done" / "muxed.mkv") == [("video", "und"), ("subtitles", "ger")]
    assert os.listdir(tmp_path / "work") == []


def test_failing_job(supervised: Supervised, film: Path, tmp_path: Path) -> None:
    """mkvmerge's refusal is on the job's record, with its exit status and its words."""
    supervised.configure(modules=MODULES)
    (tmp_path / "work").mkdir()

    error = supervised.record(job(("mkvmerge", task(film, "work/out.mkv", options={"cluster-length": "x"}))))["error"]

    assert (error["type"], error["reason"], error["exit_status"]) == ("RunError", "exit", 2)
    assert "Cluster length" in error["message"]
    assert any("Cluster length" in line for line in error["stderr"])
    assert os.listdir(tmp_path / "work") == []
