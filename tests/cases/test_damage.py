"""Never wrong: sources that are damaged, cannot be read, change meanwhile, or are lists of other files.

What no tool and no container tells is not here: a stream of MPEG-TS, MP3 or Ogg that ends too early, zeroes in the
middle of WAV (silence), zeroes in FLAC (ffmpeg finds the next frame without a word).
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cases.checks import Check, completes, refused, stopped, told
from tests.cases.client import TS_PADDING, VOID, Client, append, meanwhile, namespace, odd
from tests.cases.tasks import AAC, COPY, Task, cleanup, ffmpeg, handbrake, mkvextract, mkvmerge

pytestmark = pytest.mark.tools

Maker = Callable[[str], Task]


def encoded(source: str) -> Task:
    return ffmpeg(source, audio=AAC)


def copied(source: str) -> Task:
    return ffmpeg(source, video=COPY, audio=COPY)


def sound(source: str) -> Task:
    return ffmpeg(source, target="out.mka", video=None, audio=AAC)


HOLE = ("damaged", "cut short", "of 8.0 s")
LOST = (*HOLE, "frames", "invalid", "error", "missing", "lost")
UNREADABLE = ("no media", "invalid data", "recognized", "atom", "no title", "not be opened", "input stream", "PPS")

DAMAGED: dict[str, tuple[list[Maker], Check]] = {
    "zero0-5.av.mkv": ([encoded, copied, handbrake, mkvmerge, mkvextract], stopped(UNREADABLE)),
    "zero0-5.fast.mp4": ([encoded, handbrake, mkvmerge], stopped(UNREADABLE)),
    "zero0-5.av.avi": ([encoded, handbrake, mkvmerge], stopped(UNREADABLE)),
    "zero0-5.full.ts": ([encoded, copied, handbrake], stopped(UNREADABLE)),
    # The demuxer gives up: what follows is lost, and the container states that there is more.
    "zero30-70.av.mkv": ([encoded, copied, handbrake, mkvmerge, mkvextract], stopped(HOLE)),
    "zero90-100.av.mkv": ([encoded, copied, handbrake, mkvmerge, mkvextract], stopped(HOLE)),
    "cut60.av.mkv": ([encoded, copied, handbrake, mkvmerge, mkvextract], stopped(HOLE)),
    "cut60.fast.mp4": ([encoded, copied, handbrake, mkvmerge], stopped(HOLE)),
    "cut60.av.avi": ([encoded, copied, handbrake, mkvmerge], stopped(HOLE)),
    "cut60.av.mp4": ([encoded, handbrake, mkvmerge], stopped(UNREADABLE)),  # the index is at the end
    "cut60.av.flac": ([sound], stopped((*HOLE, "residual"))),
    "cut60.av.wav": ([sound], stopped((*HOLE, "packet"))),
    "zero50-100.muxed.mkv": ([mkvmerge, mkvextract], stopped(HOLE)),
    "zero50-60.muxed.mkv": ([mkvmerge], told("error in the Matroska file structure")),
    # It goes on after the damage: enough may be left for who wants it, and nobody is to find out later.
    "bad4k.mkv": ([copied, handbrake, mkvmerge, mkvextract], told(LOST)),
    "zero30-70.fast.mp4": ([encoded, copied, handbrake, mkvmerge], told(LOST)),
    "zero90-100.fast.mp4": ([encoded, copied, handbrake, mkvmerge], told(LOST)),
    "zero30-70.full.ts": ([encoded, copied, handbrake, mkvmerge], told((*LOST, *UNREADABLE))),
    "zero40-42.full.ts": ([encoded, handbrake], told((*LOST, "sync"))),
    "zero90-100.full.ts": ([encoded, copied, handbrake], told(LOST)),
    "zero30-70.av.avi": ([encoded, copied, handbrake, mkvmerge], told(LOST)),
    # Another file follows, as after cat(1).
    "twice.av.mkv": ([copied, handbrake, mkvmerge, mkvextract], told("follows in it")),
    "twice.av.mp4": ([encoded, copied, handbrake, mkvmerge], told("follows in it")),
    "twice.av.avi": ([encoded, handbrake], told("follows in it")),
    "twice.av.wav": ([sound], told("follows in it")),
    "twice.muxed.mkv": ([encoded], told("follows in it", "frames, because others have the same times")),
    "extra64.avi": ([mkvmerge], told("of its 200 frames")),
    "middle.ts": ([mkvmerge], told("middle.ts: ffmpeg exited with status 1")),
    "headers.mkv": ([mkvmerge, mkvextract], told("headers.mkv: ffprobe exited with status 1")),
    "zero30-70.av.mp3": ([sound], told(LOST)),
}


@pytest.mark.parametrize(("source", "make"), [(source, make) for source in DAMAGED for make in DAMAGED[source][0]])
def test_damage(source: str, make: Maker, client: Client) -> None:
    """A damaged source is an error, or at least a warning where the tool reads on after the damage."""
    DAMAGED[source][1](client.run(make(source)))


@pytest.mark.parametrize("make", [encoded, handbrake, mkvmerge, mkvextract])
@pytest.mark.parametrize(("source", "words"), [("cut60.av.mkv", HOLE), ("text.mkv", UNREADABLE)])
def test_damage_that_a_task_brings(source: str, words: tuple[str, ...], make: Maker, client: Client) -> None:
    """A source that an earlier task writes is looked into when its turn comes."""
    result = client.run(cleanup(copy=[(source, "new.mkv")]), make("new.mkv"))

    stopped("new.mkv", words, changed=["new.mkv"])(result)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (ffmpeg("new.mkv", maps=["a:7"]), "0:a:7"),
        (handbrake("new.mkv", audio_options={"audio": [3]}), "audio_options.audio: 3, but"),
        (mkvmerge("new.mkv", tracks=[{"source": 0, "track": 5}]), "tracks[0].track: 5, but"),
        (mkvextract("new.mkv", tracks=[{"id": 5, "filename": "o"}]), "tracks[0].id: the source has no track 5"),
    ],
)
def test_what_a_task_does_not_bring(task: Task, said: str, client: Client) -> None:
    """A stream or track that a source lacks is told when its turn comes, if an earlier task writes the source."""
    stopped(said, changed=["new.mkv"])(client.run(cleanup(copy=[("clip.mkv", "new.mkv")]), task))


WHOLE = ["vfr.mkv", "edited.mp4", "live.mkv", "long.mp4", "late.mkv", "clip.ts", "clip.avi", "begins.mkv", "rest.mkv"]
WHOLE += ["still.mkv", "still.mp4", "ffstill.mkv", "stale.mkv", "tagged.mkv", "livetags.mkv"]


@pytest.mark.parametrize("source", WHOLE)
def test_whole_sources(source: str, client: Client) -> None:
    """A source that is whole gives no warning, whatever the numbers in its container."""
    result = client.run(
        ffmpeg(source, "copy.mkv", COPY, COPY),
        encoded(source),
        handbrake(source, "hb.mkv"),
        mkvmerge(source, target="m"),
    )

    assert result.completed, str(result)
    assert not result.warnings


# --- read errors ---

EIO = ("input/output error", "read error", "cannot be read", "could not be read", *HOLE)
UNREADABLE_PART: dict[str, list[Maker]] = {
    "av.mkv": [encoded, copied, handbrake, mkvmerge, mkvextract],
    "full.ts": [encoded, copied, handbrake, mkvmerge],
    "fast.mp4": [encoded, copied, handbrake, mkvmerge],
    "av.mp4": [encoded],
    "av.avi": [copied],
    "av.flac": [sound],
}


FAULTY = [(source, make) for source, makers in UNREADABLE_PART.items() for make in makers]
EIO_AT_HALF = "eio=409600"


@pytest.mark.parametrize(("source", "make"), FAULTY)
def test_read_error(source: str, make: Maker, client: Client) -> None:
    """A disk that gives EIO in the middle of a source fails the job, whatever the tool says."""
    client.put(source, directory="disk")
    with namespace(client, odd("disk", EIO_AT_HALF)) as prefix:
        stopped(EIO)(client.run(make(f"disk/{source}"), prefix=prefix))


@pytest.mark.parametrize("task", [cleanup(copy=[("disk/av.mkv", "o")]), cleanup(move=[("disk/av.mkv", "o")])])
def test_read_error_in_cleanup(task: Task, client: Client) -> None:
    """A copy or move of an unreadable source fails, keeps the source and leaves no half file."""
    client.put("av.mkv", directory="disk")
    with namespace(client, odd("disk", EIO_AT_HALF)) as prefix:
        stopped("input/output error")(client.run(task, prefix=prefix))


# --- sources that change ---

GROWING: dict[str, tuple[str, bytes, Task]] = {
    "ffmpeg, mkv": ("clip.mkv", VOID, encoded("f")),
    "ffmpeg, copy": ("clip.ts", TS_PADDING, copied("f")),
    "ffmpeg, second source": ("clip.ts", TS_PADDING, ffmpeg(["clip.mkv", "f"], audio=COPY, maps=["0:v:0", "1:a:0"])),
    "handbrake": ("clip.ts", TS_PADDING, handbrake("f")),
    "handbrake, mkv": ("clip.mkv", VOID, handbrake("f")),
    "mkvmerge": ("clip.mkv", VOID, mkvmerge("f")),
    "mkvmerge, ts": ("clip.ts", TS_PADDING, mkvmerge("clip.mkv", "f")),
    "mkvextract": ("clip.mkv", VOID, mkvextract("f")),
    "cleanup": ("av.mkv", VOID, cleanup(copy=[("f", "out.mkv")])),
}


def exchange(path: Path) -> None:
    """Put another file of the same contents in a file's place."""
    shutil.copy(path, path.with_suffix(".other"))
    os.replace(path.with_suffix(".other"), path)


