"""The `ffmpeg` module, with the real ffmpeg and tiny clips."""

import json
import math
import os
import resource
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.config import Config
from app.exceptions import RunError, ValidationError
from modules.base import BaseModule, location
from modules.ffmpeg import Ffmpeg
from modules.ffmpeg.expect import expect, used_shares
from modules.ffmpeg.options import arguments, phase
from modules.media import Expected, probe, verify
from modules.output import Output
from tests.media import Interrupted, look, make_clip, terminated_when

LEAD = ["ffmpeg", "-nostdin", "-y", "-progress", "pipe:1", "-stats_period", "1", "-nostats", "-hide_banner"]
LEAD += ["-loglevel", "level+info"]
FAST = {"codec": "libx264", "preset": "ultrafast"}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and tone."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv")


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first half of a clip's bytes."""
    whole = make_clip(tmp_path_factory.mktemp("clips") / "whole.mkv", seconds=3)
    data = whole.read_bytes()
    cut = whole.with_name("half.mkv")
    cut.write_bytes(data[: len(data) // 2])
    return cut


def task(source: object, target: object, **more: Any) -> dict[str, Any]:
    """A task that encodes the picture and copies the sound."""
    return {
        "sources": [str(source)],
        "source_maps": [{"source": 0, "specifier": "v"}, {"source": 0, "specifier": "a", "optional": True}],
        "output_maps": [
            {"specifier": "v", "stream": 0, "options": FAST},
            {"specifier": "a", "stream": 0, "options": {"codec": "copy"}},
        ],
        "output_file": str(target),
        **more,
    }


def carry_out(data: dict[str, Any], kind: type[Ffmpeg] = Ffmpeg) -> Ffmpeg:
    module = kind(data)
    module.validate()
    module.run()
    module.cleanup()
    return module


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Ffmpeg(data).validate()
    return caught.value.message


def duration(path: Path) -> float:
    return float(look(path)["format"]["duration"])


# --- the command line ---

EXAMPLE: dict[str, Any] = {
    "input_options": {"ss": "0:10:00", "to": "0:20:00"},
    "sources": ["source_file_1.mkv", "source_file_2.ac3"],
    "source_maps": [
        {"source": 0, "specifier": "v", "stream": 0},
        {"source": 1, "specifier": "a", "stream": 0, "optional": True},
    ],
    "output_maps": [
        {
            "specifier": "v",
            "stream": 0,
            "options": {"codec": "libx265", "crf": 19, "x265-params": {"limit-sao": 1, "bframes": 8}},
        },
        {"specifier": "a", "stream": 0, "option_set": "opus-128k-stereo"},
    ],
    "output_file": "/shared/output_file.mkv",
    "overwrite": True,
}


def minimal(**more: Any) -> dict[str, Any]:
    return {"sources": ["a.mkv"], "source_maps": [], "output_maps": [], "output_file": "b.mkv", **more}


def output_map(**more: Any) -> dict[str, Any]:
    return minimal(output_maps=[{"stream": 0, **more}])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            EXAMPLE,
            "-ss 0:10:00 -to 0:20:00 -i source_file_1.mkv -i source_file_2.ac3 -map 0:v:0 -map '1:a:0?' "
            "-codec:v:0 libx265 -crf:v:0 19 -x265-params:v:0 limit-sao=1:bframes=8 -codec:a:0 libopus -b:a:0 128k",
        ),
        (minimal(input_options={"stream_loop": -1, "recast_media": True}), "-stream_loop -1 -recast_media -i a.mkv"),
        (minimal(input_options={"stream_loop": 2.0, "recast_media": False}), "-stream_loop 2 -i a.mkv"),
        (minimal(input_options={"framerate": 23.976}), "-framerate 23.976 -i a.mkv"),
        (
            minimal(sources=["a", {"filename": "b", "options": {"ss": "10"}}], input_options={"t": "5"}),
            "-t 5 -i a -ss 10 -i b",
        ),
        (
            minimal(
                sources=[{"filename": "a", "options": {"t": "3", "re": True}}], input_options={"ss": "1", "t": "5"}
            ),
            "-ss 1 -t 3 -re -i a",
        ),
        (minimal(source_maps=[{"source": 0}, {"source": 0, "stream": 3}]), "-i a.mkv -map 0 -map 0:3"),
        (minimal(source_maps=[{"source": 0, "specifier": "Audio"}]), "-i a.mkv -map 0:a"),
        (minimal(source_maps=[{"source": 0, "specifier": "subtitle", "stream": 1}]), "-i a.mkv -map 0:s:1"),
        (minimal(source_maps=[{"source": 0, "optional": True}]), "-i a.mkv -map '0?'"),
        (output_map(options={"codec": "copy"}), "-i a.mkv -codec:0 copy"),
        (output_map(specifier="Video", options={"an": True, "sn": False}), "-i a.mkv -an:v:0"),
        (
            output_map(specifier="v", options={"x265-params": {"sao": False, "b": True}}),
            "-i a.mkv -x265-params:v:0 sao=0:b=1",
        ),
        (output_map(options={"metadata": "title=a b'c"}), "-i a.mkv -metadata:0 'title=a b'\"'\"'c'"),
        (
            output_map(options={"codec": "aac", "b": "64k", "ac": 2}, option_set="opus-128k-stereo"),
            "-i a.mkv -codec:0 libopus -b:0 128k -ac:0 2",
        ),
        (minimal(sources=["-x.mkv"]), "-i -x.mkv"),
        (minimal(sources=["there:x.mkv", "http://far/x.mkv"]), "-i file:there:x.mkv -i http://far/x.mkv"),
        (minimal(sources=["-there.mkv", "dir/there:x.mkv"]), "-i file:-there.mkv -i dir/there:x.mkv"),
    ],
)
def test_arguments(data: dict[str, Any], expected: str) -> None:
    """The command line of each kind of task data, to the letter."""
    sets = {"opus-128k-stereo": {"codec": "libopus", "b": "128k"}}

    argv = arguments(data, sets, "/shared/.output_file.part.mkv", lambda name: "there" in name)

    assert argv == [*LEAD, *shlex.split(expected), "/shared/.output_file.part.mkv"]


