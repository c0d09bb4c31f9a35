"""The `handbrake` module, with the real HandBrakeCLI and tiny clips."""

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.exceptions import RunError, ValidationError
from modules import ffmpeg, handbrake
from modules.base import location
from modules.handbrake import Handbrake, Option, Title, arguments, expect, known_options, read_help, window
from modules.output import Output
from tests.media import Interrupted, look, make_clip, terminated_when
from tests.supervised import Supervised, job, until

LEAD = ["stdbuf", "-oL", "HandBrakeCLI", "--json", "--input", "in.mkv", "--output", "./.out.part.mkv"]
FAST = {"encoder": "x264", "encoder_preset": "ultrafast"}

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
    """The options of the installed HandBrakeCLI, with their sections, values and choices."""
    known = known_options()

    assert {option.section for option in known.values()} == {
        f"{name}_options"
        for name in ("general", "source", "destination", "video", "audio", "picture", "filters", "subtitles")
    }
    assert known["max_height"].flag == "--maxHeight"
    assert known["comb_detect"] == Option(
        "--comb-detect", "filters_options", "optional", True, known["comb_detect"].choices
    )
    assert {known[key].section for key in ("vfr", "cfr", "pfr")} == {"video_options"}
    assert {known[key].value for key in ("start_at", "crop", "aname", "normalize_mix", "srt_file", "pad")} == {
        "required"
    }
    assert {known[key].value for key in ("markers", "no_markers", "grayscale", "native_dub")} == {""}
    assert {"x264", "x265", "mpeg4", "VP8"} <= set(known["encoder"].choices)
    assert {"av_aac", "copy", "copy:ac3", "flac16", "opus"} <= set(known["aencoder"].choices)
    assert known["format"].choices == ("av_mp4", "av_mkv", "av_webm")
    assert all(known[key].has_settings for key in ("encopts", "pad", "rotate", "hqdn3d"))
    assert not any(known[key].has_settings for key in ("encoder", "audio", "quality"))


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
    echo
    echo "Dream Options ----------------------------------------------------------------"
    echo
    echo "   --upscaleFactor <number>"
    echo "                           Make it larger"
    echo "       --no-upscaleFactor  Leave it"
    ;;
*) exec "$HandBrakeCLI" "$@" ;;
esac
"""


def test_newer_version(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version's options and sections are taken, what it has no more is not, and it is asked once."""
    program, log = tmp_path / "bin" / "HandBrakeCLI", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(NEWER.format(log=log, path=shlex.quote(os.environ["PATH"])))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    module = Handbrake(task(film, tmp_path / "out.mkv", video={"multi_pass": True}, dream={"upscale_factor": 2}))

    module.validate()

    assert module.plan()[0].endswith("--multi-pass --upscaleFactor 2")
    assert Handbrake(task("a", "b", dream={"upscale_factor": False})).plan()[0].count("--no-upscaleFactor")
    assert log.read_text().splitlines().count("--help") == 1
    assert refusal(task(film, tmp_path / "out.mkv", video={"two_pass": True}, dreams={"upscale_factor": 2})) == (
        "dreams_options: HandBrakeCLI has no such options (did you mean 'dream_options'?); "
        "video_options.two_pass: HandBrakeCLI knows no such option (did you mean 'multi_pass'?)"
    )


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
    assert module.status.task == "handbrake"
    assert module.status.progress == 100
    assert module.sisyphus_warnings == ()


def test_filter_settings_are_taken(film: Path, tmp_path: Path) -> None:
    """A filter's settings arrive: 1.6.1 ignores those that are an argument of their own."""
    carry_out(task(film, tmp_path / "out.mkv", filters={"rotate": {"angle": 90}}))
    video = look(tmp_path / "out.mkv")["streams"][0]

    assert (video["width"], video["height"]) == (120, 160)


def test_two_passes(long: Path, tmp_path: Path) -> None:
    """Over both passes the progress only grows, and stays below 100 until the file has its name."""
    seen: list[tuple[float, bool]] = []
    phases: dict[str, list[float]] = {}

    class Watched(Handbrake):
        def _report(self, *args: Any, **kwargs: Any) -> None:
            super()._report(*args, **kwargs)
            if "progress" in self.status:
                seen.append((self.status.progress, (tmp_path / "out.mkv").exists()))
            if "progress" not in kwargs and self.status.info.phase.startswith("pass"):
                phases.setdefault(self.status.info.phase, []).append(self.status.progress)
                assert all(math.isfinite(value) for key, value in self.status.info.items() if key != "phase")
                assert 0 <= self.status.info.current_frame <= self.status.info.total_frames

    video = {"two_pass": True, "vb": 300, "encoder_preset": "fast"}
    Watched(task(long, tmp_path / "out.mkv", video=video, source={"stop_at": {"seconds": 8}})).run()

    assert list(phases) == ["pass 1 of 2", "pass 2 of 2"]
    assert max(phases["pass 1 of 2"]) <= 50 <= min(phases["pass 2 of 2"])
    assert seen == sorted(seen)
    assert [exists for percent, exists in seen if percent < 100] == [False] * (len(seen) - 1)
    assert seen[-1] == (100, True)


