"""The command line of the `mkvextract` module."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from modules.mkvextract import Mkvextract, extractions, mkvextract_command
from modules.mkvtoolnix import identify
from modules.output import Output
from tests.modules.mkvextract.scene import EVERYTHING


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            EVERYTHING,
            "tracks 0:video.h264 2:sound.aac 5:subs.srt 3:english.srt attachments 2:note.txt 1:font.ttf "
            "chapters chapters.xml tags tags.xml timestamps_v2 0:times.txt 3:times3.txt cues 0:cues.txt",
        ),
        ({"cues": [{"id": 1, "filename": "a"}], "chapters": "b"}, "chapters b cues 1:a"),
        ({"tracks": [{"id": 1, "track_type": "audio", "filename": "a"}]}, "tracks 2:a"),
        ({"tracks": [{"id": 2, "language": "JPN", "filename": "a"}]}, "tracks 5:a"),  # any of its codes
        ({"tracks": [{"id": 0.0, "track_type": "video", "language": "und", "filename": "a"}]}, "tracks 0:a"),
        ({"tracks": [{"id": 0, "track_type": "subtitles", "filename": "a b'c"}]}, 'tracks "3:a b\'c"'),
        ({"attachments": [], "tags": "new/a"}, "tags new/a"),
    ],
)
def test_arguments(data: dict[str, Any], expected: str, film: Path) -> None:
    """Each kind of task data makes exactly these arguments."""
    wanted = list(extractions(data, identify(str(film))))

    argv = mkvextract_command("film.mkv", wanted, {name: name for each in wanted for name in each.files})

    assert argv == ["mkvextract", "film.mkv", "--gui-mode", *shlex.split(expected)]


@pytest.mark.parametrize(("source", "expected"), [("tracks", "./tracks"), ("@a", "./@a"), ("-a", "./-a"), ("/a", "/a")])
def test_source_argument(source: str, expected: str) -> None:
    """A source that has the name of a mode, or of an option file, is told from it."""
    assert mkvextract_command(source, [], {}) == ["mkvextract", expected, "--gui-mode"]


def test_plan_without_source(here: Path) -> None:
    """Of a source that is not there yet, the plan says which track is meant."""
    tracks = [{"id": 1, "track_type": "subtitles", "language": "jpn", "filename": "a"}, {"id": 7, "filename": "b"}]

    line, *renamings = Mkvextract({"source": "later.mkv", "tracks": tracks}).plan()

    first, second = (Output(name).temporary for name in "ab")
    assert shlex.split(line) == [
        "mkvextract", "later.mkv", "--gui-mode", "tracks", f"<subtitles jpn 1>:{first}", f"7:{second}",
    ]  # fmt: skip
    assert renamings == [f"mv -- {first} a", f"mv -- {second} b"]
