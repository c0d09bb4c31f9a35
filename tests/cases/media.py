"""Media and other files that jobs name, made once per test session.

A name in `RECIPES` is made by its command, in a directory of its own; what the command names is made before.
`zero30-70.av.mkv` is `av.mkv` with zeroes from 30 % to 70 % of its bytes, `cut60.av.mkv` its first 60 %.
"""

import re
import shlex
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.media import alone

_PICTURE = "-f lavfi -i testsrc2=size={size}:rate=25:duration={seconds}"
_SOUND = "-f lavfi -i sine={tone}:sample_rate=48000:duration={seconds}"
_X264 = "-c:v libx264 -preset ultrafast -c:a aac"
_LANGUAGES = "-metadata:s:a:0 language=jpn -metadata:s:a:1 language=eng -metadata:s:a:1 title=Commentary"


def _clip(size: str, seconds: int, options: str) -> str:
    inputs = [_PICTURE.format(size=size, seconds=seconds)]
    inputs += [_SOUND.format(tone=tone, seconds=seconds) for tone in (440, 880)]
    return f"{' '.join(inputs)} -map 0 -map 1 -map 2 {_X264} {_LANGUAGES} {options}"


RECIPES: dict[str, str] = {
    # 8 s, one key frame, two Matroska clusters: the numbers of the field's cases are of this one.
    "av.mkv": _clip("320x180", 8, ""),
    "av.mp4": "-i av.mkv -c copy -map 0",
    "fast.mp4": "-i av.mkv -c copy -map 0 -movflags +faststart",
    "av.avi": "-i av.mkv -c copy -map 0:v -map 0:a:0 -bsf:v h264_mp4toannexb",
    "full.ts": "-i av.mkv -c copy -map 0",
    "av.wav": "-i av.mkv -map 0:a:0",
    "av.flac": "-i av.mkv -map 0:a:0",
    "av.mp3": "-i av.mkv -map 0:a:0",
    # 2 s and small, for all the others.
    "clip.mkv": _clip("160x90", 2, "-g 25"),
    "mono.mkv": "-i clip.mkv -map 0:v -map 0:a:0 -c copy",
    "clip.mp4": "-i clip.mkv -c copy -map 0",
    "headers.mkv": "-i clip.mkv -map 0:v -frames:v 0",
    "clip.ts": "-i clip.mkv -c copy -map 0",
    "clip.avi": "-i clip.mkv -c copy -map 0:v -map 0:a:0 -bsf:v h264_mp4toannexb",
    "clip.wav": "-i clip.mkv -map 0:a:0",
    "clip.mp3": "-i clip.mkv -map 0:a:0",
    # Whole, though frames, streams or edit lists are not what a container's numbers suggest.
    "vfr.mkv": "-i clip.mkv -vf select='not(mod(n\\,3))+lt(n\\,20)' -vsync vfr -c:a copy",
    "edited.mp4": "-ss 0.7 -i clip.mp4 -c copy -map 0:v -map 0:a:0",
    "live.mkv": "-i clip.mkv -c copy -map 0 -f matroska -live 1",
    "long.mp4": "-i clip.mkv -i av.mkv -map 0:v -map 1:a:0 -c copy",
    "late.mkv": "-i clip.mkv -itsoffset 0.9 -i clip.mkv -map 0:a:0 -map 1:v -c copy",
    "begins.mkv": "-i clip.mkv -map 0 -c copy -output_ts_offset 100",
    "rest.mkv": "-copyts -ss 1 -i clip.mkv -map 0 -c copy",
    "still.mkv": "mkvmerge -q -o still.mkv --timestamps 0:times.txt clip.mkv",  # its last picture stands for 10 s
    "still.mp4": "-i still.mkv -map 0 -c copy",
    "ffstill.mkv": "-i still.mkv -map 0 -c copy",
    "keyed.mkv": _clip("160x90", 6, "-g 25"),
    "muxed.mkv": "mkvmerge -q -o muxed.mkv --cluster-length 500ms av.mkv",
    "part.mkv": "mkvmerge -q -o part.mkv --disable-track-statistics-tags --split parts:00:00:00-00:00:02 keyed.mkv",
    "stale.mkv": "mkvmerge -q -o stale.mkv --disable-track-statistics-tags -A part.mkv -D keyed.mkv",
    "tagged.mkv": "-i muxed.mkv -map 0 -c copy -t 0.5",
    "livetags.mkv": "-i tagged.mkv -map 0 -c copy -f matroska -live 1",
    "pictures/%03d.png": "-i clip.mkv -frames:v 5",
    "hls/list.m3u8": "-i clip.mkv -map 0:v -map 0:a:0 -c copy -hls_time 1 -hls_playlist_type vod",
    "dash/list.mpd": "-i clip.mkv -map 0:v -c copy -seg_duration 1 -f dash",
    "cover.png": "-f lavfi -i testsrc=size=200x300:rate=1:duration=1 -frames:v 1",
    "covered.mp4": "-i av.mp4 -i cover.png -map 0 -map 1 -c copy -disposition:v:1 attached_pic",
    "covered.mkv": "-i clip.mkv -map 0 -c copy -attach cover.png -metadata:s:t mimetype=image/png",
    "covered.mp3": "-i clip.mp3 -i cover.png -map 0 -map 1 -c copy -disposition:v attached_pic",
    "s.ass": "-i s.srt",
    "subs.mkv": "-i av.mkv -i s.srt -i s.ass -map 0 -map 1 -map 2 -c copy -metadata:s:s:0 language=ger"
    " -disposition:s:0 +forced+default",
    "pgs.mkv": "mkvmerge -q -o pgs.mkv av.mkv pgs.sup pgs.sup s.srt",
    "fonts.mkv": "mkvmerge -q -o fonts.mkv clip.mkv --attachment-mime-type font/ttf --attach-file font.ttf",
    "preset.json": "HandBrakeCLI --preset 'Very Fast 480p30' --encoder x264 --quality 40 --encoder-preset ultrafast"
    " --width 96 --height 54 --preset-export Mine --preset-export-file preset.json",
    "other.json": "HandBrakeCLI --preset 'Very Fast 576p25' --preset-export Other --preset-export-file other.json",
}

