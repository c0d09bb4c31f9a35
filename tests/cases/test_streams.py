"""Never wrong: the stream, track and preset that were asked for, or a word about it."""

from typing import Any

import pytest

from tests.cases.checks import Check, completes, refused, stopped, told
from tests.cases.client import Client
from tests.cases.tasks import AAC, COPY, ENCODE, Task, ffmpeg, handbrake, mkvmerge

FILM, SMALL = "video h264 320x180", "video h264 160x90"
JPN, ENG = "audio aac jpn", "audio aac eng Commentary"


def mapped(source: str, *maps: Any, target: str = "out.mkv", **options: Any) -> Task:
    """Copy what the maps name, without a word about its codecs."""
    outputs = [{"stream": 0, "options": COPY | options}]
    task = ffmpeg(source, target, maps=[each for each in maps if isinstance(each, str)], output_maps=outputs)
    task["data"]["source_maps"] += [each for each in maps if not isinstance(each, str)]
    task["data"]["output_options"] = {"c": "copy"}
    return task


def holds(*expected: str) -> Check:
    return completes(holds={"out.mkv": expected})


STREAMS: dict[str, tuple[Task, Check]] = {
    # Covers: stream 0 of cover1st.mp4, the last of the others.
    "v:1 behind a cover": (mapped("cover1st.mp4", "v:1"), holds(FILM)),
    "v:0 before a cover": (mapped("covered.mp4", "v:0"), holds(FILM)),
    "v:0 before a cover in mkv": (mapped("covered.mkv", "v:0", "a:0"), holds(SMALL, JPN)),
    "V in mkv": (mapped("covered.mkv", "V", "a:0"), holds(SMALL, JPN)),
    "V:0": (mapped("cover1st.mp4", "V:0"), holds(FILM)),
    "V:1, which is none": (mapped("cover1st.mp4", "V:1"), refused("source_maps[0]", "0:V:1", "1 video stream")),
    "video:0 that is a cover": (mapped("cover1st.mp4", "video:0"), refused("source_maps[0]", "cover", "V")),
    "0 that is a cover": (mapped("cover1st.mp4", {"source": 0, "stream": 0}), refused("source_maps[0]", "cover", "V")),
    "v:0 that is a cover, encoded": (ffmpeg("cover1st.mp4", audio=AAC), refused("source_maps[0]", "cover", "V")),
    "cover and film": (
        mapped("cover1st.mp4", "v:0", "v:1", target="out.mp4"),
        completes(changed=["out.mp4"], holds={"out.mp4": [FILM, "video png"]}),
    ),
    "the cover alone": (
        mapped("covered.mp4", "v:1", target="out.png"),
        completes(changed=["out.png"], holds={"out.png": ["video png 200x300"]}),
    ),
    "the cover of music": (
        mapped("covered.mp3", "v:0", target="out.png"),
        completes(changed=["out.png"], holds={"out.png": ["video png 200x300"]}),
    ),
    "music without its cover": (mapped("covered.mp3", "a:0"), holds("audio mp3")),
    "V of music": (mapped("covered.mp3", "V"), refused("source_maps[0]", "0:V")),
    "cover, handbrake": (handbrake("cover1st.mp4"), holds(FILM, "audio")),
    "cover in mkv, handbrake": (handbrake("covered.mkv"), holds(SMALL, "audio")),
    "cover, mkvmerge": (mkvmerge("covered.mkv"), holds(SMALL, "video png")),
    # Specifiers: ffmpeg's own, in full.
    "a:m:language:eng": (mapped("av.mkv", "a:m:language:eng"), holds(ENG)),
    "m:title:Commentary": (mapped("av.mkv", "m:title:Commentary"), holds(ENG)),
    "m:language:jpn": (mapped("av.mp4", "m:language:jpn"), holds(JPN)),
    "s:m:language:ger": (mapped("subs.mkv", "V", "s:m:language:ger"), holds(FILM, "subtitle subrip")),
    "a word": (mapped("av.mkv", "Video:0", "audio:1"), holds(FILM, ENG)),
    "a": (mapped("av.mkv", "a"), holds(JPN, ENG)),
    "#0x101": (mapped("full.ts", "#0x101"), holds("audio aac")),
    "i:0x100": (mapped("full.ts", "i:0x100"), holds("video h264")),
    "p:1": (mapped("full.ts", "p:1"), holds("video h264", "audio", "audio")),
    "u": (mapped("av.mkv", "u"), holds(FILM, JPN, ENG)),
    "all but": (
        mapped("subs.mkv", {"source": 0}, map="-0:s"),
        holds(FILM, JPN, ENG),
    ),
    "a language that is none": (mapped("av.mkv", "a:m:language:fra"), refused("source_maps[0]", "fra")),
    "an optional language that is none": (
        mapped("av.mkv", "V", {"source": 0, "specifier": "a:m:language:fra", "optional": True}),
        completes("fra", holds={"out.mkv": [FILM]}),
    ),
    "no specifier at all": (mapped("av.mkv", "x:0"), stopped("source_maps[0]", "x")),
    # Output maps that name no stream of the output: their options would be lost.
    "output a:1": (
        ffmpeg(maps=["v:0", "a:0"], output_maps=[{"specifier": "a", "stream": 1, "options": AAC}]),
        refused("output_maps[0]", "a:1"),
    ),
    "output s:0": (
        ffmpeg(output_maps=[{"specifier": "s", "stream": 0, "options": COPY}], maps=["v:0", "a"]),
        refused("output_maps[0]", "s:0"),
    ),
    "output v:1 without its cover": (
        ffmpeg("cover1st.mp4", output_maps=[{"specifier": "v", "stream": 1, "options": COPY}], maps=["V"]),
        refused("output_maps[0]", "v:1"),
    ),
    "output of an optional map": (
        ffmpeg(
            "av.mkv",
            source_maps=[
                {"source": 0, "specifier": "v", "stream": 0},
                {"source": 0, "specifier": "s", "stream": 0, "optional": True},
            ],
            output_maps=[
                {"specifier": "v", "stream": 0, "options": COPY},
                {"specifier": "s", "stream": 0, "options": COPY},
            ],
        ),
        completes("output_maps[1]", holds={"out.mkv": [FILM]}),
    ),
    "output number without type": (
        ffmpeg(maps=["v:0"], output_maps=[{"stream": 1, "options": ENCODE}]),
        refused("output_maps[0]"),
    ),
    # What encoders ignore.
    "x264-params that it does not know": (ffmpeg(video=ENCODE | {"x264-params": {"nope": 1}}), told("nope")),
    "encopts that HandBrake does not know": (handbrake(video_options={"encopts": {"nope": 1}}), told("nope")),
}


