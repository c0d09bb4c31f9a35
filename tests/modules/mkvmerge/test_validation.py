"""What the `mkvmerge` module finds wrong before it runs."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.base import location
from modules.mkvmerge import Mkvmerge
from tests.modules.mkvmerge.scene import listed, problems, refusal, task, with_source, with_track


def test_all_problems_at_once(film: Path, tmp_path: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    (tmp_path / "text").write_text("no film")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    names = [tmp_path / "none.mkv", tmp_path, tmp_path / "text", tmp_path / "pipe"]
    data = {
        "sources": [*({"filename": str(name)} for name in names), {"filename": str(film), "options": {"split": 1}}],
        "tracks": [{"source": 4, "track": 9}, {"source": 5, "track": 0}, {"source": 0, "track": 7}],
        "options": {"split": "10s", "redirect-output": "x"},
        "attachments": [{"filename": f"{tmp_path}/none.ttf"}, {"filename": f"{tmp_path}/empty"}],
        "attachment_directories": [f"{tmp_path}/none", f"{tmp_path}/text"],
        "output_file": f"{tmp_path}/no/out.mkv",
    }

    assert problems(data) == [
        f"sources[0].filename: {tmp_path}/none.mkv: no such file",
        f"sources[1].filename: {tmp_path}: is a directory",
        f"sources[3].filename: {tmp_path}/pipe: is no regular file (a pipe or a device), which can be read once only",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        f"attachments[0].filename: {tmp_path}/none.ttf: no such file",
        f"attachments[1].filename: {tmp_path}/empty: is empty, which mkvmerge does not attach",
        f"attachment_directories[0]: {tmp_path}/none: no such directory",
        f"attachment_directories[1]: {tmp_path}/text: is no directory",
        "options.split: mkvmerge writes several files, which the mkvmerge module does not support",
        "options.redirect-output: mkvmerge's messages would be lost",
        "sources[4].options.split: mkvmerge writes several files, which the mkvmerge module does not support",
        f"sources[2].filename: {tmp_path}/text: is no media that mkvmerge can read",
        "tracks[0].track: 9, but sources[4] has only these tracks: 0 (video), 1 (audio), 2 (audio), 3 (subtitles), "
        "4 (subtitles), 5 (subtitles)",
        "tracks[1].source: 5, but there are only sources 0 to 4",
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "missing key 'sources'; missing key 'output_file'"),
        (listed(sources=[]), "sources: expected at least one item"),
        (listed(sources=["a.mkv"]), 'sources[0]: expected an object, got "a.mkv"'),
        (listed(0, trakcs=[]), "trakcs: unknown key (did you mean 'tracks'?)"),
        (listed(tracks=[{"source": 0, "tarck": 1}]), "tracks[0].tarck: unknown key (did you mean 'track'?)"),
        (listed(tracks=[{"source": 0}]), "tracks[0]: missing key 'track'"),
        (listed(tracks=[{"source": "0", "track": 0}]), 'tracks[0].source: expected a whole number, got "0"'),
        (listed(tracks=[{"source": -1, "track": 0.5}]), "tracks[0].source: expected 0 or more, got -1"),
        (listed(tracks=[{"source": -1, "track": 0.5}]), "tracks[0].track: expected a whole number, got 0.5"),
        (with_track(0, language=["jpn"]), "expected a string, a number, true or false or null, got a list"),
        (with_source(**{"_copy-subtitle-tracks": None}), '"_copy-subtitle-tracks" is no option name'),
        (with_source(**{"--no-audio": None}), '"--no-audio" is no option name (no leading dash'),
        (listed(options={"title": "a\0b"}), "options.title: expected text without NUL"),
        (listed(options={"sync": float("nan")}), "options.sync: expected a finite number"),
        (listed(attachments=[{"filename": "a", "mimetpye": "x"}]), "mimetpye: unknown key (did you mean 'mimetype'?)"),
        (listed(output_file=""), "output_file: expected a string that is not empty"),
        (listed(sources=[{"filename": "a" * 100_000}]), "file name too long"),
        (listed(sources=[{"filename": "\ud800"}]), "sources[0].filename: expected text without NUL"),
    ],
)  # fmt: skip
def test_bad_data(data: dict[str, Any], problem: str) -> None:
    """Data that is not as it should be is a ValidationError that says where."""
    assert problem in refusal(data)


def test_problems_of_unsound_data(tmp_path: Path) -> None:
    """A misspelt key hides nothing of what else is wrong."""
    data = listed(sources=[{"filename": "none.mkv"}], output_file=f"{tmp_path}/no/b.mkv", trakcs=[], attachments=[{}])

    assert problems(data) == [
        "trakcs: unknown key (did you mean 'tracks'?)",
        "attachments[0]: missing key 'filename'",
        "sources[0].filename: none.mkv: no such file",
        f"output_file: {tmp_path}/no/b.mkv: there is no directory {tmp_path}/no",
        "tracks: none is listed, and no source has an option such as _copy-video-tracks: none would be muxed",
    ]


def test_options_without_their_values(film: Path, tmp_path: Path) -> None:
    """A bare option that needs a value would swallow the next one; a file that an option names must be there."""
    data = task(film, tmp_path / "out.mkv", tracks=[{"source": 0, "track": 0, "options": {"language": None}}])
    data["tracks"].append({"source": 0, "track": 1, "options": {"tags": f"{tmp_path}/tags.xml"}})
    data["options"] = {"title": None, "chapters": f"{tmp_path}/none.txt"}

    assert problems(data) == [
        "options.title: expected a value: --title needs one",
        f"options.chapters: {tmp_path}/none.txt: no such file",
        "tracks[0].options.language: expected a value: --language needs one",
        f"tracks[1].options.tags: {tmp_path}/tags.xml: no such file",
    ]


def test_output_is_a_source(film: Path, tmp_path: Path) -> None:
    """An output that is one of the sources or attachments, by whatever name, is an error."""
    link = tmp_path / "link.mkv"
    link.symlink_to(film)

    assert refusal(task(film, link)) == f"output_file: {link} is also sources[0]"
    attached = task(film, tmp_path / "x", attachments=[{"filename": f"{tmp_path}/./x"}])
    (tmp_path / "x").write_text("x")
    assert refusal(attached) == f"output_file: {tmp_path}/x is also attachments[0]"


def test_files_of_earlier_tasks(tmp_path: Path) -> None:
    """What an earlier task makes need not be there yet; what it will change is not judged by what it is now."""
    (tmp_path / "there.mkv").write_text("no film yet")
    data = task(tmp_path / "soon.mkv", tmp_path / "new" / "out.mkv", tracks=[{"source": 1, "track": 9}])
    data["sources"].append({"filename": str(tmp_path / "there.mkv")})
    data["attachments"] = [{"filename": str(tmp_path / "new" / "a.ttf")}]
    data["attachment_directories"] = [str(tmp_path / "new")]
    module = Mkvmerge(data)
    module.sisyphus_context.files = {
        location(str(tmp_path / name)): True for name in ("soon.mkv", "there.mkv", "new/a.ttf", "new/other")
    }

    module.validate()


def test_missing_tools(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is not installed is named before anything runs, and also if it vanishes afterwards."""
    module = Mkvmerge(task(clip, tmp_path / "out.mkv"))
    module.validate()
    monkeypatch.setenv("PATH", str(tmp_path))

    problem = "mkvmerge is not installed, or not on PATH (install mkvtoolnix)"
    assert refusal(task(clip, tmp_path / "out.mkv")) == problem
    with pytest.raises(RunError, match="mkvmerge is not installed"):
        module.run()
