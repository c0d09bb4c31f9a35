"""What is wrong with task data, in words."""

from typing import Any

import jsonschema
import pytest

from modules import schema as task_schema

FFMPEG: dict[str, Any] = {
    "sources": ["a.mkv"],
    "source_maps": [{"source": 0}],
    "output_maps": [{"stream": 0, "options": {}}],
    "output_file": "b.mkv",
}


@pytest.mark.parametrize("name", ["ffmpeg", "cleanup"])
def test_schema_is_valid(name: str) -> None:
    """Each bundled schema is itself a valid one of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(dict(task_schema.load(name)))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({}, []),
        ({"overwrite": "yes"}, ['overwrite: expected true or false, got "yes"']),
        ({"sources": []}, ["sources: expected at least one item"]),
        ({"source_maps": [{}]}, ["source_maps[0]: missing key 'source'"]),
        ({"source_maps": [{"source": True}]}, ["source_maps[0].source: expected a whole number, got true"]),
        (
            {"output_maps": [{"stream": 0, "options": {}}, {"stream": 0, "option_set": "x", "optoins": {}}]},
            ["output_maps[1].optoins: unknown key (did you mean 'options'?)"],
        ),
        ({"output_maps": [{"stream": 0}]}, ["output_maps[0]: expected 'options' or 'option_set'"]),
        (
            {"output_maps": [{"stream": 0, "options": {"crf": None}}]},
            ["output_maps[0].options.crf: expected a string, a number, true or false, an object or a list, got null"],
        ),
        (
            {"output_maps": [{"stream": 0, "options": {"x265-params": {"a": [1]}}}]},
            ["output_maps[0].options.x265-params.a: expected a string, a number or true or false, got a list"],
        ),
        (
            {"output_maps": [{"stream": 0, "options": {"crf": float("nan")}}]},
            ["output_maps[0].options.crf: expected a finite number, got NaN"],
        ),
        ({"output_file": "a\0b"}, ['output_file: expected text without NUL and lone surrogates, got "a\\u0000b"']),
        ({"output_file": "\ud800"}, ['output_file: expected text without NUL and lone surrogates, got "\\ud800"']),
        ({"output_file": "\udcff"}, []),
        ({"output_file": ""}, ["output_file: expected a string that is not empty"]),
        ({"sources": [{"filename": "a", "optins": {}}]}, ["sources[0].optins: unknown key (did you mean 'options'?)"]),
        ({"sources": [7]}, ["sources[0]: expected a string or an object, got 7"]),
    ],
)
def test_ffmpeg_problems(change: dict[str, Any], lines: list[str]) -> None:
    """Each problem is a line that begins with its path."""
    found = task_schema.problems(FFMPEG | change, task_schema.load("ffmpeg"))

    assert found == lines


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
    found = task_schema.problems(FFMPEG | {"overwrite": "x" * 10000, "k" * 10000: 1}, task_schema.load("ffmpeg"))

    assert len(found) == 2
    assert max(len(line) for line in found) < 200


def test_forms_in_words() -> None:
    """Data that fits no form is told the forms, or what is wrong with the one that is meant."""
    schema = {"oneOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]}

    assert task_schema.problems(3, schema) == ["expected a string or an object, got 3"]
    assert task_schema.problems({}, schema) == ["missing key 'name'"]
