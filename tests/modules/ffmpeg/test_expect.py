"""What is expected of an encode, and told of it: progress, duration, room; with the real ffmpeg and tiny clips."""

import math
import os
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.ffmpeg import Ffmpeg
from modules.ffmpeg.expect import expect_output, used_shares
from modules.ffmpeg.options import EncodeTask
from modules.media import probe
from tests.modules.ffmpeg.scene import FAST, VFR, carry_out, duration, made, mapped, remade, task, told
from tests.support.disks import files_limited_to

pytestmark = pytest.mark.tools


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "changes", "seconds"),
    [
        ("a.mkv", ["-c:v", "libx264"], {}, 3.0),
        ("audio.flac", ["-map", "1:a"], {"specifier": "a", "options": {"codec": "aac"}}, 3.0),
        ("vfr.mkv", VFR, {}, 3.0),
        ("raw.h264", ["-map", "0:v", "-c:v", "libx264"], {}, None),
        ("cut.mkv", ["-c:v", "libx264"], {"input": {"ss": "0.5", "to": "2.5"}}, 2.0),
        ("t.mkv", ["-c:v", "libx264"], {"input": {"ss": "1"}, "options": {"t": "1.5"}}, 1.5),
        ("loop.mkv", ["-c:v", "libx264"], {"input": {"stream_loop": 1}}, 6.0),
        ("endless.mkv", ["-c:v", "libx264"], {"input": {"stream_loop": -1}, "options": {"t": "4"}}, 4.0),
        ("frames.mkv", ["-c:v", "libx264"], {"options": {"frames:v": 50}}, 3.0),
        ("fps.mkv", ["-c:v", "libx264"], {"options": {"r": 10}}, 3.0),
        ("slow.mkv", ["-c:v", "libx264"], {"options": {"filter": "setpts=2*PTS"}}, None),
        ("graph.mkv", ["-c:v", "libx264"], {"input": {"itsscale": 2}}, None),
        ("guess.mp3", ["-map", "1:a"], {"specifier": "a", "options": {"codec": "aac"}}, None),
    ],
)
def test_what_is_told(
    name: str, arguments: list[str], changes: dict[str, Any], seconds: float | None, tmp_path: Path
) -> None:
    """Of every kind of source and range: progress that only grows, below 100 to the end, and no number that is none."""
    source = made(tmp_path / name, *arguments)
    data = task(source, tmp_path / "out.mkv", input_options={"re": True, **changes.get("input", {})})
    specifier = changes.get("specifier", "v")
    data["source_maps"] = [{"source": 0, "specifier": specifier}]
    options = {**(FAST if specifier == "v" else {}), **changes.get("options", {})}
    data["output_maps"] = [{"specifier": specifier, "stream": 0, "options": options}]

    *before, last = told(data)
    percents = [status["progress"] for status in before if "progress" in status]
    infos = [status["info"] for status in before if status.get("info", {}).get("phase") == "encoding"]
    known = {key for info in infos for key in info}

    assert last["progress"] == 100
    assert percents == sorted(percents)
    assert all(0 <= percent < 100 for percent in percents)
    assert all(math.isfinite(value) for info in infos for key, value in info.items() if key != "phase")
    assert {"phase", "speed"} <= known
    assert ("current_frame" in known) == (specifier == "v")
    if name == "a.mkv":  # versions of ffmpeg write a frame more or less
        assert before[0] == {"status": "in_progress", "task": "watched"}
        assert infos[-1]["total_frames"] == pytest.approx(75, abs=1)
        assert infos[-1]["current_frame"] == pytest.approx(75, abs=1)
    if seconds is None:
        assert not percents
        assert "eta_seconds" not in known
    else:
        assert len(percents) >= 2
        assert percents[-1] > (90 if name != "frames.mkv" else 50)
        assert all(info["eta_seconds"] <= seconds * 10 for info in infos if "eta_seconds" in info)


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({"input_options": {"ss": "0:00:01"}}, 1),
        ({"input_options": {"ss": "0.5", "to": "1.5"}}, 1),
        ({"input_options": {"sseof": "-1"}}, 1),
        ({"input_options": {"t": "1"}}, 1),
        ({"input_options": {"stream_loop": 2}}, 6),
        ({"input_options": {"stream_loop": -1, "t": "5"}}, 5),
        ({"options": {"t": "1"}}, 1),
        ({"options": {"ss": "0.5", "to": "1.5"}}, 1),
        ({"options": {"frames": 10}}, None),
        ({"options": {"filter": "setpts=0.5*PTS"}}, None),
        ({"options": {"filter": "select='lt(t,1)'"}}, None),
        ({"options": {"filter": "scale=160:-2,format=yuv420p"}}, 2),
        ({"options": {"r": 10}}, 2),
    ],
)
def test_durations(changes: dict[str, Any], length: float | None, clip: Path, tmp_path: Path) -> None:
    """What the options make of the duration is known in advance, or known not to be; the encode passes either way."""
    data = task(clip, tmp_path / "out.mkv", input_options=changes.get("input_options", {}))
    data["source_maps"] = data["source_maps"][:1]
    data["output_maps"] = [{"specifier": "v", "stream": 0, "options": FAST | changes.get("options", {})}]

    expected = expect_output(EncodeTask(data, {}, {0: probe(str(clip))}))
    carry_out(data)

    is_certain = length is not None and "stream_loop" not in changes.get("input_options", {})
    assert expected.lengths == ({"video": pytest.approx(length, abs=0.1)} if is_certain else {})
    if length is not None:
        assert expected.duration == pytest.approx(length, abs=0.1)
        # Two frames at 10 a second: versions of ffmpeg round the end differently.
        assert duration(tmp_path / "out.mkv") == pytest.approx(length, abs=0.25)


