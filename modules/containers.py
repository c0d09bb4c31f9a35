"""Check that a media file has all the bytes that its container states: Matroska, MP4, AVI, WAV, W64, AIFF, WMV.

ffmpeg, mkvmerge and HandBrakeCLI all exit with 0 after a source that ends in the middle. The sizes that a container
states are exact, whatever options do to the timing. Streams without sizes (MPEG-TS) cannot be checked.
"""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

_EXTENSIONS = {
    "mkv mka mks mk3d": "matroska mkv av_mkv webm",
    "webm": "webm av_webm",
    "mp4 m4v m4a m4b mov 3gp": "mp4 mov ipod psp 3gp m4v av_mp4",
    "ts m2ts mts": "mpegts",
    "ogg ogm oga ogv opus": "ogg oga ogv opus",
} | {name: name for name in ("avi", "flac", "flv", "mp3", "wav")}
"""Extensions that promise a container, and the tools' names for it."""

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_BEFORE_SEGMENT = {_EBML, b"\xec", b"\xbf"}  # EBML header, Void, CRC-32 (RFC 8794, RFC 9559)
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # ASF specification, 3.2
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_BOXES_WITH_MEDIA = {b"mdat", b"moof", b"moov"}
_FRAGMENT = re.compile(b"mfhd|tfhd|trun|mdat")  # what is left of a fragment whose beginning is gone
_RIFF_SLACK = 4096
"""Bytes that a whole RIFF file may lack: some writers count the header twice, or a pad byte that they do not write."""

_RIFF_UNKNOWN = 0x7FFF0000
"""Sizes from here on are not real: the writer could not go back to fill them in, or 32 bits do not hold them."""


def contradiction(name: str, container: str) -> str | None:
    """A warning for a person if a file's extension promises another container than `container`, as a tool calls it."""
    extension = os.path.splitext(name)[1][1:].lower()
    promised = next((names for words, names in _EXTENSIONS.items() if extension in words.split()), container)
    if container.lower() in promised.lower().split():
        return None
    return f"{name}: will be {container}, which its extension contradicts"


def find_shortage(name: str) -> str | None:
    """A message for a person if the file has fewer bytes than its container states, else `None`.

    Raises:
        OSError: The file cannot be read.
    """
    size, stated = _sizes(name)
    if size < stated:
        return f"is cut short: it has {size} bytes, and states {stated}"
    if broken := _broken_fragments(name):
        return f"is damaged: at byte {broken} of {size} there is no box of an MP4 file: nothing after it can be read"
    return None


def is_whole(name: str) -> bool:
    """True if a file is known to have all its bytes. False, too, if its container states no size.

    Raises:
        OSError: The file cannot be read.
    """
    size, stated = _sizes(name)
    return size >= stated > 0 and not _broken_fragments(name)


def is_joined(name: str) -> bool:
    """True if another file begins where a Matroska, MP4, AVI or WAV file ends, as if cat(1) had joined them.

    Raises:
        OSError: The file cannot be read.
    """
    with open(name, "rb") as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(12)
        if head[4:8] == b"ftyp":
            kinds = [kind for kind, _ in _boxes(file, size)]
            return any(kind == b"ftyp" and _BOXES_WITH_MEDIA & {*kinds[:at]} for at, kind in enumerate(kinds))
        magic = next((magic for magic in (_EBML, b"RIFF") if head.startswith(magic)), b"")
        is_riff = magic == b"RIFF"
        end = int.from_bytes(head[4:8], "little") + 8 if is_riff else _end_of_segment(file, size) if magic else 0
        file.seek(end)
        after = file.read(13)  # perhaps with a pad byte before it
    # An AVI file of more than 1 GB has RIFF chunks of another kind.
    return end > 0 and magic in after[: len(magic) + 1] and (not is_riff or head[8:] in after)


def _sizes(name: str) -> tuple[int, int]:
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return size, _stated_size(file, size)


def _stated_size(file: BinaryIO, size: int) -> int:
    """The least number of bytes of the whole file, by its container; 0 if that states none."""
    head = file.read(12)
    if head.startswith(_EBML):
        return _end_of_segment(file, size)
    if head.startswith(b"RIFF") and head[8:] in {b"AVI ", b"WAVE"}:
        length = int.from_bytes(head[4:8], "little")
        return length + 8 - _RIFF_SLACK if length < _RIFF_UNKNOWN else 0
    if head.startswith(_W64_RIFF[:12]):
        file.seek(16)
        return int.from_bytes(file.read(8), "little")
    if head.startswith(b"FORM") and head[8:] in {b"AIFF", b"AIFC"}:
        return int.from_bytes(head[4:8], "big") + 8
    if head.startswith(_ASF_HEADER[:12]):
        return _end_of_asf(file)
    return _end_of_boxes(file, size) if head[4:8] == b"ftyp" else 0


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """The offset at which the first segment of a Matroska file ends; 0 if not stated, as in a live recording."""
    end = file.seek(0)
    while (element := _variable_width(file)) and (length := _variable_width(file)):
        mask = (1 << 7 * len(length)) - 1
        value = int.from_bytes(length, "big") & mask
        if element == _SEGMENT:
            return 0 if value == mask else file.tell() + value
        if element not in _BEFORE_SEGMENT:
            return 0
        end = file.seek(value, os.SEEK_CUR)
    # A segment must follow. mkvmerge 92 reads a file that ends before it as one without tracks.
    return file.tell() + 1 if end and file.tell() >= size else 0


def _variable_width(file: BinaryIO) -> bytes:
    """Read an EBML id or size with its marker; empty if the file ends before it does, or there is none.

    The leading zero bits of the first byte count the bytes after it.
    """
    first = file.read(1)
    if not first or not first[0]:
        return b""
    width = 9 - first[0].bit_length()
    data = first + file.read(width - 1)
    return data if len(data) == width else b""


def _end_of_asf(file: BinaryIO) -> int:
    """The size that the File Properties Object of a WMV or WMA file states; 0 if it was broadcast."""
    file.seek(0)
    header = file.read(1 << 16)
    place = header.find(_ASF_PROPERTIES)
    if place < 0 or len(header) < place + 92:
        return 0
    is_broadcast = header[place + 88] & 1
    return 0 if is_broadcast else int.from_bytes(header[place + 40 : place + 48], "little")


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """The offset at which the last box of an MP4 file that has media in it ends."""
    return max((end for kind, end in _boxes(file, size) if kind in _BOXES_WITH_MEDIA), default=0)


def _broken_fragments(name: str) -> int:
    """The offset in an MP4 file of fragments at which no box begins, though some follow; 0 if there is none.

    The fragments after it are lost without a word of ffmpeg. Room that a recorder has left, and whatever else is no
    part of a fragment, is no loss; nor is what comes after the one mdat of a file without fragments.
    """
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        boxes = list(_boxes(file, size)) if file.read(8)[4:] in {b"ftyp", b"styp"} else []
        end = max((end for _, end in boxes), default=0)
        if not any(kind == b"moof" for kind, _ in boxes) or end >= size:
            return 0
        file.seek(end)
        rest = file.read(8)
        if rest[:4] == bytes(4) and rest[4:].isalnum():  # a box up to the file's end
            return 0
        while not _FRAGMENT.search(rest):
            if not (more := file.read(1 << 20)):
                return 0
            rest = rest[-3:] + more
        return end


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """The kind of each box of an MP4 file, and the offset at which it ends."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or not kind.isalnum():  # a box up to the file's end, or no box at all
            break
        position += length
        yield kind, position
