"""The `handbrake` module, with the real HandBrakeCLI and tiny clips."""

import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError, ValidationError
from modules.base import BaseModule, location
from modules.handbrake import Handbrake, expect, window
from modules.handbrake.cli import Messages, Title
from modules.handbrake.options import arguments, known_options, read_help
from modules.media import probe
from modules.output import Output
from tests.media import Interrupted, look, make_clip, terminated_when
from tests.supervised import Supervised, job, until

LEAD = ["stdbuf", "-oL", "HandBrakeCLI", "--json", "--input", "in.mkv", "--output", "./.out.part.mkv"]
FAST = {"encoder": "x264", "encoder_preset": "ultrafast"}

DONE = 'Progress: {"State": "WORKDONE", "WorkDone": {"Error": 0}}'

SLOW = pytest.mark.slow

CHAPTERS = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1
START=0
END=1
[CHAPTER]
TIMEBASE=1/1
START=1
END=3
[CHAPTER]
TIMEBASE=1/1
START=3
END=4
"""


def stand_in(directory: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script before HandBrakeCLI that runs lines of shell where that would encode to `$output`."""
    directory.mkdir()
    program = directory / "HandBrakeCLI"
    path = shlex.quote(os.environ["PATH"])
    program.write_text(
        f"""#!/bin/sh
case " $* " in
*" --help "* | *" --scan "* | *" --preset-export "*) PATH={path} exec HandBrakeCLI "$@" ;;
esac
for argument; do
    [ "$previous" = --output ] && output=$argument
    previous=$argument
done
{lines}
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def make_film(path: Path) -> Path:
    """Four seconds of picture, two audio and two subtitle tracks, and three chapters of 1, 2 and 1 seconds."""
    subtitles, chapters = path.with_suffix(".srt"), path.with_suffix(".txt")
    subtitles.write_text("1\n00:00:00,500 --> 00:00:03,500\nHello\n")
    chapters.write_text(CHAPTERS)
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=25:duration=4"]
    for sound in ("sine=duration=4", "sine=frequency=300:duration=4"):
        argv += ["-f", "lavfi", "-i", sound]
    argv += ["-i", str(subtitles), "-i", str(subtitles), "-i", str(chapters), "-map_metadata", "5"]
    argv += ["-map", "0", "-map", "1", "-map", "2", "-map", "3", "-map", "4"]
    argv += ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([*argv, str(path)], check=True)
    subtitles.unlink()
    chapters.unlink()
    return path


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mkv")


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes a minute to encode with care."""
    clip = tmp_path_factory.mktemp("films") / "long.mkv"
    argv = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=20"]
    subprocess.run([*argv, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", str(clip)], check=True)
    return clip


CAREFUL = {"encoder": "x264", "encoder_preset": "placebo", "encoder_tune": "zerolatency", "vb": 50_000}
"""Slow, but what is encoded is written at once, if the target is an MP4."""


def task(source: object, target: object, /, **sections: Any) -> dict[str, Any]:
    """A task's data; sections by what stands before their `_options`."""
    sections["video"] = FAST | sections.get("video", {})
    return {"source": str(source), "output_file": str(target)} | {f"{key}_options": sections[key] for key in sections}


def carry_out(data: dict[str, Any]) -> Handbrake:
    module = Handbrake(data)
    module.validate()
    module.run()
    module.cleanup()
    return module


def later(**sections: Any) -> Handbrake:
    """A task whose source an earlier one will have written: there is nothing to look into yet."""
    module = Handbrake(task("soon.mkv", "out.mkv", **sections))
    module.sisyphus_files = {location("soon.mkv"): True}
    return module


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Handbrake(data).validate()
    return caught.value.message


def duration(path: Path) -> float:
    return float(look(path)["format"]["duration"])


def kinds(path: Path) -> list[str]:
    return [stream["codec_type"] for stream in look(path)["streams"]]


# --- the help ---


def test_help() -> None:
    """The options of the installed HandBrakeCLI, with their values and choices."""
    known = known_options()

    assert known["max_height"].flag == "--maxHeight"
    assert {known[key].value for key in ("start_at", "crop", "aname", "normalize_mix", "srt_file", "pad")} == {
        "required"
    }
    assert {known[key].value for key in ("comb_detect", "srt_burn", "verbose")} == {"optional"}
    assert {known[key].value for key in ("vfr", "cfr", "pfr", "markers", "grayscale", "native_dub")} == {""}
    assert {"x264", "x265", "mpeg4", "VP8"} <= set(known["encoder"].choices)
    assert {"av_aac", "copy", "copy:ac3", "flac16", "opus"} <= set(known["aencoder"].choices)
    assert known["format"].choices == ("av_mp4", "av_mkv", "av_webm")


def test_every_option_of_the_help_is_found() -> None:
    """Nothing at the beginning of a line of the help that looks like an option is missed."""
    text = subprocess.run(["HandBrakeCLI", "--help"], capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if line[:12].strip().startswith("-")]
    words = [word.rstrip(",").partition("[")[0] for line in lines for word in line.split()]

    assert {option.flag for option in read_help(text).values()} == {word for word in words if word.startswith("--")}


NEWER = """#!/bin/sh
echo "$1" >>{log}
HandBrakeCLI=$(PATH={path} command -v HandBrakeCLI)
case $1 in
--help)
    "$HandBrakeCLI" --help | sed 's/-2, --two-pass/    --multi-pass/; s/two-pass/multi-pass/g'
    echo "   --upscaleFactor <number>"
    echo "                           Make it larger"
    echo "       --no-upscaleFactor  Leave it"
    ;;
*) exec "$HandBrakeCLI" "$@" ;;
esac
"""


def test_newer_version(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version's options are taken, what it has no more is not, and it is asked once."""
    program, log = tmp_path / "bin" / "HandBrakeCLI", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(NEWER.format(log=log, path=shlex.quote(os.environ["PATH"])))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    module = Handbrake(task(film, tmp_path / "out.mkv", video={"multi_pass": True}, picture={"upscale_factor": 2}))

    module.validate()

    assert module.plan()[0].endswith("--multi-pass --upscaleFactor 2")
    assert Handbrake(task("a", "b", picture={"upscale_factor": False})).plan()[0].count("--no-upscaleFactor")
    assert log.read_text().splitlines().count("--help") == 1
    assert refusal(task(film, tmp_path / "out.mkv", video={"multi_pas": True})) == (
        "video_options.multi_pas: HandBrakeCLI knows no such option (did you mean 'multi_pass'?)"
    )


@pytest.mark.slow
def test_probing_encoders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each encoder that is listed is tried once; one that HandBrakeCLI only lists is told with what it says."""
    more = "sed 's/^ *x264$/&\\n                               nvenc_h264/'"
    program = tmp_path / "HandBrakeCLI"
    path = shlex.quote(os.environ["PATH"])
    program.write_text(
        f'#!/bin/sh\nPATH={path}\n[ "$1" = --help ] || exec HandBrakeCLI "$@"\nHandBrakeCLI --help | {more}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    found = list(Handbrake.probe_encoders())
    working = {name for name, problem in found if not problem}

    assert len(dict(found)) == len(found)
    assert {"x264", "x265_10bit", "mpeg4", "VP9", "av_aac", "flac16", "opus"} <= working
    assert not {name for name, _ in found if name.startswith("copy") or name == "none"}
    assert dict(found)["nvenc_h264"].startswith("ERROR: Failure to initialise")


def test_probing_needs_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without ffmpeg there is nothing to try encoders on, and the error says so."""
    (tmp_path / "HandBrakeCLI").symlink_to(shutil.which("HandBrakeCLI") or "")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(RunError, match=r"^ffmpeg is not installed.*: the encoders are tried on a clip that it makes"):
        list(Handbrake.probe_encoders())


def test_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HandBrakeCLI whose help lists nothing is named, with what it wrote."""
    program = tmp_path / "HandBrakeCLI"
    program.write_text("#!/bin/sh\necho broken >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    message = refusal(task("in.mkv", "out.mkv"))

    assert "HandBrakeCLI cannot be asked for its options: HandBrakeCLI --help lists no options: broken" in message


# --- the command line ---

SECTIONS: dict[str, Any] = {
    "source": {"start_at": {"seconds": 10}},
    "destination": {"format": "av_mkv"},
    "video": {"encoder": "x265_10bit", "encoder_preset": "slow", "encopts": {"bframes": 8}},
    "audio": {
        "audio": [3, 1],
        "aencoder": ["opus", "opus"],
        "aname": ["Stereo 2.0", "Surround 5.1"],
        "ab": [128, 192],
    },
    "picture": {"max_height": 1080, "crop": {"top": 0, "bottom": 0, "left": 8, "right": 8}},
    "filters": {"comb_detect": {"mode": 3, "spatial_metric": 2}, "detelecine": False},
    "subtitles": {"subtitle": [2, 1], "subtitle_default": 1},
}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            SECTIONS,
            "--start-at seconds:10 --format av_mkv --encoder x265_10bit --encoder-preset slow --encopts bframes=8 "
            "--audio 3,1 --aencoder opus,opus --aname 'Stereo 2.0,Surround 5.1' --ab 128,192 "
            "--maxHeight 1080 --crop 0:0:8:8 --comb-detect=mode=3:spatial-metric=2 --no-detelecine "
            "--subtitle 2,1 --subtitle-default=1",
        ),
        ({}, ""),
        (
            {"source": {"start_at": {"frames": 300}, "stop_at": {"pts": 900000}}},
            "--start-at frames:300 --stop-at pts:900000",
        ),
        (
            {"source": {"start_at": {"seconds": 1.5}, "stop_at": "seconds:3"}},
            "--start-at seconds:1.5 --stop-at seconds:3",
        ),
        ({"source": {"title": 2, "chapters": "1-3", "min_duration": 5.0}}, "--title 2 --chapters 1-3 --min-duration 5"),
        ({"source": {"main_feature": True, "previews": "30:0"}}, "--main-feature --previews 30:0"),
        ({"source": {"main_feature": False}}, ""),
        (
            {"destination": {"markers": True, "optimize": True, "ipod_atom": False}},
            "--markers --optimize --no-ipod-atom",
        ),
        ({"destination": {"align_av": False}}, "--no-align-av"),  # its help does not list it
        ({"destination": {"no_markers": True}}, "--no-markers"),
        ({"destination": {"no_markers": False}}, ""),
        ({"general": {"dvdnav": False, "verbose": 1}}, "--no-dvdnav --verbose=1"),
        (
            {"general": {"preset_import_file": "a b.json", "preset": "My Own"}},
            "--preset-import-file 'a b.json' --preset 'My Own'",
        ),
        ({"general": {"preset_import_file": ["a.json", "-b.json"]}}, "--preset-import-file a.json ./-b.json"),
        ({"video": {"two_pass": True, "turbo": False, "vfr": True, "cfr": False}}, "--two-pass --no-turbo --vfr"),
        ({"video": {"quality": 22.5, "rate": 25.0}}, "--quality 22.5 --rate 25"),
        (
            {"video": {"encopts": {"psy_rd": "1,0.5", "sao": False, "fast-pskip": True, "bare": None}}},
            "--encopts psy-rd=1,0.5:sao=0:fast-pskip=1:bare",
        ),
        ({"video": {"encopts": {"custom": {"bframes": 8}}}}, "--encopts bframes=8"),
        ({"video": {"encopts": {"preset": 6}}}, "--encopts preset=6"),
        ({"video": {"encopts": "bframes=8:ref=3"}}, "--encopts bframes=8:ref=3"),
        ({"video": {"encopts": {}}}, ""),
        ({"audio": {"audio": None}}, "--audio none"),
        ({"audio": {"audio": []}}, "--audio ''"),  # which is none as well
        ({"audio": {"audio": 1, "aencoder": "copy", "all_audio": True}}, "--audio 1 --aencoder copy --all-audio"),
        (
            {"audio": {"normalize_mix": [True, False], "arate": [44.1, 48], "gain": [-3, 0]}},
            "--normalize-mix 1,0 --arate 44.1,48 --gain -3,0",
        ),
        ({"audio": {"aname": ["Director, and cast", 'The "cut"']}}, """--aname '"Director, and cast","The cut"'"""),
        ({"audio": {"aname": 'a,"b'}}, """--aname 'a,"b'"""),
        ({"picture": {"crop": {"left": 8}, "max_width": 720}}, "--crop 0:0:8:0 --maxWidth 720"),
        ({"picture": {"crop": "2:2:0:0", "pixel_aspect": "3:2"}}, "--crop 2:2:0:0 --pixel-aspect 3:2"),
        ({"picture": {"keep_display_aspect": False, "loose_anamorphic": False}}, "--no-keep-display-aspect"),
        ({"filters": {"bwdif": True, "nlmeans": False}}, "--bwdif --no-nlmeans"),
        ({"filters": {"hqdn3d": {"preset": "light"}}}, "--hqdn3d=light"),
        ({"filters": {"comb_detect": {"presets": "fast"}}}, "--comb-detect=fast"),
        ({"filters": {"hqdn3d": "light"}}, "--hqdn3d=light"),
        (
            {"filters": {"hqdn3d": {"custom": {"y_spatial": 3, "cb-spatial": 2.5}}}},
            "--hqdn3d=y-spatial=3:cb-spatial=2.5",
        ),
        ({"filters": {"rotate": {"angle": 90, "hflip": True}}}, "--rotate=angle=90:hflip=1"),
        ({"filters": {"pad": {"width": 640, "color": "red"}}}, "--pad width=640:color=red"),
        ({"filters": {"comb_detect": {}}}, ""),
        (
            {"subtitles": {"subtitle": ["scan", 1], "subtitle_burned": "native", "subtitle_forced": [1, 2]}},
            "--subtitle scan,1 --subtitle-burned=native --subtitle-forced=1,2",
        ),
        (
            {"subtitles": {"subtitle_default": True, "srt_burn": 2, "srt_offset": [-200, 0]}},
            "--subtitle-default --srt-burn=2 --srt-offset -200,0",
        ),
        ({"subtitles": {"subtitle": False}}, ""),
    ],
)
def test_arguments(sections: dict[str, Any], expected: str) -> None:
    """The command line of each kind of task data, to the letter."""
    data = {f"{section}_options": options for section, options in sections.items()}

    argv = arguments(data, known_options(), "in.mkv", "./.out.part.mkv")

    assert argv == LEAD + shlex.split(expected)


def test_plan(tmp_path: Path) -> None:
    """The plan is the command line of the run, and needs no source to be there."""
    module = Handbrake(task(tmp_path / "a b.mkv", tmp_path / "out.mkv"))
    temporary = Output(str(tmp_path / "out.mkv")).temporary

    line, renaming = module.plan()

    assert shlex.split(line) == [*LEAD[:4], "--input", str(tmp_path / "a b.mkv"), "--output", temporary, "--encoder",
                                 "x264", "--encoder-preset", "ultrafast"]  # fmt: skip
    assert shlex.split(renaming) == ["mv", "--", temporary, str(tmp_path / "out.mkv")]
    assert module.outputs() == [str(tmp_path / "out.mkv")]
    assert module.removes() == []


# --- encoding ---


def test_encode(film: Path, tmp_path: Path) -> None:
    """An encode leaves the whole file under its name, with the tracks asked for, and nothing else."""
    audio = {"audio": [2, 1], "aencoder": ["opus", "av_aac"], "aname": ["One, two", "Three"]}
    module = carry_out(
        task(film, tmp_path / "out.mkv", audio=audio, subtitles={"subtitle": [2, 1], "subtitle_default": 2})
    )
    streams = look(tmp_path / "out.mkv")["streams"]

    assert os.listdir(tmp_path) == ["out.mkv"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert [stream["codec_type"] for stream in streams] == ["video", "audio", "audio", "subtitle", "subtitle"]
    assert [(stream["codec_name"], stream["tags"]["title"]) for stream in streams[1:3]] == [
        ("opus", "One, two"),
        ("aac", "Three"),
    ]
    assert [stream["disposition"]["default"] for stream in streams[3:]] == [0, 1]
    assert module.sisyphus_status["task"] == "handbrake"
    assert module.sisyphus_status["progress"] == 100
    assert module.sisyphus_warnings == ()


@pytest.mark.slow
def test_filter_settings_are_taken(film: Path, tmp_path: Path) -> None:
    """A filter's settings arrive: 1.6.1 ignores those that are an argument of their own."""
    carry_out(task(film, tmp_path / "out.mkv", filters={"rotate": {"angle": 90}}))
    video = look(tmp_path / "out.mkv")["streams"][0]

    assert (video["width"], video["height"]) == (120, 160)


@pytest.mark.slow
def test_two_passes(long: Path, tmp_path: Path) -> None:
    """Over both passes the progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    phases: dict[str, list[float]] = {}

    class Watched(Handbrake):
        def report(self, progress: float | None = None, info: Any = None, *, done: bool = False) -> None:
            super().report(progress, info, done=done)
            if "progress" in self.sisyphus_status:
                seen.append((self.sisyphus_status["progress"], (tmp_path / "out.mkv").exists()))
            if progress is not None and (told := self.sisyphus_status["info"])["phase"].startswith("pass"):
                phases.setdefault(told["phase"], []).append(self.sisyphus_status["progress"])
                assert all(math.isfinite(value) for key, value in told.items() if key != "phase")
                assert 0 <= told["current_frame"] <= told["total_frames"]

    video = {"two_pass": True, "vb": 300, "encoder_preset": "fast"}
    Watched(task(long, tmp_path / "out.mkv", video=video, source={"stop_at": {"seconds": 8}})).run()

    assert list(phases) == ["pass 1 of 2", "pass 2 of 2"]
    assert max(phases["pass 1 of 2"]) <= 50 <= min(phases["pass 2 of 2"])
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)


@pytest.mark.parametrize(
    "name",
    [
        "-quote'\" $(x)\nline:.mkv",
        "\udcff.mkv",
        *(pytest.param(name, marks=SLOW) for name in ["-dash.mkv", "new\nline.mkv", "co:lon.mkv"]),
    ],
)
def test_odd_names(name: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and outputs of odd names work, in the working directory too."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.symlink(film, name)

    carry_out(task(name, name + " out.mkv", source={"stop_at": {"seconds": 1}}))

    assert sorted(os.listdir()) == sorted([name, name + " out.mkv"])
    assert sorted(os.listdir(tmp_path)) == ["here"]


@pytest.mark.slow
def test_directory(film: Path, tmp_path: Path) -> None:
    """A source may be a directory: the structure of a disc, or files, each of which is a title."""
    directory = tmp_path / "disc"
    directory.mkdir()
    os.link(make_clip(tmp_path / "clip.mkv", seconds=1), directory / "a.mkv")
    os.link(film, directory / "b.mkv")
    carry_out(task(directory, tmp_path / "out.mkv", source={"title": 2}, audio={"audio": [2, 1]}))

    assert kinds(tmp_path / "out.mkv") == ["video", "audio", "audio"]
    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert refusal(task(directory, directory / "out.mkv", source={"title": 2})) == (
        f"output_file: {directory}/out.mkv: is in the directory {directory}, whose files HandBrakeCLI numbers as titles"
    )


@pytest.mark.slow
def test_without_stdbuf(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stdbuf, the encode works all the same."""
    (tmp_path / "bin").mkdir()
    for name in ("HandBrakeCLI", "ffprobe"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    module = Handbrake(task(film, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}}))

    module.run()

    assert module.plan()[0].startswith("HandBrakeCLI --json")
    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_overwriting(film: Path, tmp_path: Path) -> None:
    """A target that is there is replaced, as HandBrakeCLI would, and the record says so."""
    target = tmp_path / "out.mkv"
    target.write_text("old")

    module = carry_out(task(film, target, source={"stop_at": {"seconds": 1}}))

    assert kinds(target) == ["video", "audio"]
    assert module.sisyphus_warnings == (f"{target} was there already: it is replaced",)


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
    assert window(source, Title("a.mkv", 4.0, 1, 0, (1.0, 2.0, 1.0)), 25.0) == (start, length)


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
    assert window(source, Title("a.mkv", 4.0, 1, 0, (1.0, 2.0, 1.0)), rate) is None


@pytest.mark.slow
@pytest.mark.parametrize("source", [{"start_at": {"frames": 25}, "stop_at": {"frames": 50}}, {"chapters": "2"}])
def test_parts(source: dict[str, Any], film: Path, tmp_path: Path) -> None:
    """Encodes of a part of the source pass, and are as long as expected."""
    title = Title(str(film), 4.0, 2, 2, (1.0, 2.0, 1.0))
    strict, hoped = expect({**source, "audio": [1]}, title, probe(str(film)))

    carry_out(task(film, tmp_path / "out.mkv", source=source, audio={"audio": [1]}))

    assert strict.lengths == {}
    assert hoped.lengths == {"video": pytest.approx(2, abs=0.1)}
    assert strict.streams == {"video": 1, "audio": 1}
    assert hoped.streams == {"video": 1, "audio": 1, "subtitle": 0}
    # A chapter's end is where its last packets end.
    assert 1.9 < duration(tmp_path / "out.mkv") < (2.2 if "start_at" in source else 4)


def test_disc_is_hoped_for() -> None:
    """Of a disc nothing but its own tables tells the length: that is worth a warning, not an error."""
    strict, hoped = expect({"start_at": {"seconds": 100}}, Title("/disc", 1100.0, 1, 0, ()), {})

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
    strict, _ = expect(options, None, {})

    assert strict.streams == {"video": 1, "audio": count}


@pytest.mark.slow
def test_track_that_cannot_be_copied(film: Path, tmp_path: Path) -> None:
    """A track that HandBrakeCLI leaves out because it cannot copy it is a warning."""
    module = carry_out(task(film, tmp_path / "out.mkv", audio={"audio": [1, 2], "aencoder": ["copy:truehd", "opus"]}))

    assert kinds(tmp_path / "out.mkv") == ["video", "audio"]
    (warning,) = module.sisyphus_warnings
    assert re.match(r"the output has 1 audio streams of 2: \[.*\] Passthru requested .* dropping track", warning)


# --- progress ---


def object_of(state: str, **details: Any) -> list[str]:
    """An object as HandBrakeCLI prints it."""
    names = {"SEARCHING": "Working", "WORKDONE": "WorkDone"}
    return f"Progress: {json.dumps({'State': state, names.get(state, state.title()): details}, indent=4)}".splitlines()


def reports(*objects: list[str], frame_rate: float | None = 25.0, frames: int = 0) -> list[Any]:
    """What a module tells of the lines of objects: progress and information each, and the error."""
    told: list[Any] = []

    def report(progress: float | None, info: Mapping[str, Any]) -> None:
        module.report(progress, info)
        told.append((module.sisyphus_status.get("progress"), module.sisyphus_status["info"]))

    module = BaseModule({})
    messages = Messages(frame_rate, report)
    if frames:
        messages.take_log(f"[12:00:00] sync: expecting {frames} video frames")
    for lines in objects:
        for line in lines:
            messages.take(line)
    return [*told, messages.error]


def test_progress() -> None:
    """Each object is a report: passes count alike, what is not known is left out, and nothing goes backwards."""
    first = {"Pass": 1, "PassCount": 2, "PassID": 1, "Progress": 0.5, "Rate": 50.0, "RateAvg": 25.0, "ETASeconds": 4}
    second = {"Pass": 2, "PassCount": 2, "PassID": 2, "Progress": 1.0, "Rate": 1e-7, "RateAvg": 0.0, "ETASeconds": 0}

    told = reports(
        ["libdvdread: Encrypted DVD support unavailable.****", "Version: {", "}"],
        object_of("SCANNING", Progress=0.5, Preview=3),
        object_of("SEARCHING", Progress=0.9, Pass=1, PassCount=2),
        object_of("WORKING", **first),
        object_of("WORKING", **(first | {"Progress": 0.25})),
        object_of("WORKING", **second),
        object_of("MUXING", Progress=0.0),
        object_of("WORKDONE", Error=0, SequenceID=1),
        frames=200,
    )

    assert told == [
        (None, {"phase": "scanning"}),
        (None, {"phase": "searching"}),
        (25.0, {"phase": "pass 1 of 2", "current_frame": 100, "total_frames": 200, "fps": 50.0, "speed": 2.0,
                "eta_seconds": 12.0}),
        (25.0, {"phase": "pass 1 of 2", "current_frame": 50, "total_frames": 200, "fps": 50.0, "speed": 2.0,
                "eta_seconds": 12.0}),
        (99.9, {"phase": "pass 2 of 2", "current_frame": 200, "total_frames": 200}),
        (99.9, {"phase": "muxing"}),
        0,
    ]  # fmt: skip


def test_progress_of_subtitle_scan() -> None:
    """The pass that looks for foreign subtitles is one of those that count."""
    told = reports(object_of("WORKING", Pass=1, PassCount=2, PassID=-1, Progress=0.5, Rate=100.0))

    assert told == [(25.0, {"phase": "scanning subtitles", "fps": 100.0, "speed": 4.0}), None]


@pytest.mark.parametrize(
    "working",
    [
        {},
        {"Progress": math.nan, "Pass": math.inf, "PassCount": 0, "Rate": math.nan, "ETASeconds": -math.inf},
        {"Progress": "x", "Pass": None, "PassCount": [], "Rate": {}, "RateAvg": "x", "ETASeconds": True},
    ],
)
def test_odd_progress(working: dict[str, Any]) -> None:
    """Numbers that are none are left out."""
    (percent, info), error = reports(object_of("WORKING", **working))

    assert percent == 0
    assert info == {"phase": "encoding"}
    assert error is None


@pytest.mark.parametrize(
    "lines",
    [
        ["Progress: {", '    "State": "WORKING",'],
        ["Progress: {", "garbage", "}"],
        ["Progress: [1]", "}", "{}"],
        ["Progress: {", *["x" * 1000] * 100, "}"],
        object_of("WORKDONE", Error="none"),
        ['Progress: {"State": "WORKDONE", "WorkDone": 0}'],
        ['Progress: {"State": ["WORKING"], "Working": 3}'],
    ],
)
def test_torn_objects(lines: list[str]) -> None:
    """What is no object is skipped, and the next one is read."""
    assert reports(lines, object_of("WORKDONE", Error=3)) == [3]


# --- failures ---


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"video": {"encoder": "spam"}}, r"ERROR: Invalid video encoder \(spam\)"),
        ({"video": {"spam": 1}}, r"unknown option \(--spam\)"),
        ({"destination": {"format": "spam"}}, r"ERROR: Invalid container \(spam\)"),
        ({"filters": {"hqdn3d": "spam"}}, "Invalid hqdn3d option spam"),
    ],
)
def test_nothing_encoded(sections: dict[str, Any], reason: str, film: Path, tmp_path: Path) -> None:
    """What HandBrakeCLI refuses with exit status 0 and no file is an error, with the line that tells why."""
    with pytest.raises(
        RunError,
        match=rf"^HandBrakeCLI exited with status 0, but there is no output: {reason}; the command was: HandBrakeCLI ",
    ) as caught:
        Handbrake(task(film, tmp_path / "out.mkv", **sections)).run()

    assert caught.value.exit_status == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"video": {"encoder_preset": "ultrafst"}}, "x264 has no 'ultrafst' (did you mean 'ultrafast'?)"),
        ({"video": {"encoder_tune": "filmm"}}, "x264 has no 'filmm' (did you mean 'film'?)"),
        ({"video": {"encoder_profile": "higg"}}, "x264 has no 'higg' (did you mean 'high'?)"),
        ({"video": {"quality": "good"}}, "video_options.quality: expected a number, got 'good'"),
        ({"video": {"vb": "1M"}}, "video_options.vb: expected a number, got '1M'"),
        ({"audio": {"audio": "jpn"}}, "audio_options.audio: expected a number or none, got 'jpn'"),
        ({"audio": {"audio": [1, "x"]}}, "audio_options.audio: expected a number or none, got 'x'"),
        ({"audio": {"audio": "1,2", "ab": [128, "lots"]}}, "audio_options.ab: expected a number, got 'lots'"),
        ({"subtitles": {"subtitle": "first"}}, "subtitles_options.subtitle: expected a number or scan or none"),
        ({"picture": {"width": "wide"}}, "picture_options.width: expected a number, got 'wide'"),
        ({"source": {"start_at": {"seconds": 1}, "stop_at": {"frames": 20}}}, "expected the unit of start_at"),
        ({"source": {"start_at": {"seconds": 100}}}, "source_options.start_at: is after the end of"),
        ({"source": {"chapters": "2-9"}}, "chapters: 9, but"),
    ],
)
def test_what_fails_late_or_never(sections: dict[str, Any], said: str, film: Path, tmp_path: Path) -> None:
    """What HandBrakeCLI would refuse only when it encodes, or takes for something else without a word."""
    sections = {**sections, "video": {"encoder": "x264", **sections.get("video", {})}}

    assert said in refusal(task(film, tmp_path / "out.mkv", **sections))


