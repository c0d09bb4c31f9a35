"""What is wrong with task data, in words."""

import math
from typing import Any

import jsonschema
import pytest

from modules import schema as task_schema
from tests.cases import tasks

BASES: dict[str, dict[str, Any]] = {
    "ffmpeg": tasks.ffmpeg("a.mkv")["data"],
    "handbrake": tasks.handbrake("a.mkv")["data"],
    "mkvmerge": tasks.mkvmerge("a.mkv")["data"],
    "mkvextract": tasks.mkvextract("a.mkv")["data"],
    "cleanup": {"delete": ["a"]},
}
"""Data without a fault, over which each change is laid. A key with `None` is taken away."""


def output(*maps: dict[str, Any]) -> dict[str, Any]:
    return {"output_maps": [{"stream": 0, **each} for each in maps]}


def entry(key: str, **data: Any) -> dict[str, Any]:
    return {key: [data]}


NO_TEXT = "expected text without NUL and lone surrogates, got"
ONE = "expected a string, a number"
Change = dict[str, Any]
PROBLEMS: dict[str, list[tuple[Change, list[str]]]] = {
    "ffmpeg": [
        ({}, []),
        ({"overwrite": "yes"}, ['overwrite: expected true or false, got "yes"']),
        ({"sources": []}, ["sources: expected at least one item"]),
        ({"source_maps": [{}]}, ["source_maps[0]: missing key 'source'"]),
        ({"source_maps": [{"source": True}]}, ["source_maps[0].source: expected a whole number, got true"]),
        (
            output({"options": {}}, {"option_set": "x", "optoins": {}}),
            ["output_maps[1].optoins: unknown key (did you mean 'options'?)"],
        ),
        (output({}), ["output_maps[0]: expected 'options' or 'option_set'"]),
        (
            output({"options": {"crf": None}}),
            [f"output_maps[0].options.crf: {ONE}, true or false, an object or a list, got null"],
        ),
        (
            output({"options": {"x265-params": {"a": [1]}}}),
            [f"output_maps[0].options.x265-params.a: {ONE} or true or false, got a list"],
        ),
        (output({"options": {"crf": math.nan}}), ["output_maps[0].options.crf: expected a finite number, got NaN"]),
        ({"output_file": "a\0b"}, [f'output_file: {NO_TEXT} "a\\u0000b"']),
        ({"output_file": "\ud800"}, [f'output_file: {NO_TEXT} "\\ud800"']),
        ({"output_file": "\udcff"}, []),
        ({"output_file": ""}, ["output_file: expected a string that is not empty"]),
        ({"sources": [{"filename": "a", "optins": {}}]}, ["sources[0].optins: unknown key (did you mean 'options'?)"]),
        ({"sources": [7]}, ["sources[0]: expected a string or an object, got 7"]),
    ],
    "handbrake": [
        ({"source": None, "output_file": None}, ["missing key 'source'", "missing key 'output_file'"]),
        ({"vidoe_options": {}}, ["vidoe_options: unknown key (did you mean 'video_options'?)"]),
        (
            {"source": "", "output_file": [], "video_options": []},
            [
                "output_file: expected a string, got a list",
                "source: expected a string that is not empty",
                "video_options: expected an object, got a list",
            ],
        ),
        (
            {"video_options": {"quality": None, "encopts": {"a=b": 1}}, "audio_options": {"audio": [1, None]}},
            [
                f"audio_options.audio[1]: {ONE} or true or false, got null",
                'video_options.encopts: "a=b" is no setting\'s name (no white space, colon and equals sign)',
                f"video_options.quality: {ONE}, true or false, a list or an object, got null",
            ],
        ),
        (
            {"source_options": {"start_at": {}, "stop_at": {"seconds": 1, "frames": 2}}},
            [
                "source_options.start_at: expected 'seconds', 'frames', 'pts' or 'duration'",
                "source_options.stop_at: fits more than one form, expected one of seconds, frames and pts",
            ],
        ),
        (
            {"picture_options": {"crop": {"up": 1, "top": -1}}},
            [
                "picture_options.crop.up: unknown key (known: top, bottom, left, right)",
                "picture_options.crop.top: expected 0 or more, got -1",
            ],
        ),
    ],
    "mkvmerge": [
        ({"sources": None, "output_file": None}, ["missing key 'sources'", "missing key 'output_file'"]),
        ({"sources": ["a.mkv"]}, ['sources[0]: expected an object, got "a.mkv"']),
        (
            entry("tracks", source=-1, tarck=0),
            [
                "tracks[0]: expected 'track', 'track_type'",
                "tracks[0].tarck: unknown key (did you mean 'track'?)",
                "tracks[0].source: expected 0 or more, got -1",
            ],
        ),
        (
            entry("tracks", source="0", track=0.5, options={"language": ["jpn"]}),
            [
                f"tracks[0].options.language: {ONE}, true or false or null, got a list",
                'tracks[0].source: expected a whole number, got "0"',
                "tracks[0].track: expected a whole number, got 0.5",
            ],
        ),
        (
            entry("sources", filename="a", options={"_copy-subtitle-tracks": None}),
            ['sources[0].options: "_copy-subtitle-tracks" is no option name (no leading dash'],
        ),
        (
            entry("sources", filename="\ud800", options={"--no-audio": None}),
            [f'sources[0].filename: {NO_TEXT} "\\ud800"', 'sources[0].options: "--no-audio" is no option name (no le'],
        ),
        (
            {"options": {"title": "a\0b", "sync": math.nan}},
            ["options.sync: expected a finite number, got NaN", f'options.title: {NO_TEXT} "a\\u0000b"'],
        ),
        (
            entry("attachments", filename="a", mimetpye="x"),
            ["attachments[0].mimetpye: unknown key (did you mean 'mimetype'?)"],
        ),
    ],
    "mkvextract": [
        ({"source": None}, ["missing key 'source'"]),
        (
            {"tracks": None, "chapter": "b"},
            [
                "expected 'tracks', 'attachments', 'chapters', 'tags', 'timestamps' or 'cues'",
                "chapter: unknown key (did you mean 'chapters'?)",
            ],
        ),
        (
            entry("tracks", id="0", filname="b", track_type="subtitle"),
            [
                "tracks[0]: missing key 'filename'",
                "tracks[0].filname: unknown key (did you mean 'filename'?)",
                'tracks[0].id: expected a whole number, got "0"',
                'tracks[0].track_type: expected "video", "audio", "subtitles" or "buttons", got "subtitle"',
            ],
        ),
        (entry("tracks", id=-1, filename="b"), ["tracks[0].id: expected 0 or more, got -1"]),
        (entry("attachments", id=0, filename="b"), ["attachments[0].id: expected 1 or more, got 0"]),
        (entry("cues", id=0, filename="b", language="jpn"), ["cues[0].language: unknown key (known: id, filename)"]),
        ({"chapters": ["b"]}, ["chapters: expected a string, got a list"]),
    ],
    "cleanup": [
        ({"delete": None}, ["expected 'delete', 'copy', 'move' or 'replace'"]),
        ({"delete": "a"}, ['delete: expected a list, got "a"']),
        (
            {"delete": ["", "a\0"]},
            ["delete[0]: expected a string that is not empty", f'delete[1]: {NO_TEXT} "a\\u0000"'],
        ),
        (entry("copy", source="a"), ["copy[0]: missing key 'destination'"]),
        (
            entry("move", source="a", destinaton="b", destination="b"),
            ["move[0].destinaton: unknown key (did you mean 'destination'?)"],
        ),
        ({"remove": []}, ["remove: unknown key (did you mean 'move'?)"]),
    ],
}


