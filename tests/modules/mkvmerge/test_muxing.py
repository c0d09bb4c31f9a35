"""The `mkvmerge` module muxes, with the real mkvmerge and tiny films."""

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from modules.mkvextract import Mkvextract
from modules.mkvmerge import Mkvmerge
from modules.output import Output
from tests.modules.mkvmerge.scene import carry_out, look, task, tracks
from tests.support.films import ODD_NAMES, SUBTITLES, ffmpeg, make_silence, mkvmerge
from tests.support.media import make_clip

pytestmark = pytest.mark.tools


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
    assert module.sisyphus_context.status == {
        "status": "in_progress", "task": "mkvmerge", "progress": 100, "info": {"phase": "checking"}
    }  # fmt: skip
    assert module.sisyphus_context.warnings == ()


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

    kinds = [kind for kind, _ in tracks(tmp_path / "out.mkv")]
    assert kinds in (
        ["audio", *["subtitles"] * 3, "video"],  # as in the sources
        ["video", "audio", *["subtitles"] * 3],  # newer versions of mkvmerge order by type what nobody has ordered
    )


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


def test_progress(tmp_path: Path) -> None:
    """The progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    infos: list[dict[str, Any]] = []

    class Watched(Mkvmerge):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append((self.sisyphus_context.status.get("progress", 0), (tmp_path / "out.mkv").exists()))
            infos.append(self.sisyphus_context.status.get("info", {"phase": "muxing"}))

    Watched(task(make_silence(tmp_path / "a.wav", 100 << 20), tmp_path / "out.mkv")).run()

    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)
    assert {info["phase"] for info in infos} == {"muxing", "checking"}
    assert all(info["eta_seconds"] >= 0 for info in infos if "eta_seconds" in info)


def test_replaced_target(clip: Path, tmp_path: Path) -> None:
    """A file at the target is replaced, as mkvmerge does it, and that is on the record."""
    target = tmp_path / "out.mkv"
    target.write_text("old")
    target.chmod(0o640)

    module = carry_out(task(clip, target))

    assert list(module.sisyphus_context.warnings) == [f"{target} was there already: it is replaced"]
    assert len(tracks(target)) == 2
    assert target.stat().st_mode & 0o777 == 0o640


def test_warnings(film: Path, tmp_path: Path) -> None:
    """Exit status 1 is a success, with what mkvmerge warned of on the record."""
    data = task(film, tmp_path / "out.mkv")
    data["sources"].append(data["sources"][0])

    module = carry_out(data)

    assert len(module.sisyphus_context.warnings) == 6
    assert "mkvmerge: '" in module.sisyphus_context.warnings[0]
    assert "Could not keep a track's UID" in module.sisyphus_context.warnings[0]
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

    assert len(module.sisyphus_context.warnings) == 1
    assert tracks(tmp_path / "out.mkv") == [("audio", "und")] * 2


def test_resumed(clip: Path, tmp_path: Path) -> None:
    """A second attempt does the work again."""
    carry_out(task(clip, tmp_path / "out.mkv"))
    module = Mkvmerge(task(clip, tmp_path / "out.mkv"))
    module.resumed = True

    module.validate()
    module.run()

    assert os.listdir(tmp_path) == ["out.mkv"]