@pytest.mark.parametrize(
    "sections",
    [
        {"video": {"encoder": "x264", "encoder_preset": "Fast", "encoder_tune": "film,fastdecode", "quality": "20.5"}},
        {"audio": {"audio": "none", "ab": "128, 192"}},
        {"audio": {"audio": [1, 2], "ab": [128.0, 192], "gain": "-2.5,0"}, "subtitles": {"subtitle": ["scan", 1]}},
        {"source": {"start_at": {"seconds": 1}, "stop_at": {"duration": 1}}},
        {"audio": {"audio": None}, "subtitles": {"subtitle": None}},
    ],
)
def test_what_is_right(sections: dict[str, Any], film: Path, tmp_path: Path) -> None:
    """Numbers as text and in lists, names in any case, and nothing of a kind."""
    Handbrake(task(film, tmp_path / "out.mkv", **sections)).validate()


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


def test_refused_by_the_encoder(film: Path, tmp_path: Path) -> None:
    """An exit status goes on the record, with the lines that tell why at the end of the log."""
    with pytest.raises(RunError, match=r"HandBrakeCLI exited with status 3: x264 \[error\]: invalid preset") as caught:
        Handbrake(task(film, tmp_path / "out.mkv", video={"encoder_preset": "spam"})).run()

    assert caught.value.exit_status == 3
    assert caught.value.stderr[-1].startswith("ERROR: Failure to initialise thread")
    assert os.listdir(tmp_path) == []


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

    assert [warning[:24] for warning in module.sisyphus_warnings] == ["the output is cut short:"]


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
    assert module.sisyphus_warnings == ()


