"""What the `handbrake` module finds wrong before it runs."""

import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, ValidationError
from modules.base import location
from modules.handbrake import Handbrake
from tests.modules.handbrake.scene import NOT_HERE, later, refusal, task


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

    assert module.sisyphus_context.warnings == (warning,)


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

    assert module.sisyphus_context.warnings == ()


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
        == "general_options.preset: HandBrakeCLI refuses it: Invalid preset Your Own (the files have My Own)"
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

    assert (
        refusal(data)
        == f"source: {tmp_path}/pipe: is no regular file (a pipe or a device), which can be read once only"
    )
    with pytest.raises(RunError, match="is a pipe or a device"):
        Handbrake(data).run()


def test_source_that_will_be_filled(tmp_path: Path) -> None:
    """A directory into which an earlier task writes is not looked into before."""
    directory = tmp_path / "disc"
    directory.mkdir()
    module = Handbrake(task(directory, tmp_path / "out.mkv"))

    assert refusal(task(directory, tmp_path / "out.mkv")) == f"source: {directory}: HandBrakeCLI finds no title in it"
    module.sisyphus_context.files = {location(str(directory / "a.mkv")): True}
    module.validate()


def test_files_of_earlier_tasks(tmp_path: Path) -> None:
    """A source or a directory that an earlier task makes need not be there yet."""
    module = Handbrake(task(tmp_path / "soon.mkv", tmp_path / "new" / "out.mkv"))
    module.sisyphus_context.files = {
        location(str(tmp_path / "soon.mkv")): True,
        location(str(tmp_path / "new" / "other")): True,
    }

    module.validate()
