"""What the `ffmpeg` module expects of its output: sources that are damaged or odd, and outputs that are short."""

import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, ValidationError
from modules.ffmpeg import Ffmpeg
from modules.ffmpeg.expect import expect_output
from modules.media import ExpectedOutput, probe, verify
from tests.modules.ffmpeg.scene import FAST, VFR, carry_out, duration, made, mapped, refusal, remade, task, told
from tests.support.media import look, make_clip

pytestmark = pytest.mark.tools

# --- encoding ---


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

    expected = expect_output(data, {}, [probe(str(clip))])
    carry_out(data)

    is_certain = length is not None and "stream_loop" not in changes.get("input_options", {})
    assert expected.lengths == ({"video": pytest.approx(length, abs=0.1)} if is_certain else {})
    if length is not None:
        assert expected.duration == pytest.approx(length, abs=0.1)
        # Two frames at 10 a second: versions of ffmpeg round the end differently.
        assert duration(tmp_path / "out.mkv") == pytest.approx(length, abs=0.25)


@pytest.mark.parametrize("extension", ["mp4", "ts", "avi"])
def test_containers(extension: str, clip: Path, tmp_path: Path) -> None:
    """Containers that state durations differently go in and come out."""
    data = task(clip, tmp_path / f"out.{extension}")
    if extension == "avi":
        data["output_maps"][0]["options"] = {"codec": "mpeg4"}
        data["output_maps"][1]["options"] = {"codec": "ac3"}
    carry_out(data)
    carry_out(task(tmp_path / f"out.{extension}", tmp_path / "back.mkv"))

    assert duration(tmp_path / "back.mkv") == pytest.approx(2, abs=0.2)


def test_guessed_length(clip: Path, tmp_path: Path) -> None:
    """An output whose container states no duration is not judged by the guess at one."""
    output = tmp_path / "out.aac"
    data = task(clip, output)
    data["source_maps"] = data["source_maps"][1:]
    data["output_maps"] = [{"specifier": "a", "stream": 0, "options": {"codec": "aac"}}]
    carry_out(data)

    verify(str(output), ExpectedOutput(lengths={"audio": 1000.0}))
    with pytest.raises(RunError, match="cut short"):
        verify(str(clip), ExpectedOutput(lengths={"audio": 1000.0}))


def test_retiming_options(clip: Path, tmp_path: Path) -> None:
    """Options that let frames go make the duration uncertain."""
    for name in ("vsync", "fps_mode"):
        data = task(clip, tmp_path / "out.mkv")
        data["output_maps"][0]["options"] = FAST | {name: "drop"}
        assert expect_output(data, {}, [probe(str(clip))]).lengths == {}


# --- failures ---