@pytest.mark.slow
def test_late_timestamps(film: Path, tmp_path: Path) -> None:
    """A source whose timestamps begin late is as long as any other."""
    late = tmp_path / "late.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-c", "copy", "-output_ts_offset", "100"]
    subprocess.run([*argv, str(late)], check=True)

    module = carry_out(task(late, tmp_path / "out.mkv"))

    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert module.sisyphus_warnings == ()


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


@pytest.mark.parametrize(
    ("source", "share"),
    [
        ({"start_at": {"seconds": 3}}, 0.25),
        pytest.param({}, 1.0, marks=SLOW),
        pytest.param({"chapters": 2}, 0.5, marks=SLOW),
    ],
)
def test_room(
    source: dict[str, Any], share: float, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of what goes in, as far as it is encoded, has to be free where the output goes."""
    needs: list[dict[str, int]] = []
    monkeypatch.setattr("modules.handbrake.require_space", lambda _, sizes: needs.append(sizes))

    Handbrake(task(film, tmp_path / "out.mkv", source=source)).run()

    assert needs == [{str(tmp_path / "out.mkv"): pytest.approx(film.stat().st_size * share, rel=0.05)}]


def test_no_room(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun where there is no room, for a directory's files together, too."""
    monkeypatch.setattr(BaseModule, "sisyphus_free_space", (1e9, 0))
    (tmp_path / "disc" / "VIDEO_TS").mkdir(parents=True)
    os.link(film, tmp_path / "disc" / "VIDEO_TS" / "a.mkv")
    for source in (film, tmp_path / "disc"):
        module = Handbrake(task(source, tmp_path / "out.mkv"))
        module._is_scanned = True
        with pytest.raises(RunError, match=r"must be for the output .the limit free_space"):
            module.run()


def test_tracks_of_a_source_that_came_later(film: Path, tmp_path: Path) -> None:
    """What an earlier task wrote is looked into before the encode."""
    source = tmp_path / "soon.mkv"
    module = Handbrake(task(source, tmp_path / "out.mkv", audio={"audio": [3]}))
    module.sisyphus_files = {location(str(source)): True}
    module.validate()
    source.symlink_to(film)

    with pytest.raises(RunError, match=r"audio_options\.audio: 3, but .* has only audio tracks 1 to 2"):
        module.run()


def test_killed(long: Path, tmp_path: Path) -> None:
    """A HandBrakeCLI that a signal kills is a RunError that names the signal; nothing is left."""

    class Killing(Handbrake):
        def report(self, progress: float | None = None, info: Any = None, *, done: bool = False) -> None:
            super().report(progress, info, done=done)
            if progress is not None:
                psutil.Process().children()[0].kill()

    with pytest.raises(RunError, match=r"HandBrakeCLI was killed by SIGKILL \(killed\)") as caught:
        Killing(task(long, tmp_path / "out.mkv", video=CAREFUL)).run()

    assert caught.value.signal == "SIGKILL"
    assert caught.value.stderr
    assert os.listdir(tmp_path) == []


def test_interrupted(long: Path, tmp_path: Path) -> None:
    """A run that is asked to stop takes HandBrakeCLI and the unfinished file with it; the old file stays."""
    target = tmp_path / "out.mp4"
    target.write_text("old")
    temporary = Output(str(target)).temporary
    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Handbrake(task(long, target, video=CAREFUL)).run()

    assert psutil.Process().children() == []
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert target.read_text() == "old"


def test_crash(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HandBrakeCLI that crashes is named with its signal, and not stdbuf that started it."""
    stand_in(tmp_path / "bin", "kill -SEGV $$", monkeypatch)
    with pytest.raises(
        RunError, match=r"^HandBrakeCLI was killed by SIGSEGV \(segmentation fault\); the command was: H"
    ):
        Handbrake(task(film, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_vanishing_directory(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target directory that vanishes while HandBrakeCLI is at work is an error."""
    (tmp_path / "there").mkdir()
    stand_in(tmp_path / "bin", f"rm -r {tmp_path}/there; echo '{DONE}'", monkeypatch)

    with pytest.raises(RunError, match=r"^HandBrakeCLI exited with status 0, but there is no output; the command"):
        Handbrake(task(film, tmp_path / "there" / "out.mkv")).run()


@pytest.mark.parametrize("lines", ["true", 'echo \'{"State": "WORKDONE"}\'; echo part >"$output"'])
def test_no_work_done(lines: str, tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 0 without a `WORKDONE` is a failure, even with a file."""
    stand_in(tmp_path / "bin", lines, monkeypatch)
    with pytest.raises(RunError, match=r"^HandBrakeCLI exited with status 0, but there is no output"):
        Handbrake(task(film, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == ["bin"]


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Bounds the bytes of each file: what is over that, the kernel refuses as on a full disk."""
    path = shlex.quote(os.environ["PATH"])
    stand_in(tmp_path / "bin", f"trap '' XFSZ; PATH={path} exec HandBrakeCLI \"$@\"", monkeypatch)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("target", "missing"),
    [("out.mkv", 200), *(pytest.param(*case, marks=SLOW) for case in [("out.mkv", 20_000), ("out.mp4", 200)])],
)
def test_full_disk(target: str, missing: int, film: Path, tmp_path: Path, small_disk: Callable[[int], None]) -> None:
    """That there was no more room comes first in the error, even if HandBrakeCLI exits with 0, as for the end alone."""
    data = task(film, tmp_path / target, source={"stop_at": {"seconds": 2}})
    Handbrake(data).run()
    small_disk((tmp_path / target).stat().st_size - missing)
    (tmp_path / target).unlink()
    with pytest.raises(RunError, match=f"^{tmp_path}/{target}: cannot be written: File too large"):
        Handbrake(data).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_unfinished_output(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Matroska file whose end could not be written is an error, even if there is room again."""
    unfinished = tmp_path / "bin" / "unfinished.mkv"
    lines = f"""cp {unfinished} "$output"; echo '{DONE}'"""
    stand_in(tmp_path / "bin", lines, monkeypatch)
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-c", "copy", "-live", "1"]
    subprocess.run([*argv, str(unfinished)], check=True)  # as live streams, which state none either
    with pytest.raises(RunError, match="the output states no duration"):
        Handbrake(task(film, tmp_path / "out.mkv")).run()

    assert os.listdir(tmp_path) == ["bin"]


def test_asks_with_sigint(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HandBrakeCLI is asked to stop with the signal on which it closes its files."""
    log = tmp_path / "log"
    lines = f"trap 'echo INT >{log}; exit 1' INT; trap 'echo TERM >{log}; exit 1' TERM; echo something >\"$output\""
    stand_in(tmp_path / "bin", f"{lines}; while :; do sleep 0.02; done", monkeypatch)
    temporary = Output(str(tmp_path / "out.mp4")).temporary

    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Handbrake(task(film, tmp_path / "out.mp4")).run()

    assert log.read_text() == "INT\n"


@pytest.mark.slow
def test_stale_temporaries(film: Path, tmp_path: Path) -> None:
    """What a killed process left goes with the next run of the same target, and with the job's own cleanup."""
    data = task(film, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}})
    Path(Output(data["output_file"], tag="killed").temporary).touch()
    carry_out(data)
    Path(Output(data["output_file"]).temporary).touch()

    Handbrake(data).cleanup()

    assert os.listdir(tmp_path) == ["out.mkv"]


def test_missing_tools(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not installed are named before anything runs, and also if they vanish afterwards."""
    module = Handbrake(task(film, tmp_path / "out.mkv"))
    module.validate()
    monkeypatch.setenv("PATH", str(tmp_path))

    message = refusal(task(film, tmp_path / "none" / "out.mkv"))

    assert "HandBrakeCLI is not installed, or not on PATH (install handbrake-cli); ffprobe is not installed" in message
    assert f"there is no directory {tmp_path}/none" in message
    for step in (module.run, module.plan):
        with pytest.raises((RunError, ValidationError), match="HandBrakeCLI is not installed"):
            step()


# --- validation ---

NOT_HERE = "not allowed here: the module gives {} itself, or HandBrakeCLI would not encode"


def test_all_problems_at_once(film: Path, tmp_path: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    data = task(
        tmp_path / "none.mkv",
        tmp_path / "no" / "out.mkv",
        video={"encoder": "x266", "qualty": 20},
        audio={"aencoder": ["opus", "oops"], "audio_fallback": "spam"},
        destination={"format": "av_avi"},
        subtitles={"srt_file": [str(tmp_path / "none.srt"), str(film)]},
        general={"preset": "Fast 1080p31", "preset_export": "x"},
    )

    assert refusal(data).split("; ") == [
        "video_options.encoder: this HandBrakeCLI has no 'x266' (did you mean 'x265'?)",
        "video_options.qualty: HandBrakeCLI knows no such option (did you mean 'quality'?)",
        "audio_options.aencoder: this HandBrakeCLI has no 'oops' (did you mean 'opus'?)",
        "audio_options.audio_fallback: this HandBrakeCLI has no 'spam'",
        "destination_options.format: this HandBrakeCLI has no 'av_avi' (did you mean 'av_mkv'?)",
        f"general_options.preset_export: {NOT_HERE.format('--preset-export')}",
        "general_options.preset: HandBrakeCLI refuses it: Invalid preset Fast 1080p31",
        f"source: {tmp_path}/none.mkv: no such file",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        f"subtitles_options.srt_file: {tmp_path}/none.srt: no such file",
    ]


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"source": {"input": "x"}}, f"source.input: {NOT_HERE.format('--input')}"),
        ({"destination": {"output": "x"}}, f"destination.output: {NOT_HERE.format('--output')}"),
        ({"source": {"scan": True}}, f"source.scan: {NOT_HERE.format('--scan')}"),
        (
            {"general": {"queue_import_file": "x"}},
            f"general.queue_import_file: {NOT_HERE.format('--queue-import-file')}",
        ),
        ({"destination": {"outp": "x"}}, "destination.outp: {unknown} (did you mean 'output'?)"),
        ({"destination": {"output=x": True}}, "destination.output=x: {unknown} (did you mean 'output'?)"),
        ({"destination": {"optimize": "--output=x"}}, "destination.optimize: --optimize takes no such value"),
        ({"video": {"x264_preset": "--output=x"}}, "video.x264_preset: --x264-preset takes no such value"),
        ({"video": {"quality": True}}, "video.quality: expected a value, got true: --quality needs one"),
        ({"filters": {"hqdn3d": "spam"}}, "filters.hqdn3d: HandBrakeCLI refuses it: Invalid hqdn3d option spam"),
        ({"filters": {"pad": {"width": "x"}}}, "filters.pad: HandBrakeCLI refuses it: Invalid pad option width=x"),
        (
            {"filters": {"hqdn3d": {"preset": "light", "y_spatial": 1}}},
            "filters.hqdn3d: expected either settings, or custom, or preset",
        ),
        ({"general": {"dvdnav": True}}, "general.dvdnav: {unknown} (did you mean 'no_dvdnav'?)"),
        ({"video": {"encoder": "nvenc_h264"}}, "video.encoder: this HandBrakeCLI has no 'nvenc_h264'"),
        ({"audio": {"aencoder": ["copy:spam"]}}, "audio.aencoder: this HandBrakeCLI has no 'copy:spam'{mp3}"),
    ],
)
def test_bad_options(sections: dict[str, Any], problem: str) -> None:
    """Options that would not do what they are there for."""
    section, rest = problem.split(".", 1)
    rest = rest.format(unknown="HandBrakeCLI knows no such option", mp3=" (did you mean 'copy:mp3'?)")

    with pytest.raises(ValidationError) as caught:
        later(**sections).validate()

    assert caught.value.message == f"{section}_options.{rest}"


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"audio": {"audio": [1, 3]}}, "audio_options.audio: 3, but {film} has only audio tracks 1 to 2"),
        ({"audio": {"audio": "0,1"}}, "audio_options.audio: 0, but {film} has only audio tracks 1 to 2"),
        (
            {"subtitles": {"subtitle": ["scan", 7]}},
            "subtitles_options.subtitle: 7, but {film} has only subtitle tracks 1 to 2",
        ),
    ],
)
def test_missing_tracks(sections: dict[str, Any], problem: str, film: Path, tmp_path: Path) -> None:
    """Tracks that the source lacks, of which HandBrakeCLI would at most leave a note in its log."""
    assert refusal(task(film, tmp_path / "out.mkv", **sections)) == problem.format(film=film)


@pytest.mark.parametrize(
    ("sections", "warning"),
    [
        (
            {"audio": {"audio": [1], "aencoder": ["fdk_aac"]}},
            "audio_options.aencoder: this HandBrakeCLI does not list 'fdk_aac', and may take another encoder in its "
            "place",
        ),
        (
            {"destination": {"format": "av_mp4"}},
            "output_file: out.mkv: will be av_mp4, which its extension contradicts",
        ),
    ],
)
def test_odd_options(sections: dict[str, Any], warning: str) -> None:
    """What HandBrakeCLI may take for something else than it was meant for works, and is on the record."""
    module = later(**sections)

    module.validate()

    assert module.sisyphus_warnings == (warning,)


@pytest.mark.parametrize(
    "sections",
    [
        {"video": {"encoder": "ffmpeg4"}},
        {"video": {"encoder": "X264"}, "destination": {"format": "mkv"}},
        {"audio": {"aencoder": "OPUS,copy:aac,none", "audio_fallback": "AV_AAC"}},
        {"video": {"x264_preset": "fast", "audio": [1]}},
        {"general": {"preset": "General/Fast 1080p30"}},
        {"audio": {"audio": None}, "subtitles": {"subtitle": None}},
        {"audio": {"arate": [48], "audio": "none"}, "source": {"min_duration": 1, "chapters": 2}},
        {"video": {"vfr": False}, "audio": {"all_audio": False, "audio": False}},
    ],
)
def test_good_options(sections: dict[str, Any]) -> None:
    """Older versions' names, any case, presets by their path, null for none, and false for what has no opposite."""
    module = later(**sections)

    module.validate()

    assert module.sisyphus_warnings == ()


@pytest.mark.slow
def test_imported_preset(film: Path, tmp_path: Path) -> None:
    """A preset may be one that a file brings, which has to be there."""
    presets = tmp_path / "-my own.json"
    argv = ["HandBrakeCLI", "--preset", "Fast 1080p30", "--preset-export", "My Own", "--preset-export-file"]
    subprocess.run([*argv, str(presets)], check=True, capture_output=True)
    general = {"preset_import_file": str(presets), "preset": "My Own"}

    Handbrake(task(film, tmp_path / "out.mkv", general=general)).validate()

    assert (
        refusal(task(film, tmp_path / "out.mkv", general=general | {"preset": "Your Own"}))
        == "general_options.preset: HandBrakeCLI refuses it: Invalid preset Your Own"
    )
    presets.unlink()
    assert refusal(task(film, tmp_path / "out.mkv", general=general)) == (
        f"general_options.preset_import_file: {presets}: no such file"
    )


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        ({}, ["missing key 'source'", "missing key 'output_file'"]),
        ({"source": "a", "output_file": "b", "sorce": 1}, ["sorce: unknown key (did you mean 'source'?)"]),
        ({**task("a", "b"), "vidoe_options": {}}, ["vidoe_options: unknown key (did you mean 'video_options'?)"]),
        (task("a", "b", video={"qualty": None}), ["video_options.qualty: HandBrakeCLI knows no such option"]),
        (
            {"source": "", "output_file": [], "video_options": []},
            [
                "output_file: expected a string, got a list",
                "source: expected a string that is not empty",
                "video_options: expected an object, got a list",
            ],
        ),
        (
            task("a", "b", video={"quality": None, "encopts": {"a=b": 1}}, audio={"audio": [1, None]}),
            [
                "audio_options.audio[1]: expected a string, a number or true or false, got null",
                'video_options.encopts: "a=b" is no setting\'s name (no white space, colon and equals sign)',
                "video_options.quality: expected a string, a number, true or false, a list or an object, got null",
            ],
        ),
        (
            task("a", "b", source={"start_at": {}, "stop_at": {"seconds": 1, "frames": 2}}),
            [
                "source_options.start_at: expected 'seconds', 'frames', 'pts' or 'duration'",
                "source_options.stop_at: fits more than one form, expected one of seconds, frames and pts",
            ],
        ),
        (
            task("a", "b", picture={"crop": {"up": 1, "top": -1}}, source={"start_at": {"minutes": 1}}),
            [
                "picture_options.crop.up: unknown key (known: top, bottom, left, right)",
                "picture_options.crop.top: expected 0 or more, got -1",
            ],
        ),
    ],
)
def test_schema(data: dict[str, Any], problems: list[str]) -> None:
    """Data of the wrong form is reported with the path to each fault."""
    message = refusal(data)

    for problem in problems:
        assert problem in message


