"""The options of the installed mkvmerge."""

from typing import Any

import pytest

from modules.mkvmerge.known import FLAG, OPTIONAL, VALUE, kind_of, option_problems


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("title", VALUE),
        ("no-chapters", FLAG),
        ("default-track", OPTIONAL),
        ("timecodes", VALUE),
        ("nosubs", FLAG),
        ("titel", None),
        ("o", None),
    ],
)
def test_kinds(name: str, kind: str | None) -> None:
    """mkvmerge's help tells them, and mkvmerge itself what the help leaves out."""
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("options", "of_track", "said"),
    [
        ({"no-chapters": None, "title": "x", "_copy-audio-tracks": None, "split": False, "gui-mode": True}, False, []),
        ({"default-track": None, "forced-display-flag": True, "language": "jpn", "sync": 100}, True, []),
        ({"no-date": "x"}, False, ["o.no-date: --no-date is a flag, which takes no value"]),
        ({"default-track": True}, False, ["o.default-track: expected a value: --default-track needs one"]),
        ({"track-name": None}, True, ["o.track-name: expected a value: --track-name needs one"]),
        ({"titel": False}, False, ["o.titel: this mkvmerge knows no such option (did you mean 'title'?)"]),
        ({"identify": "x", "version": True}, False, ["o.identify: it prints", "o.version: it prints"]),
    ],
)
def test_problems(options: dict[str, Any], of_track: bool, said: list[str]) -> None:
    """Each problem has the option's path."""
    found = list(option_problems("o", options, of_track=of_track))

    assert len(found) == len(said)
    assert all(problem.startswith(start) for problem, start in zip(found, said, strict=True))
