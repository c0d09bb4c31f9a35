"""What the `handbrake` module expects of its output: sources that are damaged or odd, and outputs that are short."""

import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, ValidationError
from modules.handbrake import Handbrake
from modules.handbrake.cli import Title
from modules.handbrake.expect import expect_encode, window
from modules.media import probe
from tests.modules.handbrake.scene import carry_out, duration, kinds, refusal, task
from tests.support.media import look, make_clip

pytestmark = pytest.mark.tools

# --- encoding ---


@pytest.mark.parametrize(
    ("source", "start", "length"),
    [
        ({}, 0, math.inf),
        ({"start_at": {"seconds": 1}}, 1, math.inf),
        ({"start_at": {"seconds": 1}, "stop_at": {"seconds": 2}}, 1, 2),
        ({"start_at": "frames:25", "stop_at": {"frames": 50}}, 1, 2),
        ({"start_at": {"pts": 90_000}, "stop_at": {"duration": 2}}, 1, 2),
        ({"stop_at": {"seconds": 9}}, 0, 9),
        ({"chapters": 1}, 0, 1),
        ({"chapters": "2"}, 1, 2),
        ({"chapters": "2-3"}, 1, 3),
        ({"chapters": "2-9"}, 1, 3),
    ],
)
def test_windows(source: dict[str, Any], start: float, length: float) -> None:
    """Which part of the source is asked for."""
    assert window(source, Title("a.mkv", 4.0, ("und",), (), (1.0, 2.0, 1.0)), 25.0) == (start, length)


@pytest.mark.parametrize(
    ("source", "rate"),
    [
        ({"stop_at": {"frames": 50}}, None),
        ({"start_at": "soon"}, 25.0),
        ({"start_at": "hours:x"}, 25.0),
        ({"start_at_preview": 3}, 25.0),
        ({"chapters": "4"}, 25.0),
        ({"chapters": "x"}, 25.0),
        ({"chapters": "2", "stop_at": {"seconds": 1}}, 25.0),
    ],
)
def test_uncertain_windows(source: dict[str, Any], rate: float | None) -> None:
    """Where HandBrakeCLI decides what is encoded, nothing is expected."""
    assert window(source, Title("a.mkv", 4.0, ("und",), (), (1.0, 2.0, 1.0)), rate) is None


@pytest.mark.slow
@pytest.mark.parametrize("source", [{"start_at": {"frames": 25}, "stop_at": {"frames": 50}}, {"chapters": "2"}])
def test_parts(source: dict[str, Any], film: Path, tmp_path: Path) -> None:
    """Encodes of a part of the source pass, and are as long as expected."""
    title = Title(str(film), 4.0, ("und",) * 2, ("und",) * 2, (1.0, 2.0, 1.0))
    strict, hoped = expect_encode({**source, "audio": [1]}, title, probe(str(film)))

    carry_out(task(film, tmp_path / "out.mkv", source=source, audio={"audio": [1]}))

    assert strict.lengths == {}
    assert hoped.lengths == {"video": pytest.approx(2, abs=0.1)}
    assert strict.streams == {"video": 1, "audio": 1}
    assert hoped.streams == {"video": 1}
    # A chapter's end is where its last packets end.
    assert 1.9 < duration(tmp_path / "out.mkv") < (2.2 if "start_at" in source else 4)


def test_disc_is_hoped_for() -> None:
    """Of a disc nothing but its own tables tells the length: that is worth a warning, not an error."""
    strict, hoped = expect_encode({"start_at": {"seconds": 100}}, Title("/disc", 1100.0, ("und",), (), ()), {})

    assert strict.lengths == {}
    assert hoped.lengths == {"video": pytest.approx(900)}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"audio": [1, 2]}, 2),
        ({"audio": "2,1,1", "aencoder": ["opus"]}, 3),
        ({"audio": [1, 2], "aencoder": ["copy:ac3", "opus"]}, 1),
        ({"audio": [1, 2, 2], "aencoder": "opus,copy"}, 1),
        ({"audio": [1, 2], "aencoder": ["none", "opus"]}, 1),
        ({"audio": [1, 2], "preset": "Fast 1080p30"}, 0),
        ({"audio": "none"}, 0),
        ({"audio": None}, 0),
        ({"all_audio": True}, 0),
    ],
)
def test_certain_audio(options: dict[str, Any], count: int) -> None:
    """Tracks that are encoded have to be there; HandBrakeCLI leaves out those that it cannot copy."""
    strict, _ = expect_encode(options, None, {})

    assert strict.streams == {"video": 1, "audio": count}


