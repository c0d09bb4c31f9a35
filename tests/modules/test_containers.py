"""Whether a file is as long as its container says."""

import subprocess
from pathlib import Path

import pytest

from modules.containers import find_shortage
from tests.modules.mkvmerge.scene import carry_out, task, tracks


def test_last_byte(film: Path, clip: Path, tmp_path: Path) -> None:
    """That a Matroska file lacks its last byte is noticed; that it is a live recording is not held against it."""
    for source in (film, clip):
        (tmp_path / "cut.mkv").write_bytes(source.read_bytes()[:-1])
        assert "is cut short" in str(find_shortage(str(tmp_path / "cut.mkv")))
    ended = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", clip, "-c", "copy", "-f", "matroska", "-"], check=True, stdout=subprocess.PIPE
    )
    (tmp_path / "live.mkv").write_bytes(ended.stdout)

    carry_out(task(tmp_path / "live.mkv", tmp_path / "out.mkv"))
    assert len(tracks(tmp_path / "out.mkv")) == 2


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0", b"\0\0\0\x08ftyp" * 5, b"\xff" * 99]
)
def test_odd_beginnings(content: bytes, tmp_path: Path) -> None:
    """A file that only looks like one of a known kind is left to mkvmerge."""
    (tmp_path / "a").write_bytes(content)

    assert find_shortage(str(tmp_path / "a")) is None
