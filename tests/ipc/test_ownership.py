"""Ownership: a client kills what a dead client of its own kind has left, and touches nothing else."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ipc import ownership
from ipc.ownership import MARKER
from tests.support.waiting import until


def dead() -> str:
    """The marker of a supervisor that has ended."""
    with subprocess.Popen(["true"]) as process:
        return ownership.marker(process.pid)  # a zombie still has its start time


def part(number: int, text: str) -> str:
    """A dead supervisor's marker with another boot (0 to 4), namespace (5 to 7), user (8), pid (9) or start (10)."""
    parts = dead().split("-")
    return "-".join([*parts[:number], text, *parts[number + 1 :]])


LEFT_BEHIND: dict[str, tuple[Callable[[], str], bool]] = {
    "dead": (dead, True),
    "dead, its pid used again": (lambda: part(9, str(os.getpid())), True),
    "alive": (lambda: ownership.marker(os.getpid()), False),
    "alive, of another user": (lambda: ownership.marker(1), False),
    **{f"other boot {n}": (lambda n=n: part(n, "0badcafe"), False) for n in range(5)},
    "other PID namespace": (lambda: part(5, "4026530000"), False),
    "other time namespace": (lambda: part(6, "4026530000"), False),
    "other user namespace": (lambda: part(7, "4026530000"), False),
    "no namespaces known": (lambda: part(6, "0"), False),
    "other user": (lambda: part(8, str(os.getuid() + 1)), False),
    "every process": (lambda: part(9, "-1"), False),
    "this group": (lambda: part(9, "0"), False),
    "a pid that no kernel gives": (lambda: part(9, "9" * 40), False),
    "no start time": (lambda: dead().rpartition("-")[0], False),
    "a start time in words": (lambda: part(10, "noon"), False),
    "digits of another script": (lambda: part(10, "٣"), False),
    "with a line's end": (lambda: dead() + "\n", False),
    "with more": (lambda: dead() + "-web-server", False),
    "another name": (lambda: "web-server", False),
    "not text": (lambda: os.fsdecode(b"\xff\xfe"), False),
    "an older client's": (lambda: f"999999:1:{os.stat('/proc/self/ns/pid').st_ino}", False),
    "empty": (lambda: "", False),
}


@pytest.mark.parametrize(("make", "left"), LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_what_is_not_certainly_left_behind_is_left_alone(make: Callable[[], str], left: bool) -> None:
    """Only the whole marker of a dead supervisor of this boot, these namespaces and this user counts."""
    text = make()
    with subprocess.Popen(["sleep", "1000"], env={MARKER: text}, start_new_session=True) as process:
        until(lambda: process_has(process.pid, MARKER), "its environment")
        killed = ownership.kill_survivors()
        is_ended = process.pid in killed or process.poll() == -signal.SIGKILL  # by a client that starts beside this
        process.kill()

    assert ownership.is_left_behind(text) is left
    assert is_ended is left


def process_has(pid: int, name: str) -> bool:
    with contextlib.suppress(PermissionError):  # it is just becoming another program
        return f"{name}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False
