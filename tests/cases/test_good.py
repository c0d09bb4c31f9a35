"""Never refused without need: correct jobs complete, with the result that was asked for."""

import json
import os
from typing import Any

import pytest

from tests.cases.checks import Check, completes, streams, tags_of
from tests.cases.client import Client
from tests.cases.tasks import AAC, COPY, ENCODE, Task, cleanup, encode, ffmpeg, handbrake, job, mkvextract, mkvmerge

pytestmark = pytest.mark.tools

NAMES = {
    "sequence": "%d.mkv",
    "percent": "100% %03d %s.mkv",
    "newline": "new\nline.mkv",
    "quotes": 'it\'s "q".mkv',
    "dash": "-dash.mkv",
    "no UTF-8": os.fsdecode(b"caf\xe9.mkv"),
    "protocol": "a:b.mkv",
    "shell": "$HOME; `x` & *.mkv",
    "space": " space .mkv",
    "at": "@at.mkv",
    "brackets": "[x] {1} (y).mkv",
    "equals": "a=b,c|d\\e.mkv",
    "entities": "&amp; &lt;.mkv",
    "umlauts": "Größe, 日本.mkv",
    "quoted": "'quoted'.mkv",
    "mode": "tracks",
    "option": "--identify",
    **{mark: mark for mark in ("(", ")", "[", "]", "=is", "+plus", "#")},
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module takes any file name for its source and its target, with a directory and without, in any locale."""
    monkeypatch.setenv("LC_ALL", "C")
    one = NAMES[name]
    two, three, four, five = f"{one}.2.mkv", f"3/{one}.mkv", f"{one}.4.mkv", f"5/{one}"
    client.put("clip.mkv")
    client.shell("mkdir 3 5")

    result = client.run(
        cleanup(copy=[("clip.mkv", f"./{one}")]),
        ffmpeg(one, two, audio=AAC),
        handbrake(two, three),
        mkvmerge(one, three, target=four, attachments=[{"filename": one}]),
        mkvextract(four, tracks=[{"id": 0, "filename": five}], attachments=[{"id": 1, "filename": f"{one}.a"}]),
        cleanup(move=[(four, "done/")], delete=[one, two]),
        by_program=not one.isascii(),  # which has to know the names' encoding itself
    )
    completes(changed=[three, five, f"{one}.a", f"done/{four}"])(result)


def holds(*expected: str, name: str = "out.mkv") -> Check:
    return completes(changed=[name], holds={name: expected})


LAVFI = {"filename": "color=red:size=64x64:duration=1", "options": {"f": "lavfi"}}
FLIPPED = {"filter_complex": "[0:v]hflip"}
CROP = {"crop": {"top": 0, "bottom": 2, "left": 0, "right": 0}}
WHOLE = {"filename": "clip.mkv", "options": {"no-chapters": None, "_copy-audio-tracks": None}}
GOOD: dict[str, tuple[Task, Check]] = {
    "but the audio": (
        ffmpeg("subs.mkv", maps=[""], video=COPY | {"map": "-0:a"}),
        holds("video", "subtitle", "subtitle"),
    ),
    "but a track": (ffmpeg("av.mkv", maps=[""], video=COPY | {"map": "-0:a:1"}), holds("video", "audio jpn")),
    "options of the output": (
        encode(**{"t": 1, "shortest": True, "map_metadata:s:v": "0:s:v", "map_chapters": -1}),
        completes(),
    ),
    "a flag that is false": (encode(shortest=False, an=True), completes()),
    "metadata": (ffmpeg(audio=COPY | {"metadata:s": "title=Ton: eins"}), holds("video", "audio Ton: eins")),
    "disposition": (ffmpeg(audio=COPY | {"disposition": "default+comment"}), completes()),
    "bitstream filter": (ffmpeg(target="o.ts", video=COPY | {"bsf": "h264_mp4toannexb"}), completes(changed=["o.ts"])),
    "commas in a filter": (encode(vf="select='gt(n\\,10)',scale=80:-2"), holds("video h264 80x46")),
    "filter_complex": (ffmpeg(maps=["a:0"], outs={"a:0": COPY | FLIPPED}), holds("video", "audio jpn")),
    "a picture": (
        ffmpeg(target="wolf %03d 50%.jpg", video={"codec": "mjpeg", "frames": 1}),
        completes(changed=["wolf %03d 50%.jpg"]),
    ),
    "a first pass": (
        ffmpeg(target="/dev/null", video=ENCODE | {"b": "90k", "pass": 1, "an": True, "f": "null"}, overwrite=True),
        completes(changed=[]),
    ),
    "a codec's name": (ffmpeg(video={"codec": "h264"}), completes()),
    "loop": (ffmpeg(input_options={"stream_loop": 1}), completes()),
    "recast_media": (ffmpeg(input_options={"recast_media": True}), completes()),
    "part": (ffmpeg(input_options={"ss": "0:00:00.5", "to": "00:00:01"}), completes()),
    "sources with options": (
        ffmpeg([{"filename": "clip.mkv", "options": {"ss": "0.5"}}, {"filename": "clip.mp3"}], maps=["v:0", "1:a:0"]),
        holds("video h264", "audio"),
    ),
    "a generated picture": (ffmpeg(LAVFI), holds("video h264 64x64")),
    "handbrake, flags": (handbrake(filters_options={"comb_detect": True}, picture_options=CROP), completes()),
    "handbrake, a filter's settings": (handbrake(filters_options={"rotate": {"angle": 90}}), holds("video 90x160", "")),
    "handbrake, a flag that is false": (handbrake(filters_options={"detelecine": False}), completes()),
    "handbrake, part": (
        handbrake("av.mkv", source_options={"start_at": {"seconds": 2}, "stop_at": {"seconds": 3}}),
        completes(),
    ),
    "handbrake, values as its help has them": (
        handbrake(
            source_options={"previews": "10:0"},
            video_options={"rate": "29.97", "cfr": True},
            audio_options={"audio": [1, 1], "arate": ["auto", "44100"], "normalize_mix": [0, 1]},
            picture_options={"color_matrix": "ntsc", "crop_mode": "none", "pixel_aspect": "1:1"},
        ),
        completes(),
    ),
    "handbrake, another's extension": (handbrake(destination_options={"format": "av_mp4"}), completes("extension")),
    "handbrake, an encoder that it does not list": (
        handbrake(audio_options={"audio": [1], "aencoder": ["fdk_aac"]}),
        completes("audio_options.aencoder", "does not list 'fdk_aac'"),
    ),
    "mkvmerge, options of no effect": (mkvmerge(options={"split": False, "gui-mode": True}), completes()),
    "mkvmerge, another's extension": (mkvmerge(target="out.mp4"), completes("extension", changed=["out.mp4"])),
    "mkvmerge, ratios": (mkvmerge(track={"aspect-ratio": "16/9", "colour-range": 1}), completes()),
    "handbrake, encopts": (handbrake(video_options={"encopts": {"bframes": 0}}), completes()),
    "mkvmerge, flags": (
        mkvmerge(WHOLE, options={"no-global-tags": True, "title": "A: 'B'"}),
        holds("video", "audio jpn", "audio eng"),
    ),
    "mkvmerge, a flag that is false": (mkvmerge(options={"no-global-tags": False}), completes()),
    "mkvmerge, numbers": (mkvmerge(track={"sync": 100, "track-name": 7}), completes()),
    "cleanup, nothing there": (cleanup(delete=["none", "none either"]), completes("none either", changed=[])),
    "cleanup, one target": (
        cleanup(copy=[("s.srt", "o")], move=[("s.srt", "o")]),
        completes("o", changed=["s.srt", "o"]),
    ),
    "cleanup, delete first": (cleanup(delete=["s.srt"], copy=[("clip.mkv", "s.srt")]), completes(changed=["s.srt"])),
    "cleanup, new directories": (cleanup(copy=[("s.srt", "a/b/c/")]), completes(changed=["a/b/c/s.srt"])),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_job(case: str, client: Client) -> None:
    """A correct job completes."""
    task, check = GOOD[case]

    check(client.run(task))


MAPPINGS: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "colon": ("libx264", {"x264-params": {"deblock": "2:-1", "bframes": 0}}, b"deblock=1:2:-1"),
    "two colons": ("libx264", {"x264-params": {"psy-rd": "0.5:0.1"}}, b"psy_rd=0.50:0.10"),
    "equal sign": ("libx264", {"x264-params": {"zones": "0,10,q=20", "bframes": 0}}, b"zones=0,10,q=20"),
    "x265": ("libx265", {"x265-params": {"deblock": "2:-1", "log-level": "none"}}, b"deblock=2:-1"),
    "colon that is escaped": ("libx264", {"x264-params": "deblock=2\\:-1:bframes=0"}, b"deblock=1:2:-1"),
}


@pytest.mark.parametrize("case", MAPPINGS)
def test_mappings(case: str, client: Client) -> None:
    """Colons and equal signs in a mapping's values reach the encoder, which writes its settings into the stream."""
    codec, options, settings = MAPPINGS[case]

    completes()(client.run(ffmpeg(video={"codec": codec, "preset": "ultrafast"} | options)))
    assert settings in (client.work / "out.mkv").read_bytes()


def test_a_mapping_of_metadata(client: Client) -> None:
    """ffmpeg takes the text of metadata as it is: nothing in it is escaped."""
    options = COPY | {"metadata:s": {"title": "Part 1: C:\\films = 'x'"}}

    completes()(client.run(ffmpeg(video=options)))
    assert streams(client.work / "out.mkv")[0] >= {"Part", "1:", "C:\\films", "=", "'x'"}


def test_a_dry_run_in_a_shell(client: Client) -> None:
    """The lines of a dry run can be pasted into a shell, also where they name files of the task's own directory."""
    task = job(
        ffmpeg(target="/dev/null", video=ENCODE | {"b": "90k", "pass": 1, "f": "null"}, overwrite=True),
        ffmpeg(video=ENCODE | {"b": "90k", "pass": 2}),
        mkvmerge("clip.mkv", target="o.mkv", options={"title": "@home"}),
        mkvextract("clip.mkv", "new\nline"),
    )
    client.provide(task)
    status, plan, error = client.call("run", "--dry-run", str(client.write(task)))

    assert status == 0, error
    client.shell(f"{{ {plan}\n}} >/dev/null 2>&1")
    assert streams(client.work / "out.mkv")
    assert tags_of(client.work / "o.mkv")["title"] == "@home"
    assert (client.work / "new\nline").exists()


def test_names_of_old(client: Client) -> None:
    """The field's other spellings of keys are accepted."""
    task = mkvmerge(
        attachments=[{"name": "Font", "filename": "font.ttf", "mimetype": "font/ttf"}], options={"title": "T"}
    )
    client.provide(task)
    document = {"job_name": "old"} | {key: value for key, value in job(task).items() if key != "job_title"}

    completes()(client.run(json.loads(json.dumps(document))))
    assert tags_of(client.work / "out.mkv")["title"] == "T"


def test_the_record_tells_what_was_read(client: Client) -> None:
    """Each module's sources, with their sizes as they were, though the job removes them at its end."""
    client.put("clip.mkv")
    size = os.path.getsize(client.work / "clip.mkv")
    tasks = (ffmpeg("clip.mkv", "a.mkv"), handbrake("clip.mkv", "b.mkv"), mkvmerge("clip.mkv", target="c.mkv"))
    record = client.run(job(*tasks, mkvextract("clip.mkv", "d"), cleanup(delete=["clip.mkv"]))).record

    assert [task.get("inputs") for task in record["tasks"]] == [
        [{"path": str(client.work / "clip.mkv"), "bytes": size}]
    ] * 4 + [None]
