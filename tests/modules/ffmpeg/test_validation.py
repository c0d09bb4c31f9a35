"""What the `ffmpeg` module finds wrong before it runs."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError
from modules.base import location
from modules.ffmpeg import Ffmpeg
from tests.modules.ffmpeg.scene import carry_out, duration, refusal, task


def test_schema_and_files_at_once(clip: Path, tmp_path: Path) -> None:
    """What the schema finds does not hide what is wrong with files, encoders and streams."""
    data = task(clip, tmp_path / "no" / "out.mkv")
    data["overwrit"] = True
    data["output_maps"][0]["options"] = {"codec": "libx256"}
    data["source_maps"].append({"source": 0, "specifier": "a", "stream": 3})

    assert refusal(data).split("; ") == [
        "overwrit: unknown key (did you mean 'overwrite'?)",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        "output_maps[0].options.codec: this ffmpeg has no encoder 'libx256' (did you mean 'libx265'?)",
        "source_maps[2]: 0:a:3, but sources[0] has 1 audio stream",
    ]


def test_malformed_data() -> None:
    """Data of a wrong shape are told by the schema, and no check that stumbles over them hides it."""
    said = refusal({"sources": 5, "source_maps": [{"source": "x"}], "output_maps": [7], "output_file": ["a"]})

    assert said.split("; ")[:4] == [
        "output_file: expected a string, got a list",
        "output_maps[0]: expected an object, got 7",
        'source_maps[0].source: expected a whole number, got "x"',
        "sources: expected a list, got 5",
    ]


def test_one_misshapen_thing_hides_no_other(tmp_path: Path) -> None:
    """A key that is missing keeps no check from being made that can do without it."""
    data = task(tmp_path / "none.mkv", tmp_path / "no" / "out.mkv")
    del data["source_maps"]
    data["output_maps"][0]["options"] = {"codec": "libx256"}

    assert refusal(data).split("; ") == [
        "missing key 'source_maps'",
        f"sources[0]: {tmp_path}/none.mkv: no such file",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
        "output_maps[0].options.codec: this ffmpeg has no encoder 'libx256' (did you mean 'libx265'?)",
    ]


def test_sources_that_are_text(tmp_path: Path) -> None:
    """A name in the place of a list is told once, and not letter by letter."""
    data = task("none.mkv", tmp_path / "out.mkv") | {"sources": "none.mkv"}

    assert refusal(data) == 'sources: expected a list, got "none.mkv"'


def test_sources_that_lead_nowhere(clip: Path, tmp_path: Path) -> None:
    """A link to nothing is no source, nor a name with a percent sign that is no picture's."""
    (tmp_path / "link.mkv").symlink_to("nowhere")
    data = task(tmp_path / "link.mkv", tmp_path / "out.mkv")
    data["sources"] += [str(tmp_path / "a%20d.mkv"), str(clip.parent / "clip.mkv" / "x.mkv")]

    assert refusal(data).split("; ") == [
        f"sources[0]: {tmp_path}/link.mkv: is a link to nowhere, and there is no such file",
        f"sources[1]: {tmp_path}/a%20d.mkv: no such file",
        f"sources[2]: {clip}/x.mkv: not a directory",
    ]


def test_start_after_the_end(clip: Path, tmp_path: Path) -> None:
    """A cut that begins after its source ends is told before the job."""
    data = task(clip, tmp_path / "out.mkv", input_options={"ss": "1:40"})

    assert refusal(data) == f"sources[0]: {clip}: ss 1:40 is after its end (2.0 s)"


@pytest.mark.parametrize("codec", ["libx264", "h264", "copy", "aac"])
def test_encoders_that_are_there(codec: str, clip: Path, tmp_path: Path) -> None:
    """An encoder's name is right, a codec's that has one, and copy."""
    data = task(clip, tmp_path / "out.mkv")
    data["output_maps"][0]["options"] = {"c": codec}

    Ffmpeg(data).validate()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"source": 0, "specifier": "video", "stream": 1}, "0:v:1, but sources[0] has 1 video stream"),
        ({"source": 0, "specifier": "s"}, "0:s, but sources[0] has 0 subtitle streams"),
        ({"source": 0, "stream": 2}, "0:2, but sources[0] has 2 streams"),
    ],
)
def test_streams_that_are_missing(entry: dict[str, Any], said: str, clip: Path, tmp_path: Path) -> None:
    """A stream that a present source lacks is found before the job, unless it is optional."""
    data = task(clip, tmp_path / "out.mkv")
    data["source_maps"].append(entry | {"optional": True})
    Ffmpeg(data).validate()
    data["source_maps"][-1] = entry

    assert refusal(data) == f"source_maps[2]: {said}"