@pytest.mark.parametrize(
    "data",
    [
        task("a\0b", "c\0d"),
        task("\ud800", "\ud900"),
        task("a" * 100_000, "b" * 100_000),
        task("a", "b", items={}, video={"items": {}, "keys": 1, "_box_config": 2}),
        task("a", "b", video={"quality": math.inf, "rate": math.nan, "encoder": {"x": 1}, "x" * 10_000: 1}),
        task("a", "b", subtitles={"srt_file": True, "subtitle": {"a": 1}}, audio={"audio": {"a": 1}, "aencoder": {}}),
    ],
)
def test_odd_data(data: dict[str, Any]) -> None:
    """Odd data is a ValidationError and never another."""
    assert refusal(data)


def test_output_is_a_source(film: Path, tmp_path: Path) -> None:
    """An output that is a source, by whatever name, is an error."""
    link = tmp_path / "link.mkv"
    link.symlink_to(film)

    assert refusal(task(film, link)) == f"output_file: {link} is also source"
    assert f"output_file: {link} is also subtitles_options.srt_file" in refusal(
        task(tmp_path / "a.mkv", link, subtitles={"srt_file": [str(film)]})
    )


def test_no_media(tmp_path: Path) -> None:
    """A source in which HandBrakeCLI finds nothing to encode is an error before anything runs."""
    source = tmp_path / "text.mkv"
    source.write_text("no film")

    assert refusal(task(source, tmp_path / "out.mkv")) == f"source: {source}: HandBrakeCLI finds no title in it"