@pytest.mark.parametrize("name", ["quote'\" .mkv", "new\nline.mkv", "-dash$(x).mkv", "co:lon.mkv", "\udcff.mkv"])
def test_odd_names(name: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and outputs of odd names work, in the working directory too."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.symlink(film, name)

    carry_out(task(name, name + " out.mkv", source={"stop_at": {"seconds": 1}}))

    assert sorted(os.listdir()) == sorted([name, name + " out.mkv"])
    assert sorted(os.listdir(tmp_path)) == ["here"]


def test_plan_of_odd_names(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where HandBrakeCLI has to be given a link, the plan makes one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    link, line, _ = Handbrake(task("/films/\udcff.mkv", tmp_path / "out.mkv")).plan()
    made = shlex.split(link)

    assert made[:4] == ["ln", "-s", "--", "/films/\udcff.mkv"]
    assert os.path.dirname(made[4]) == str(tmp_path)
    assert made[4].endswith(".mkv")
    assert shlex.split(line)[4:6] == ["--input", made[4]]


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


@pytest.mark.parametrize("source", [{"start_at": {"frames": 25}, "stop_at": {"frames": 50}}, {"chapters": "2"}])
def test_parts(source: dict[str, Any], film: Path, tmp_path: Path) -> None:
    """Encodes of a part of the source pass, and are as long as expected."""
    title = Title(str(film), 4.0, 2, 2, (1.0, 2.0, 1.0))
    strict, hoped = expect({**source, "audio": [1]}, title, ffmpeg.probe(str(film)))

    carry_out(task(film, tmp_path / "out.mkv", source=source, audio={"audio": [1]}))

    assert strict.lengths == {}
    assert strict.streams == hoped.streams == {"video": 1, "audio": 1}
    assert hoped.lengths == {"video": pytest.approx(2, abs=0.1), "audio": pytest.approx(2, abs=0.1)}
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


def test_track_that_cannot_be_copied(film: Path, tmp_path: Path) -> None:
    """A track that HandBrakeCLI leaves out because it cannot copy it is a warning."""
    module = carry_out(task(film, tmp_path / "out.mkv", audio={"audio": [1, 2], "aencoder": ["copy:truehd", "opus"]}))

    assert kinds(tmp_path / "out.mkv") == ["video", "audio"]
    assert module.sisyphus_warnings == ("the output has 1 audio streams of 2",)


# --- progress ---


def object_of(state: str, **details: Any) -> list[str]:
    """An object as HandBrakeCLI prints it."""
    names = {"SEARCHING": "Working", "WORKDONE": "WorkDone"}
    return f"Progress: {json.dumps({'State': state, names.get(state, state.title()): details}, indent=4)}".splitlines()


def reports(*objects: list[str], frame_rate: float | None = 25.0, frames: int = 0) -> list[Any]:
    """What the lines of the objects make of the progress and the information."""
    told: list[Any] = []
    progress = handbrake._Progress(frame_rate, lambda percent, info: told.append((percent, info)))
    if frames:
        progress.take_log(f"[12:00:00] sync: expecting {frames} video frames")
    for lines in objects:
        for line in lines:
            progress.take(line)
    return [*told, progress.error]


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
        (None, {"phase": "muxing"}),
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
        {"Progress": "x", "Pass": None, "PassCount": [], "Rate": {}, "RateAvg": "5", "ETASeconds": True},
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
        match=rf"^HandBrakeCLI exited with status 0, but has encoded nothing: {reason}; the command was: HandBrakeCLI ",
    ) as caught:
        Handbrake(task(film, tmp_path / "out.mkv", **sections)).run()

    assert caught.value.exit_status == 0
    assert os.listdir(tmp_path) == []


def test_refused_by_the_encoder(film: Path, tmp_path: Path) -> None:
    """An exit status goes on the record, with the lines that tell why at the end of the log."""
    with pytest.raises(RunError, match=r"HandBrakeCLI exited with status 3: x264 \[error\]: invalid preset") as caught:
        carry_out(task(film, tmp_path / "out.mkv", video={"encoder_preset": "spam"}))

    assert caught.value.exit_status == 3
    assert caught.value.stderr[-1].startswith("ERROR: Failure to initialise thread")
    assert os.listdir(tmp_path) == []


def test_truncated_source(film: Path, tmp_path: Path) -> None:
    """A source that ends in the middle is an error, though HandBrakeCLI says all is well; nothing is left."""
    half = tmp_path / "half.mkv"
    half.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(RunError, match=r"the source is cut short: .* File ended prematurely"):
        carry_out(task(half, tmp_path / "out.mkv"))
    with pytest.raises(RunError, match=r"the output is cut short: \d\.\d s of video where 3\.\d s were expected"):
        carry_out(task(half, tmp_path / "out.mkv", source={"stop_at": {"seconds": 3.5}}))

    assert os.listdir(tmp_path) == ["half.mkv"]


def test_part_of_a_truncated_source(film: Path, tmp_path: Path) -> None:
    """A part that is there can be encoded, whatever becomes of the rest."""
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size * 3 // 4])

    carry_out(task(cut, tmp_path / "out.mkv", source={"stop_at": {"seconds": 1}}))

    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.2)


