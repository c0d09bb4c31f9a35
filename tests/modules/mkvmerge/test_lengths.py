"""How long the output of the `mkvmerge` module must be; sources that are damaged."""

import os
import shlex
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, ValidationError
from modules.containers import find_shortage
from modules.mkvmerge import Mkvmerge
from modules.mkvmerge.expect import ExpectedTrack, verify_output
from modules.mkvtoolnix import identify
from tests.modules.mkvmerge.scene import carry_out, failure, look, task, tracks
from tests.support.films import damage, ffmpeg, halve
from tests.support.media import make_clip

pytestmark = pytest.mark.tools

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
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64:rate=10", "-frames:v", "2", "-c:v", "mpeg4", tmp_path / "a.mkv")
    film, tag, total = (tmp_path / "a.mkv").read_bytes(), b"00:00:00.200000000", struct.pack(">d", 200.0)
    assert film.count(tag) == film.count(total) == 1
    # As ffmpeg 5 writes it. ffmpeg 7 also writes how long the frame itself is shown, which mkvmerge keeps.
    film = film.replace(tag, b"00:00:30.100000000").replace(total, struct.pack(">d", 30100.0))
    (tmp_path / "a.mkv").write_bytes(film)
    data = task(tmp_path / "a.mkv", tmp_path / "out.mkv")
    data["sources"].append(data["sources"][0])  # of which mkvmerge warns

    module = carry_out(data)

    durations = [identify(str(tmp_path / name)).duration or 0 for name in ("a.mkv", "out.mkv")]
    assert durations[1] < durations[0] - 10
    assert len(module.sisyphus_context.warnings) == 1


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

    assert Counter(kind for kind, _ in tracks(tmp_path / "again.mkv")) == Counter(["subtitles", "video", "audio"])


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
    shares = (0.0, 0.0001, 0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999)
    beginnings = (5, 24, 36, 40, 45, 52)  # in the EBML header, and in that of the segment
    for length in (*beginnings, *(int(len(data) * share) for share in shares)):
        (tmp_path / "cut.mkv").write_bytes(data[:length])

        assert failure(task(tmp_path / "cut.mkv", tmp_path / "out.mkv")).message.startswith("sources[0].filename: ")
        assert os.listdir(tmp_path) == ["cut.mkv"]


def test_short_tracks_in_another_order(film: Path) -> None:
    """A track that is too short is an error where mkvmerge has ordered the tracks by type, as newer versions do."""
    tracks = reversed(identify(str(film)).tracks)
    expected = [ExpectedTrack(0, replace(track, span=100.0)) for track in tracks]

    with pytest.raises(RunError, match=r"cut short: 2\.0 s of track 0 of sources\[0\], which has 100\.0 s"):
        verify_output(str(film), expected, set())


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
        assert any("Error in the Matroska file structure" in warning for warning in module.sisyphus_context.warnings)
        assert not (tmp_path / "out.mkv").exists()


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    """A source with a hole is copied all the same, with mkvmerge's warnings on the record."""
    damaged = damage(tmp_path, "mkvmerge", end=0.6)

    module = carry_out(task(damaged, tmp_path / "out.mkv"))

    assert any("Error in the Matroska file structure" in warning for warning in module.sisyphus_context.warnings)
    assert look(tmp_path / "out.mkv")["container"]["properties"]["duration"] > 5.9e9


def test_broken_off_recording(tmp_path: Path) -> None:
    """A recording whose writer died, with a file longer than what it wrote, is copied as far as it goes."""
    live = tmp_path / "live.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", make_clip(tmp_path / "a.mkv"), "-c", "copy", "-f", "matroska", "-"]
    live.write_bytes(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout + bytes(50_000))

    carry_out(task(live, tmp_path / "out.mkv"))

    assert look(tmp_path / "out.mkv")["container"]["properties"]["duration"] > 1.9e9