TEXTS: dict[str, str] = {
    "s.srt": "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:03,000 --> 00:00:04,000\nWorld\n",
    "times.txt": "\n".join(["# timestamp format v2", *map(str, range(0, 1961, 40)), "11960"]),
    "empty.srt": "",
    "victim.mkv": "precious\n",
    "victim.txt": "precious\n",
    "text.mkv": "no film\n",
    "font.ttf": "no font, and as good as one\n",
    "badpreset.json": '{"no": 1}\n',
    "listbad.txt": "file 'av.mkv'\nfile 'nothere.mkv'\nfile 'av.mkv'\n",
    "list.txt": "file 'clip.mkv'\nfile 'clip.mkv'\n",
    "list.ffconcat": "ffconcat version 1.0\nfile 'clip.mkv'\nfile 'clip.mkv'\n",
    "two.txt": "file 'av.mkv'\nfile 'cut60.av.mkv'\n",
    "bad.ffconcat": "ffconcat version 1.0\nfile 'clip.mkv'\nfile 'nothere.mkv'\n",
    "upload.mp4": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:8.0,\nav.mkv\n#EXT-X-ENDLIST\n",
    "upload.ts": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:2.0,\nclip.ts\n#EXT-X-ENDLIST\n",
    "upload.mkv": "ffconcat version 1.0\nfile 'clip.mkv'\n",
}


def _boxes(data: bytes, start: int, end: int) -> list[tuple[bytes, int, int]]:
    found = []
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        found.append((kind, start, start + size))
        start += size
    return found


def _cover_first(here: Path) -> bytes:
    """covered.mp4 with udta before the tracks, as some taggers write it: the cover is the first stream then."""
    data = (here / "covered.mp4").read_bytes()
    _, begin, end = next(box for box in _boxes(data, 0, len(data)) if box[0] == b"moov")
    assert end == len(data), "moov is expected at the end: offsets into mdat stay as they are"
    inner = sorted(_boxes(data, begin + 8, end), key=lambda box: {b"mvhd": 0, b"udta": 1}.get(box[0], 2))
    return data[: begin + 8] + b"".join(data[start:stop] for _, start, stop in inner)


def _bad_block(here: Path) -> bytes:
    """av.mkv with one bad block at 40 %."""
    data = bytearray((here / "av.mkv").read_bytes())
    start = len(data) * 4 // 10
    data[start : start + 4096] = bytes(4096)
    return bytes(data)


