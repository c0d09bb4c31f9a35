"""Never wrong: the output has the streams, tracks and preset that were asked for, or the job says why not."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cases.checks import Check, Result, completes, refused, stopped, told
from tests.cases.client import Client
from tests.cases.tasks import AAC, COPY, ENCODE, Task, encode, ffmpeg, handbrake, job, mkvmerge

pytestmark = pytest.mark.tools

FILM, SMALL = "video h264 320x180", "video h264 160x90"
JPN, ENG, GER = "audio jpn", "audio eng Commentary", "subtitle ger"


def mapped(source: str, *maps: str, target: str = "out.mkv", **options: Any) -> Task:
    """Copy the output's first stream, and encode the others by ffmpeg's defaults."""
    return ffmpeg(source, target, maps=maps, outs={"0": COPY | options})


def mapped_all(**outs: Any) -> Task:
    return ffmpeg(maps=[""], outs=outs)


def picture(*expected: str) -> Check:
    return completes(changed=["out.png"], holds={"out.png": expected})


def holds(*expected: str) -> Check:
    return completes(holds={"out.mkv": expected})


def silent(result: Result) -> None:
    completes()(result)
    assert not result.warnings


STREAMS: dict[str, tuple[Task, Check]] = {
    # Covers: stream 0 of cover1st.mp4, the last of the others.
    "v:1 behind a cover": (mapped("cover1st.mp4", "v:1"), holds(FILM)),
    "v:0 before a cover": (mapped("covered.mp4", "v:0"), holds(FILM)),
    "v:0 before a cover in mkv": (mapped("covered.mkv", "v:0", "a:0"), holds(SMALL, JPN)),
    "V in mkv": (mapped("covered.mkv", "V", "a:0"), holds(SMALL, JPN)),
    "V:0": (mapped("cover1st.mp4", "V:0"), holds(FILM)),
    "V:1, which is none": (mapped("cover1st.mp4", "V:1"), refused("source_maps[0]", "0:V:1", "1 video stream")),
    "video:0 that is a cover": (mapped("cover1st.mp4", "video:0"), refused("source_maps[0]", "cover", "V")),
    "0 that is a cover": (mapped("cover1st.mp4", "0"), refused("source_maps[0]", "cover", "V")),
    "v:0 that is a cover, encoded": (ffmpeg("cover1st.mp4", audio=AAC), refused("source_maps[0]", "cover", "V")),
    "cover and film": (mapped("cover1st.mp4", "v:0", "v:1"), holds("video png 200x300", FILM)),
    "the cover alone": (mapped("covered.mp4", "v:1", target="out.png"), picture("video png 200x300")),
    "the cover of music": (mapped("covered.mp3", "v:0", target="out.png"), picture("video png 200x300")),
    "music without its cover": (mapped("covered.mp3", "a:0"), holds("audio mp3")),
    "V of music": (mapped("covered.mp3", "V"), refused("source_maps[0]", "0:V")),
    "cover, handbrake": (handbrake("cover1st.mp4"), holds(FILM, "audio")),
    "cover in mkv, handbrake": (handbrake("covered.mkv"), holds(SMALL, "audio")),
    "cover, mkvmerge": (mkvmerge("covered.mkv"), holds(SMALL, "video png")),
    # Specifiers: ffmpeg's own, in full.
    "a:m:language:eng": (mapped("av.mkv", "a:m:language:eng"), holds(ENG)),
    "m:title:Commentary": (mapped("av.mkv", "m:title:Commentary"), holds(ENG)),
    "m:language:jpn": (mapped("av.mp4", "m:language:jpn"), holds(JPN)),
    "s:m:language:ger": (mapped("subs.mkv", "V", "s:m:language:ger"), holds(FILM, "subtitle")),
    "a word": (mapped("av.mkv", "Video:0", "audio:1"), holds(FILM, ENG)),
    "a": (mapped("av.mkv", "a"), holds(JPN, ENG)),
    "#0x101": (mapped("full.ts", "#0x101"), holds("audio aac")),
    "i:0x100": (mapped("full.ts", "i:0x100"), holds("video h264")),
    "p:1": (mapped("full.ts", "p:1"), holds("video h264", "audio", "audio")),
    "u": (mapped("av.mkv", "u"), holds(FILM, JPN, ENG)),
    "all but": (mapped("subs.mkv", "", map="-0:s"), holds(FILM, JPN, ENG)),
    "a language that is none": (mapped("av.mkv", "a:m:language:fra"), refused("source_maps[0]", "fra")),
    "an optional language that is none": (mapped("av.mkv", "V", "a:m:language:fra?"), holds(FILM)),
    "no specifier at all": (mapped("av.mkv", "x:0"), stopped("source_maps[0]", "x")),
    # Output maps that name no stream of the output: their options would be lost.
    "output a:1": (ffmpeg(maps=["v:0", "a:0"], outs={"a:1": AAC}), refused("output_maps[0]", "a:1")),
    "output s:0": (ffmpeg(maps=["v:0", "a"], outs={"s:0": COPY}), refused("output_maps[0]", "s:0")),
    "output v:1": (ffmpeg("cover1st.mp4", maps=["V"], outs={"v:1": COPY}), refused("output_maps[0]", "v:1")),
    "output 1": (ffmpeg(maps=["v:0"], outs={"1": ENCODE}), refused("output_maps[0]")),
    "output of an optional map": (
        ffmpeg("av.mkv", maps=["v:0", "s:0?"], outs={"v:0": COPY, "s:0": COPY}),
        completes("output_maps[1]", holds={"out.mkv": [FILM]}),
    ),
    "output a of no map": (ffmpeg(maps=["v:0"], outs={"v": COPY, "a": COPY}), refused("output_maps[1]", "a")),
    "output s of all": (
        mapped_all(s=COPY, v=COPY, a=COPY),
        completes("output_maps[0]", holds={"out.mkv": [SMALL, JPN, ENG]}),
    ),
    "options of the output for a:5": (
        ffmpeg(video=COPY, output_options={"metadata:s:a:5": "title=x"}),
        refused("output_options.metadata:s:a:5"),
    ),
    "metadata of subtitles": (
        ffmpeg("subs.mkv", maps=["V", "s:0"], outs={"v": COPY, "s:0": COPY | {"metadata:s": "title=Text"}}),
        holds(FILM, "subtitle Text"),
    ),
    "options of what is attached": (
        ffmpeg(video=COPY, output_options={"attach": ["cover.png"], "metadata:s:t:0": "mimetype=image/png"}),
        holds(SMALL, "video png"),
    ),
    "options of what is not attached": (
        ffmpeg(video=COPY, output_options={"attach": "cover.png", "metadata:s:t:1": "mimetype=image/png"}),
        refused("output_options.metadata:s:t:1"),
    ),
    "no audio, said for the audio": (ffmpeg(maps=["v:0"], outs={"0": COPY, "a:0": {"an": True}}), holds(SMALL)),
    "a graph that takes the cover": (
        ffmpeg("cover1st.mp4", maps=["a:0"], outs={"0": COPY | {"filter_complex": "[0:v]hflip"}}),
        refused("cover", "V"),
    ),
    "a graph that takes the film": (
        ffmpeg("cover1st.mp4", maps=["a:0"], outs={"a:0": COPY | {"filter_complex": "[0:V:0]hflip"}}),
        holds(FILM, "audio"),
    ),
    "a map among the options that takes the cover": (mapped("cover1st.mp4", "a:0", map="0:v:0"), refused("cover", "V")),
    # What another option or the container takes the place of.
    "two maps for one stream": (
        ffmpeg(maps=["v:0", "a:0"], outs={"v:0": ENCODE, "0": COPY, "a:0": COPY}),
        completes("output_maps[0].options.codec", "output_maps[1]", "same stream"),
    ),
    "two maps for one stream, of one mind": (
        ffmpeg(maps=["v:0"], outs={"v:0": COPY | {"metadata:s": "title=a"}, "0": COPY | {"metadata:s": "comment=b"}}),
        holds(SMALL),
    ),
    "another's extension": (
        ffmpeg(target="o.mp4", video=COPY | {"f": "matroska"}),
        completes("extension", changed=["o.mp4"]),
    ),
    "a bit rate that the encoder does not have": (handbrake(audio_options={"ab": 99999}), completes("99999", "256")),
    "the encoder's own bit rate": (handbrake(audio_options={"ab": 0}), silent),
    # What encoders ignore.
    "crf of a copy": (ffmpeg(video=COPY | {"crf": 19}), completes("crf", "copied")),
    "x264-params that it does not know": (ffmpeg(video=ENCODE | {"x264-params": {"nope": 1}}), told("nope")),
    "pix_fmt that x264 does not have": (encode(pix_fmt="yuv420p12le"), completes("yuv420p12le", "yuv420p10le")),
    "maxrate without bufsize": (encode(maxrate="90k"), completes("VBV maxrate", "ignored")),
    "a bit rate that aac does not have": (ffmpeg(audio=AAC | {"b": "2000k"}), completes("clamping")),
    "t and to": (ffmpeg(input_options={"t": "1", "to": "1"}), completes("-t and -to")),
    "crf that x264 does not have": (ffmpeg(video=ENCODE | {"crf": "99"}), completes("crf", "99", "51")),
    "a quality that x264 does not have": (handbrake(video_options={"quality": 999}), completes("quality", "999", "51")),
    "encopts that HandBrake does not know": (handbrake(video_options={"encopts": {"nope": 1}}), told("nope")),
}


@pytest.mark.parametrize("case", STREAMS)
def test_streams(case: str, client: Client) -> None:
    """The output has the streams that were asked for, or the job says why not."""
    task, check = STREAMS[case]

    check(client.run(task))


def audio(source: str = "clip.mkv", **options: Any) -> Task:
    return handbrake(source, audio_options=options)


def subtitles(source: str, target: str = "out.mkv", **options: Any) -> Task:
    return handbrake(source, target, subtitles_options=options)


def preset(file: str, name: str = "") -> Task:
    """An encode with nothing but a preset."""
    options = {key: value for key, value in {"preset_import_file": file, "preset": name}.items() if value}
    return handbrake(general_options=options, video_options=None)


def write_presets(directory: Path) -> None:
    """Make preset files of preset.json and other.json."""
    mine, other = (json.loads((directory / name).read_text()) for name in ("preset.json", "other.json"))
    french, silent = copy.deepcopy(mine), copy.deepcopy(mine)
    french["PresetList"][0] |= {"AudioLanguageList": ["fra", "jpn"], "AudioTrackSelectionBehavior": "all"}
    silent["PresetList"][0] |= {"AudioTrackSelectionBehavior": "none"}
    mine["PresetList"] += other["PresetList"]
    for name, presets in {"two.json": mine, "french.json": french, "silent.json": silent}.items():
        (directory / name).write_text(json.dumps(presets))


AC3 = "copy:ac3"
TRACKS: dict[str, tuple[Task, Check]] = {
    "a language that is none": (audio(audio_lang_list=["fra"]), stopped("audio")),
    "one language of two": (
        audio("av.mkv", audio_lang_list=["eng", "fra"], all_audio=True),
        completes("fra", holds={"out.mkv": [FILM, "audio eng"]}),
    ),
    "a language that nobody knows": (audio(audio_lang_list=["eng", "zzz"]), refused("audio_lang_list", "zzz")),
    "a native language that is none": (audio("av.mkv", native_language="fra", native_dub=True), stopped("audio")),
    "an encoder that the container does not take": (
        handbrake(target="out.mp4", audio_options={"audio": [1], "aencoder": ["vorbis"]}),
        stopped("audio", "incompatible encoder 'vorbis'"),
    ),
    "more encoders than tracks": (
        audio(audio=[1], aencoder=["av_aac", "ac3"]),
        completes("excess audio encoders", holds={"out.mkv": [SMALL, "audio aac"]}),
    ),
    "a copy that cannot be": (audio(audio=[1], aencoder=[AC3], audio_fallback="none"), stopped("audio")),
    "one copy of two that cannot be": (
        audio("av.mkv", audio=[1, 2], aencoder=[AC3, "av_aac"], audio_fallback="none"),
        completes("audio", "1", holds={"out.mkv": [FILM, "audio eng"]}),
    ),
    "an audio track that is none": (audio(audio=[9]), refused("audio", "9")),
    "a subtitle track that is none": (subtitles("subs.mkv", subtitle=["scan", 7]), refused("subtitle", "7")),
    "no audio wanted": (audio(audio="none"), holds(SMALL)),
    "subtitles of a language that is none": (
        subtitles("subs.mkv", subtitle_lang_list=["fra"], all_subtitles=True),
        completes("subtitle", "fra", holds={"out.mkv": [FILM, "audio"]}),
    ),
    "the first subtitles of each language": (
        subtitles("subs.mkv", subtitle_lang_list=["ger", "fra"], first_subtitle=True),
        completes("subtitle", "fra", holds={"out.mkv": [FILM, "audio", "subtitle ger"]}),
    ),
    "burned in as asked for": (
        subtitles("subs.mkv", subtitle=[2, 1], subtitle_burned=2),
        holds(FILM, "audio", "subtitle"),
    ),
    "burned in beyond the list": (
        subtitles("subs.mkv", subtitle=[1], subtitle_burned=2),
        refused("subtitle_burned", "2"),
    ),
    "all subtitles of a source without": (subtitles("clip.mkv", all_subtitles=True), holds(SMALL, "audio")),
    # Of pictures, MP4 takes one, in the film's own.
    "picture subtitles into mp4": (
        subtitles("pgs.mkv", "out.mp4", subtitle=[1, 2, 3]),
        completes("subtitle", "2", changed=["out.mp4"]),
    ),
    "a preset of a file": (preset("preset.json", "Mine"), holds("video 96x54", "audio")),
    "a preset that is not in the file": (preset("preset.json", "Yours"), refused("Yours", "Mine")),
    "a file of two presets": (preset("two.json"), refused("two.json", "Mine", "Other")),
    "a preset that is none": (preset("", "No Such"), refused("No Such")),
    "a preset that takes a language": (
        preset("french.json"),
        completes("audio", "fra", holds={"out.mkv": ["video 96x54", "audio jpn"]}),
    ),
    "a preset without audio": (preset("silent.json"), holds("video 96x54")),
    "an angle that is none": (handbrake(source_options={"angle": 2}), refused("angle", "2")),
    "a preset file that is none": (preset("none.json"), refused("none.json")),
    "a preset file that is no JSON": (preset("s.srt"), refused("s.srt")),
}


@pytest.mark.parametrize("case", TRACKS)
def test_tracks_and_presets(case: str, client: Client) -> None:
    """The job says so where HandBrake drops a track or does not find a preset."""
    task, check = TRACKS[case]
    client.put("preset.json", "other.json")
    write_presets(client.work)

    check(client.run(task))


def selection(source: str = "av.mkv", **options: Any) -> Task:
    """Mux the film, all audio, and what options select of that."""
    return mkvmerge({"filename": source, "options": {"_copy-audio-tracks": True} | options})


SELECTIONS: dict[str, tuple[Task, Check]] = {
    "a language": (selection(**{"audio-tracks": "eng"}), holds(FILM, ENG)),
    "but a language": (selection(**{"audio-tracks": "!eng"}), holds(FILM, JPN)),
    "a language that is none": (
        selection(**{"audio-tracks": "fra"}),
        refused("sources[0].options.audio-tracks", "fra"),
    ),
    "one language of two": (
        selection(**{"audio-tracks": "eng,fra"}),
        completes("audio-tracks", "fra", holds={"out.mkv": [FILM, ENG]}),
    ),
    "a track twice": (
        mkvmerge(tracks=[{"source": 0, "track": 0}] * 2),
        refused("tracks[1]", "same track as tracks[0]"),
    ),
    "a track of another type": (selection(**{"audio-tracks": 0}), refused("sources[0].options.audio-tracks", "0")),
    "audio and one of the subtitles": (
        mkvmerge(
            {"filename": "subs.mkv", "options": {"_copy-audio-tracks": True}},
            tracks=[{"source": 0, "track": 4, "options": {"language": "fre"}}],
        ),
        holds("subtitle ass fre", JPN, ENG),
    ),
    "nothing of a source but its attachments": (
        mkvmerge("clip.mkv", "fonts.mkv", tracks=[{"source": 0, "track": 0}]),
        holds(SMALL, "attachment"),
    ),
    "all types, without video": (
        selection("subs.mkv", **{"_copy-video-tracks": None, "no-video": None, "audio-tracks": 2}),
        holds(ENG),
    ),
    "one source twice": (mkvmerge("muxed.mkv", "muxed.mkv"), completes("mkvmerge: '", "a track's UID")),
    "one source twice, with abort-on-warnings": (
        mkvmerge("muxed.mkv", "muxed.mkv", options={"abort-on-warnings": None}),
        stopped("gave up at a warning"),
    ),
    "no track at all": (mkvmerge(tracks=[]), refused("none would be muxed")),
    "no track of the type that is copied": (
        mkvmerge({"filename": "s.srt", "options": {"_copy-video-tracks": None}}, tracks=[]),
        stopped("the output has no tracks"),
    ),
    "an attachment that is there already": (
        mkvmerge("fonts.mkv", attachments=[{"filename": "font.ttf"}]),
        holds(SMALL, "attachment"),
    ),
    "an attachment that is none": (selection("fonts.mkv", attachments="5"), refused("attachments", "5")),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_selections(case: str, client: Client) -> None:
    """A selection of mkvmerge that selects nothing is refused, or told."""
    task, check = SELECTIONS[case]

    check(client.run(task))


# --- streams in words ---


def sound(**words: Any) -> dict[str, Any]:
    return {"specifier": "a"} | words


def in_words(*entries: dict[str, Any], source: str = "subs.mkv", **more: Any) -> Task:
    """Copy what these source maps choose."""
    return ffmpeg(source, source_maps=[{"source": 0} | each for each in entries], outs={"0": COPY}, **more)


COMMENTS = {"title": "*comment*"}
WORDS: dict[str, tuple[Task, Check]] = {
    "languages in order": (in_words(sound(language=["fre", "eng", "jpn"])), holds(ENG)),
    "the other code of a language": (in_words({"specifier": "s", "language": "deu"}), holds(GER)),
    "the code of two letters": (in_words(sound(language="de", **{"or": {"language": "EN"}})), holds(ENG)),
    "all but a language by two letters": (in_words(sound(exclude={"language": "ja"})), holds(ENG)),
    "no language": (in_words({"specifier": "s", "language": "und"}), holds("subtitle ass")),
    "codecs, of all types": (in_words({"codec": ["subrip", "h26?"]}), holds(FILM, GER)),
    "dispositions": (in_words({"disposition": ["forced", "default"]}), holds(GER)),
    "all but comments": (in_words({"specifier": "V"}, sound(exclude=COMMENTS)), holds(FILM, JPN)),
    "an order of its own": (
        in_words(sound(language="eng"), sound(first=True), {"codec": "h264"}),
        holds(ENG, JPN, FILM),
    ),
    "or another type": (in_words(sound(language="fre", **{"or": {"specifier": "s", "first": True}})), holds(GER)),
    "none, and that is well": (in_words({"specifier": "V"}, sound(language="fre", optional=True)), holds(FILM)),
    "none at all": (in_words(sound(language="fre", optional=True)), refused("source_maps", "none of them selects")),
    "none, and what there is": (
        in_words(sound(language=["fre", "ita"], exclude=COMMENTS)),
        refused(
            "source_maps[0]: no stream of sources[0] fits specifier a, language fre or ita, exclude {title *comment*};",
            '1 (audio, aac, jpn, default), 2 (audio, aac, eng, "Commentary")',
            "3 (subtitle, subrip, ger, default, forced)",
        ),
    ),
    # Covers are video to ffmpeg, in words too.
    "the first, which is a cover": (
        in_words({"specifier": "v", "first": True}, source="cover1st.mp4"),
        refused("source_maps[0]", "cover", "V"),
    ),
    "all but covers": (
        in_words({"specifier": "v", "exclude": {"disposition": "attached_pic"}}, source="cover1st.mp4"),
        holds(FILM),
    ),
    # Sources that say less.
    "no languages in the container": (in_words(sound(language=["jpn", "und"]), source="av.avi"), holds("audio")),
    "a transport stream": (in_words(sound(language="eng"), source="full.ts"), holds("audio eng")),
    "a source that is cut short": (in_words(sound(language="jpn"), source="cut60.av.mkv"), refused("cut60.av.mkv")),
    "no media": (in_words(sound(language="jpn"), source="text.mkv"), refused("text.mkv", "no media")),
    "words that are none": (
        in_words(sound(languag="jpn", disposition="defalt", **{"or": {"source": 1}})),
        refused("source_maps[0].languag: ", "did you mean 'language'", "source_maps[0].disposition", "[0].or.source"),
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_words(case: str, client: Client) -> None:
    """ffmpeg copies the streams that fit the words, in the order of the maps."""
    task, check = WORDS[case]

    check(client.run(task))


def test_words_for_a_file_that_is_not_there_yet(client: Client) -> None:
    """What an earlier task will write is looked at when it is there; a dry run says what will be chosen then."""
    first = in_words({"specifier": "V"}, sound(language="jpn"), target="new.mkv", source="av.mkv")
    then = in_words(sound(language=["eng", "jpn"]), source="new.mkv")
    client.provide(job(first, then))
    _, plan, _ = client.call("run", "--dry-run", str(client.write(job(first, then))))

    assert "-map 0:V -map 0:1 " in plan.splitlines()[0]
    assert "# of sources[0], which is not there yet: specifier a, language eng or jpn" in plan
    completes(changed=["new.mkv", "out.mkv"], holds={"out.mkv": [JPN]})(client.run(job(first, then)))

    client.shell("rm new.mkv out.mkv")
    then = in_words(sound(language="eng"), source="new.mkv")
    stopped("fits specifier a, language eng;", "(audio, vorbis, jpn, default)", changed=["new.mkv"])(
        client.run(job(first, then))
    )
