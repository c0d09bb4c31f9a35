"""Tracks in words, and files that are appended, with the real mkvmerge and tiny films."""

from pathlib import Path
from typing import Any

import pytest

from modules.mkvmerge import Mkvmerge
from modules.mkvmerge.tracks import settled
from modules.mkvtoolnix import identify
from tests.modules.mkvmerge.scene import carry_out, failure, look, problems, tracks
from tests.support.films import ffmpeg, halve
from tests.support.media import make_clip

pytestmark = pytest.mark.tools


def listed(source: object, target: object, *entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "sources": [{"filename": str(source), **more}],
        "tracks": [{"source": 0} | entry for entry in entries],
        "output_file": str(target),
    }


@pytest.mark.parametrize(
    ("entries", "numbers"),
    [
        ([{"track_type": "audio"}], [1, 2]),
        ([{"track_type": "audio", "language": ["fre", "jpn", "eng"]}], [2]),
        ([{"language": "jpn", "exclude": {"codec": "subrip"}}], [2, 4]),
        ([{"codec": ["h264", "ass"]}], [0, 4]),  # ffmpeg's names
        ([{"codec": "AVC/H.264*"}, {"codec": "S_TEXT/*"}], [0, 3, 4, 5]),  # mkvmerge's, and Matroska's
        ([{"track_type": "subtitles", "language": "jpn", "track": 1}], [5]),
        ([{"track_type": "subtitles", "language": "jpn", "first": True}], [4]),
        ([{"track_type": "subtitles", "language": "fre", "or": {"language": "eng"}}], [3]),
        ([{"language": "jpn", "first": True}, {"track": 0}, {"track_type": "audio"}], [2, 0, 1]),  # none is taken twice
        ([{"track_type": "audio"}, {"track": 2}], [1, 2]),
        ([{"track": 0}, {"language": "fre", "optional": True}, {"track": 9, "optional": True}], [0]),
        ([{"title": "*"}, {"disposition": "forced", "optional": True}], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_words(entries: list[dict[str, Any]], numbers: list[int], film: Path) -> None:
    """Words take the tracks that fit all of them, in the file's order, but those that another entry has."""
    data = listed(film, "out.mkv", *entries)

    assert [entry["track"] for entry in settled(data, {0: identify(str(film))})["tracks"]] == numbers


def test_mux_in_words(film: Path, tmp_path: Path) -> None:
    """The tracks come in the order of the list, with the options of their entries."""
    target = tmp_path / "out.mkv"
    data = listed(
        film,
        target,
        {"track_type": "audio", "language": "jpn", "options": {"default-track-flag": "yes", "track-name": "First"}},
        {"codec": "h264"},
        {"track_type": "audio", "options": {"default-track-flag": "no", "track-name": "Others"}},
    )
    plan = Mkvmerge(data).plan()

    carry_out(data)

    assert tracks(target) == [("audio", "jpn"), ("video", "und"), ("audio", "eng")]
    assert [track["properties"].get("track_name") for track in look(target)["tracks"]] == ["First", None, "Others"]
    assert "--audio-tracks 2,1 " in plan[0]
    again = listed(
        target, tmp_path / "again.mkv", {"disposition": "default", "track_type": "audio"}, {"title": "other*"}
    )
    assert [entry["track"] for entry in settled(again, {0: identify(str(target))})["tracks"]] == [0, 2]


def test_words_that_fit_nothing(film: Path, tmp_path: Path) -> None:
    """The message says what there is, at validation as at run; a dry run says what waits for its source."""
    data = listed(film, tmp_path / "out.mkv", {"track_type": "audio", "language": ["fre", "ita"]})
    nothing = listed(film, tmp_path / "out.mkv", {"language": "fre", "optional": True})
    later = listed(tmp_path / "later.mkv", tmp_path / "out.mkv", {"track": 0}, {"language": "jpn", "first": True})

    (problem,) = problems(data)
    assert problem.startswith(
        "tracks[0]: no track of sources[0] fits track_type audio, language fre or ita; it has 0 ("
    )
    assert "2 (audio, AAC, ja, jpn" in problem
    assert problem in failure(data).message
    assert problems(nothing) == ["tracks: none of them is in its source: none would be muxed"]
    assert problems(nothing)[0] in failure(nothing).message
    assert Mkvmerge(later).plan()[0] == "# of sources[0], which is not there yet: language jpn, first"


def test_append(film: Path, tmp_path: Path) -> None:
    """Files are appended with the tracks that are taken of the first; the next source's tracks keep their numbers."""
    parts = [make_clip(tmp_path / f"{seconds}.mkv", seconds=seconds) for seconds in (1, 2, 3)]
    target = tmp_path / "out.mkv"
    data = {
        "sources": [
            {"filename": str(parts[0]), "append": [str(parts[1]), str(parts[2])]},
            {"filename": str(film)},
        ],
        "tracks": [
            {"source": 1, "track_type": "subtitles", "language": "eng"},
            {"source": 0, "track_type": "audio"},
            {"source": 0, "track": 0, "options": {"language": "fre"}},
        ],
        "output_file": str(target),
    }

    module = carry_out(data)

    assert tracks(target) == [("subtitles", "eng"), ("audio", "und"), ("video", "fre")]
    assert look(target)["container"]["properties"]["duration"] == pytest.approx(6e9, rel=0.05)
    assert module.inputs() == [*map(str, parts), str(film)]


def test_append_what_does_not_fit(film: Path, tmp_path: Path) -> None:
    """Parts that are missing, cut short, without a track, of another codec or the output itself are errors."""
    part, target = make_clip(tmp_path / "part.mkv"), tmp_path / "out.mkv"
    silent = make_clip(tmp_path / "silent.mkv", audio=False)
    other = tmp_path / "other.mkv"
    ffmpeg("-i", part, "-c:v", "mpeg4", "-c:a", "copy", other)
    cut = halve(make_clip(tmp_path / "whole.mkv"), "cut.mkv")

    def told(*names: Path) -> list[str]:
        return problems(listed(part, target, {"track": 0}, {"track": 1}, append=list(map(str, names))))

    assert told(tmp_path / "none.mkv") == [f"sources[0].append[0]: {tmp_path}/none.mkv: no such file"]
    assert told(part, silent) == [f"sources[0].append[1]: {silent}: has no track 1 (audio) to continue {part}"]
    assert told(target)[0].startswith(f"sources[0].append[0]: {target}: no such file")
    assert f"output_file: {target} is also sources[0].append[0]" in told(target)
    assert told(cut)[0].startswith(f"sources[0].append[0]: {cut}: is cut short")
    error = failure(listed(part, target, {"track": 0}, append=[str(other)]))
    assert "cannot be appended" in f"{error.message} {error.stderr}"
    assert not target.exists()