@pytest.mark.parametrize(
    ("module", "change", "lines"), [(name, *row) for name, rows in PROBLEMS.items() for row in rows]
)
def test_problems(module: str, change: Change, lines: list[str]) -> None:
    """Each problem is a line that begins with its path, and there are no others."""
    data = {key: value for key, value in (BASES[module] | change).items() if value is not None}

    found = task_schema.problems(data, task_schema.load(module))
    assert [line[: len(each)] for line, each in zip(found, lines, strict=True)] == lines


@pytest.mark.parametrize("name", BASES)
def test_schema_is_valid(name: str) -> None:
    """Each bundled schema is itself a valid one of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(dict(task_schema.load(name)))


def test_all_at_once_in_order() -> None:
    """Every problem is reported, list items in the order of their numbers."""
    maps = [{"source": 0} for _ in range(12)]
    maps[2] = {"source": -1}
    maps[10] = {"sorce": 0}

    found = task_schema.problems({"source_maps": maps}, task_schema.load("ffmpeg"))

    assert found == [
        "missing key 'sources'",
        "missing key 'output_maps'",
        "missing key 'output_file'",
        "source_maps[2].source: expected 0 or more, got -1",
        "source_maps[10]: missing key 'source'",
        "source_maps[10].sorce: unknown key (did you mean 'source'?)",
    ]


@pytest.mark.parametrize("data", [None, 1, "x", [], [{}]])
def test_no_object(data: object) -> None:
    """Data that is no object at all is one problem, and no crash."""
    (found,) = task_schema.problems(data, task_schema.load("cleanup"))

    assert found.startswith("expected an object, got ")


def test_huge_values_are_clipped() -> None:
    """A message does not repeat a huge value or key."""
    data = BASES["ffmpeg"] | {"overwrite": "x" * 10000, "k" * 10000: 1}

    found = task_schema.problems(data, task_schema.load("ffmpeg"))
    assert len(found) == 2
    assert max(len(line) for line in found) < 200


def test_forms_in_words() -> None:
    """Data that fits no form is told the forms, or what is wrong with the one that is meant."""
    schema = {"oneOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]}

    assert task_schema.problems(3, schema) == ["expected a string or an object, got 3"]
    assert task_schema.problems({}, schema) == ["missing key 'name'"]