def test_special_target(film: Path, tmp_path: Path) -> None:
    """A device or a pipe is not overwritten."""
    os.mkfifo(tmp_path / "pipe")

    assert "pipe: is no regular file (a device or a pipe)" in refusal(task(film, tmp_path / "pipe"))


def test_pipe_as_source(tmp_path: Path) -> None:
    """A pipe can be read but once, and an empty one not even that: nobody waits for it."""
    os.mkfifo(tmp_path / "pipe")
    data = task(tmp_path / "pipe", tmp_path / "out.mkv")

    assert refusal(data) == f"source: {tmp_path}/pipe: is a pipe or a device, which HandBrakeCLI cannot read twice"
    with pytest.raises(RunError, match="is a pipe or a device"):
        Handbrake(data).run()


def test_source_that_will_be_filled(tmp_path: Path) -> None:
    """A directory into which an earlier task writes is not looked into before."""
    directory = tmp_path / "disc"
    directory.mkdir()
    module = Handbrake(task(directory, tmp_path / "out.mkv"))

    assert refusal(task(directory, tmp_path / "out.mkv")) == f"source: {directory}: HandBrakeCLI finds no title in it"
    module.sisyphus_files = {location(str(directory / "a.mkv")): True}
    module.validate()


def test_files_of_earlier_tasks(tmp_path: Path) -> None:
    """A source or a directory that an earlier task makes need not be there yet."""
    module = Handbrake(task(tmp_path / "soon.mkv", tmp_path / "new" / "out.mkv"))
    module.sisyphus_files = {
        location(str(tmp_path / "soon.mkv")): True,
        location(str(tmp_path / "new" / "other")): True,
    }

    module.validate()


