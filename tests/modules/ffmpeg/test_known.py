"""The options of the installed ffmpeg."""

from typing import Any

import pytest

from modules.ffmpeg import known
from modules.ffmpeg.known import condense, kinds_of, option_problems

HELP = """Universal media converter
usage: ffmpeg [options]

Print help / information / capabilities:
-L                  show license
--help <topic>      show help

Per-file options:
-t duration         stop after
-re <>              read at native frame rate
-max_error_rate maximum error rate  ratio
-c[:<stream_spec>] <codec>  select
-shortest           finish

AVCodecContext AVOptions:
  -b                 <int64>      E..VA...... set bitrate
  -skip_frame        <int>        .D.V....... skip
     none            1            .D.V....... discard
x AVOptions:
  -x-params          <dictionary> E..V....... parameters
AVFormatContext AVOptions:
  -movflags          <flags>      E.......... flags
  -probesize         <int64>      .D......... size
  -b                 <int>        ED......... both
SWScaler AVOptions:
  -sws_flags         <flags>      E..V....... flags
SWResampler AVOptions:
  -ich               <int>        ....A.....P channels
AVFilter AVOptions:
  -not               <int>        E..V....... of a filter
"""


def test_condense() -> None:
    """The help of each generation of ffmpeg gives the options' kinds."""
    expected = (
        "L q,help q,t v,re f,max_error_rate v,c v,shortest f,b cim,skip_frame d,x-params Dc,movflags m,probesize i"
    )

    assert condense(HELP).splitlines() == [*expected.split(","), "sws_flags s", "ich s"]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("shortest", known.FLAG),
        ("crf", known.ENCODER),
        ("movflags", known.MUXER),
        ("vprofile", known.ENCODER),
        ("nostdin", known.FLAG),
        ("absf", known.VALUE),
        ("nosuch", ""),
    ],
)
def test_kinds(name: str, kinds: str) -> None:
    """ffmpeg's help tells them, and ffmpeg itself what the help leaves out."""
    assert set(kinds_of(name)) >= set(kinds)
    assert bool(kinds_of(name)) == bool(kinds)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("stream", {"filter_threads": 2, "fps_mode": "vfr", "disposition": "default", "xerror": True}),
        ("stream", {"metadata:s": "a=b", "metadata:g": "a=b", "map_metadata:s": "0:s", "map_chapters": -1}),
        ("stream", {"crf": 20, "flags": "+bitexact", "strict": -2, "t": 1, "f": "null", "an": True}),
        ("file", {"movflags": "+faststart", "metadata": ["a=b", "c=d"], "sws_flags": "lanczos", "shortest": True}),
        ("source", {"re": True, "probesize": "5M", "framerate": 25, "skip_frame": "nokey", "hwaccel": "auto"}),
        ("source", {"nostdin": True, "hide_banner": True, "shortest": False}),
    ],
)
def test_good_options(place: str, options: dict[str, Any]) -> None:
    """What ffmpeg takes there is no problem, though its help says little of it."""
    assert list(option_problems("o", options, place)) == []
