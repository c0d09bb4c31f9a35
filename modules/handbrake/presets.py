"""Presets of preset files: HandBrakeCLI imports a file, and then takes its own default preset unless one is named."""

import contextlib
import json
import plistlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError


def preset_names(name: str) -> list[str]:
    """The names of the presets in a preset file, those in its folders too.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no presets.
    """
    data = Path(name).read_bytes()
    try:
        found = plistlib.loads(data) if data.lstrip()[:1] == b"<" else json.loads(data)
    except (ExpatError, plistlib.InvalidFileException, RecursionError) as error:
        raise ValueError(str(error)) from error
    names = list(_names(found))
    if not names:
        raise ValueError("it holds no presets")
    return names


def _names(found: Any) -> Iterator[str]:
    """The presets in a file, a list of presets, or one preset or folder."""
    if isinstance(found, list):
        for each in found:
            yield from _names(each)
    elif isinstance(found, dict) and "PresetList" in found:
        yield from _names(found["PresetList"])
    elif isinstance(found, dict) and found.get("Folder"):
        yield from _names(found.get("ChildrenArray", []))
    elif isinstance(found, dict) and isinstance(found.get("PresetName"), str):
        yield found["PresetName"]


def file_problems(files: Sequence[str], preset: str | None) -> Iterator[str]:
    """The problems of existing preset files. `preset` is the one that the task names, if it names one."""
    names: list[str] = []
    for name in files:
        try:
            names += preset_names(name)
        except (OSError, ValueError) as error:
            yield f"{name}: cannot be imported: {error}"
    if preset is None and len(names) > 1:
        yield f"{', '.join(files)}: has several presets: name one in preset: {', '.join(names)}"


def known_presets(files: Sequence[str]) -> list[str]:
    """The presets of all files; none of a file that cannot be read."""
    names: list[str] = []
    for name in files:
        with contextlib.suppress(OSError, ValueError):
            names += preset_names(name)
    return names


def only_preset(files: Sequence[str]) -> str | None:
    """The preset of preset files that hold just one; `None` if they hold none or several."""
    names = known_presets(files)
    return names[0] if len(names) == 1 else None