def test_streams_of_a_file_that_will_change(clip: Path, tmp_path: Path) -> None:
    """What an earlier task writes anew is not looked into, though it is there."""
    data = task(clip, tmp_path / "out.mkv")
    data["source_maps"] = [{"source": 0, "specifier": "s"}]
    module = Ffmpeg(data)
    module.sisyphus_context.files = {location(str(clip)): True}

    module.validate()


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Everything that is wrong is reported, not only the first."""
    data = task(tmp_path / "none.mkv", tmp_path / "no" / "out.mkv")
    data["source_maps"].append({"source": 3})
    data["sources"].append(str(tmp_path))

    assert refusal(data).split("; ") == [
        f"sources[0]: {tmp_path}/none.mkv: no such file",
        f"sources[1]: {tmp_path}: is a directory",
        "source_maps[2].source: 3, but there are only sources 0 to 1",
        f"output_file: {tmp_path}/no/out.mkv: there is no directory {tmp_path}/no",
    ]


def test_unknown_key(clip: Path, tmp_path: Path) -> None:
    """An unknown key is named with its path."""
    data = task(clip, tmp_path / "out.mkv")
    data["output_maps"][1]["optoins"] = {}

    assert refusal(data) == "output_maps[1].optoins: unknown key (did you mean 'options'?)"


def test_existing_target(clip: Path, tmp_path: Path) -> None:
    """An existing target is an error, unless it is to be overwritten or an earlier task takes it away."""
    target = tmp_path / "out.mkv"
    target.touch()

    assert refusal(task(clip, target)) == f"output_file: {target}: exists, and overwrite is not true"
    Ffmpeg(task(clip, target, overwrite=True)).validate()
    later = Ffmpeg(task(clip, target))
    later.sisyphus_context.files = {location(str(target)): False}
    later.validate()


def test_special_target(clip: Path, tmp_path: Path) -> None:
    """A device or a pipe is not overwritten."""
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/zero")):
        message = refusal(task(clip, target, overwrite=True))
        assert message.startswith(f"output_file: {target}: is no regular file (a device or a pipe)")


@pytest.mark.parametrize(
    ("name", "muxer"), [("a%03d.png", None), ("a.m3u8", None), ("a.mpd", None), ("a.ts", "hls"), ("%d", "image2")]
)
def test_several_files(name: str, muxer: str | None, clip: Path, tmp_path: Path) -> None:
    """What would leave files beside the output is refused."""
    data = task(clip, tmp_path / name)
    if muxer:
        data["output_maps"][0]["options"] = {"f": muxer}

    assert refusal(data) == (
        f"output_file: {tmp_path / name}: ffmpeg writes several files, which the ffmpeg module does not support"
    )


def test_files_of_earlier_tasks(tmp_path: Path) -> None:
    """A source or a directory that an earlier task makes need not be there yet."""
    module = Ffmpeg(task(tmp_path / "soon.mkv", tmp_path / "new" / "out.mkv"))
    module.sisyphus_context.files = {
        location(str(tmp_path / "soon.mkv")): True,
        location(str(tmp_path / "new" / "other")): True,
    }

    module.validate()


def test_addresses_are_not_files(tmp_path: Path) -> None:
    """Sources that are no files are left to ffmpeg."""
    data = task("http://127.0.0.1:1/x.mkv", tmp_path / "out.mkv")
    data["sources"] += [
        "concat:http://127.0.0.1:1/a|http://127.0.0.1:1/b",
        "img%03d.png",
        {"filename": "testsrc", "options": {"f": "lavfi"}},
    ]

    Ffmpeg(data).validate()


def test_generated_source(tmp_path: Path) -> None:
    """A source of unknown duration can be encoded."""
    data = task("", tmp_path / "out.mkv")
    data["sources"] = [{"filename": "testsrc=size=64x64", "options": {"f": "lavfi", "t": "1"}}]

    carry_out(data)

    assert duration(tmp_path / "out.mkv") == pytest.approx(1, abs=0.1)


def test_output_is_a_source(clip: Path, tmp_path: Path) -> None:
    """An output that is one of the sources, by whatever name, is an error."""
    link = tmp_path / "link.mkv"
    link.symlink_to(clip)

    assert refusal(task(clip, link, overwrite=True)) == f"output_file: {clip} is also sources[0]"


def test_missing_tools(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not installed are named before anything runs, and also if they vanish afterwards."""
    module = Ffmpeg(task(clip, tmp_path / "out.mkv"))
    module.validate()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "ffmpeg is not installed" in refusal(task(clip, tmp_path / "out.mkv"))
    assert "ffprobe is not installed" in refusal(task(clip, tmp_path / "out.mkv"))
    with pytest.raises(RunError, match="ffmpeg is not installed"):
        module.run()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"sources": {}},
        {"sources": [""], "source_maps": 1, "output_maps": None, "output_file": []},
        task("a\0b", "c\0d"),
        task("\ud800", "\ud900"),
        task("a", "b", input_options={"ss": None}),
        task("a", "b", input_options={"f": {"x": 1}, "ss": "soon"}),
        task("a" * 100_000, "b" * 100_000),
        task("a", "b", input_options={"items": {}, "keys": 1, "_box_config": 2}),
    ],
)
def test_odd_data(data: dict[str, Any]) -> None:
    """Odd data is a ValidationError and never another."""
    assert refusal(data)
