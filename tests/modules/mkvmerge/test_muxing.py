"""The `mkvmerge` module muxes and fails, with the real mkvmerge and tiny films."""

import os
import resource
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.containers import find_shortage
from modules.mkvextract import Mkvextract
from modules.mkvmerge import Mkvmerge
from modules.mkvmerge.expect import ExpectedTrack, expect_tracks, used_shares, verify_output
from modules.mkvtoolnix import identify
from tests.modules.mkvmerge.scene import carry_out, failure, look, problems, task, tracks
from tests.support.films import ffmpeg, mkvmerge, payload
from tests.support.media import make_clip

pytestmark = pytest.mark.tools


def test_mux(film: Path, tmp_path: Path) -> None:
    """Listed tracks come in the order of the list, with their options; of directories, the files are attached."""
    (tmp_path / "fonts" / "inner").mkdir(parents=True)
    (tmp_path / "fonts" / "inner" / "no.ttf").write_text("x")
    (tmp_path / "fonts" / ".nomedia").touch()  # mkvmerge would refuse it
    for name in ("b.ttf", ".a.ttf"):
        (tmp_path / "fonts" / name).write_text(name)
    target = tmp_path / "out.mkv"
    data = task(film, target, attachment_directories=[str(tmp_path / "fonts")], options={"title": "@home"})
    data["sources"] = [
        {"filename": str(film), "options": {"no-chapters": None, "no-attachments": True}},
        {"filename": str(film.with_name("b.ass"))},
    ]
    data["tracks"] = [
        {"source": 0, "track": 2, "options": {"language": "fre", "track-name": "'Son'; $(x)"}},
        {"source": 1, "track": 0, "options": {"language": "jpn", "default-track": "no", "forced-display-flag": True}},
        {"source": 0, "track": 0, "options": {"track-name": "--no-video"}},
    ]
    data["attachments"] = [{"filename": str(film.with_name("note.txt")), "name": "Note", "mime_type": "text/x-note"}]

    module = carry_out(data)

    found = look(target)
    first, second, third = (track["properties"] for track in found["tracks"])
    assert tracks(target) == [("audio", "fre"), ("subtitles", "jpn"), ("video", "und")]
    assert (first["track_name"], third["track_name"]) == ("'Son'; $(x)", "--no-video")
    assert second["forced_track"]
    assert not second["default_track"]
    assert found["container"]["properties"]["title"] == "@home"
    assert found["chapters"] == []
    assert [(entry["file_name"], entry["content_type"]) for entry in found["attachments"]] == [
        ("Note", "text/x-note"),
        (".a.ttf", "font/ttf"),
        ("b.ttf", "font/ttf"),
    ]
    assert module.sisyphus_context.warnings == ()


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
    assert module.sisyphus_context.warnings == ()
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


def test_empty_subtitles(clip: Path, tmp_path: Path) -> None:
    """A track of subtitles without any is copied."""
    (tmp_path / "a.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\n\n")
    data = task(clip, tmp_path / "out.mkv", tracks=[{"source": 1, "track": 0}])
    data["sources"].append({"filename": str(tmp_path / "a.srt")})
    carry_out(data)

    carry_out(task(tmp_path / "out.mkv", tmp_path / "again.mkv"))

    assert Counter(kind for kind, _ in tracks(tmp_path / "again.mkv")) == Counter(["subtitles", "video", "audio"])


def test_short_tracks_in_another_order(film: Path) -> None:
    """A track that is too short is an error where mkvmerge has ordered the tracks by type, as newer versions do."""
    tracks = reversed(identify(str(film)).tracks)
    expected = [ExpectedTrack(0, replace(track, span=100.0)) for track in tracks]

    with pytest.raises(RunError, match=r"cut short: 2\.0 s of track 0 of sources\[0\], which has 100\.0 s"):
        verify_output(str(film), expected, set())


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


def test_nothing_written(clip: Path, tmp_path: Path) -> None:
    """An option that makes mkvmerge do something else leaves no empty file."""
    assert failure(task(clip, tmp_path / "out.mkv", options={"capabilities": None})).message == "the output is empty"
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
        f"sources[3].filename: {tmp_path}/pipe: is no regular file (a pipe or a device), which can be read once only",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        f"attachments[0].filename: {tmp_path}/none.ttf: no such file",
        f"attachments[1].filename: {tmp_path}/empty: is empty",
        f"attachment_directories[0]: {tmp_path}/none: no such directory",
        f"attachment_directories[1]: {tmp_path}/text: is no directory",
        "options.split: mkvmerge writes several files, which the mkvmerge module does not support",
        "options.redirect-output: mkvmerge's messages would be lost",
        "sources[4].options.split: mkvmerge writes several files, which the mkvmerge module does not support",
        f"sources[2].filename: {tmp_path}/text: is no media that mkvmerge can read",
        "tracks[0].track: 9, but sources[4] has only these tracks: 0 (video), 1 (audio), 2 (audio), 3 (subtitles), "
        "4 (subtitles), 5 (subtitles)",
        "tracks[1].source: 5, but there are only sources 0 to 4",
    ]