def test_part_with_a_long_frame(film: Path, tmp_path: Path) -> None:
    """A part that ends where the picture stands still for long is a good encode, and at most odd."""
    still = tmp_path / "still.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-vf", "select='lt(t,1)+gt(t,3)'"]
    subprocess.run([*argv, "-fps_mode", "vfr", "-c:v", "libx264", str(still)], check=True)

    module = carry_out(task(still, tmp_path / "out.mkv", source={"stop_at": {"seconds": 2.5}}))

    assert [warning[:24] for warning in module.sisyphus_warnings] == ["the output is cut short:"]


def test_late_timestamps(film: Path, tmp_path: Path) -> None:
    """A source whose timestamps begin late is as long as any other."""
    late = tmp_path / "late.mkv"
    argv = ["ffmpeg", "-v", "error", "-i", str(film), "-map", "0:v", "-c", "copy", "-output_ts_offset", "100"]
    subprocess.run([*argv, str(late)], check=True)

    module = carry_out(task(late, tmp_path / "out.mkv"))

    assert duration(tmp_path / "out.mkv") == pytest.approx(4, abs=0.2)
    assert module.sisyphus_warnings == ()


def test_truncated_mp4(tmp_path: Path) -> None:
    """An MP4 that ends in the middle is an error too."""
    whole = make_clip(tmp_path / "whole.mp4", seconds=4, options=("-movflags", "+faststart"))
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="cut short"):
        carry_out(task(whole, tmp_path / "out.mkv"))

    assert os.listdir(tmp_path) == ["whole.mp4"]


def test_audio_that_does_not_fit(film: Path, tmp_path: Path) -> None:
    """Audio that HandBrakeCLI leaves out, with no word but in its log, is an error that repeats it."""
    audio = {"audio": [1, 2], "aencoder": ["vorbis", "vorbis"]}
    with pytest.raises(
        RunError, match="the output has 0 audio streams of 2: ERROR: track 1: incompatible encoder 'vorbis'"
    ):
        carry_out(task(film, tmp_path / "out.mp4", audio=audio, source={"stop_at": {"seconds": 1}}))

    assert os.listdir(tmp_path) == []


def test_start_after_the_end(film: Path, tmp_path: Path) -> None:
    """The file without frames that HandBrakeCLI writes then is no success."""
    with pytest.raises(RunError, match="the output cannot be read"):
        carry_out(task(film, tmp_path / "out.mkv", source={"start_at": {"seconds": 100}}))

    assert os.listdir(tmp_path) == []


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
        def _report(self, *args: Any, **kwargs: Any) -> None:
            super()._report(*args, **kwargs)
            if "progress" in self.status:
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


ASKED = """#!/bin/sh
case $* in
--help) PATH={path} exec HandBrakeCLI --help ;;
*--scan*) exit 0 ;;
esac
trap 'echo INT >{log}; exit 1' INT
trap 'echo TERM >{log}; exit 1' TERM
for argument; do
    [ "$previous" = --output ] && echo something >"$argument"
    previous=$argument
done
while :; do sleep 0.02; done
"""


