"""Always explained: provoked failures, each with the words that a user needs in `message`.

The words hold for ffmpeg 5 to 7, HandBrake 1.6 to 1.9 and MKVToolNix 74 to 92, or for the client's own refusal.
"""

import os
from typing import Any

import pytest

from tests.cases.checks import Words, stopped
from tests.cases.client import Client, namespace
from tests.cases.tasks import AAC, COPY, Task, cleanup, encode, ffmpeg, handbrake, mkvextract, mkvmerge

pytestmark = pytest.mark.tools


def audio(target: str = "out.mkv", **options: Any) -> Task:
    return ffmpeg(target=target, video=None, audio=AAC | options)


def subtitle(source: str, target: str, codec: str) -> Task:
    return ffmpeg(source, target, outs={"s:0": {"codec": codec}})


def encoder(**options: Any) -> Task:
    return handbrake(video_options=options)


FAILURES: dict[str, tuple[Task, tuple[Words, ...]]] = {
    # ffmpeg: values of encoders
    "ffmpeg preset": (encode(preset="nope"), ("preset", "nope")),
    "ffmpeg preset, and a file of an option": (encode(preset="nope", vstats_file="stats"), ("preset", "nope")),
    "ffmpeg preset of x265": (ffmpeg(video={"codec": "libx265", "preset": "nope"}), ("preset", "nope")),
    "ffmpeg tune": (encode(tune="nope"), ("tune", "nope")),
    "ffmpeg profile": (encode(profile="nope"), ("profile", "nope")),
    "ffmpeg profile and pixel format": (encode(pix_fmt="yuv444p", profile="high"), ("profile", "4:4:4")),
    "ffmpeg pixel format": (encode(pix_fmt="nope"), ("pixel format", "nope")),
    "ffmpeg bitrate": (encode(b="many"), ("many",)),
    "ffmpeg negative bitrate": (audio(b="-5"), ("-5", "out of range")),
    "ffmpeg frame rate": (encode(r="nope"), ("framerate", "nope")),
    "ffmpeg frame size": (encode(s="nope"), ("frame size", "nope")),
    "ffmpeg frame size of no picture": (encode(s="99999x99999"), ("99999x99999", "invalid")),
    "ffmpeg odd frame size": (encode(s="81x45"), ("divisible by 2", "81x45")),
    "ffmpeg duration": (encode(t="nope"), ("duration", "nope")),
    "ffmpeg no duration": (encode(t=0), ("nothing was encoded", " t,")),
    "ffmpeg aspect": (encode(aspect="0:0"), ("aspect", "0:0")),
    "ffmpeg threads": (encode(threads=-5), ("threads", "-5")),
    "ffmpeg start": (ffmpeg(input_options={"ss": "nope"}), ("ss", "nope")),
    "ffmpeg sample rate": (audio(ar=12345), ("sample rate", "12345")),
    "ffmpeg channel layout": (audio(channel_layout="nope"), ("channel layout", "nope")),
    "ffmpeg channels": (audio(codec="libmp3lame", ac=6), ("channel layout", "5.1")),
    "ffmpeg too many channels": (audio(ac=99), ("99 channels",)),
    "ffmpeg sample rate of Opus": (audio(codec="libopus", ar=44100), ("sample rate", "44100", "not supported")),
    "ffmpeg experimental encoder": (audio(codec="dca"), ("experimental", "strict")),
    "ffmpeg B frames": (
        ffmpeg(video={"codec": "libx265", "preset": "ultrafast", "x265-params": "bframes=99"}),
        ("bframe count must be 16 or smaller",),
    ),
    "ffmpeg picture too small": (ffmpeg(video={"codec": "libsvtav1", "preset": 12, "s": "16x16"}), ("width", "64")),
    "ffmpeg encoder": (encode(codec="libx256"), ("no encoder", "libx256", "libx265")),
    "ffmpeg encoder of a machine without": (encode(codec="h264_nvenc"), (("libcuda", "nvenc"),)),
    "ffmpeg encoder without Quick Sync": (ffmpeg(video={"codec": "h264_qsv"}), ("h264_qsv", "MFX session")),
    "ffmpeg encoder without VA-API": (ffmpeg(video={"codec": "h264_vaapi"}), ("h264_vaapi", "formats")),
    "ffmpeg encoder of another type": (audio(codec="libx264"), ("libx264",)),
    # ffmpeg: filters
    "ffmpeg filter": (encode(vf="scale=80:-2,nope"), ("filter", "nope")),
    "ffmpeg filter option": (encode(vf="scale=nope"), ("scale", "nope")),
    "ffmpeg filter value": (encode(vf="crop=9999:9999"), ("9999", "too big")),
    "ffmpeg filter expression": (encode(vf="fps=nope"), ("fps", "undefined constant", "nope")),
    "ffmpeg filter on a device": (encode(vf="scale_cuda=80:45"), ("scale_cuda", "formats")),
    "ffmpeg label": (encode(vf="scale=80:45[a"), ("mismatched", "[a")),
    "ffmpeg graph's stream": (
        ffmpeg(output_options={"filter_complex": "[0:v:7]scale=80:45[x]"}),
        ("0:v:7", "matches no streams"),
    ),
    "ffmpeg filter of another type": (encode(vf="volume=2"), (("volume", "audio filter", "type mismatch"),)),
    "ffmpeg filter's file": (encode(vf="subtitles=none.srt"), ("none.srt",)),
    "ffmpeg filter of a copy": (ffmpeg(video=COPY | {"vf": "scale=80:-2"}), (("streamcopy", "copy"), "filter")),
    "ffmpeg bitstream filter": (ffmpeg(video=COPY | {"bsf": "nope"}), ("bitstream filter", "nope")),
    "ffmpeg bitstream filter of another codec": (
        ffmpeg(video=COPY | {"bsf": "hevc_mp4toannexb"}),
        ("h264", "not supported by the bitstream filter"),
    ),
    # ffmpeg: containers
    "ffmpeg H.264 in WebM": (ffmpeg(target="out.webm"), ("WebM", ("VP9", "h264"))),
    "ffmpeg AAC in MP3": (audio("out.mp3"), (("MP3 audio stream", "not support", "mp3"),)),
    "ffmpeg Opus in AVI": (audio("out.avi", codec="libopus"), (("codec", "opus"),)),
    "ffmpeg ProRes in MP4": (ffmpeg(target="out.mp4", video={"codec": "prores"}), ("prores", "container")),
    "ffmpeg film in WAV": (ffmpeg(target="out.wav", video=COPY, audio=COPY), (("WAVE", "wav muxer"),)),
    "ffmpeg H.265 in ASF": (
        ffmpeg(target="out.asf", video={"codec": "libx265", "preset": "ultrafast"}),
        ("libx265", "container asf"),
    ),
    "ffmpeg empty subtitles": (ffmpeg("empty.srt", outs={"s:0": {"codec": "srt"}}), ("empty.srt", "is empty")),
    "ffmpeg extension": (ffmpeg(target="out.nope"), ("output format", "nope")),
    "ffmpeg muxer": (encode(f="nope"), ("output format", "nope")),
    "ffmpeg picture subtitles into text": (subtitle("pgs.mkv", "out.srt", "srt"), ("bitmap",)),
    "ffmpeg text subtitles into pictures": (subtitle("subs.mkv", "out.mkv", "dvdsub"), ("bitmap",)),
    "ffmpeg SubRip in MP4": (subtitle("subs.mkv", "out.mp4", "srt"), ("subrip", "container")),
    # ffmpeg: sources
    "ffmpeg source": (ffmpeg("none.mkv"), ("none.mkv", "no such file")),
    "ffmpeg source with a percent sign": (ffmpeg("a%20d.mkv"), ("a%20d.mkv: no such file",)),
    "ffmpeg source in a file": (ffmpeg("text.mkv/x.mkv"), ("text.mkv/x.mkv: not a directory",)),
    "ffmpeg no media": (ffmpeg("text.mkv"), ("text.mkv", "no media")),
    "ffmpeg demuxer": (ffmpeg(input_options={"f": "nope"}), ("input format", "nope")),
    "ffmpeg decoder": (ffmpeg(input_options={"c:v": "hevc"}), ("hevc",)),
    "ffmpeg hwaccel": (ffmpeg(input_options={"hwaccel": "nope"}), ("hwaccel", "nope")),
    "ffmpeg hwaccel without a device": (
        ffmpeg(input_options={"hwaccel": "vaapi", "hwaccel_output_format": "vaapi"}),
        ("no device", "vaapi"),
    ),
    "ffmpeg character set": (
        ffmpeg("s.srt", outs={"s:0": {"codec": "ass"}}, input_options={"sub_charenc": "NOPE"}),
        ("character encoding", "NOPE"),
    ),
    "ffmpeg characters": (ffmpeg("latin.srt", outs={"s:0": {"codec": "ass"}}), ("UTF-8", "subtitles")),
    "ffmpeg raw video": (ffmpeg("text.mkv", input_options={"f": "rawvideo"}), ("text.mkv", "picture size 0x0")),
    "ffmpeg server": (ffmpeg("http://127.0.0.1:1/x.mkv"), ("127.0.0.1", "connection refused")),
    "ffmpeg attachment": (ffmpeg(output_options={"attach": "none.ttf"}), ("none.ttf",)),
    "ffmpeg language": (ffmpeg(maps=["v:0", "a:m:language:fra"]), ("source_maps[1]", "fra")),
    "ffmpeg stream": (ffmpeg(maps=["v:0", "a:7"]), ("source_maps[1]", "0:a:7", "2 audio streams")),
    "ffmpeg start after the end": (ffmpeg(input_options={"ss": "1:00"}), ("1:00", "after", "end")),
    # HandBrakeCLI
    "handbrake encoder": (encoder(encoder="nope"), ("encoder", "nope")),
    "handbrake encoder of a machine without": (encoder(encoder="nvenc_h264"), ("nvenc_h264",)),
    "handbrake encoder preset": (encoder(encoder_preset="nope"), ("preset", "nope")),
    "handbrake encoder tune": (encoder(encoder_tune="nope"), ("tune", "nope")),
    "handbrake encoder profile": (encoder(encoder_profile="nope"), ("profile", "nope")),
    "handbrake encoder level": (encoder(encoder_level="99"), ("level", "99")),
    "handbrake frame rate": (encoder(rate="nope"), ("rate", "nope")),
    "handbrake audio encoder": (handbrake(audio_options={"aencoder": "nope"}), (("audio encoder", "aencoder"), "nope")),
    "handbrake mixdown": (handbrake(audio_options={"mixdown": "nope"}), ("mixdown", "nope")),
    "handbrake fallback": (
        handbrake(audio_options={"aencoder": "copy:ac3", "audio_fallback": "nope"}),
        ("fallback", "nope"),
    ),
    "handbrake container": (handbrake(destination_options={"format": "nope"}), (("container", "format"), "nope")),
    "handbrake H.264 in WebM": (handbrake(target="out.webm"), ("encoder", "WebM")),
    "handbrake filter": (handbrake(filters_options={"deinterlace": "nope"}), ("deinterlace", "nope")),
    "handbrake subtitle file": (handbrake(subtitles_options={"srt_file": "none.srt"}), ("none.srt",)),
    "handbrake empty subtitles": (handbrake(subtitles_options={"srt_file": "empty.srt"}), ("empty.srt", "is empty")),
    "handbrake color": (
        handbrake(filters_options={"colorspace": {"custom": {"primaries": "nope"}}}),
        ("no path between colorspaces",),
    ),
    "handbrake no media": (handbrake("text.mkv"), ("text.mkv", "no title")),
    "handbrake start after the end": (
        handbrake(source_options={"start_at": {"seconds": 99}}),
        ("start_at", "after the end"),
    ),
    "handbrake chapters": (handbrake(source_options={"chapters": "7-9"}), ("chapter",)),
    # mkvmerge
    "mkvmerge no media": (mkvmerge("text.mkv"), ("text.mkv", ("no media", "recognized"))),
    "mkvmerge track": (mkvmerge(tracks=[{"source": 0, "track": 7}]), ("tracks[0]", "7")),
    "mkvmerge empty subtitles": (mkvmerge("clip.mkv", "empty.srt"), ("empty.srt", "is empty")),
    "mkvmerge language": (mkvmerge(track={"language": "nope"}), ("language", "nope")),
    "mkvmerge sync": (mkvmerge(track={"sync": "nope"}), ("sync", "nope")),
    "mkvmerge duration": (mkvmerge(track={"default-duration": "nope"}), ("nope", "default-duration")),
    "mkvmerge boolean": (mkvmerge(track={"default-track-flag": "maybe"}), ("maybe", "default-track-flag")),
    "mkvmerge compression": (mkvmerge(track={"compression": "nope"}), ("nope", "compression")),
    "mkvmerge chapters": (mkvmerge(options={"chapters": "font.ttf"}), ("chapter", "font.ttf")),
    "mkvmerge chapters' file": (mkvmerge(options={"chapters": "none.txt"}), ("none.txt", "no such file")),
    "mkvmerge tags' file": (mkvmerge(track={"tags": "none.xml"}), ("none.xml", "no such file")),
    "mkvmerge chapters' XML": (mkvmerge(options={"chapters": "bad.xml"}), ("bad.xml", "xml")),
    "mkvmerge tags' XML": (mkvmerge(options={"global-tags": "bad.xml"}), ("bad.xml", "xml")),
    "mkvmerge split": (mkvmerge(options={"split": "size:nope"}), ("split",)),
    "mkvmerge tags": (mkvmerge(options={"global-tags": "s.srt"}), ("tag", "s.srt")),
    "mkvmerge timestamps": (mkvmerge(track={"timestamps": "s.srt"}), ("timestamp", "s.srt")),
    "mkvmerge attachment": (mkvmerge(attachments=[{"filename": "none.ttf"}]), ("none.ttf", "no such file")),
    # mkvextract
    "mkvextract track": (mkvextract(tracks=[{"id": 9, "filename": "o"}]), ("tracks[0]", "9")),
    "mkvextract onto a directory": (mkvextract(target="full"), ("full", "directory")),
    "mkvextract language": (
        mkvextract(tracks=[{"id": 0, "track_type": "audio", "language": "fra", "filename": "o"}]),
        ("tracks[0]", "fra"),
    ),
    "mkvextract attachment": (mkvextract(attachments=[{"id": 4, "filename": "o"}]), ("attachments[0]", "4")),
    "mkvextract timestamps": (mkvextract(timestamps=[{"id": 6, "filename": "o"}]), ("timestamps[0]", "6")),
    "mkvextract cues": (mkvextract(cues=[{"id": 6, "filename": "o"}]), ("cues[0]", "6")),
    "mkvextract cues of audio": (mkvextract(cues=[{"id": 1, "filename": "o"}]), ("no cues", "1")),
    "mkvextract chapters": (mkvextract(chapters="o.xml"), ("chapters", ("none", "no chapters"))),
    "mkvextract another container": (mkvextract("clip.mp4"), ("clip.mp4", "Matroska")),
    # cleanup
    "cleanup source": (cleanup(copy=[("none", "o")]), ("none", "no such file")),
    "cleanup move of nothing onto a file": (cleanup(move=[("none", "s.srt")]), ("none", "no such file")),
    "cleanup file for a directory": (cleanup(move=[("s.srt", "text.mkv/o")]), ("text.mkv", "directory")),
    "cleanup full directory": (cleanup(delete=["full"]), ("full", "not empty")),
    "cleanup copy of a directory": (cleanup(copy=[("full", "o")]), ("full", "directory")),
    "cleanup directory onto a file": (cleanup(move=[("full", "text.mkv")]), ("text.mkv", "directory")),
}


