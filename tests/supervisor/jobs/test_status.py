"""What a module says of its progress, made safe."""

import msgspec
import pytest

from supervisor.jobs.status import Status, read_status


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("1", Status()),
        ("[]", Status()),
        ('{"progress": 43}', Status(43.0)),
        ('{"progress": 143.5}', Status(100.0)),
        ('{"progress": -1}', Status(0.0)),
        ('{"progress": "43"}', Status()),
        ('{"progress": true}', Status()),
        ('{"progress": null, "info": null}', Status()),
        ('{"progress": 1' + "0" * 400 + "}", Status()),
        ('{"info": {"fps": 1}, "spam": 2, "status": "x"}', Status(None, {"spam": 2, "fps": 1})),
        ('{"info": ' + "[" * 5000 + "]" * 5000 + "}", Status()),
    ],
)
def test_status_is_made_safe(said: str, status: Status) -> None:
    """Only what makes sense of a status is taken: finite progress from 0 to 100, unknown keys under info."""
    assert read_status(msgspec.Raw(said.encode())) == status
