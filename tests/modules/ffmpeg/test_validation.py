"""What the `ffmpeg` module finds wrong before it runs."""

from pathlib import Path

import pytest

from modules.ffmpeg import Ffmpeg
from tests.modules.ffmpeg.scene import refusal, task


def test_schema_and_files_at_once(clip: Path, tmp_path: Path) -> None:
    """What the schema finds does not hide what is wrong with files, encoders and streams."""
    data = task(clip, tmp_path / "no" / "out.mkv")
    data["overwrit"] = True
    data["sources"].append(str(tmp_path))
    data["output_maps"][0]["options"] = {"codec": "libx256"}
    data["source_maps"] += [{"source": 0, "specifier": "a", "stream": 3}, {"source": 3}]

    assert refusal(data).split("; ") == [
        "overwrit: unknown key (did you mean 'overwrite'?)",
        f"sources[1]: {tmp_path}: is a directory",
        "source_maps[3].source: 3, but there are only sources 0 to 1",
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


@pytest.mark.parametrize(
    "sources", [[], [[]], [{}], [7], [None], ["\0"], {}, [{"filename": []}], [{"filename": "x", "options": 7}]], ids=str
)
def test_sources_of_any_shape(sources: object) -> None:
    """ffprobe is started before the schema has seen the sources, which may be anything."""
    assert "sources" in refusal({"sources": sources})


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


def test_addresses_are_not_files(tmp_path: Path) -> None:
    """Sources that are no files are left to ffmpeg."""
    data = task("http://127.0.0.1:1/x.mkv", tmp_path / "out.mkv")
    data["sources"] += [
        "concat:http://127.0.0.1:1/a|http://127.0.0.1:1/b",
        "img%03d.png",
        {"filename": "testsrc", "options": {"f": "lavfi"}},
    ]

    Ffmpeg(data).validate()
