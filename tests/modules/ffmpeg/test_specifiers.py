"""ffmpeg's stream specifiers."""

from typing import Any

import pytest

from modules.ffmpeg.specifiers import select, selected, settled_maps, specifier, with_suffix

STREAMS: list[dict[str, Any]] = [
    {"codec_type": "video", "index": 0, "codec_name": "png", "disposition": {"attached_pic": 1}},
    {"codec_type": "video", "index": 1, "codec_name": "h264", "disposition": {"default": 1, "dub": 0}, "id": "0x100"},
    {
        "codec_type": "audio",
        "index": 2,
        "codec_name": "ac3",
        "disposition": {"default": 1},
        "tags": {"language": "jpn"},
    },
    {
        "codec_type": "audio",
        "index": 3,
        "codec_name": "pcm_s16le",
        "tags": {"LANGUAGE": "eng", "title": "A: B"},
        "id": "0x101",
    },
    {"codec_type": "subtitle", "index": 4, "codec_name": "ass", "tags": {"language": "eng", "title": "[Signs]"}},
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
        ("metadata:s", {"specifier": "s"}, "metadata:s:s"),
        ("map_metadata:s", {"specifier": "s", "stream": 0}, "map_metadata:s:s:0"),
        ("metadata:s:s", {"specifier": "s", "stream": 0}, "metadata:s:s:0"),
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
        ("m:title", [3, 4]),
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
    ("words", "indices"),
    [
        ({"language": "eng"}, [3, 4]),
        ({"language": ["fre", "ENG", "jpn"]}, [3, 4]),  # the first language that there is, and no other
        ({"language": "jpn", "codec": "dts"}, []),
        ({"language": ["jpn", "eng"], "codec": "ass"}, [4]),  # in which there is anything that fits
        ({"language": "und"}, [0, 1]),
        ({"codec": "AC-3"}, [2]),
        ({"codec": ["pcm*", "h26?"]}, [1, 3]),
        ({"codec": "h26"}, []),
        ({"title": "a: *"}, [3]),
        ({"title": "[signs]"}, [4]),  # a bracket is no wildcard
        ({"title": ["?*"]}, [3, 4]),
        ({"disposition": "default"}, [1, 2]),
        ({"disposition": ["default", "dub"]}, []),
        ({"specifier": "v", "exclude": {"disposition": "attached_pic"}}, [1]),
        ({"exclude": {"language": ["eng", "und"]}}, [2]),
        ({"exclude": {"language": "eng", "codec": "ass"}}, [0, 1, 2, 3]),  # only what is all of it
        ({"first": True}, [0]),
        ({"specifier": "a", "first": False}, [2, 3]),
        ({"language": "eng", "stream": 1}, [4]),
        ({"language": "eng", "stream": 2}, []),
        ({"specifier": "a:m:title", "language": "eng"}, [3]),
        ({"specifier": "a", "language": "fre", "or": {"first": True}}, [2]),
        ({"specifier": "a", "language": "jpn", "or": {"codec": "ass"}}, [2]),
        ({"language": "fre", "or": {"title": "x", "or": {"specifier": "V"}}}, [1]),
        ({"specifier": "a", "language": "fre", "or": {}}, [2, 3]),
        ({"specifier": "p:1", "first": True}, []),
    ],
)
def test_words(words: dict[str, Any], indices: list[int]) -> None:
    """Words select the streams that fit all of them; `or` says what else, if there is none."""
    entry = {"source": 0} | words
    found = [stream["index"] for _, stream in selected([entry], [], [STREAMS])]
    settled = settled_maps([entry, {"source": 0, "stream": 1}], [STREAMS])

    assert found == indices
    assert settled == [{"source": 0, "stream": index} for index in [*indices, 1]]


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
