"""Only what was asked for: options that the tools would misread, files that options write, keys nobody knows."""

import json
from typing import Any

import pytest

from tests.cases.checks import completes, refused, require_words, tags_of
from tests.cases.client import Client
from tests.cases.tasks import AAC, COPY, ENCODE, Task, cleanup, encode, ffmpeg, handbrake, job, mkvextract, mkvmerge

pytestmark = pytest.mark.tools

VICTIM = "victim.mkv"
Row = tuple[Any, ...]
"""A task, and words of its refusal."""


def source(name: str, **options: Any) -> dict[str, Any]:
    return {"filename": name, "options": options}


FLAG = ("takes no value", "flag")
NO_VALUE = ("value", "argument")
# A flag with a value: ffmpeg and mkvmerge take the value for a file, HandBrake ignores it.
FLAGS: list[Row] = [
    (encode(bitexact=VICTIM), "bitexact", FLAG),
    (encode(shortest=1), "shortest", FLAG),
    (ffmpeg(audio=AAC | {"vn": VICTIM}), "vn", FLAG),
    (ffmpeg(input_options={"re": VICTIM}), "re", FLAG),
    (ffmpeg(source("clip.mkv", accurate_seek=VICTIM)), "accurate_seek", FLAG),
    (ffmpeg(output_options={"shortest": VICTIM}), "shortest", FLAG),
    (mkvmerge(options={"no-global-tags": VICTIM}), "no-global-tags", FLAG),
    (mkvmerge({"filename": "clip.mkv", "options": {"no-chapters": VICTIM}}), "no-chapters", FLAG),
    (handbrake(destination_options={"markers": VICTIM}), "markers", FLAG),
    (handbrake(video_options={"vfr": VICTIM}), "vfr", FLAG),
    # The other way round, the tool takes the next word for the value.
    (encode(crf=True), "crf", NO_VALUE),
    (encode(vf=True), "vf", NO_VALUE),
    (ffmpeg(input_options={"itsoffset": True}), "itsoffset", NO_VALUE),
    (mkvmerge(options={"title": None}), "title", NO_VALUE),
    (mkvmerge(track={"track-name": None}), "track-name", NO_VALUE),
    # Of these, the help of mkvmerge says nothing.
    (mkvmerge(options={"nosubs": VICTIM}), "nosubs", FLAG),
    (mkvmerge(options={"timecodes": None}), "timecodes", NO_VALUE),
    (handbrake(picture_options={"width": True}), "width", NO_VALUE),
    (encode(filter_threads=True), "options.filter_threads", NO_VALUE),
    (encode(an=[True, "a.mkv"]), "options.an", FLAG),
    (mkvmerge(options={"default-track": True}), "options.default-track", NO_VALUE),
    # It would be an option of its own, or HandBrake's choice.
    (handbrake(destination_options={"optimize": "--output=x"}), "optimize", "takes no such value"),
    (handbrake(video_options={"x264_preset": "--output=x"}), "x264_preset", "takes no such value"),
    (handbrake(filters_options={"hqdn3d": {"preset": "light", "y_spatial": 1}}), "hqdn3d", "either settings"),
    (handbrake(filters_options={"pad": {"width": "x"}}), "filters_options.pad", "Invalid pad option width=x"),
]
# What the module itself says, what asks or ends, what talks elsewhere.
FORBIDDEN: list[Row] = [
    (encode(i=VICTIM), "options.i"),
    *[
        (encode(**{name: True}), f"options.{name}")
        for name in ("y", "n", "version", "encoders", "report", "stats", "stdin")
    ],
    *[(encode(**{name: "long"}), f"options.{name}") for name in ["h", "help", "progress", "loglevel", "v"]],
    (ffmpeg(input_options={"i": VICTIM}), "input_options.i"),
    (ffmpeg(output_options={"y": True}), "output_options.y"),
    (mkvmerge(options={"output": VICTIM}), "options.output"),
    (mkvmerge(options={"o": VICTIM}), "options.o"),
    (mkvmerge(options={"redirect-output": "victim.txt"}), "redirect-output"),
    (mkvmerge(options={"identify": "clip.mkv"}), "options.identify"),
    (mkvmerge(options={"version": None}), "options.version"),
    (handbrake(destination_options={"output": VICTIM}), "output"),
    (handbrake(source_options={"input": "clip.ts"}), "input"),
    (handbrake(source_options={"scan": True}), "scan"),
    (handbrake(general_options={"queue_import_file": "x"}), "queue_import_file"),
    (encode(buildconf=True), "options.buildconf", "prints something"),
    (ffmpeg(output_options={"/y": "x"}), "output_options./y"),
    (handbrake(general_options={"version": True}), "version"),
    (handbrake(general_options={"preset_export": "x", "preset_export_file": "victim.txt"}), "preset_export_file"),
]
MISSPELT: list[Row] = [
    (encode(presett="slow"), "options.presett", "did you mean", "preset"),
    (encode(**{"metdata:s": "title=x"}), "metdata", "metadata"),
    (ffmpeg(input_options={"stream_lop": 1}), "stream_lop", "stream_loop"),
    (ffmpeg(output_options={"movflag": "x"}), "movflag", "movflags"),
    (mkvmerge(options={"titel": "x"}), "titel", "title"),
    (mkvmerge(track={"langage": "jpn"}), "langage", "language"),
    (handbrake(video_options={"qualty": 20}), "qualty", "quality"),
    (handbrake(vido_options={"quality": 20}), "vido_options", "video_options"),
    (mkvextract(trakcs=[{"id": 0, "filename": "x"}], chapters="c.xml"), "trakcs", "tracks"),
    (cleanup(delte=["x"], delete=["x"]), "delte", "delete"),
    (handbrake(destination_options={"outp": "x"}), "outp", "no such option", "output"),
    (handbrake(destination_options={"output=x": True}), "output=x", "no such option", "output"),
    (handbrake(general_options={"dvdnav": True}), "dvdnav", "no such option", "no_dvdnav"),
    (handbrake(audio_options={"aencoder": ["copy:spam"]}), "copy:spam", "copy:mp3"),
    (ffmpeg(output_options={"crff": False}), "crff", "crf"),
    (mkvmerge(options={"titel": False}), "titel", "title"),
]
# Options of the whole file would get a stream's suffix.
OF_THE_FILE: list[Row] = [
    (encode(**{name: value}), f"output_maps[0].options.{name}", "output_options")
    for names, value in (("brand id3v2_version map_metadata cluster_time_limit", 3), ("metadata", "title=x"))
    for name in names.split()
]
OF_THE_FILE += [
    (encode(sws_flags="x"), "options.sws_flags", "output_options"),
    (encode(probesize="5M"), "options.probesize", "is an option of sources"),
    (ffmpeg(input_options={"crf": 20}), "input_options.crf", "is an option of outputs"),
    (ffmpeg(input_options={"movflags": "x"}), "input_options.movflags", "is an option of outputs"),
]
# Files that options write are outputs: not over what is there, unless that was allowed.
WRITING: list[Row] = [
    (task, "victim", "exists")
    for task in (
        encode(vstats_file="victim.txt"),
        encode(vf="metadata=print:file=victim.txt"),
        encode(vf="scale=80:-2,metadata=mode=print:file='victim.txt',null"),
        encode(filter="signalstats,metadata=mode=print:file=victim.txt"),
        ffmpeg(["clip.mkv", "clip.mp4"], video=ENCODE | {"lavfi": "[0:v][1:v]ssim=stats_file=victim.txt"}),
        encode(**{"x264-params": {"pass": 1, "stats": "victim.txt"}}),
        encode(**{"x264-params": {"dump-yuv": "victim.txt"}}),
        encode(**{"b": "100k", "pass": 1, "passlogfile": "victim"}),
        ffmpeg("fonts.mkv", input_options={"dump_attachment:t:0": "victim.txt"}),
    )
]
GENERATED = "color=size=64x64:duration=1,metadata=print:file=victim.txt"
WRITING += [
    (ffmpeg(source(GENERATED, f="lavfi")), "victim.txt", "exists"),
    (ffmpeg(target="victim.mkv"), "output_file: victim.mkv: exists"),
    (ffmpeg(video=ENCODE | {"vstats_file": "clip.mkv"}, overwrite=True), "also sources[0]"),
    (ffmpeg(video=ENCODE | {"vstats_file": "out.mkv"}, overwrite=True), "also output_file"),
    *[
        (ffmpeg(target=target, video=ENCODE | options), f"output_file: {target}", "several files")
        for target, options in (
            ("a%03d.png", {}),
            ("a.m3u8", {}),
            ("a.mpd", {}),
            ("a.ts", {"f": "hls"}),
            ("%d", {"f": "image2"}),
        )
    ],
]
# HandBrakeCLI takes its default, or 0, for a value that it does not know, and mkvmerge leaves it out.
VALUES: list[Row] = [
    (handbrake(**{f"{section}_options": {name: value}}), f"{section}_options.{name}", str(value))
    for section, options in {
        "source": {
            "previews": "nope",
            "min_duration": "nope",
            "start_at": "nope",
            "stop_at": "seconds:0",
            "start_at_preview": 99,
        },
        "video": {"rate": 1000, "enable_hw_decoding": "nope", "quality": "good", "vb": "1M"},
        "subtitles": {"subtitle": "first"},
        "picture": {
            "width": "wide",
            "crop": "1:2:3",
            "crop_mode": "nope",
            "color_matrix": "bt709",
            "pixel_aspect": "nope",
        },
        "audio": {"arate": 12345, "adither": "nope", "normalize_mix": 7, "audio": "jpn", "ab": "lots", "drc": 99},
        "filters": {"colorspace": "nope"},
    }.items()
    for name, value in options.items()
]
VALUES += [
    (handbrake(subtitles_options={"srt_file": "s.srt"} | {name: value}), name, str(value))
    for name, value in {"srt_offset": "nope", "srt_lang": "nope", "srt_default": 9, "srt_burn": 9}.items()
]
VALUES += [
    (handbrake(source_options={"start_at": {"seconds": 1}, "stop_at": {"frames": 20}}), "stop_at", "unit of start_at"),
    (handbrake(source_options={"stop_at": "10"}), "source_options.stop_at", "10"),
    (handbrake(picture_options={"colorspace": "bt2021"}), "picture_options.colorspace", "bt2021"),
    (ffmpeg(input_options={"ss": "0:01", "to": 1}), "input_options.to: 1 is not after ss 0:01", ""),
    (encode(ss="2", to="1.5"), "output_maps[0].options.to: 1.5 is not after ss 2", ""),
    (mkvmerge(track={"aspect-ratio": "nope"}), "aspect-ratio", "nope"),
    (mkvmerge(track={"language": "xyzzy", "track-name": "x"}), "tracks[0].options.language: ", "xyzzy"),
    (mkvmerge(track={"sync": "nope", "default-track": "maybe"}), "options.sync: ", "options.default-track: "),
    (mkvmerge(options={"timestamp-scale": "nope"}), "options.timestamp-scale: ", "a number"),
    (mkvmerge(source("clip.mkv", **{"default-duration": "0:nope"})), "sources[0].options.default-duration", "nope"),
    (mkvmerge(track={"color-matrix-coefficients": 999}), "color-matrix-coefficients", "999"),
    (mkvmerge(source("clip.mkv", **{"aspect-ratio-factor": "0:nope"})), "aspect-ratio-factor", "nope"),
]
KINDS = {
    "value": VALUES,
    "flag": FLAGS,
    "forbidden": FORBIDDEN,
    "misspelt": MISSPELT,
    "file's": OF_THE_FILE,
    "writes": WRITING,
}
REFUSED = {
    f"{kind} {task['module']} {words[0]} {n}": (task, words)
    for kind, rows in KINDS.items()
    for n, (task, *words) in enumerate(rows)
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, client: Client) -> None:
    """An option that a tool would misread is refused by its path before any task runs, and no file is written."""
    task, words = REFUSED[case]
    client.put("victim.mkv", "victim.txt")
    client.shell("cp victim.txt victim-0.log")

    refused(*words)(client.run(cleanup(copy=[("victim.txt", "copied.txt")]), task))


