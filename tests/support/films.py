"""Tiny films with tracks of all kinds, and what damages them."""

import os
import struct
import subprocess
from pathlib import Path

from tests.support.media import look, make_clip

LEAD = ["mkvmerge", "--gui-mode", "--output", "/out/.muxed.part.mkv"]

SUBTITLES = "1\n00:00:00,200 --> 00:00:01,500\nHello\n\n"

STYLED = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.20,0:00:01.50,Default,,0,0,0,,Konnichiwa
"""

CHAPTERS = "CHAPTER01=00:00:00.000\nCHAPTER01NAME=One\nCHAPTER02=00:00:01.000\nCHAPTER02NAME=Two\n"

TAGS = "<Tags><Tag><Simple><Name>ARTIST</Name><String>nobody</String></Simple></Tag></Tags>"


def mkvmerge(*arguments: object) -> bytes:
    """Run mkvmerge without the module, in a locale that it can live with."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["mkvmerge", *map(str, arguments)], stdout=subprocess.PIPE, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


def payload(film: Path, stream: int) -> int:
    """The bytes of all packets of a stream, which depend on the encoder's version."""
    packets = look(film, "-show_packets", "-select_streams", str(stream))["packets"]
    return sum(int(packet["size"]) for packet in packets)


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


def make_film(directory: Path) -> Path:
    """A film: 0 video, 1 English and 2 Japanese sound, 3 English and 4, 5 Japanese subtitles, and all the rest."""
    files = {"a.srt": SUBTITLES, "b.ass": STYLED, "c.srt": SUBTITLES, "chapters.txt": CHAPTERS, "tags.xml": TAGS}
    for name, text in files.items():
        (directory / name).write_text(text)
    (directory / "font.ttf").write_bytes(bytes(range(256)) * 10)
    (directory / "note.txt").write_text("a note\n")
    english, japanese = make_clip(directory / "english.mkv"), make_clip(directory / "japanese.mkv")
    film = directory / "film.mkv"
    mkvmerge(
        "-o", film, "--chapters", directory / "chapters.txt", "--global-tags", directory / "tags.xml",
        "--attach-file", directory / "font.ttf", "--attachment-mime-type", "text/x-note", "--attach-file",
        directory / "note.txt", "--language", "1:eng", english, "--no-video", "--language", "1:jpn", japanese,
        "--language", "0:eng", directory / "a.srt", "--language", "0:jpn", directory / "b.ass", "--language", "0:jpn",
        directory / "c.srt",
    )  # fmt: skip
    return film


def make_silence(path: Path, size: int) -> Path:
    """A WAV file that takes no room on the disk, and some time to read."""
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 2, 48000, 192000, 4, 16, b"data", size
    )
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    return path


def halve(path: Path, name: str) -> Path:
    """The first half of a file's bytes."""
    data = path.read_bytes()
    cut = path.with_name(name)
    cut.write_bytes(data[: len(data) // 2])
    return cut