def _extra_bytes(here: Path) -> bytes:
    """av.avi with 64 bytes too many at 25 %."""
    data = (here / "av.avi").read_bytes()
    return data[: len(data) // 4] + b"x" * 64 + data[len(data) // 4 :]


def _without_beginning(here: Path) -> bytes:
    """full.ts without its beginning, where its only key frame is."""
    return (here / "full.ts").read_bytes()[5000:200_000]


def _picture_subtitles(here: Path) -> bytes:
    """PGS subtitles: a box at 1, 3 and 5 s, for a second each."""

    def segment(time: int, kind: int, data: bytes) -> bytes:
        return b"PG" + struct.pack(">IIBH", 90000 * time, 0, kind, len(data)) + data

    def shown(time: int, number: int) -> bytes:
        state = struct.pack(">HHBHBBBBHBBHH", 320, 180, 0x10, number, 0x80, 0, 0, 1, 0, 0, 0, 20, 150)
        runs = bytes([0, 0x80 | 60, 1, 0, 0]) * 16
        size = struct.pack(">I", len(runs) + 4)[1:]
        box = struct.pack(">HBB", 0, 0, 0xC0) + size + struct.pack(">HH", 60, 16) + runs
        colours = bytes([0, 0, 1, 235, 128, 128, 255])
        parts = [(0x16, state), (0x17, window), (0x14, colours), (0x15, box), (0x80, b"")]
        return b"".join(segment(time, *part) for part in parts)

    def hidden(time: int, number: int) -> bytes:
        state = struct.pack(">HHBHBBBB", 320, 180, 0x10, number, 0, 0, 0, 0)
        return b"".join(segment(time, *part) for part in [(0x16, state), (0x17, window), (0x80, b"")])

    window = struct.pack(">BBHHHH", 1, 0, 20, 150, 60, 16)
    return b"".join(shown(time, time - 1) + hidden(time + 1, time) for time in (1, 3, 5))


MADE: dict[str, tuple[Callable[[Path], bytes], tuple[str, ...]]] = {
    "cover1st.mp4": (_cover_first, ("covered.mp4",)),
    "bad4k.mkv": (_bad_block, ("av.mkv",)),
    "extra64.avi": (_extra_bytes, ("av.avi",)),
    "middle.ts": (_without_beginning, ("full.ts",)),
    "pgs.sup": (_picture_subtitles, ()),
}
"""Functions of the directory that make a file, and the files that they read there."""

_DAMAGED = re.compile(r"(zero|cut|twice)(\d*)(?:-(\d+))?\.(.+)")


class Media:
    """The files that were made so far, in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def knows(self, name: str) -> bool:
        """True if a file of this name can be made."""
        match = _DAMAGED.fullmatch(name)
        return name in RECIPES or name in TEXTS or name in MADE or bool(match and self.knows(match[4]))

    def put(self, name: str, directory: Path) -> None:
        """Copy a file into a directory, together with its own directory, or with the files that its text names."""
        with alone(self._directory):
            self._make(name)
        for named in filter(self.knows, re.findall(r"[\w.]+", TEXTS.get(name, ""))):
            self.put(named, directory)
        top = name.split("/")[0]
        if "/" in name:
            shutil.copytree(self._directory / top, directory / top, dirs_exist_ok=True)
        else:
            shutil.copy(self._directory / name, directory / name)

    def _make(self, name: str) -> None:
        target = self._directory / name
        if target.exists():
            return
        target.parent.mkdir(exist_ok=True)
        if name in TEXTS:
            target.write_text(TEXTS[name])
        elif name in RECIPES:
            self._cook(name)
        elif name in MADE:
            make, needed = MADE[name]
            for each in needed:
                self._make(each)
            target.write_bytes(make(self._directory))
        else:
            target.write_bytes(self._damage(name))

    def _cook(self, name: str) -> None:
        words = shlex.split(RECIPES[name])
        for word in (word for each in words for word in (each, each.partition(":")[2])):
            if word != name and self.knows(word):
                self._make(word)
        if words[0].startswith("-"):
            words = ["ffmpeg", "-nostdin", "-v", "error", "-y", *words, name]
        subprocess.run(words, cwd=self._directory, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def _damage(self, name: str) -> bytes:
        match = _DAMAGED.fullmatch(name)
        assert match, f"no recipe for {name}"
        self._make(match[4])
        data = bytearray((self._directory / match[4]).read_bytes())
        if match[1] == "twice":
            return bytes(2 * data)
        start, end = (len(data) * int(number or 100) // 100 for number in match.group(2, 3))
        data[start:end] = b"" if match[1] == "cut" else bytes(end - start)
        return bytes(data)
