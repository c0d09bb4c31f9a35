"""Whether a file is as long as its container says."""

from pathlib import Path

import pytest

from modules.containers import find_shortage, is_joined, is_whole
from tests.support.films import ffmpeg

KINDS = {
    "film.mkv": "",  # by mkvmerge; all others by ffmpeg
    "a.mkv": "-c copy",
    "a.mp4": "-c copy -movflags +faststart",
    "a.mov": "-c copy -movflags +faststart",
    "a.avi": "-c:v mpeg4 -c:a ac3",
    "a.wav": "",
    "a.w64": "",
    "a.aiff": "",
    "a.wma": "-vn",
}
SLACK = {".avi": 4096, ".wav": 4096}
"""Bytes that a whole file may lack."""


@pytest.mark.parametrize("name", KINDS)
def test_shortage(name: str, film: Path, clip: Path, tmp_path: Path) -> None:
    """Wherever a file is cut, that is noticed, the last byte too; a whole one lacks nothing."""
    whole = film if name == film.name else tmp_path / name
    if whole is not film:
        ffmpeg("-i", clip, *KINDS[name].split(), whole)
    data = whole.read_bytes()
    beginnings = (5, 24, 36, 40, 45, 52) if whole.suffix == ".mkv" else ()  # in the headers of EBML and of the segment
    shares = (0.3, 0.5, 0.9, 0.98) if whole.suffix != ".mkv" else (0.01, 0.2, 0.5, 0.9, 0.999)
    lengths = [*beginnings, *(int(len(data) * share) for share in shares), len(data) - 1]

    assert find_shortage(str(whole)) is None
    assert not is_joined(str(whole))
    for length in lengths:
        if length < len(data) - SLACK.get(whole.suffix, 0):
            (tmp_path / "cut").write_bytes(data[:length])
            assert "is cut short: it has " in str(find_shortage(str(tmp_path / "cut"))), length


def test_live_recording(clip: Path, tmp_path: Path) -> None:
    """A recording that states no size lacks nothing, and is not known to be whole."""
    ffmpeg("-i", clip, "-c", "copy", "-live", "1", tmp_path / "live.mkv")

    assert find_shortage(str(tmp_path / "live.mkv")) is None
    assert not is_whole(str(tmp_path / "live.mkv"))


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0", b"\0\0\0\x08ftyp" * 5, b"\xff" * 99]
)
def test_odd_beginnings(content: bytes, tmp_path: Path) -> None:
    """A file that only looks like one of a known kind is left to mkvmerge."""
    (tmp_path / "a").write_bytes(content)

    assert find_shortage(str(tmp_path / "a")) is None
    assert not is_joined(str(tmp_path / "a"))


RIFF = b"RIFF\x0c\0\0\0AVI data1234"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (2 * RIFF, True),
        (RIFF + b"\0" + RIFF, True),  # a pad byte
        (RIFF + RIFF.replace(b"AVI ", b"AVIX"), False),  # more than a gigabyte of one film
        (RIFF + RIFF.replace(b"AVI ", b"WAVE"), False),
        (b"\0\0\0\x08ftyp\0\0\0\x08moov\0\0\0\x08moof\0\0\0\x08mdat", False),
        (2 * b"\0\0\0\x08ftyp\0\0\0\x08moov\0\0\0\x08mdat", True),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff\x1a\x45\xdf\xa3", False),  # of unknown size
    ],
)
def test_joined(content: bytes, expected: bool, tmp_path: Path) -> None:
    """Another file of the same kind begins where the first one ends."""
    (tmp_path / "a").write_bytes(content)

    assert is_joined(str(tmp_path / "a")) is expected


def make_fragments(clip: Path, tmp_path: Path) -> bytes:
    ffmpeg("-i", clip, "-c", "copy", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", "200000",
           tmp_path / "whole.mp4")  # fmt: skip
    return (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("damage", ["cut out", "zeroed"])
def test_media_broken_fragments(damage: str, clip: Path, tmp_path: Path) -> None:
    """A fragment that does not begin where the one before it ends is damage, wherever ffmpeg would stop."""
    whole = make_fragments(clip, tmp_path)
    at = whole.index(b"moof", whole.index(b"moof") + 4) - 4
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole[:at] + (b"" if damage == "cut out" else bytes(50)) + whole[at + 50 :])

    assert f"is damaged: at byte {at} of " in str(find_shortage(str(broken)))
    assert not is_whole(str(broken))


def test_media_whole_fragments(clip: Path, tmp_path: Path) -> None:
    """Fragments that follow each other are whole, with room that a recorder left, or what else stands there, too."""
    whole = make_fragments(clip, tmp_path)
    after = tmp_path / "after.mp4"
    for more in (b"", bytes(99), b"\0\0\0\0free and more", b"\xff", b"a note of its maker"):  # the third is a box
        after.write_bytes(whole + more)

        assert find_shortage(str(after)) is None
        assert is_whole(str(after))
