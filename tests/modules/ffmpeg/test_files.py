"""The files that options of ffmpeg write: found wherever options name them, and renamed there."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modules.ffmpeg.files import (
    escape,
    log_directory,
    log_names,
    renamed,
    unescape,
    unnamed_problems,
    with_own_logs,
    written_names,
)
from tests.modules.ffmpeg.scene import FAST, carry_out, task

pytestmark = pytest.mark.tools


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"vstats_file:v:0": "a.txt", "sdp_file": "b", "dump_attachment:t:0": "c.ttf"}, ["a.txt", "b", "c.ttf"]),
        ({"vf": "scale=80:-2,metadata=mode=print:file='a b.txt',null"}, ["a b.txt"]),
        ({"vf": "metadata=print:::::a.txt"}, ["a.txt"]),
        ({"vf": "metadata=print"}, []),
        ({"vf": r"metadata=print:file=C\\:x\,y.txt"}, ["C:x,y.txt"]),
        ({"vf": "metadata=print:file=-"}, []),
        ({"vf": r"metadata=print:file=file\\:a.txt"}, ["a.txt"]),
        ({"af": ["ametadata=print:file=a.txt", "volume=2"]}, ["a.txt"]),
        ({"lavfi": "[0:v][1:v]ssim=a.log[x];[x]psnr@p=f=b.log,split [y] [z]"}, ["a.log", "b.log"]),
        ({"filter_complex": "[0:v] curves = plot = a.plt [o]"}, ["a.plt"]),
        ({"vf": "drawtext=text='metadata=print:file=a.txt'"}, []),
        ({"vf": "lut3d=file=a.cube,movie=b.mkv"}, []),
        ({"x264-params": {"dump-yuv": "a.yuv", "bframes": 1}}, ["a.yuv"]),
        ({"x265-params:v:0": r"bframes=1:csv=a\:b.csv"}, ["a:b.csv"]),
        ({"vstats_file": False, "vf": True}, []),
    ],
)
def test_written_names(options: dict[str, Any], names: list[str]) -> None:
    """Options, filters and settings of encoders name the files, whatever the quoting."""
    assert written_names(options) == names


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"vstats_file": "a"}, {"vstats_file": "/t/x:y'z,a"}),
        (
            {"vf": "[in]scale=80:-2, metadata=print:file=a [out]"},
            {"vf": r"[in]scale=80:-2, metadata=print:file=/t/x\\:y\\\'z\,a[out]"},
        ),
        ({"x265-params": "csv=a:bframes=1"}, {"x265-params": r"csv=/t/x\:y\'z,a:bframes=1"}),
        ({"x265-params": {"csv": "a", "bframes": 1}}, {"x265-params": {"csv": "/t/x:y'z,a", "bframes": 1}}),
        ({"vf": "select='gt(n\\,10)'[x];[x]null"}, {"vf": "select='gt(n\\,10)'[x];[x]null"}),
    ],
)
def test_other_names(options: dict[str, Any], changed: dict[str, Any]) -> None:
    """Other names are written as ffmpeg reads them, and what writes no file stays to the letter."""
    assert renamed(options, lambda name: f"/t/x:y'z,{name}") == changed


def test_other_names_reach_the_filter(clip: Path, tmp_path: Path) -> None:
    """ffmpeg itself reads the name that was meant."""
    graph = renamed({"vf": "signalstats,metadata=print:file=x"}, lambda _: f"{tmp_path}/a: 'b', [c];\\d.txt")["vf"]
    argv = ["ffmpeg", "-v", "error", "-i", str(clip), "-vf", graph, "-frames:v", "1", "-f", "null", "-"]
    subprocess.run(argv, check=True)

    assert os.listdir(tmp_path) == ["a: 'b', [c];\\d.txt"]


@pytest.mark.parametrize("text", ["a:b", "it's", "\\", " x ", "a\\:b", "'", ""])
def test_escaping(text: str) -> None:
    """What is escaped is read as it was."""
    assert unescape(escape(text)) == text


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"pass": 1, "passlogfile": "log"}, ["log-0.log"]),
        ({"pass:v:0": "3", "passlogfile:v:0": "log"}, ["log-0.log"]),
        ({"pass": 2, "passlogfile": "log"}, []),
        ({"x264-params": {"pass": 1, "stats": "log"}}, ["log", "log.mbtree", "log.cutree"]),
        ({"x265-params": "pass=2:stats=log"}, []),
    ],
)
def test_logs_of_passes(options: dict[str, Any], names: list[str]) -> None:
    """A pass that writes a log has it among its files, and one that only reads it does not."""
    assert log_names(options) == names


@pytest.mark.parametrize(
    ("options", "key", "name"),
    [
        ({"pass:v:0": 1}, "passlogfile:v:0", "ffmpeg2pass"),
        ({"x265-params": {"pass": 1}}, "x265-params", "x265_2pass.log"),
        ({"x264-params": "pass=2:bframes=1"}, "x264-params", "x264_2pass.log"),
        ({"vf": "vidstabdetect"}, "vf", "transforms.trf"),
        ({"vf": "vidstabtransform=smoothing=5,null"}, "vf", "transforms.trf"),
    ],
)
def test_own_logs(options: dict[str, Any], key: str, name: str) -> None:
    """A pass that names no file gets one of the job's own, for which no other job asks."""
    changed = with_own_logs(options, has_log=False)

    assert os.path.join(log_directory(), name) in str(changed[key])
    assert log_names(changed) == []


