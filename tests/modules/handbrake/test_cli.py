"""Reading what HandBrakeCLI says: progress, torn objects, odd values."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from modules.base import BaseModule
from modules.handbrake.cli import Messages


def object_of(state: str, **details: Any) -> list[str]:
    """An object as HandBrakeCLI prints it."""
    names = {"SEARCHING": "Working", "WORKDONE": "WorkDone"}
    return f"Progress: {json.dumps({'State': state, names.get(state, state.title()): details}, indent=4)}".splitlines()


def reports(*objects: list[str], frame_rate: float | None = 25.0, frames: int = 0) -> list[Any]:
    """What a module tells of the lines of objects: progress and information each, and the error."""
    told: list[Any] = []

    def report(progress: float | None, info: Mapping[str, Any]) -> None:
        module.report(progress, info)
        told.append((module.sisyphus_context.status.get("progress"), module.sisyphus_context.status["info"]))

    module = BaseModule({})
    messages = Messages(frame_rate, report)
    if frames:
        messages.take_log(f"[12:00:00] sync: expecting {frames} video frames")
    for lines in objects:
        for line in lines:
            messages.take(line)
    return [*told, messages.error]


def test_progress() -> None:
    """Each object is a report: passes count alike, what is not known is left out, and nothing goes backwards."""
    first = {"Pass": 1, "PassCount": 2, "PassID": 1, "Progress": 0.5, "Rate": 50.0, "RateAvg": 25.0, "ETASeconds": 4}
    second = {"Pass": 2, "PassCount": 2, "PassID": 2, "Progress": 1.0, "Rate": 1e-7, "RateAvg": 0.0, "ETASeconds": 0}

    told = reports(
        ["libdvdread: Encrypted DVD support unavailable.****", "Version: {", "}"],
        object_of("SCANNING", Progress=0.5, Preview=3),
        object_of("SEARCHING", Progress=0.9, Pass=1, PassCount=2),
        object_of("WORKING", **first),
        object_of("WORKING", **(first | {"Progress": 0.25})),
        object_of("WORKING", **second),
        object_of("MUXING", Progress=0.0),
        object_of("WORKDONE", Error=0, SequenceID=1),
        frames=200,
    )

    assert told == [
        (None, {"phase": "scanning"}),
        (None, {"phase": "searching"}),
        (25.0, {"phase": "pass 1 of 2", "current_frame": 100, "total_frames": 200, "fps": 50.0, "speed": 2.0,
                "eta_seconds": 12.0}),
        (25.0, {"phase": "pass 1 of 2", "current_frame": 50, "total_frames": 200, "fps": 50.0, "speed": 2.0,
                "eta_seconds": 12.0}),
        (99.9, {"phase": "pass 2 of 2", "current_frame": 200, "total_frames": 200}),
        (99.9, {"phase": "muxing"}),
        0,
    ]  # fmt: skip


def test_progress_of_subtitle_scan() -> None:
    """The pass that looks for foreign subtitles is one of those that count."""
    told = reports(object_of("WORKING", Pass=1, PassCount=2, PassID=-1, Progress=0.5, Rate=100.0))

    assert told == [(25.0, {"phase": "scanning subtitles", "fps": 100.0, "speed": 4.0}), None]


@pytest.mark.parametrize(
    "working",
    [
        {},
        {"Progress": math.nan, "Pass": math.inf, "PassCount": 0, "Rate": math.nan, "ETASeconds": -math.inf},
        {"Progress": "x", "Pass": None, "PassCount": [], "Rate": {}, "RateAvg": "x", "ETASeconds": True},
    ],
)
def test_odd_progress(working: dict[str, Any]) -> None:
    """Numbers that are none are left out."""
    (percent, info), error = reports(object_of("WORKING", **working))

    assert percent == 0
    assert info == {"phase": "encoding"}
    assert error is None


@pytest.mark.parametrize(
    "lines",
    [
        ["Progress: {", '    "State": "WORKING",'],
        ["Progress: {", "garbage", "}"],
        ["Progress: [1]", "}", "{}"],
        ["Progress: {", *["x" * 1000] * 100, "}"],
        object_of("WORKDONE", Error="none"),
        ['Progress: {"State": "WORKDONE", "WorkDone": 0}'],
        ['Progress: {"State": ["WORKING"], "Working": 3}'],
    ],
)
def test_torn_objects(lines: list[str]) -> None:
    """What is no object is skipped, and the next one is read."""
    assert reports(lines, object_of("WORKDONE", Error=3)) == [3]