def test_retiming_options(clip: Path, tmp_path: Path) -> None:
    """Options that let frames go make the duration uncertain."""
    for name in ("vsync", "fps_mode"):
        data = task(clip, tmp_path / "out.mkv")
        data["output_maps"][0]["options"] = FAST | {name: "drop"}
        assert expect_output(EncodeTask(data, {}, {0: probe(str(clip))})).lengths == {}


@pytest.mark.parametrize("codec", ["libx264", "copy"])
def test_part_of_a_truncated_source(codec: str, half: Path, tmp_path: Path) -> None:
    """A part that ends before a source is cut short is whole; one that does not is an error, whatever ffmpeg says."""
    data = task(half, tmp_path / "out.mkv", input_options={"to": "2.9"})
    data["output_maps"][0]["options"] = {"codec": codec}
    with pytest.raises(RunError, match=r"a source is cut short: .* File ended prematurely"):
        carry_out(data)
    before = os.listdir(tmp_path)
    carry_out(data | {"input_options": {"to": "0.5"}})

    assert before == []
    assert os.listdir(tmp_path) == ["out.mkv"]


def test_quiet_truncation(half: Path, tmp_path: Path) -> None:
    """Where ffmpeg is told to say nothing, the duration still shows that the file is cut short."""
    with pytest.raises(RunError, match=r"the output is cut short: 1\.\d s of video where 2\.9 s were expected"):
        Ffmpeg(task(half, tmp_path / "out.mkv", input_options={"loglevel": "quiet", "to": "2.9"})).run()

    assert os.listdir(tmp_path) == []


LATE = {"codec": "copy", "ss": "3"}


@pytest.mark.parametrize(
    ("source", "specifier", "target", "options"),
    [
        ("film", "v", "out.mkv", FAST | {"vf": "fps=1/10"}),
        ("film", "v", "out.mkv", FAST | {"vf": "fps=1/5"}),
        ("film", "v", "out.mkv", FAST | {"r": "1/10"}),
        ("film", "v", "out.mp4", LATE),
        ("film", "v", "out.ts", LATE),
        ("film", "a", "out.ogg", {"codec": "libopus", "ss": "3", "t": "4"}),
        # Of a stream that begins late and is taken alone, the time before it is not missed.
        ("late", "a", "a.wav", {"codec": "pcm_s16le"}),
        ("late", "a", "a.flac", {"codec": "flac"}),
        ("late", "a", "a.ts", {"codec": "aac"}),
        ("late", "a", "a.mkv", {"codec": "copy"}),
    ],
)
def test_good_output_is_kept(
    source: str, specifier: str, target: str, options: dict[str, Any], film: Path, tmp_path: Path
) -> None:
    """Outputs that look short and are as they were asked for."""
    if source == "late":
        others = ["-map", "1:v", "-map", "0:a", "-c:v", "copy", "-c:a", "ac3"]
        film = remade(film, tmp_path / "late.mkv", *others, before=("-itsoffset", "5", "-i", str(film)))

    carry_out(mapped(film, tmp_path / target, specifier, options))

    assert (tmp_path / target).exists()


def test_subtitles_without_any(tmp_path: Path) -> None:
    """No subtitle in the part that was asked for makes an empty file, which is odd and not wrong."""
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n")
    data = mapped(tmp_path / "a.srt", tmp_path / "b.srt", "s", {"codec": "srt", "t": "0.5"})

    module = carry_out(data)

    assert module.sisyphus_context.warnings == (
        f"{tmp_path}/b.srt is empty: there are no subtitles in what was asked for",
    )


def test_resumed_after_the_output_had_its_name(clip: Path, tmp_path: Path) -> None:
    """A resumed attempt takes a whole output for its own, and anything else of that name for somebody's."""
    data = task(clip, tmp_path / "out.mkv", overwrite=False)
    written = carry_out(data).task.output_file
    before = os.stat(written)
    again = Ffmpeg(data)
    again.resumed = True

    again.validate()
    again.run()
    Path(written).write_bytes(b"something else")

    with pytest.raises(RunError, match="exists, and is not to be overwritten"):
        again.run()
    assert list(again.sisyphus_context.warnings) == [
        f"{written} is there and whole: taken for written by an earlier attempt"
    ]
    assert os.stat(written).st_ino == before.st_ino


def test_room_for_a_part(clip: Path) -> None:
    """What a cut leaves out needs no room, nor what is not mapped; what is looped needs more."""
    data = task(clip, "out.mkv", input_options={"ss": "0.5", "t": "1"})
    data["sources"] += ["unmapped.mkv", {"filename": "loop.mkv", "options": {"stream_loop": 3, "t": "8"}}]
    probes = {index: {"format": {"duration": "2.0"}} for index in range(3)}
    data["source_maps"].append({"source": 2})

    assert used_shares(EncodeTask(data, {}, probes), 1.0) == {str(clip): 0.5, "loop.mkv": 0.5}
    assert used_shares(EncodeTask(data, {}, probes), 8.0) == {str(clip): 1.0, "loop.mkv": 4.0}


def test_disk_that_fills_at_the_end(film: Path, tmp_path: Path) -> None:
    """A file whose end could not be written, after which ffmpeg 5.1 exits with 0, is an error and no file."""
    whole = remade(film, tmp_path / "whole.aac", "-map", "0:a", "-c", "copy").stat().st_size
    data = mapped(film, tmp_path / "out.aac", "a", {"codec": "copy"})
    said = pytest.raises(RunError, match=r"out\.aac: cannot be written: File too large")
    with files_limited_to(whole - 5000), said:
        carry_out(data)

    assert os.listdir(tmp_path) == ["whole.aac"]
