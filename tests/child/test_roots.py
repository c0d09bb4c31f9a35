"""What is told of a failure to which the limits `roots` or `network` have led."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from child import roots
from ipc.messages import Cause, Done, Failed
from modules import context


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, which is outside of the roots, with a file `a`."""
    (tmp_path / "root").mkdir()
    (tmp_path / "a").touch()
    monkeypatch.setattr(context, "current", context.TaskContext(roots=(str(tmp_path / "root"),), network=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def added(message: str, *stderr: str) -> str:
    """What is added to the message of a failure."""
    answer = roots.explain(Failed(Cause("exit", message, stderr=stderr)))
    assert isinstance(answer, Failed)
    assert answer.cause.message.startswith(message)
    return answer.cause.message.removeprefix(message)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("PermissionError: [Errno 13] Permission denied: '{outside}/a'", "a"),
        ("cat: {outside}/a: Permission denied", "a"),
        ("sh: 1: cannot create {outside}/new file: Permission denied", "new file"),
        ("{outside}/a: Permission denied; the command was: ffmpeg -i {outside}/a", "a"),
        ("cannot copy {outside}/root/b to {outside}/c: Permission denied", "c"),
        ("The file '{outside}/a' could not be opened for reading: open file error.", "a"),
        ("a: Permission denied", "a"),
        ("[libx264 @ 0x55a9] ratecontrol_init: can't open stats file", ""),
    ],
)
def test_the_file_is_named(outside: Path, message: str, name: str) -> None:
    """Messages of Python, shells, ffmpeg, x264, MKVToolNix and the modules tell which file was denied."""
    said = message.format(outside=outside)
    expected = f"; {outside / name} is outside of the limit roots ({outside}/root)"

    assert added(said) == expected
    assert added("it failed", "another line", said) == expected


@pytest.mark.parametrize(
    "message",
    [
        "ZeroDivisionError: division by zero",
        "{outside}/a: No such file or directory",
        "{outside}/root/b: Permission denied",
        "/nonexistent/directory/b: Permission denied",
        "a\0b: Permission denied",
        "sources[0]: {outside}/a: is outside of the limit roots ({outside}/root)",
    ],
)
def test_other_failures_are_left_alone(outside: Path, message: str) -> None:
    """Nothing is added where the roots are not to blame, or where the message says so already."""
    assert added(message.format(outside=outside)) == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_denied_by_the_file_itself(outside: Path) -> None:
    """A file that its own permissions deny is not put down to the roots."""
    (outside / "a").chmod(0)

    assert added(f"{outside}/a: Permission denied") == ""


def test_network_is_named(outside: Path) -> None:
    """A tool that was denied a connection tells the address that it wanted."""
    for words in ("Permission denied", "Temporary failure in name resolution"):
        assert added(f"http://farm:80/a: {words}") == "; the limit network forbids it"


def test_without_roots_nothing_is_added(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither limit is set, failures stay as they are; and so do answers that are none."""
    monkeypatch.setattr(context, "current", context.TaskContext())

    assert added(f"{outside}/a: Permission denied") == ""
    assert added("http://farm:80/a: Permission denied") == ""
    assert roots.explain(Done()) == Done()