@pytest.mark.parametrize("case", STREAMS)
def test_streams(case: str, client: Client) -> None:
    """The output has the streams that were asked for, or the job says why not."""
    task, check = STREAMS[case]

    check(client.run(task))


def audio(**options: Any) -> dict[str, Any]:
    return {"audio_options": options}


def preset(target: str = "out.mkv", **options: Any) -> Task:
    """An encode with nothing but a preset."""
    data = {"source": "clip.mkv", "output_file": target, "general_options": options}
    return {"module": "handbrake", "data": data}


TWO = (
    'python3 -c \'import json; a, b = (json.load(open(n)) for n in ("preset.json", "other.json"));'
    ' a["PresetList"] += b["PresetList"]; json.dump(a, open("two.json", "w"))\''
)

TRACKS: dict[str, tuple[Task, Check]] = {
    "a language that is none": (handbrake(**audio(audio_lang_list=["fra"])), stopped("audio")),
    "one language of two": (
        handbrake("av.mkv", **audio(audio_lang_list=["eng", "fra"], all_audio=True)),
        completes("fra", holds={"out.mkv": [FILM, "audio eng"]}),
    ),
    "subtitles of a language that is none": (
        handbrake("subs.mkv", subtitles_options={"subtitle_lang_list": ["fra"], "all_subtitles": True}),
        completes("subtitle", "fra", holds={"out.mkv": [FILM, "audio"]}),
    ),
    "all subtitles of a source without": (handbrake(subtitles_options={"all_subtitles": True}), holds(SMALL, "audio")),
    "a copy that cannot be, and no fallback": (
        handbrake(**audio(audio=[1], aencoder=["copy:ac3"], audio_fallback="none")),
        stopped("audio"),
    ),
    "one copy of two that cannot be": (
        handbrake("av.mkv", **audio(audio=[1, 2], aencoder=["copy:ac3", "av_aac"], audio_fallback="none")),
        completes("audio", "1", holds={"out.mkv": [FILM, "audio eng"]}),
    ),
    "an audio track that is none": (handbrake(**audio(audio=[9])), refused("audio", "9")),
    "no audio wanted": (handbrake(**audio(audio="none")), holds(SMALL)),
    "picture subtitles into mp4": (
        handbrake("pgs.mkv", target="out.mp4", subtitles_options={"subtitle": [1, 2, 3]}),
        completes("subtitle", "2", changed=["out.mp4"]),
    ),
    "a preset file's preset by name": (
        preset(preset_import_file="preset.json", preset="Mine"),
        completes(holds={"out.mkv": ["video 96x54", "audio"]}),
    ),
    "a preset that is not in the file": (
        preset(preset_import_file="preset.json", preset="Yours"),
        refused("Yours", "Mine"),
    ),
    "a file of two presets": (preset(preset_import_file="two.json"), refused("two.json", "Mine", "Other")),
    "a preset that is none": (preset(preset="No Such"), refused("No Such")),
    "a preset file that is none": (preset(preset_import_file="none.json"), refused("none.json")),
    "a preset file that is no JSON": (preset(preset_import_file="s.srt"), refused("s.srt")),
    "two preset files": (
        preset(preset_import_file=["preset.json", "badpreset.json"], preset="Mine"),
        refused("badpreset.json"),
    ),
}


@pytest.mark.parametrize("case", TRACKS)
def test_tracks_and_presets(case: str, client: Client) -> None:
    """HandBrake drops tracks and presets without a word: the job says so."""
    task, check = TRACKS[case]
    client.put("preset.json", "other.json")
    client.shell(TWO)

    check(client.run(task))
