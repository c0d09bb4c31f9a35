"""ffmpeg's stream specifiers."""

from typing import Any

import pytest

from modules.ffmpeg.specifiers import select, selected, specifier, with_suffix

STREAMS: list[dict[str, Any]] = [
    {"codec_type": "video", "index": 0, "disposition": {"attached_pic": 1}},
    {"codec_type": "video", "index": 1, "disposition": {"default": 1}, "id": "0x100"},
    {"codec_type": "audio", "index": 2, "disposition": {"default": 1}, "tags": {"language": "jpn"}},
    {"codec_type": "audio", "index": 3, "tags": {"LANGUAGE": "eng", "title": "A: B"}, "id": "0x101"},
    {"codec_type": "subtitle", "index": 4, "tags": {"language": "eng"}},
]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({}, ""),
        ({"stream": 3}, "3"),
        ({"specifier": "Video", "stream": 1}, "v:1"),
        ({"specifier": "subtitles"}, "s"),
        ({"specifier": "A"}, "a"),
        ({"specifier": "V", "stream": 0}, "V:0"),
        ({"specifier": "audio:m:language:eng"}, "a:m:language:eng"),
        ({"specifier": "m:title:Video"}, "m:title:Video"),
        ({"specifier": "disp:default"}, "disp:default"),
        ({"specifier": "#0x101"}, "#0x101"),
        ({"specifier": "p", "stream": 1}, "p:1"),
        ({"specifier": "u"}, "u"),
    ],
)
def test_specifier(entry: dict[str, Any], text: str) -> None:
    """A word is its first letter; ffmpeg's own grammar stays as it is."""
    assert specifier(entry) == text


@pytest.mark.parametrize(
    ("key", "entry", "expected"),
    [
        ("b", {"specifier": "v", "stream": 0}, "b:v:0"),
        ("b:v", {"specifier": "v", "stream": 0}, "b:v:0"),
        ("b:v:0", {"specifier": "v", "stream": 0}, "b:v:0"),
        ("metadata:s", {"specifier": "a", "stream": 1}, "metadata:s:a:1"),
        ("metadata:s:a", {"specifier": "a", "stream": 1}, "metadata:s:a:1"),
        ("codec", {"stream": 2}, "codec:2"),
        ("codec", {"specifier": "a"}, "codec:a"),
    ],
)
def test_options_of_a_stream(key: str, entry: dict[str, Any], expected: str) -> None:
    """What an option's key says of the stream already is not said again, which ffmpeg 7 refuses."""
    assert with_suffix(key, entry) == expected


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("v", [0, 1]),
        ("V", [1]),
        ("V:0", [1]),
        ("a:1", [3]),
        ("3", [3]),
        ("9", []),
        ("m:language:eng", [3, 4]),
        ("a:m:language:eng", [3]),
        ("m:title", [3]),
        ("m:title:A: B", [3]),
        (r"m:title:A\: B", [3]),
        ("a:m:language:fra", []),
        ("disp:default", [1, 2]),
        ("disp:default:a", [2]),
        ("#0x101", [3]),
        ("i:257", [3]),
        ("t", []),
    ],
)
def test_select(name: str, indices: list[int]) -> None:
    """A specifier selects the streams that ffmpeg would take."""
    found = select(STREAMS, name)

    assert found is not None
    assert [stream["index"] for stream in found] == indices


@pytest.mark.parametrize(
    ("further", "indices"),
    [
        ({"map": "-0:s"}, [0, 1, 2, 3]),
        ({"map:v:0": ["-0:v", "-0:a:m:language:jpn"]}, [3, 4]),
        ({"map": "1:a?"}, [0, 1, 2, 3, 4, 2, 3]),
        ({"map": "[label]"}, [0, 1, 2, 3, 4]),
        ({"map": "-7"}, [0, 1, 2, 3, 4]),
    ],
)
def test_selected(further: dict[str, Any], indices: list[int]) -> None:
    """Further maps add streams and take some away."""
    found = selected([{"source": 0}], [further], [STREAMS, STREAMS])

    assert [stream["index"] for _, stream in found] == indices
