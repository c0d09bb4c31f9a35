"""The command line of the `handbrake` module."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.handbrake import Handbrake
from modules.handbrake.options import handbrake_command, known_options, read_help
from tests.modules.handbrake.scene import LEAD, NEWER, SECTIONS, refusal, task
from tests.modules.steps import put_program


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


def test_newer_version(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version's options are taken, what it has no more is not, and it is asked once."""
    log = tmp_path / "log"
    put_program(tmp_path / "bin", "HandBrakeCLI", NEWER.format(log=log), monkeypatch)
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
    lines = f'[ "$1" = --help ] || exec HandBrakeCLI "$@"\nHandBrakeCLI --help | {more}'
    put_program(tmp_path, "HandBrakeCLI", lines, monkeypatch)

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
    put_program(tmp_path, "HandBrakeCLI", "echo broken >&2", monkeypatch)

    message = refusal(task("in.mkv", "out.mkv"))

    assert "HandBrakeCLI cannot be asked for its options: HandBrakeCLI --help lists no options: broken" in message


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

    argv = handbrake_command(data, known_options(), "in.mkv", "./.out.part.mkv")

    assert argv == LEAD + shlex.split(expected)