# --- whole jobs ---


@pytest.fixture
def client(supervised: Supervised) -> Supervised:
    """A client with the module enabled."""
    supervised.configure({"max_attempts": 1}, modules={"handbrake": "modules.handbrake.Handbrake"})
    return supervised


def test_problems_of_options_and_of_the_source_at_once(film: Path, tmp_path: Path) -> None:
    """The source is looked into even if the options are wrong."""
    sections = {"source": {"input": "x", "title": True}, "video": {"encoder": "x266"}, "audio": {"audio": [3]}}

    assert refusal(task(film, tmp_path / "out.mkv", **sections)).split("; ") == [
        f"source_options.input: {NOT_HERE.format('--input')}",
        "source_options.title: expected a value, got true: --title needs one",
        "video_options.encoder: this HandBrakeCLI has no 'x266' (did you mean 'x265'?)",
        f"audio_options.audio: 3, but {film} has only audio tracks 1 to 2",
    ]


def test_job(client: Supervised, film: Path, tmp_path: Path) -> None:
    """An encode whose output a later task moves away; what its dry run prints is what it starts."""
    data = task(film, "out.mkv", source={"stop_at": {"seconds": 1}}, audio={"audio": [2]})
    document = job(("handbrake", data), ("cleanup", {"move": [{"source": "out.mkv", "destination": "done/"}]}))

    plan = client.run(document, "--dry-run")
    record = client.record(document)

    assert plan.stdout.startswith("stdbuf -oL HandBrakeCLI --json --input")
    assert record["completed"], record
    assert os.listdir(tmp_path / "done") == ["out.mkv"]
    assert "out.mkv" not in os.listdir(tmp_path)


def test_job_explains_a_failure(client: Supervised, film: Path) -> None:
    """What HandBrakeCLI said is on the job's record, and the command line in the message."""
    error = client.record(job(("handbrake", task(film, "out.mkv", video={"encoder_level": "9.9"}))))["error"]

    assert (error["type"], error["reason"], error["exit_status"]) == ("RunError", "exit", 3)
    assert error["message"].startswith("HandBrakeCLI exited with status 3: ")
    assert "; the command was: HandBrakeCLI --json --input" in error["message"]
    assert any("Failure to initialise thread" in line for line in error["stderr"])


def test_interrupted_job_leaves_nothing(client: Supervised, long: Path, tmp_path: Path) -> None:
    """An interrupted encode is no success: no file under its name, nor under a temporary one."""
    before = {*os.listdir(tmp_path), "job.json", "state"}
    process = client.start(job(("handbrake", task(long, "out.mp4", video=CAREFUL))), "--json")
    until(lambda: [file for file in tmp_path.glob(".out.*.mp4") if file.stat().st_size], "the encode to be under way")

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()

    assert process.returncode == 130
    assert json.loads(out)["error"]["reason"] == "cancelled"
    assert set(os.listdir(tmp_path)) <= before
