"""What is told of a failure to which the limits `roots` or `network` have led."""

import pytest

from child import roots
from ipc.messages import Cause, Done, Failed
from modules import context


@pytest.mark.parametrize(
    ("message", "is_told"),
    [
        ("PermissionError: [Errno 13] Permission denied: '/a'", True),
        ("cat: /a: Permission denied", True),
        ("sh: 1: cannot create /a: Permission denied", True),
        ("The file '/a' could not be opened for reading: open file error.", True),
        ("[libx264 @ 0x55a9] ratecontrol_init: can't open stats file", True),
        ("http://farm:80/a: Permission denied", True),
        ("ZeroDivisionError: division by zero", False),
        ("/a: No such file or directory", False),
        ("sources[0]: /a: is outside of the limit roots (/root)", False),
    ],
)
def test_what_limits_deny_is_told(monkeypatch: pytest.MonkeyPatch, message: str, is_told: bool) -> None:
    """A failure that speaks of something denied, itself or in a line of a tool, tells what the limits deny."""
    told = "; the limit roots denies files outside of /root; the limit network denies TCP" * is_told
    failures = [Failed(Cause("exit", message)), Failed(Cause("exit", "it failed", stderr=("another line", message)))]

    monkeypatch.setattr(context, "current", context.TaskContext(roots=("/root",), network=False))
    for failure in failures:
        assert roots.explain(failure) == Failed(
            Cause("exit", failure.cause.message + told, stderr=failure.cause.stderr)
        )
    assert roots.explain(Done()) == Done()
    monkeypatch.setattr(context, "current", context.TaskContext())
    for failure in failures:
        assert roots.explain(failure) == failure
