"""Results that a record can hold."""

import re
from typing import Any

import pytest

from ipc.messages import MAX_RESULTS
from ipc.results import MAX_DEPTH, decode_results, encode_results


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else 0


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"ssim": 0.98, "frames": 48, "is-hevc": True, "name": "bücher\x00\u2028", "größe 2": -(1 << 63)},
        {"list": [1, "two", [3.0]], "object": {"a": {"b": []}}},
        {"deep": nested(MAX_DEPTH)},
        {"long": "x" * (MAX_RESULTS - len('{"long": ""}'))},
    ],
)
def test_what_can_be_kept(results: dict[str, Any]) -> None:
    """What JSON, MongoDB and PostgreSQL can hold comes back as it was."""
    assert decode_results(encode_results(results)) == results


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ({"x": None}, "a NoneType"),
        ({"x": object()}, "a object"),
        ({"x": b"bytes"}, "a bytes"),
        ({"x": float("nan")}, "nan: expected a finite number"),
        ({"x": [float("inf")]}, "inf: expected a finite number"),
        ({"x": 1 << 63}, "an integer of 64 bits"),
        ({"x": 10**5000}, "an integer of 16610 bits"),
        ({"x": "\udcff"}, "surrogates"),
        ({"x": nested(MAX_DEPTH + 1)}, "nested deeper than 8 levels"),
        ({"x": "x" * MAX_RESULTS}, "at most 8192"),
        ({"a.b": 1}, "'a.b' cannot be a result's name"),
        ({"x": {"$set": 1}}, "'$set' cannot be"),
        ({"x": {"a\0": 1}}, "cannot be"),
        ({"": 1}, "cannot be"),
        ({"x" * 65: 1}, "cannot be"),
        ({1: 1}, "1 cannot be"),
    ],
)
def test_what_cannot(results: dict[Any, Any], why: str) -> None:
    """What a server could not keep, or would change, is refused with the reason."""
    with pytest.raises(ValueError, match=re.escape(why)):
        encode_results(results)


NO_RESULTS = ["[" * 5000, "[]", "1", "{", "", '{"x": NaN}', '{"x": null}', '{"x": 1e999}', '{"a": 1} ' * 9999]


@pytest.mark.parametrize("text", [*NO_RESULTS, '{"x": "\\udcff"}'])
def test_text_that_another_has_made(text: str) -> None:
    """Whatever a task process sends in the place of results is an error that can be caught."""
    with pytest.raises(ValueError, match=r"."):
        decode_results(text)