def test_asks_with_sigint(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HandBrakeCLI is asked to stop with the signal on which it closes its files."""
    program, log = tmp_path / "bin" / "HandBrakeCLI", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(ASKED.format(log=log, path=shlex.quote(os.environ["PATH"])))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    temporary = Output(str(tmp_path / "out.mp4")).temporary

    with terminated_when(f"[ -s '{temporary}' ]"), pytest.raises(Interrupted):
        Handbrake(task(film, tmp_path / "out.mp4")).run()

    assert log.read_text() == "INT\n"


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

WOULD_NOT = "not allowed here: HandBrakeCLI would not encode"


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
        f"source: {tmp_path}/none.mkv: no such file",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        f"subtitles_options.srt_file: {tmp_path}/none.srt: no such file",
        "video_options.encoder: this HandBrakeCLI has no 'x266' (did you mean 'x265'?)",
        "video_options.qualty: HandBrakeCLI knows no such option (did you mean 'quality'?)",
        "audio_options.aencoder: this HandBrakeCLI has no 'oops' (did you mean 'opus'?)",
        "audio_options.audio_fallback: this HandBrakeCLI has no 'spam'",
        "destination_options.format: this HandBrakeCLI has no 'av_avi' (did you mean 'av_mkv'?)",
        f"general_options.preset_export: {WOULD_NOT}",
        "general_options.preset: HandBrakeCLI has no preset 'Fast 1080p31' (did you mean 'Fast 1080p30'?)",
    ]


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"source": {"input": "x"}}, "source.input: not allowed here: the module gives --input itself"),
        ({"destination": {"output": "x"}}, "destination.output: not allowed here: the module gives --output itself"),
        ({"general": {"json": True}}, "general.json: not allowed here: the module gives --json itself"),
        ({"source": {"scan": True}}, "source.scan: {would_not}"),
        ({"source": {"title": 0}}, "source.title: {would_not}"),
        ({"general": {"queue_import_file": "x"}}, "general.queue_import_file: {would_not}"),
        ({"video": {"encoder_preset_list": "x264"}}, "video.encoder_preset_list: {would_not}"),
        ({"video": {"quality": True}}, "video.quality: expected a value, got true: --quality needs one"),
        ({"video": {"quality": {"x": 1}}}, "video.quality: expected a value, got an object: --quality has no settings"),
        (
            {"filters": {"hqdn3d": {"preset": "light", "y_spatial": 1}}},
            "filters.hqdn3d: expected either settings, or custom, or preset",
        ),
        (
            {"general": {"dvdnav": True}},
            "general.dvdnav: HandBrakeCLI knows no such option (did you mean 'no_dvdnav'?)",
        ),
    ],
)
def test_bad_options(sections: dict[str, Any], problem: str) -> None:
    """Options that would not do what they are there for."""
    section, rest = problem.format(would_not=WOULD_NOT).split(".", 1)

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
        ({"video": {"audio": [1]}}, "video_options.audio belongs in audio_options"),
        (
            {"destination": {"markers": "chapters.csv"}},
            "destination_options.markers: HandBrakeCLI shows no value for --markers, and may ignore 'chapters.csv'",
        ),
        (
            {"destination": {"optimize": 1}},
            "destination_options.optimize: HandBrakeCLI shows no value for --optimize, and may ignore '1'",
        ),
        (
            {"audio": {"audio": [1], "aencoder": ["fdk_aac"]}},
            "audio_options.aencoder: this HandBrakeCLI has no fdk_aac, and takes another encoder in its place",
        ),
        (
            {"audio": {"audio": [1], "aname": ['"x"']}},
            "audio_options.aname: HandBrakeCLI takes no double quotes in a list: they are left out",
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
        {"audio": {"aencoder": "faac,copy:aac,none", "audio_fallback": "AV_AAC"}},
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


def test_imported_preset(film: Path, tmp_path: Path) -> None:
    """A preset may be one that a file brings, which has to be there."""
    presets = tmp_path / "-my own.json"
    argv = ["HandBrakeCLI", "--preset", "Fast 1080p30", "--preset-export", "My Own", "--preset-export-file"]
    subprocess.run([*argv, str(presets)], check=True, capture_output=True)
    general = {"preset_import_file": str(presets), "preset": "My Own"}

    Handbrake(task(film, tmp_path / "out.mkv", general=general)).validate()

    assert "has no preset 'Your Own' (did you mean 'My Own'?)" in refusal(
        task(film, tmp_path / "out.mkv", general=general | {"preset": "Your Own"})
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
        "source_options.input: not allowed here: the module gives --input itself",
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
    error = client.record(job(("handbrake", task(film, "out.mkv", video={"encoder_tune": "spam"}))))["error"]

    assert (error["type"], error["reason"], error["exit_status"]) == ("RunError", "exit", 3)
    assert error["message"].startswith("HandBrakeCLI exited with status 3: x264 [error]: invalid tune 'spam'")
    assert "; the command was: HandBrakeCLI --json --input" in error["message"]
    assert any("invalid tune" in line for line in error["stderr"])


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
