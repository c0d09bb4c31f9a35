"""The command line of the `ffmpeg` module."""

import shlex
from typing import Any

import pytest

from modules.ffmpeg.options import EncodeTask, ffmpeg_command, phase
from tests.modules.ffmpeg.scene import EXAMPLE, LEAD, minimal, output_map, task


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            EXAMPLE,
            "-ss 0:10:00 -to 0:20:00 -i source_file_1.mkv -i source_file_2.ac3 -map 0:v:0 -map '1:a:0?' "
            "-codec:v:0 libx265 -crf:v:0 19 -x265-params:v:0 limit-sao=1:bframes=8 -codec:a:0 libopus -b:a:0 128k",
        ),
        (minimal(input_options={"stream_loop": -1, "recast_media": True}), "-stream_loop -1 -recast_media -i a.mkv"),
        (minimal(input_options={"stream_loop": 2.0, "recast_media": False}), "-stream_loop 2 -i a.mkv"),
        (minimal(input_options={"framerate": 23.976}), "-framerate 23.976 -i a.mkv"),
        (
            minimal(sources=["a", {"filename": "b", "options": {"ss": "10"}}], input_options={"t": "5"}),
            "-t 5 -i a -ss 10 -i b",
        ),
        (
            minimal(
                sources=[{"filename": "a", "options": {"t": "3", "re": True}}], input_options={"ss": "1", "t": "5"}
            ),
            "-ss 1 -t 3 -re -i a",
        ),
        (minimal(source_maps=[{"source": 0}, {"source": 0, "stream": 3}]), "-i a.mkv -map 0 -map 0:3"),
        (minimal(source_maps=[{"source": 0, "specifier": "Audio"}]), "-i a.mkv -map 0:a"),
        (minimal(source_maps=[{"source": 0, "specifier": "subtitle", "stream": 1}]), "-i a.mkv -map 0:s:1"),
        (minimal(source_maps=[{"source": 0, "optional": True}]), "-i a.mkv -map '0?'"),
        (output_map(options={"codec": "copy"}), "-i a.mkv -codec:0 copy"),
        (output_map(specifier="Video", options={"an": True, "sn": False}), "-i a.mkv -an:v:0"),
        (
            output_map(specifier="v", options={"x265-params": {"sao": False, "b": True}}),
            "-i a.mkv -x265-params:v:0 sao=0:b=1",
        ),
        (output_map(options={"metadata": "title=a b'c"}), "-i a.mkv -metadata:0 'title=a b'\"'\"'c'"),
        (
            output_map(options={"codec": "aac", "b": "64k", "ac": 2}, option_set="opus-128k-stereo"),
            "-i a.mkv -codec:0 libopus -b:0 128k -ac:0 2",
        ),
        (minimal(sources=["-x.mkv"]), "-i -x.mkv"),
        (minimal(sources=["there:x.mkv", "http://far/x.mkv"]), "-i file:there:x.mkv -i http://far/x.mkv"),
        (minimal(sources=["-there.mkv", "dir/there:x.mkv"]), "-i file:-there.mkv -i dir/there:x.mkv"),
    ],
)
def test_arguments(data: dict[str, Any], expected: str) -> None:
    """The command line of each kind of task data, to the letter."""
    sets = {"opus-128k-stereo": {"codec": "libopus", "b": "128k"}}

    argv = ffmpeg_command(EncodeTask(data, sets), "/shared/.output_file.part.mkv", lambda name: "there" in name)

    assert argv == [*LEAD, *shlex.split(expected), "/shared/.output_file.part.mkv"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": "libx264"}, "encoding"),
        ({"codec": "libx265", "x265-params": {"pass": 2, "bframes": 8}}, "pass 2"),
        ({"codec": "libx265", "x265-params": "bframes=8:pass=1"}, "pass 1"),
        ({"pass:v:0": "2"}, "pass 2"),
        ({"codec": "libx264", "x264-params": {"bypass": 1}}, "encoding"),
    ],
)
def test_phases(options: dict[str, Any], said: str) -> None:
    """The status says which pass an encode is, wherever the options do."""
    data = task("a.mkv", "b.mkv")
    data["output_maps"] = [{"specifier": "v", "stream": 0, "options": options}]

    assert phase(EncodeTask(data)) == said