def test_plan(tmp_path: Path) -> None:
    """The plan is the command line of the run, and needs no source to be there."""
    module = Ffmpeg(task(tmp_path / "a b.mkv", tmp_path / "out.mkv"))

    line, renaming = module.plan()

    assert shlex.split(line)[-1] == Output(str(tmp_path / "out.mkv")).temporary
    assert shlex.split(line)[: len(LEAD) + 2] == [*LEAD, "-i", str(tmp_path / "a b.mkv")]
    assert shlex.split(renaming) == ["mv", "--", shlex.split(line)[-1], str(tmp_path / "out.mkv")]
    assert module.outputs() == [str(tmp_path / "out.mkv")]
    assert module.removes() == []


# --- encoding ---


def test_encode(clip: Path, tmp_path: Path) -> None:
    """An encode leaves the whole file under its name, and nothing else; the progress ends at 100."""
    watched: list[Mapping[str, Any]] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            watched.append(self.sisyphus_status)

    Watched(task(clip, tmp_path / "out.mkv")).run()
    begun, *encoding, checking, done = watched

    assert os.listdir(tmp_path) == ["out.mkv"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(2, abs=0.2)
    assert [stream["codec_type"] for stream in look(tmp_path / "out.mkv")["streams"]] == ["video", "audio"]
    assert begun == {"status": "in_progress", "task": "watched"}
    assert checking["info"] == {"phase": "checking"}
    assert done["progress"] == 100
    info = encoding[-1]["info"]
    assert info.pop("phase") == "encoding"
    # The total is an estimate from the duration; versions of ffmpeg write a frame more or less.
    assert info["total_frames"] == pytest.approx(50, abs=1)
    assert info["current_frame"] == pytest.approx(50, abs=1)
    assert all(math.isfinite(value) for value in info.values())


def test_progress(clip: Path, tmp_path: Path) -> None:
    """The progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            seen.append((self.sisyphus_status.get("progress", 0.0), (tmp_path / "out.mkv").exists()))

    Watched(task(clip, tmp_path / "out.mkv", input_options={"re": True})).run()

    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)


def told(data: dict[str, Any]) -> list[Mapping[str, Any]]:
    """All that the module tells its heartbeat of a task."""
    statuses: list[Mapping[str, Any]] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            statuses.append(self.sisyphus_status)

    carry_out(data, Watched)
    return statuses


def made(path: Path, *arguments: str) -> Path:
    """A file that ffmpeg makes of a generated picture and tone of three seconds."""
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc=size=160x90:rate=25:duration=3"]
    argv += ["-f", "lavfi", "-i", "sine=duration=3:sample_rate=48000", *arguments, str(path)]
    subprocess.run(argv, check=True)
    return path


VFR = ["-map", "0:v", "-vf", "select='not(mod(n,7))+lt(n,30)'", "-fps_mode", "vfr", "-c:v", "libx264"]


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


def test_rich_source(tmp_path: Path) -> None:
    """Several sounds and subtitles, chapters, an attachment, tags and HDR's marks all come through a whole encode."""
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n")
    (tmp_path / "b.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nHallo\n")
    (tmp_path / "font.ttf").write_bytes(bytes(1000))
    marks = ";FFMETADATA1\ntitle=A film\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\ntitle=One\n"
    (tmp_path / "marks").write_text(marks + "[CHAPTER]\nTIMEBASE=1/1\nSTART=1\nEND=3\ntitle=Two\n")
    colours = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    source = made(
        tmp_path / "rich.mkv",
        *("-i", str(tmp_path / "a.srt"), "-i", str(tmp_path / "b.srt"), "-i", str(tmp_path / "marks")),
        *("-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "2", "-map", "3", "-map_metadata", "4"),
        *("-attach", str(tmp_path / "font.ttf"), "-metadata:s:t", "mimetype=font/ttf"),
        *("-metadata:s:a:1", "language=jpn", "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
        *("-x265-params", f"log-level=none:{colours}", "-c:a", "flac", "-c:s", "srt"),
    )
    copies = [("a", 1), ("s", 0), ("s", 1), ("t", 0)]
    data = {
        "sources": [str(source)],
        "source_maps": [{"source": 0}],
        "output_maps": [
            {
                "specifier": "v",
                "stream": 0,
                "options": {"codec": "libx265", "preset": "ultrafast", "x265-params": f"log-level=none:{colours}"},
            },
            {"specifier": "a", "stream": 0, "options": {"codec": "aac", "b": "64k"}},
            *({"specifier": kind, "stream": index, "options": {"codec": "copy"}} for kind, index in copies),
        ],
        "output_file": str(tmp_path / "out.mkv"),
    }

    carry_out(data)

    found = look(tmp_path / "out.mkv", "-show_chapters")
    video, *others = found["streams"]
    assert [stream.get("codec_name") for stream in others[:4]] == ["aac", "flac", "subrip", "subrip"]
    assert [stream["tags"]["filename"] for stream in others[4:]] == ["font.ttf"]
    assert (video["color_primaries"], video["color_transfer"]) == ("bt2020", "smpte2084")
    assert others[1]["tags"]["language"] == "jpn"
    assert found["format"]["tags"]["title"] == "A film"
    assert [chapter["tags"]["title"] for chapter in found["chapters"]] == ["One", "Two"]


@pytest.mark.parametrize(
    "name", ["with space.mkv", "quote'\".mkv", "new\nline.mkv", "-dash.mkv", "co:lon.mkv", "\udcff.mkv", "%d$(x).mkv"]
)
def test_odd_names(name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and outputs of odd names work, in the working directory too."""
    monkeypatch.chdir(tmp_path)
    os.link(clip, name)

    carry_out(task(name, "out " + name))
    carry_out(task("out " + name, name, overwrite=True))

    assert sorted(os.listdir()) == sorted([name, "out " + name])


def test_two_sources(clip: Path, tmp_path: Path) -> None:
    """Streams of several sources, one of them absent and optional, make one file."""
    sound = make_clip(tmp_path / "sound.mkv", seconds=1)
    data = task(clip, tmp_path / "out.mkv")
    data["sources"].append({"filename": str(sound), "options": {"t": "0.5"}})
    data["source_maps"] = [
        {"source": 0, "specifier": "v"},
        {"source": 1, "specifier": "a"},
        {"source": 1, "specifier": "s", "optional": True},
    ]

    carry_out(data)

    video, audio = look(tmp_path / "out.mkv")["streams"]
    assert (video["codec_name"], audio["codec_name"]) == ("h264", "aac")


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

    expected = expect(data, {}, [probe(str(clip))])
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

    verify(str(output), Expected(lengths={"audio": 1000.0}))
    with pytest.raises(RunError, match="cut short"):
        verify(str(clip), Expected(lengths={"audio": 1000.0}))


def test_retiming_options(clip: Path, tmp_path: Path) -> None:
    """Options that let frames go make the duration uncertain."""
    for name in ("vsync", "fps_mode"):
        data = task(clip, tmp_path / "out.mkv")
        data["output_maps"][0]["options"] = FAST | {name: "drop"}
        assert expect(data, {}, [probe(str(clip))]).lengths == {}


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
        carry_out(task(half, tmp_path / "out.mkv", input_options={"loglevel": "quiet", "to": "2.9"}))

    assert os.listdir(tmp_path) == []


def test_missing_stream(tmp_path: Path) -> None:
    """ffmpeg's refusal goes on the record with its last lines and its status."""
    silent = make_clip(tmp_path / "silent.mkv", seconds=1, audio=False)
    data = task(silent, tmp_path / "out.mkv")
    data["source_maps"][1]["optional"] = False
    module = Ffmpeg(data)
    with pytest.raises(
        RunError, match=r"ffmpeg exited with status \d+: .*; the command was: ffmpeg -nostdin"
    ) as caught:
        module.run()

    assert any("matches no streams" in line for line in caught.value.stderr)
    assert caught.value.exit_status
    assert os.listdir(tmp_path) == ["silent.mkv"]


def test_no_media(tmp_path: Path) -> None:
    """A source that is no media is an error that names it."""
    source = tmp_path / "text.mkv"
    source.write_text("no film")
    data = task(source, tmp_path / "out.mkv")
    said = refusal(data)
    with pytest.raises(RunError, match=r"text\.mkv"):
        Ffmpeg(data).run()

    assert said == f"sources[0]: {source}: is no media that ffprobe can read"
    assert os.listdir(tmp_path) == ["text.mkv"]


def test_killed(clip: Path, tmp_path: Path) -> None:
    """An ffmpeg that a signal kills is a RunError that names the signal; nothing is left."""

    class Killing(Ffmpeg):
        def report(self, progress: float | None = None, *args: Any, **kwargs: Any) -> None:
            for child in psutil.Process().children():
                child.kill()

    with pytest.raises(RunError, match=r"ffmpeg was killed by SIGKILL \(killed\)") as caught:
        Killing(task(clip, tmp_path / "out.mkv", input_options={"re": True, "stream_loop": -1})).run()

    assert caught.value.signal == "SIGKILL"
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_interrupted(clip: Path, tmp_path: Path) -> None:
    """A run that is asked to stop takes ffmpeg and the unfinished file with it; the old file stays."""
    target = tmp_path / "out.mkv"
    target.write_text("old")
    data = task(clip, target, input_options={"re": True, "stream_loop": -1}, overwrite=True)
    temporary = Output(str(target)).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Ffmpeg(data).run()

    assert psutil.Process().children() == []
    assert os.listdir(tmp_path) == ["out.mkv"]
    assert target.read_text() == "old"


def test_cleanup_of_a_killed_run(clip: Path, tmp_path: Path) -> None:
    """A fresh instance removes what a killed process of the same job left, and nothing more."""
    data = task(clip, tmp_path / "out.mkv")
    Path(Output(data["output_file"]).temporary).touch()
    (tmp_path / "out.mkv").touch()

    Ffmpeg(data).cleanup()

    assert os.listdir(tmp_path) == ["out.mkv"]


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
    assert list(again.sisyphus_warnings) == [f"{written} is there and whole: taken for written by an earlier attempt"]
    assert os.stat(written).st_ino == before.st_ino


def test_target_appears(clip: Path, tmp_path: Path) -> None:
    """A file that appears under the target's name during the encode is not replaced."""
    target = tmp_path / "out.mkv"

    class Racing(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            target.write_text("someone else's")

    module = Racing(task(clip, target))
    target.unlink()
    with pytest.raises(RunError, match="exists, and is not to be overwritten"):
        module.run()

    assert target.read_text() == "someone else's"
    assert os.listdir(tmp_path) == ["out.mkv"]


@pytest.mark.parametrize("share", [1e9, 0.0])
def test_no_room(share: float, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the output, a share of the source's size and an amount, nothing is begun."""
    monkeypatch.setattr(BaseModule, "sisyphus_free_space", (share, 1 << 60))
    with pytest.raises(RunError, match=r"must be for the output \(the limit free_space"):
        Ffmpeg(task(clip, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == []


def test_room_for_a_part(clip: Path) -> None:
    """What a cut leaves out needs no room, nor what is not mapped; what is looped needs more."""
    data = task(clip, "out.mkv", input_options={"ss": "0.5", "t": "1"})
    data["sources"] += ["unmapped.mkv", {"filename": "loop.mkv", "options": {"stream_loop": 3, "t": "8"}}]
    probes = [{"format": {"duration": "2.0"}}] * 3
    data["source_maps"].append({"source": 2})

    assert used_shares(data, probes, 1.0) == {str(clip): 0.5, "loop.mkv": 0.5}
    assert used_shares(data, probes, 8.0) == {str(clip): 1.0, "loop.mkv": 4.0}


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow beyond 16 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(clip: Path, tmp_path: Path, full_disk: None) -> None:
    """That there was no more room comes first in the error, and then what ffmpeg says; nothing is left."""
    target = tmp_path / "out.mkv"
    with pytest.raises(
        RunError, match=f"^{target}: cannot be written: File too large; ffmpeg .*the command was: ffmpeg"
    ):
        Ffmpeg(task(clip, target)).run()

    assert os.listdir(tmp_path) == []


def test_two_passes(clip: Path, tmp_path: Path) -> None:
    """Two passes of one encode are two tasks of a job, and each says which it is."""
    told: list[str] = []

    class Watched(Ffmpeg):
        def report(self, *args: Any, **kwargs: Any) -> None:
            super().report(*args, **kwargs)
            told.append(self.sisyphus_status.get("info", {}).get("phase"))

    notes = str(tmp_path / "notes")
    for number, target in ((1, os.devnull), (2, tmp_path / "out.mkv")):
        data = task(clip, target)
        data["source_maps"], data["output_maps"] = data["source_maps"][:1], data["output_maps"][:1]
        own = {"b": "200k", "pass": number, "passlogfile": notes} | ({"f": "null"} if number == 1 else {})
        data["output_maps"][0]["options"] = FAST | own
        carry_out(data, Watched)

    assert list(dict.fromkeys(filter(None, told))) == ["pass 1", "pass 2", "checking"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": "libx264"}, "encoding"),
        ({"codec": "libx265", "x265-params": {"pass": 2, "bframes": 8}}, "pass 2"),
        ({"codec": "libx265", "x265-params": "bframes=8:pass=1"}, "pass 1"),
        ({"pass:v:0": "2"}, "pass 2"),
        ({"codec": "libx264", "x264-params": {"bypass": 1}}, "encoding"),
    ],
)
def test_phases(options: dict[str, Any], said: str) -> None:
    """The status says which pass an encode is, wherever the options do."""
    data = task("a.mkv", "b.mkv")
    data["output_maps"] = [{"specifier": "v", "stream": 0, "options": options}]

    assert phase(data, {}) == said


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of picture and sound, a key frame every two."""
    return make_clip(tmp_path_factory.mktemp("films") / "film.mkv", seconds=12, options=("-g", "50"))


def remade(source: Path, path: Path, *arguments: str, before: tuple[str, ...] = ()) -> Path:
    argv = ["ffmpeg", "-v", "error", "-nostdin", *before, "-i", str(source), *arguments, str(path)]
    subprocess.run(argv, check=True)
    return path


def mapped(source: Path, target: Path, specifier: str, options: dict[str, Any]) -> dict[str, Any]:
    """A task of one stream."""
    return {
        "sources": [str(source)],
        "source_maps": [{"source": 0, "specifier": specifier}],
        "output_maps": [{"specifier": specifier, "stream": 0, "options": options}],
        "output_file": str(target),
    }


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

    assert module.sisyphus_warnings == (f"{tmp_path}/b.srt is empty: there are no subtitles in what was asked for",)


def test_disk_that_fills_at_the_end(film: Path, tmp_path: Path) -> None:
    """A file whose end could not be written, after which ffmpeg 5.1 exits with 0, is an error and no file."""
    whole = remade(film, tmp_path / "whole.aac", "-map", "0:a", "-c", "copy").stat().st_size
    data = mapped(film, tmp_path / "out.aac", "a", {"codec": "copy"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 5000, hard))
    try:
        with pytest.raises(RunError, match=r"out\.aac: cannot be written: File too large"):
            carry_out(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert os.listdir(tmp_path) == ["whole.aac"]


@pytest.mark.parametrize(
    ("options", "target", "said"),
    [
        ({"codec": "libx264", "preset": "spam"}, "out.mkv", "Error setting preset/tune spam"),
        ({"codec": "libx264", "vf": "spam=1"}, "out.mkv", "No such filter: 'spam'"),
        ({"codec": "libx264", "spam": "1"}, "out.mkv", "Unrecognized option 'spam:v:0'"),
        ({"codec": "libx264"}, "out.spam", "Unable to find a suitable output format"),
        ({"codec": "libx264", "b": "200k", "pass": 2, "passlogfile": "none"}, "out.mp4", "ratecontrol_init"),
    ],
)
def test_reason_is_in_the_message(
    options: dict[str, Any], target: str, said: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has what ffmpeg says of the cause, and not only that there was one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AV_LOG_FORCE_COLOR", "1")
    with pytest.raises(RunError) as caught:
        carry_out(mapped(clip, tmp_path / target, "v", options))

    assert said in caught.value.message
    assert "\x1b" not in caught.value.message + "".join(caught.value.stderr)


# --- validation ---


def test_schema_and_files_at_once(clip: Path, tmp_path: Path) -> None:
    """What the schema finds does not hide what is wrong with files, encoders and streams."""
    data = task(clip, tmp_path / "no" / "out.mkv")
    data["overwrit"] = True
    data["output_maps"][0]["options"] = {"codec": "libx256"}
    data["source_maps"].append({"source": 0, "specifier": "a", "stream": 3})

    assert refusal(data).split("; ") == [
        "overwrit: unknown key (did you mean 'overwrite'?)",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        "output_maps[0].options.codec: this ffmpeg has no encoder 'libx256' (did you mean 'libx265'?)",
        "source_maps[2]: 0:a:3, but sources[0] has 1 audio stream",
    ]


def test_malformed_data() -> None:
    """Data of a wrong shape are told by the schema, and no check that stumbles over them hides it."""
    said = refusal({"sources": 5, "source_maps": [{"source": "x"}], "output_maps": [7], "output_file": ["a"]})

    assert said.split("; ")[:4] == [
        "output_file: expected a string, got a list",
        "output_maps[0]: expected an object, got 7",
        'source_maps[0].source: expected a whole number, got "x"',
        "sources: expected a list, got 5",
    ]


def test_one_misshapen_thing_hides_no_other(tmp_path: Path) -> None:
    """A key that is missing keeps no check from being made that can do without it."""
    data = task(tmp_path / "none.mkv", tmp_path / "no" / "out.mkv")
    del data["source_maps"]
    data["output_maps"][0]["options"] = {"codec": "libx256"}

    assert refusal(data).split("; ") == [
        "missing key 'source_maps'",
        f"sources[0]: {tmp_path}/none.mkv: no such file",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        "output_maps[0].options.codec: this ffmpeg has no encoder 'libx256' (did you mean 'libx265'?)",
    ]


def test_sources_that_are_text(tmp_path: Path) -> None:
    """A name in the place of a list is told once, and not letter by letter."""
    data = task("none.mkv", tmp_path / "out.mkv") | {"sources": "none.mkv"}

    assert refusal(data) == 'sources: expected a list, got "none.mkv"'


def test_sources_that_lead_nowhere(clip: Path, tmp_path: Path) -> None:
    """A link to nothing is no source, nor a name with a percent sign that is no picture's."""
    (tmp_path / "link.mkv").symlink_to("nowhere")
    data = task(tmp_path / "link.mkv", tmp_path / "out.mkv")
    data["sources"] += [str(tmp_path / "a%20d.mkv"), str(clip.parent / "clip.mkv" / "x.mkv")]

    assert refusal(data).split("; ") == [
        f"sources[0]: {tmp_path}/link.mkv: is a link to nowhere, and there is no such file",
        f"sources[1]: {tmp_path}/a%20d.mkv: no such file",
        f"sources[2]: {clip}/x.mkv: not a directory",
    ]


def test_start_after_the_end(clip: Path, tmp_path: Path) -> None:
    """A cut that begins after its source ends is told before the job."""
    data = task(clip, tmp_path / "out.mkv", input_options={"ss": "1:40"})

    assert refusal(data) == f"sources[0]: {clip}: ss 1:40 is after its end (2.0 s)"


@pytest.mark.parametrize("codec", ["libx264", "h264", "copy", "aac"])
def test_encoders_that_are_there(codec: str, clip: Path, tmp_path: Path) -> None:
    """An encoder's name is right, a codec's that has one, and copy."""
    data = task(clip, tmp_path / "out.mkv")
    data["output_maps"][0]["options"] = {"c": codec}

    Ffmpeg(data).validate()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"source": 0, "specifier": "video", "stream": 1}, "0:v:1, but sources[0] has 1 video stream"),
        ({"source": 0, "specifier": "s"}, "0:s, but sources[0] has 0 subtitle streams"),
        ({"source": 0, "stream": 2}, "0:2, but sources[0] has 2 streams"),
    ],
)
def test_streams_that_are_missing(entry: dict[str, Any], said: str, clip: Path, tmp_path: Path) -> None:
    """A stream that a present source lacks is found before the job, unless it is optional."""
    data = task(clip, tmp_path / "out.mkv")
    data["source_maps"] = [entry | {"optional": True}]
    Ffmpeg(data).validate()
    data["source_maps"] = [entry]

    assert refusal(data) == f"source_maps[0]: {said}"


def test_streams_of_a_file_that_will_change(clip: Path, tmp_path: Path) -> None:
    """What an earlier task writes anew is not looked into, though it is there."""
    data = task(clip, tmp_path / "out.mkv")
    data["source_maps"] = [{"source": 0, "specifier": "s"}]
    module = Ffmpeg(data)
    module.sisyphus_files = {location(str(clip)): True}

    module.validate()


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    data = task(tmp_path / "none.mkv", tmp_path / "no" / "out.mkv")
    data["source_maps"].append({"source": 3})
    data["sources"].append(str(tmp_path))

    assert refusal(data).split("; ") == [
        f"sources[0]: {tmp_path}/none.mkv: no such file",
        f"sources[1]: {tmp_path}: is a directory",
        "source_maps[2].source: 3, but there are only sources 0 to 1",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
    ]


def test_unknown_key(clip: Path, tmp_path: Path) -> None:
    """An unknown key is named with its path."""
    data = task(clip, tmp_path / "out.mkv")
    data["output_maps"][1]["optoins"] = {}

    assert refusal(data) == "output_maps[1].optoins: unknown key (did you mean 'options'?)"


def test_existing_target(clip: Path, tmp_path: Path) -> None:
    """An existing target is an error, unless it is to be overwritten or an earlier task takes it away."""
    target = tmp_path / "out.mkv"
    target.touch()

    assert refusal(task(clip, target)) == f"output_file: {target}: exists, and overwrite is not true"
    Ffmpeg(task(clip, target, overwrite=True)).validate()
    later = Ffmpeg(task(clip, target))
    later.sisyphus_files = {location(str(target)): False}
    later.validate()


def test_special_target(clip: Path, tmp_path: Path) -> None:
    """A device or a pipe is not overwritten."""
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/zero")):
        message = refusal(task(clip, target, overwrite=True))
        assert message.startswith(f"output_file: {target}: is no regular file (a device or a pipe)")


@pytest.mark.parametrize(
    ("name", "muxer"), [("a%03d.png", None), ("a.m3u8", None), ("a.mpd", None), ("a.ts", "hls"), ("%d", "image2")]
)
def test_several_files(name: str, muxer: str | None, clip: Path, tmp_path: Path) -> None:
    """What would leave files beside the output is refused."""
    data = task(clip, tmp_path / name)
    if muxer:
        data["output_maps"][0]["options"] = {"f": muxer}

    assert refusal(data) == (
        f"output_file: {tmp_path / name}: ffmpeg writes several files, which the ffmpeg module does not support"
    )


def test_files_of_earlier_tasks(tmp_path: Path) -> None:
    """A source or a directory that an earlier task makes need not be there yet."""
    module = Ffmpeg(task(tmp_path / "soon.mkv", tmp_path / "new" / "out.mkv"))
    module.sisyphus_files = {
        location(str(tmp_path / "soon.mkv")): True,
        location(str(tmp_path / "new" / "other")): True,
    }

    module.validate()


def test_addresses_are_not_files(tmp_path: Path) -> None:
    """Sources that are no files are left to ffmpeg."""
    data = task("http://127.0.0.1:1/x.mkv", tmp_path / "out.mkv")
    data["sources"] += ["concat:a|b", "img%03d.png", {"filename": "testsrc", "options": {"f": "lavfi"}}]

    Ffmpeg(data).validate()


def test_generated_source(tmp_path: Path) -> None:
    """A source of unknown duration can be encoded."""
    data = task("", tmp_path / "out.mkv")
    data["sources"] = [{"filename": "testsrc=size=64x64", "options": {"f": "lavfi", "t": "1"}}]

    carry_out(data)

    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.1)


def test_output_is_a_source(clip: Path, tmp_path: Path) -> None:
    """An output that is one of the sources, by whatever name, is an error."""
    link = tmp_path / "link.mkv"
    link.symlink_to(clip)

    assert refusal(task(clip, link, overwrite=True)) == f"output_file: {clip} is also sources[0]"


def test_missing_tools(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not installed are named before anything runs, and also if they vanish afterwards."""
    module = Ffmpeg(task(clip, tmp_path / "out.mkv"))
    module.validate()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "ffmpeg is not installed" in refusal(task(clip, tmp_path / "out.mkv"))
    assert "ffprobe is not installed" in refusal(task(clip, tmp_path / "out.mkv"))
    with pytest.raises(RunError, match="ffmpeg is not installed"):
        module.run()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"sources": {}},
        {"sources": [""], "source_maps": 1, "output_maps": None, "output_file": []},
        task("a\0b", "c\0d"),
        task("\ud800", "\ud900"),
        task("a", "b", input_options={"ss": None}),
        task("a", "b", input_options={"f": {"x": 1}, "ss": "soon"}),
        task("a" * 100_000, "b" * 100_000),
        task("a", "b", input_options={"items": {}, "keys": 1, "_box_config": 2}),
    ],
)
def test_odd_data(data: dict[str, Any]) -> None:
    """Odd data is a ValidationError and never another."""
    assert refusal(data)


# --- option sets ---


class Server(ThreadingHTTPServer):
    """An API server with a record, and answers that are none."""

    requests: list[str]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Server)
            self.server.requests.append(self.path)
            good = {"_id": "1", "name": "good", "options": {"codec": "libx264", "preset": "ultrafast", "crf": 40}}
            answers = {
                "good": good,
                "a%2Fb%20c": good,
                "bad": {"options": {"crf": None}},
                "list": [],
            }
            name = self.path.removeprefix("/data/ffmpeg/")
            body = json.dumps(answers.get(name)) if name != "text" else "<html>"
            self.send_response(200 if name in {*answers, "text"} else 500 if name == "broken" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Server.Handler) as server:
        server.requests = []
        monkeypatch.setattr(Config, "API_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def with_set(clip: Path, target: Path, name: str) -> dict[str, Any]:
    data = task(clip, target)
    data["output_maps"][0] = {"specifier": "v", "stream": 0, "options": {"crf": 1, "g": 5}, "option_set": name}
    return data


@pytest.mark.parametrize("validated", [True, False])
def test_option_set(validated: bool, server: Server, clip: Path, tmp_path: Path) -> None:
    """A set's options lie over the output map's own, and are fetched once."""
    module = Ffmpeg(with_set(clip, tmp_path / "out.mkv", "good"))
    if validated:
        module.validate()
    module.run()

    assert "-crf:v:0 40 -g:v:0 5 -codec:v:0 libx264 -preset:v:0 ultrafast -codec:a:0 copy" in module.plan()[0]
    assert server.requests == ["/data/ffmpeg/good"]


def test_option_set_name_is_quoted(server: Server, clip: Path, tmp_path: Path) -> None:
    """A set's name may hold anything."""
    Ffmpeg(with_set(clip, tmp_path / "out.mkv", "a/b c")).validate()

    assert server.requests == ["/data/ffmpeg/a%2Fb%20c"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "there is none at http://127.0.0.1"),
        ("broken", "answers with status 500"),
        ("text", "does not answer with JSON"),
        ("list", "does not answer with a JSON object"),
        ("..", "'..' cannot be a name of server-side data"),
        ("bad", "options.crf: expected a string, a number, true or false or an object, got null"),
    ],
)
def test_bad_option_set(name: str, reason: str, server: Server, clip: Path, tmp_path: Path) -> None:
    """A set that is missing or malformed is named, with the reason."""
    message = refusal(with_set(clip, tmp_path / "out.mkv", name))

    assert message.startswith(f"output_maps[0].option_set: option set '{name}': ")
    assert reason in message


def test_no_server(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is named, by validation, plan and run alike."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(Config, "API_URL", f"http://127.0.0.1:{port}")
    data = with_set(clip, tmp_path / "out.mkv", "good")

    assert f"option set 'good': http://127.0.0.1:{port} does not answer" in refusal(data)
    with pytest.raises(ValidationError, match="does not answer"):
        Ffmpeg(data).plan()
    with pytest.raises(RunError, match="does not answer"):
        Ffmpeg(data).run()