@pytest.mark.parametrize("case", GROWING)
def test_growing_source(case: str, client: Client) -> None:
    """A source that is being written to is an error in each module, and the cleanup after it does not run."""
    name, more, task = GROWING[case]
    client.put(name, "clip.mkv")
    grown = client.work / "f"
    shutil.copy(client.work / name, grown)
    with meanwhile(lambda: append(grown, more)):
        result = client.run(task, cleanup(delete=["f"]))

    stopped("f", ("written to meanwhile", "changed meanwhile"), changed=["f"])(result)
    assert grown.exists()


def test_growing_file_is_not_deleted(client: Client) -> None:
    """A file that is written to twice a second is not deleted, and not copied as if it were whole."""
    client.put("clip.mkv")
    grown = client.work / "f"
    shutil.copy(client.work / "clip.mkv", grown)
    begin = grown.stat().st_mtime
    with meanwhile(lambda: append(grown, VOID) if time.time() - grown.stat().st_mtime > 0.5 else None):
        for task in (cleanup(delete=["f"]), cleanup(copy=[("f", "out.mkv")]), mkvextract("f")):
            stopped("f", "written to meanwhile", changed=["f"])(client.run(task))

    assert grown.stat().st_mtime > begin


@pytest.mark.parametrize("task", [encoded("f.mkv"), handbrake("f.mkv"), mkvmerge("f.mkv"), mkvextract("f.mkv")])
def test_exchanged_source(task: Task, client: Client) -> None:
    """A source that another file has replaced meanwhile is an error, and the other file is not deleted."""
    client.put("clip.mkv")
    source = client.work / "f.mkv"
    shutil.copy(client.work / "clip.mkv", source)
    with meanwhile(lambda: exchange(source)):
        result = client.run(task, cleanup(delete=["f.mkv"]))

    stopped("f.mkv", "meanwhile", changed=result.changed & {"f.other"})(result)
    assert source.exists()


