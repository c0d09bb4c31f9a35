"""Files for the tests of the `mkvextract` module."""

import struct
from pathlib import Path

import pytest

from tests.support.films import mkvmerge


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture(scope="session")
def vobsub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film with pictures for subtitles, as they are on a DVD: two of them, of a few pixels."""
    directory = tmp_path_factory.mktemp("vobsub")
    lines = ["# VobSub index file, v7 (do not modify this line!)", "size: 720x480", "palette: " + ", ".join(["0"] * 16)]
    lines.append("id: en, index: 0")
    stream = b""
    for second in (1, 2):
        lines.append(f"timestamp: 00:00:{second:02}:000, filepos: {len(stream):09x}")
        ticks = second * 90000
        stamp = bytes([0x21, ticks >> 22 & 255, ticks >> 14 & 254 | 1, ticks >> 7 & 255, ticks << 1 & 254 | 1])
        show = bytes.fromhex("0000 001f 01 033210 04ffff 05000003000001 0600040006 ff")
        hide = bytes.fromhex("005a 001f 02 ff")
        picture = struct.pack(">HH", 8 + len(show) + len(hide), 8) + bytes.fromhex("01000100") + show + hide
        packet = bytes.fromhex("818005") + stamp + b"\x20" + picture
        pack = bytes.fromhex("000001ba 44000400040100 0003f8 000001bd") + struct.pack(">H", len(packet)) + packet
        padding = 2048 - len(pack) - 6
        stream += pack + bytes.fromhex("000001be") + struct.pack(">H", padding) + b"\xff" * padding
    (directory / "v.sub").write_bytes(stream)
    (directory / "v.idx").write_text("\n".join(lines) + "\n")
    mkvmerge("-o", directory / "vobsub.mkv", directory / "v.idx")
    return directory / "vobsub.mkv"