@pytest.mark.parametrize(
    "options",
    [
        {"pass": False},
        {"x265-params": {"pass": 1, "stats": "log"}},
        {"x264-params": "bframes=1"},
        {"vf": "vidstabdetect=log.trf"},
        {"vf": "vidstabtransform=input=log.trf"},
    ],
)
def test_no_own_logs(options: dict[str, Any]) -> None:
    """What names its file keeps it, and what is no pass gets none."""
    assert with_own_logs(options, has_log=False) == options


def test_scripts(tmp_path: Path) -> None:
    """A file of filters that write files is a problem: nobody can rename those."""
    script = tmp_path / "script"
    script.write_text("scale=80:-2,\nmetadata=print:file=a.txt")
    good = tmp_path / "good"
    good.write_text("scale=80:-2")

    found = dict(unnamed_problems({"filter_script:v": str(script), "/filter_complex": str(good)}))
    assert list(found) == ["filter_script:v"]
    assert "a.txt" in found["filter_script:v"]


@pytest.mark.parametrize("options", [{"dump_attachment:t": ""}, {"/vstats_file": "x"}])
def test_files_without_a_name(options: dict[str, Any]) -> None:
    """Where a file would say which files are written, the option is a problem."""
    assert [key for key, _ in unnamed_problems(options)] == list(options)


def encoding(clip: Path, target: Path, **options: Any) -> dict[str, Any]:
    data = task(clip, target)
    data["source_maps"], data["output_maps"] = data["source_maps"][:1], data["output_maps"][:1]
    data["output_maps"][0]["options"] = FAST | options
    return data


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        lambda number: {"codec": "libx265", "x265-params": {"pass": number, "log-level": "error"}},
        lambda number: {"codec": "libx264", "x264-params": f"pass={number}:bframes=1"},
        lambda number: {"codec": "libvpx-vp9", "pass": number, "cpu-used": 8},
    ],
    ids=["x265", "x264", "vp9"],
)
def test_two_passes_of_each_encoder(
    options: Callable[[int], dict[str, Any]], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second pass finds the log of the first, and neither leaves anything in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SISYPHUS_JOB_DIR", str(tmp_path / "job"))
    for number, target, more in ((1, os.devnull, {"f": "null"}), (2, "out.mkv", {})):
        data = encoding(clip, Path(target))
        data["output_maps"][0]["options"] = {"b": "100k", **options(number), **more}
        carry_out(data)

    assert sorted(os.listdir(tmp_path)) == ["job", "out.mkv"]