# --- sources that are no files of their own ---

LIST = ("list", "playlist", "names other files")
PIPE = ("pipe", "no regular file")
HIDDEN = (*LIST, "no title", "no media", "recognized")
MAKERS = [encoded, handbrake, mkvmerge, mkvextract]
HIDING = [(name, make) for name in ("upload.mp4", "upload.ts", "upload.mkv") for make in (copied, handbrake, mkvmerge)]
"""HLS and concat lists with the names of films."""


def listed(name: str, **options: Any) -> Task:
    return ffmpeg({"filename": name, "options": options}, video=COPY)


def pictures() -> Task:
    return ffmpeg({"filename": "./pictures/%03d.png", "options": {"framerate": 25}})


HOLED = (
    "cp clip.mkv part.mkv; dd if=/dev/zero of=part.mkv bs=1000 seek=50 count=30 conv=notrunc status=none;"
    "printf \"file '%s'\\n\" part.mkv clip.mkv >l.txt"
)
NESTED = "printf \"ffconcat version 1.0\\nfile 'bad.ffconcat'\\n\" >l.ffconcat"
SDP = "printf 'v=0\\no=- 0 0 IN IP4 127.0.0.1\\nc=IN IP4 127.0.0.1\\nm=video 5000 RTP/AVP 96\\n' >u.mkv"
ONE = completes(holds={"out.mkv": ["video h264"]})
MPD = "cp dash/* .; cp list.mpd u.mkv"
LISTS: dict[str, tuple[str, Task, Check]] = {
    **{f"{name}, {make.__name__}": ("", make(name), refused(name, HIDDEN)) for name, make in HIDING},
    "DASH as .mkv": (MPD, copied("u.mkv"), refused("u.mkv", LIST)),
    "DASH as .mkv, handbrake": (MPD, handbrake("u.mkv"), refused("u.mkv", HIDDEN)),
    "the second source": ("", ffmpeg(["clip.mkv", "upload.ts"], maps=["0:v:0"]), refused("upload.ts", LIST)),
    "behind a link": ("ln -s upload.mp4 film.mp4", copied("film.mp4"), refused("film.mp4", LIST)),
    # A list that says so is a source, if all of its parts are there.
    "concat": ("", listed("list.txt", f="concat"), ONE),
    "concat by extension": ("", listed("list.ffconcat"), ONE),
    "HLS": ("", listed("hls/list.m3u8"), ONE),
    "DASH": (MPD, listed("list.mpd"), ONE),
    "concat without a part": ("", listed("bad.ffconcat"), refused("bad.ffconcat", "nothere.mkv")),
    "HLS without a part": ("rm hls/list1.ts", listed("hls/list.m3u8"), refused("list.m3u8", "list1.ts")),
    "HLS without a part, handbrake": ("rm hls/list1.ts", handbrake("hls/list.m3u8"), refused("list.m3u8")),
    "DASH without a part": ("cp dash/* .; rm *2.m4s", listed("list.mpd"), stopped("list.mpd")),
    "a damaged part": ("", listed("two.txt", f="concat"), stopped(("damaged", "cut short"))),
    "concat: without a part": ("", copied("concat:clip.ts|nothere.ts"), stopped("nothere.ts")),
    "a part with a hole": (HOLED, listed("l.txt", f="concat"), stopped("part.mkv", "damaged")),
    "a list in a list": (NESTED, listed("l.ffconcat"), refused("l.ffconcat", "nothere.mkv")),
    "an address in disguise": (SDP, copied("u.mkv"), refused("u.mkv", LIST)),
    "pictures": ("", pictures(), completes()),
    "a picture is missing": ("rm pictures/003.png", pictures(), refused("picture 3")),
    "a picture is empty": (": >pictures/003.png", pictures(), refused("picture 3")),
    # A pipe can be read once, and nobody knows whether all of it came.
    **{f"pipe, {make.__name__}": ("mkfifo p.ts", make("p.ts"), refused("p.ts", PIPE)) for make in MAKERS},
    "pipe, second source": ("mkfifo p", ffmpeg(["clip.mkv", "p"], maps=["0:v:0"]), refused("sources[1]", PIPE)),
    "pipe behind a link": ("mkfifo p; ln -s p film.ts", encoded("film.ts"), refused("film.ts", PIPE)),
    "pipe, by protocol": ("mkfifo p.ts", copied("concat:clip.ts|p.ts"), refused("p.ts", PIPE)),
    "standard input": ("", copied("pipe:0"), refused("pipe:0", PIPE)),
    "device": ("", copied("/dev/zero"), refused("/dev/zero", PIPE)),
    "pipe, attached": ("mkfifo p", mkvmerge(attachments=[{"filename": "p"}]), refused("attachments[0]", PIPE)),
    "pipe, cleanup": ("mkfifo p", cleanup(copy=[("p", "o")]), stopped("p", PIPE)),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_and_pipes(case: str, client: Client) -> None:
    """A list is read only if its name or `f` says so and all of its parts exist; a pipe is never read."""
    script, task, check = LISTS[case]
    client.put("hls/list.m3u8", "dash/list.mpd", "pictures/%03d.png", "upload.mp4", "clip.ts", "bad.ffconcat")
    client.shell(script)

    check(client.run(task))