@pytest.mark.parametrize("case", FAILURES)
def test_reason(case: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the tool's reason, or the client's, and nothing was written."""
    task, words = FAILURES[case]
    client.shell("mkdir full; touch full/file; echo text >text.mkv; echo '<Chapters><EditionEntry>' >bad.xml")
    client.shell("printf '1\\n00:00:00,000 --> 00:00:01,000\\nM\\374ller\\n' >latin.srt")
    client.put("font.ttf", "s.srt", "clip.mkv")

    monkeypatch.setenv("AV_LOG_FORCE_COLOR", "1")
    result = client.run(task)

    stopped(*words)(result)
    assert "\x1b" not in result.message


PLACES: dict[str, Task] = {
    "ffmpeg": ffmpeg("av.mkv", "there/out.mkv"),
    "handbrake": handbrake("av.mkv", "there/out.mkv", video_options={"quality": 1}),
    "mkvmerge": mkvmerge("av.mkv", target="there/out.mkv"),
    "mkvextract": mkvextract("av.mkv", "there/out.h264"),
    "cleanup copy": cleanup(copy=[("av.mkv", "there/")]),
    "cleanup move": cleanup(move=[("av.mkv", "there/")]),
}
NO_SPACE = ("no space", "free", "full")


@pytest.mark.parametrize("free_space", ["0%", "100%"])
@pytest.mark.parametrize("case", PLACES)
def test_full_disk(case: str, free_space: str, client: Client) -> None:
    """A full disk is named as the reason, before the run or during it; no file is left on it, and the source stays."""
    client.configure(free_space=free_space)
    client.shell("mkdir there")
    with namespace(client, "mount -t tmpfs -o size=100k none there") as prefix:
        stopped("there", NO_SPACE)(client.run(PLACES[case], prefix=prefix))
        left = client.run(cleanup(move=[("there", "listed")]), prefix=prefix)

    assert not left.completed or not os.listdir(client.work / "listed")


@pytest.mark.parametrize("case", PLACES)
def test_read_only_file_system(case: str, client: Client) -> None:
    """A target where nothing can be written is refused by its name, before anything runs."""
    client.shell("mkdir there")
    with namespace(client, "mount -t tmpfs -o ro none there") as prefix:
        stopped("there", ("cannot be written", "read-only"))(client.run(PLACES[case], prefix=prefix))


ORDINARY = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Makes root obey the modes of its own files."""


@pytest.mark.parametrize("case", PLACES)
def test_directory_that_must_not_be_written(case: str, client: Client) -> None:
    """A directory without the permission to write is named."""
    client.shell("mkdir there; chmod 555 there")

    stopped("there", ("cannot be written", "permission denied"))(client.run(PLACES[case], prefix=ORDINARY))


@pytest.mark.parametrize("case", [name for name in PLACES if name != "cleanup move"])
def test_source_that_must_not_be_read(case: str, client: Client) -> None:
    """A source without the permission to read is named."""
    client.put("av.mkv")
    client.shell("mkdir there")
    before = os.stat(client.work / "av.mkv")
    os.chmod(client.work / "av.mkv", 0)
    try:
        status, out, _ = client.call("run", "--json", str(client.write({"tasks": [PLACES[case]]})), prefix=ORDINARY)
    finally:
        os.chmod(client.work / "av.mkv", before.st_mode)

    assert status == 1
    assert "av.mkv" in out
    assert "permission denied" in out.lower()
