"""The options of the installed mkvmerge."""

import pytest

from modules.mkvmerge.known import FLAG, OPTIONAL, VALUE, kind_of


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