FIRST_PASS = {"pass": 1, "b": "90k", "passlogfile": "new", "f": "null"}
WRITTEN: dict[str, tuple[Task, list[str]]] = {
    "vstats_file": (encode(vstats_file="new.txt"), ["new.txt", "out.mkv"]),
    "metadata": (encode(vf="metadata=print:file=new.txt"), ["new.txt", "out.mkv"]),
    "pass 1": (ffmpeg(target="/dev/null", video=ENCODE | FIRST_PASS), ["new-0.log"]),
    "overwritten": (ffmpeg(video=ENCODE | {"vstats_file": "victim.txt"}, overwrite=True), ["victim.txt", "out.mkv"]),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_files_of_options(case: str, client: Client) -> None:
    """An option writes its own file, and no other file changes beside the output."""
    task, changed = WRITTEN[case]

    completes(changed=changed)(client.run(task))


# --- keys ---

COPYING = cleanup(copy=[("s.srt", "o.srt")])
UNKNOWN: dict[str, tuple[dict[str, Any], str, str]] = {
    "in the job": (job(COPYING, priority=5), "priority", ""),
    "misspelt in the job": (job(COPYING, job_titel="x"), "job_titel", "job_title"),
    "beside data": (job(COPYING | {"enabled": False}), "enabled", ""),
    "data's own, beside data": (job(COPYING | {"delete": []}), "delete", ""),
    "misspelt beside data": (job(COPYING | {"modul": "x"}), "modul", "module"),
    "in the second task": (job(COPYING, COPYING | {"timeout": 5}), "tasks[1].timeout", ""),
}


@pytest.mark.parametrize(
    ("case", "command"),
    [*((case, "run") for case in UNKNOWN), *(("in the job", name) for name in ("validate", "submit"))],
)
def test_unknown_keys(case: str, command: str, client: Client) -> None:
    """Each command that reads a job's file refuses unknown keys and suggests the right one."""
    document, *words = UNKNOWN[case]

    status, out, err = client.call(command, str(client.write(document)))
    assert status in (1, 2)
    require_words(out + err, ["unknown key", *words])


@pytest.mark.parametrize("command", ["run", "validate", "submit"])
def test_a_key_twice(command: str, client: Client) -> None:
    """Each command refuses a file in which a key stands twice."""
    text = json.dumps(job(COPYING)).replace('"copy"', '"delete": ["s.srt"], "delete": [], "copy"')

    status, out, err = client.call(command, str(client.write(text)))
    assert status in (1, 2)
    require_words(out + err, ["delete", "twice"])


# --- values in quotes ---


@pytest.mark.parametrize(
    "task",
    [
        ffmpeg(video=COPY, output_options={"metadata": "'title=A Film'"}),
        ffmpeg(video=COPY, output_options={"metadata": ['"title=A Film"', "comment=x"]}),
        ffmpeg(video=COPY | {"metadata:g": "'title=A Film'"}),
    ],
)
def test_quoted_values(task: Task, client: Client) -> None:
    """A value that is quoted as a whole is unquoted, with a warning: the field's client splits a line."""
    completes("quot")(client.run(task))
    assert tags_of(client.work / "out.mkv")["title"] == "A Film"


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({"vf": "'scale'=80:-2,setsar='1'"}, "video 80x46"),  # quotes at both ends, and not one pair
        ({"metadata:s": "title='It' 's'"}, "video 'It' 's'"),
        ({"metadata:s": "title=Rock 'n"}, "video Rock 'n"),
    ],
)
def test_quotes_that_belong_to_the_value(options: dict[str, Any], held: str, client: Client) -> None:
    """A value that is not quoted as a whole keeps its quotes."""
    completes(holds={"out.mkv": [held]})(client.run(ffmpeg(video=ENCODE | options)))


def test_options_of_the_file(client: Client) -> None:
    """`output_options` apply to the whole file, once per item of a list."""
    options = {"movflags": "+faststart", "map_metadata": -1, "metadata": ["title=A: B", "comment=C=D"]}
    completes(changed=["out.mp4"])(client.run(ffmpeg(target="out.mp4", video=COPY, output_options=options)))

    data = (client.work / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert tags_of(client.work / "out.mp4").items() >= {"title": "A: B", "comment": "C=D"}.items()