@pytest.mark.slow
def test_track_that_cannot_be_copied(film: Path, tmp_path: Path) -> None:
    """A track that HandBrakeCLI leaves out because it cannot copy it is a warning."""
    module = carry_out(task(film, tmp_path / "out.mkv", audio={"audio": [1, 2], "aencoder": ["copy:truehd", "opus"]}))

    assert kinds(tmp_path / "out.mkv") == ["video", "audio"]
    (warning,) = module.sisyphus_context.warnings
    assert re.match(r"audio track 1 was asked for, and is not in the output: Passthru requested .* dropping", warning)


# --- failures ---


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_half_an_output(extension: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that says all is well, and has written half of it, is not believed."""
    stand_in = tmp_path / "bin" / "HandBrakeCLI"
    stand_in.parent.mkdir()
    real = shutil.which("HandBrakeCLI")
    cut = 'for f in "$PWD"/.out.*; do truncate -s $(($(stat -c %s "$f") / 2)) "$f"; done'
    stand_in.write_text(f'#!/bin/sh\n{real} "$@"\ncase "$*" in *--output*) {cut};; esac\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    video = {"encoder": "x264"}
    audio = {"audio": "none"}

    with pytest.raises(RunError, match=r"cut short|cannot be read"):
        Handbrake(task(film, f"out.{extension}", video=video, audio=audio)).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_truncated_source(film: Path, tmp_path: Path) -> None:
    """A source that ends in the middle is an error, though HandBrakeCLI says all is well; nothing is left."""
    half = tmp_path / "half.mkv"
    half.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(ValidationError, match=r"source: .*half\.mkv: is cut short: it has \d+ bytes, and states \d+"):
        carry_out(task(half, tmp_path / "out.mkv"))
    with pytest.raises(RunError, match=r"the source is cut short: .*half\.mkv: is cut short"):
        Handbrake(task(half, tmp_path / "out.mkv")).run()
    with pytest.raises(RunError, match=r"the output is cut short: \d\.\d s of video where 3\.\d s were expected"):
        carry_out(task(half, tmp_path / "out.mkv", source={"stop_at": {"seconds": 3.5}}))

    assert os.listdir(tmp_path) == ["half.mkv"]


@pytest.mark.parametrize("kind", ["still", "stale"])
def test_length_that_is_only_stated(kind: str, tmp_path: Path) -> None:
    """A last frame of ten seconds, or a tag left from a longer file, is not missed: nothing comes after the output."""
    source, part = tmp_path / "source.mkv", tmp_path / "part.mkv"
    if kind == "still":
        make_clip(part, seconds=2, audio=False)
        (tmp_path / "times").write_text("\n".join(["# timestamp format v2", *map(str, range(0, 1961, 40)), "11960"]))
        argv = ["--timestamps", f"0:{tmp_path}/times", part]
    else:
        film = make_clip(tmp_path / "film.mkv", seconds=6)
        split = ["--disable-track-statistics-tags", "-o", part, "--split", "parts:00:00:00-00:00:02", film]
        subprocess.run(["mkvmerge", "-q", *split], check=True)
        argv = ["--disable-track-statistics-tags", "-A", part, "-D", film]
    subprocess.run(["mkvmerge", "-q", "-o", source, *argv], check=True)

    carry_out(task(source, tmp_path / "out.mkv"))

    assert (tmp_path / "out.mkv").exists()


def test_part_of_a_truncated_source(film: Path, tmp_path: Path) -> None:
    """A part that is there can be encoded, whatever becomes of the rest."""
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size * 3 // 4])

    carry_out(task(cut, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}}))

    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_part_with_a_long_frame(film: Path, tmp_path: Path) -> None:
    """A part that ends where the picture stands still for long is a good encode, and at most odd."""
    still = tmp_path / "still.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-vf", "select='lt(t,1)+gt(t,3)'"]
    subprocess.run([*argv, "-fps_mode", "vfr", "-c:v", "libx264", str(still)], check=True)

    module = carry_out(task(still, tmp_path / "out.mkv", source={"stop_at": {"seconds": 2.5}}))

    assert [warning[:24] for warning in module.sisyphus_context.warnings] == ["the output is cut short:"]


@pytest.mark.slow
def test_uneven_frames_and_their_colours(film: Path, tmp_path: Path) -> None:
    """A source of variable frame rate is encoded whole, and what its colours are is kept."""
    source = tmp_path / "vfr.mkv"
    colours = ["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"]
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-vf", "select='lt(t,1)+not(mod(n,5))'"]
    parameters = ":".join(["log-level=none", "colorprim=bt2020", "transfer=smpte2084", "colormatrix=bt2020nc"])
    argv += ["-fps_mode", "vfr", "-c:v", "libx265", "-x265-params", parameters, "-pix_fmt", "yuv420p10le", *colours]
    subprocess.run([*argv, str(source)], check=True)

    module = carry_out(task(source, tmp_path / "out.mkv", video={"encoder": "x265_10bit"}))
    (video,) = look(tmp_path / "out.mkv")["streams"]

    assert (video["color_primaries"], video["color_transfer"]) == ("bt2020", "smpte2084")
    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.3)
    assert module.sisyphus_context.warnings == ()


@pytest.mark.slow
def test_late_timestamps(film: Path, tmp_path: Path) -> None:
    """A source whose timestamps begin late is as long as any other."""
    late = tmp_path / "late.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-c", "copy", "-output_ts_offset", "100"]
    subprocess.run([*argv, str(late)], check=True)

    module = carry_out(task(late, tmp_path / "out.mkv"))

    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert module.sisyphus_context.warnings == ()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("container", ["mkv", "mp4", "mov"])
def test_truncated_anywhere(container: str, share: float, film: Path, tmp_path: Path) -> None:
    """Wherever a source is cut short, there is an error and never an output."""
    cut = tmp_path / f"cut.{container}"
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-map", "0:a", "-c", "copy"]
    subprocess.run([*argv, "-movflags", "+faststart", str(cut)], check=True)
    os.truncate(cut, int(cut.stat().st_size * share))
    with pytest.raises((RunError, ValidationError), match=r"cut short|no title"):
        carry_out(task(cut, tmp_path / "out.mkv", audio={"audio": "none"}))

    assert os.listdir(tmp_path) == [cut.name]


def test_truncated_mp4(tmp_path: Path) -> None:
    """An MP4 that ends in the middle is an error too."""
    whole = make_clip(tmp_path / "whole.mp4", seconds=4, options=("-movflags", "+faststart"))
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="cut short"):
        Handbrake(task(whole, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == ["whole.mp4"]


@pytest.mark.slow
def test_audio_that_does_not_fit(film: Path, tmp_path: Path) -> None:
    """Audio that HandBrakeCLI leaves out, with no word but in its log, is an error that repeats it."""
    audio = {"audio": [1, 2], "aencoder": ["vorbis", "vorbis"]}
    with pytest.raises(
        RunError, match="the output has 0 audio streams of 2: ERROR: track 1: incompatible encoder 'vorbis'"
    ):
        carry_out(task(film, tmp_path / "out.mp4", audio=audio, source={"stop_at": {"seconds": 1}}))

    assert os.listdir(tmp_path) == []


def test_start_after_the_end(film: Path, tmp_path: Path) -> None:
    """HandBrakeCLI would write a file without frames: it is told before, and where it was not, before the encode."""
    data = task(film, tmp_path / "out.mkv", source={"start_at": {"seconds": 60}})
    with pytest.raises(RunError, match=r"source_options\.start_at: is after the end of"):
        Handbrake(data).run()

    assert "source_options.start_at: is after the end of" in refusal(data)
    assert os.listdir(tmp_path) == []
