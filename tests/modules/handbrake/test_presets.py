"""Presets of preset files."""

import json
import plistlib
from pathlib import Path

import pytest

from modules.handbrake.presets import file_problems, known_presets, only_preset, preset_names

ONE, TWO = {"PresetName": "One"}, {"PresetName": "Two"}


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ({"PresetList": [ONE], "VersionMajor": 55}, ["One"]),
        ({"PresetList": [{"PresetName": "Mine", "Folder": True, "ChildrenArray": [ONE, TWO]}]}, ["One", "Two"]),
        ([ONE], ["One"]),
        (TWO, ["Two"]),
    ],
)
def test_names(found: object, names: list[str], tmp_path: Path) -> None:
    """The names in each form of a preset file, of HandBrake's older versions too."""
    for text in (json.dumps(found).encode(), plistlib.dumps(found)):
        (tmp_path / "file").write_bytes(text)

        assert preset_names(str(tmp_path / "file")) == names


@pytest.mark.parametrize("text", [b"", b"no JSON", b"{}", b"[1]", b"<plist>", b"<?xml?>", b"\xff", b"[" * 100_000])
def test_no_presets(text: bytes, tmp_path: Path) -> None:
    """A file without presets is a problem, by its name."""
    file = tmp_path / "file"
    file.write_bytes(text)

    (problem,) = file_problems([str(file)], None)
    assert problem.startswith(f"{file}: cannot be imported: ")
    assert only_preset([str(file)]) is None


def test_the_only_preset(tmp_path: Path) -> None:
    """It is taken if it is the only one in all files; if not, one has to be named."""
    one, two = str(tmp_path / "1"), str(tmp_path / "2")
    Path(one).write_text(json.dumps(ONE))
    Path(two).write_text(json.dumps(TWO))

    assert only_preset([one]) == "One"
    assert only_preset([one, two]) is None
    assert only_preset([]) is None
    assert known_presets([one, two, str(tmp_path / "none")]) == ["One", "Two"]
    assert list(file_problems([one, two], None)) == [f"{one}, {two}: has several presets: name one in preset: One, Two"]
    assert list(file_problems([one, two], "One")) == []