@pytest.mark.parametrize("extension", ["mkv", "mp4", "mov", "avi"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_truncated_source(extension: str, share: float, tmp_path: Path) -> None:
    """A source with fewer bytes than its container states is told before the job, and again before it is encoded."""
    options = ("-movflags", "+faststart") if extension in {"mp4", "mov"} else ()
    source = make_clip(tmp_path / f"cut.{extension}", seconds=10, options=options)
    os.truncate(source, int(source.stat().st_size * share))
    data = task(source, tmp_path / "out.mkv")

    with pytest.raises(ValidationError, match=r"sources\[0\]: .* is cut short: it has \d+ bytes, and states \d+"):
        Ffmpeg(data).validate()
    with pytest.raises(RunError, match="is cut short"):
        Ffmpeg(data).run()

    assert os.listdir(tmp_path) == [source.name]


@pytest.mark.parametrize("extension", ["aiff", "wma"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_sound(extension: str, share: float, film: Path, tmp_path: Path) -> None:
    """Sound that is cut short is told, too, and what is whole is not."""
    source = remade(film, tmp_path / f"a.{extension}", "-map", "0:a")
    Ffmpeg(mapped(source, tmp_path / "out.mkv", "a", {"codec": "aac"})).validate()
    os.truncate(source, int(source.stat().st_size * share))

    assert "is cut short" in refusal(mapped(source, tmp_path / "out.mkv", "a", {"codec": "aac"}))


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


@pytest.mark.parametrize("extension", ["mp4", "mkv", "ts"])
def test_late_stream(extension: str, clip: Path, tmp_path: Path) -> None:
    """A stream that begins late makes no output look cut short."""
    late = make_clip(tmp_path / "late.mkv", seconds=1)
    data = task(clip, late, overwrite=True)
    data["sources"].append({"filename": str(clip), "options": {"itsoffset": "3"}})
    data["source_maps"] = [{"source": 1, "specifier": "v"}, {"source": 0, "specifier": "a"}]
    carry_out(data)

    carry_out(task(late, tmp_path / f"out.{extension}"))

    assert float(look(late)["format"]["duration"]) == pytest.approx(5, abs=0.2)


def test_quiet_truncation(half: Path, tmp_path: Path) -> None:
    """Where ffmpeg is told to say nothing, the duration still shows that the file is cut short."""
    with pytest.raises(RunError, match=r"the output is cut short: 1\.\d s of video where 2\.9 s were expected"):
        Ffmpeg(task(half, tmp_path / "out.mkv", input_options={"loglevel": "quiet", "to": "2.9"})).run()

    assert os.listdir(tmp_path) == []


def test_what_ffmpeg_refuses(tmp_path: Path) -> None:
    """ffmpeg's refusal goes on the record with its last lines and its status."""
    data = task(make_clip(tmp_path / "clip.mkv", seconds=1), tmp_path / "out.mkv")
    data["output_maps"][1]["options"] = {"codec": "aac", "bsf": "nope"}
    module = Ffmpeg(data)
    with pytest.raises(
        RunError, match=r"ffmpeg exited with status \d+: .*; the command was: ffmpeg -nostdin"
    ) as caught:
        module.run()

    assert any("nope" in line for line in caught.value.stderr)
    assert caught.value.exit_status
    assert os.listdir(tmp_path) == ["clip.mkv"]


@pytest.mark.parametrize("arguments", [("-copyts", "-ss", "5"), ("-output_ts_offset", "100")])
def test_timestamps_that_begin_late(film: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A Matroska file whose timestamps do not begin at 0 is encoded whole, and its progress is right."""
    begins = arguments if arguments[0] == "-copyts" else ()
    late = remade(film, tmp_path / "late.mkv", *(() if begins else arguments), "-c", "copy", before=begins)

    statuses = told(mapped(late, tmp_path / "out.mkv", "v", FAST))

    assert [status["progress"] for status in statuses if "info" in status][-1] > 95
    assert duration(tmp_path / "out.mkv") == pytest.approx(12 if not begins else 8, abs=1)


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("target", ["out.mkv", "out.ts"])
def test_long_last_frame(container: str, target: str, tmp_path: Path) -> None:
    """Ten seconds for which the last picture stands are not missed, for nothing comes after it."""
    short = make_clip(tmp_path / "short.mp4", seconds=2, audio=False)
    (tmp_path / "times").write_text("\n".join(["# timestamp format v2", *map(str, range(0, 1961, 40)), "11960"]))
    still = tmp_path / "still.mkv"
    subprocess.run(["mkvmerge", "-q", "-o", still, "--timestamps", f"0:{tmp_path}/times", short], check=True)
    if container == "mp4":
        still = remade(still, tmp_path / "still.mp4", "-c", "copy")

    carry_out(mapped(still, tmp_path / target, "v", FAST))

    assert (tmp_path / target).exists()


@pytest.mark.parametrize(
    ("target", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.ts", "aac"), ("a.mkv", "copy")]
)
def test_late_stream_alone(target: str, codec: str, film: Path, tmp_path: Path) -> None:
    """Of a stream that begins late and is taken alone, the time before it is not missed."""
    late = tmp_path / "late.mkv"
    argv = ["ffmpeg", "-v", "error", "-itsoffset", "5", "-i", film, "-i", film, "-map", "1:v", "-map", "0:a"]
    subprocess.run([*argv, "-c:v", "copy", "-c:a", "ac3", late], check=True)

    carry_out(mapped(late, tmp_path / target, "a", {"codec": codec}))

    assert (tmp_path / target).exists()


@pytest.mark.parametrize(
    ("specifier", "target", "options"),
    [
        ("v", "out.mkv", {"vf": "fps=1/10"}),
        ("v", "out.mkv", {"vf": "fps=1/5"}),
        ("v", "out.mkv", {"r": "1/10"}),
        ("v", "out.mp4", {"codec": "copy", "ss": "3"}),
        ("v", "out.ts", {"codec": "copy", "ss": "3"}),
        ("a", "out.ogg", {"codec": "libopus", "ss": "3", "t": "4"}),
    ],
)
def test_good_output_is_kept(specifier: str, target: str, options: dict[str, Any], film: Path, tmp_path: Path) -> None:
    """Outputs that look short and are as they were asked for."""
    own = options if "codec" in options else FAST | options

    carry_out(mapped(film, tmp_path / target, specifier, own))

    assert (tmp_path / target).exists()


def test_stream_that_is_not_wanted(film: Path, tmp_path: Path) -> None:
    """`an` takes away the sound that is mapped: nobody misses it."""
    data = task(film, tmp_path / "out.mkv")
    data["output_maps"][0]["options"] = {"codec": "copy", "an": True}

    carry_out(data)

    assert [stream["codec_type"] for stream in look(tmp_path / "out.mkv")["streams"]] == ["video"]


def test_stale_tags(film: Path, tmp_path: Path) -> None:
    """A picture of four seconds with a tag that says twelve, beside a sound of twelve."""
    cut, stale = tmp_path / "cut.mkv", tmp_path / "stale.mkv"
    mkvmerge = ["mkvmerge", "-q", "--disable-track-statistics-tags", "-o"]
    subprocess.run([*mkvmerge, cut, "--split", "parts:00:00:00-00:00:04", film], check=True)
    subprocess.run([*mkvmerge, stale, "-A", cut, "-D", film], check=True)

    carry_out(task(stale, tmp_path / "out.mkv"))

    assert (tmp_path / "out.mkv").exists()


def test_subtitles_without_any(tmp_path: Path) -> None:
    """No subtitle in the part that was asked for makes an empty file, which is odd and not wrong."""
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n")
    data = mapped(tmp_path / "a.srt", tmp_path / "b.srt", "s", {"codec": "srt", "t": "0.5"})

    module = carry_out(data)

    assert module.sisyphus_context.warnings == (
        f"{tmp_path}/b.srt is empty: there are no subtitles in what was asked for",
    )
