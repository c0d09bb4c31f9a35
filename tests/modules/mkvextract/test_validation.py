"""What the `mkvextract` module finds wrong before it runs."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.base import location
from modules.mkvextract import Mkvextract
from tests.modules.mkvextract.scene import problems, refusal, sound


def test_all_problems_at_once(here: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    data = {
        "source": "none.mkv",
        "tracks": [{"id": 0, "filename": "no/a"}, {"id": 0, "filename": "./x"}, {"id": 1, "filename": "x"}],
        "attachments": [{"id": 1, "filename": "."}],
        "chapters": "pipe",
        "tags": "none.mkv",
        "timestamps": [{"id": 0, "filename": "link"}],
    }
    Path("link").symlink_to("x")
    os.mkfifo("pipe")

    assert problems(data) == [
        "source: none.mkv: no such file",
        "tracks[0]: no/a: there is no directory no",
        "tracks[1]: is the same as tracks[0], and mkvextract extracts nothing twice",
        "tracks[2]: x is written by tracks[1] already",
        "attachments[0]: .: is a directory",
        "chapters: pipe: is no regular file (a device or a pipe): it is not replaced",
        "tags: none.mkv is also the source",
        "timestamps[0]: link is written by tracks[1] already",
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "missing key 'source'"),
        ({"source": "a"}, "expected 'tracks', 'attachments', 'chapters', 'tags', 'timestamps' or 'cues'"),
        ({"source": "a", "tracks": []}, "there is nothing to extract"),
        ({"source": "a", "chapter": "b"}, "chapter: unknown key (did you mean 'chapters'?)"),
        ({"source": "a", "tracks": [{"id": 0, "filname": "b"}]}, "tracks[0].filname: unknown key (did you mean 'file"),
        ({"source": "a", "tracks": [{"id": 0, "filname": "b"}]}, "tracks[0]: missing key 'filename'"),
        (
            {"source": "a", "tracks": [{"id": 0, "track_type": "subtitle", "filename": "b"}]},
            'tracks[0].track_type: expected "video", "audio", "subtitles" or "buttons", got "subtitle"',
        ),
        ({"source": "a", "tracks": [{"id": "0", "filename": "b"}]}, 'tracks[0].id: expected a whole number, got "0"'),
        ({"source": "a", "tracks": [{"id": -1, "filename": "b"}]}, "tracks[0].id: expected 0 or more, got -1"),
        ({"source": "a", "attachments": [{"id": 0, "filename": "b"}]}, "attachments[0].id: expected 1 or more, got 0"),
        ({"source": "a", "cues": [{"id": 0, "filename": "b", "language": "jpn"}]}, "cues[0].language: unknown key"),
        ({"source": "a", "chapters": ["b"]}, "chapters: expected a string, got a list"),
        ({"source": "a\0", "tags": "\ud800"}, "source: expected text without NUL"),
        ({"source": "a" * 100_000, "tags": "b"}, "file name too long"),
    ],
)  # fmt: skip
def test_bad_data(data: dict[str, Any], problem: str) -> None:
    """Data that is not as it should be is a ValidationError that says where."""
    assert problem in refusal(data)


def test_files_of_earlier_tasks(here: Path) -> None:
    """What an earlier task makes need not be there yet; what it will change is not judged by what it is now."""
    Path("there.mkv").write_text("no film yet")
    for name in ("soon.mkv", "there.mkv"):
        module = Mkvextract({"source": name, "tracks": [{"id": 9, "track_type": "video", "filename": "new/a"}]})
        module.sisyphus_context.files = {location(each): True for each in ("soon.mkv", "there.mkv", "new/other")}

        module.validate()


def test_missing_tools(film: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not installed are named before anything runs, and also if they vanish afterwards."""
    module = Mkvextract(sound(film, "a"))
    module.validate()
    monkeypatch.setenv("PATH", str(here))

    assert refusal(sound(film, "a")) == (
        "mkvextract is not installed, or not on PATH (install mkvtoolnix); "
        "mkvmerge is not installed, or not on PATH (install mkvtoolnix)"
    )
    with pytest.raises(RunError, match=r"^mkvmerge is not installed, or not on PATH"):
        module.run()
