"""What the `handbrake` module finds wrong before it runs."""

from pathlib import Path
from typing import Any

import pytest

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
        {"video": {"encoder": "x264", "encoder_preset": "Fast", "encoder_tune": "film,fastdecode", "quality": "20.5"}},
        {"audio": {"audio": [1, 2], "ab": [128.0, 192], "gain": "-2.5,0"}, "subtitles": {"subtitle": ["scan", 1]}},
        {"source": {"start_at": {"seconds": 1}, "stop_at": {"duration": 1}}, "audio": {"ab": "128, 192"}},
    ],
)
def test_good_options(sections: dict[str, Any]) -> None:
    """Older versions' names, any case, presets by their path, null for none, and false for what has no opposite."""
    module = later(**sections)

    module.validate()

    assert module.sisyphus_context.warnings == ()


def test_source_that_will_be_filled(tmp_path: Path) -> None:
    """A directory into which an earlier task writes is not looked into before."""
    directory = tmp_path / "disc"
    directory.mkdir()
    module = Handbrake(task(directory, tmp_path / "out.mkv"))

    assert refusal(task(directory, tmp_path / "out.mkv")) == f"source: {directory}: HandBrakeCLI finds no title in it"
    module.sisyphus_context.files = {location(str(directory / "a.mkv")): True}
    module.validate()
