"""Running one external program."""

import itertools
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest

from app.exceptions import RunError, Unfit
from modules import tool
from tests.support.media import Interrupted, terminated_when


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def is_over(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # whoever adopted it has not reaped it yet
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lines() -> None:
    """Lines of stdout reach the callback, decoded, whatever ends them; stderr's are kept."""
    lines: list[str] = []

    done = tool.run(shell(r"printf 'a\nb\rc\r\n\377d'; printf 'e\nf' >&2"), on_line=lines.append)

    assert lines == ["a", "b", "c", "�d"]
    assert done.stderr == ("e", "f")
    assert done.check() is done


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"\0\0\0\0", 0o755, "program cannot be started: {} is no program for this machine"),
        (b"#!/none/sh\n", 0o755, "program cannot be started: {} needs an interpreter or loader"),
        (b"#!/bin/sh\n", 0o644, "program may not be executed: {} lacks the permission"),
    ],
)
def test_cannot_be_started(content: bytes, mode: int, said: str, tmp_path: Path) -> None:
    """A file that is no program, that lacks its interpreter or its permission, is a problem of the machine."""
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(mode)

    with pytest.raises(RunError, match=re.escape(said.format(program))) as caught:
        tool.run([str(program)])
    assert isinstance(caught.value.message, Unfit)


def test_stderr_flood() -> None:
    """A flood on stderr neither blocks the tool nor is kept."""
    done = tool.run(shell("seq 50000 >&2; echo end >&2"), tail=5)

    assert done.stderr == ("49997", "49998", "49999", "50000", "end")


def test_endless_line() -> None:
    """Of a line without end only the beginning is kept."""
    lines: list[str] = []

    tool.run(shell("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo next"), on_line=lines.append)

    assert [len(line) for line in lines] == [tool.MAX_LINE, 4]


def test_grandchild_holds_the_pipes() -> None:
    """What a tool leaves running with its pipes is not waited for."""
    lines: list[str] = []

    tool.run(shell("sleep 1000 & echo $!"), on_line=lines.append).check()

    left = psutil.Process(int(lines[0]))
    alive = left.status() != psutil.STATUS_ZOMBIE
    left.kill()
    assert alive


def test_grandchild_floods_the_pipes(tmp_path: Path) -> None:
    """What a tool leaves writing to its pipes is not read for ever; it dies of the closed pipe."""
    note = tmp_path / "pid"

    tool.run(shell(f"yes & echo $! > {note}")).check()

    wait_until(lambda: is_over(int(note.read_text())))


@pytest.mark.parametrize("is_told", [True, False])
def test_closed_pipes(is_told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that closes its pipes and works on is waited for, whether or not the kernel can tell of its end."""
    if not is_told:
        monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError))

    done = tool.run(shell("exec >&- 2>&-; sleep 0.3; exit 4"))

    assert done.returncode == 4


def test_callback_raises() -> None:
    """An exception from the callback stops the tool and goes on."""

    def fail(line: str) -> None:
        raise LookupError(line)

    with pytest.raises(LookupError, match="ready"):
        tool.run(shell("echo ready; exec sleep 1000"), on_line=fail)

    assert children() == []


def test_interrupted(tmp_path: Path) -> None:
    """An exception from a signal handler asks the tool once, and waits for what it has to flush."""
    asked, ready = tmp_path / "asked", tmp_path / "ready"
    # It writes more than a pipe holds before it ends: nobody reading would mean waiting for the whole grace.
    script = f"trap 'echo x >> {asked}; seq 100000; echo flushed >> {asked}; exit 255' TERM; touch {ready}; "
    with terminated_when(f"[ -e {ready} ]"), pytest.raises(Interrupted):
        tool.run(shell(script + "while :; do sleep 0.05; done"), grace=60)

    assert asked.read_text() == "x\nflushed\n"
    assert children() == []


def test_deaf_tool_is_killed(tmp_path: Path) -> None:
    """A tool that does not stop when asked is killed after the grace."""
    ready = tmp_path / "ready"
    with terminated_when(f"[ -e {ready} ]"), pytest.raises(Interrupted):
        tool.run(shell(f"trap '' TERM; touch {ready}; while :; do read x < /dev/null; done"), grace=0.3)

    assert children() == []


@pytest.mark.parametrize(("ask", "stopped"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_asking(ask: signal.Signals, stopped: bool, tmp_path: Path) -> None:
    """The asking signal is the caller's choice, and a tool that is stopped hears it, too."""
    asked = tmp_path / "asked"

    def stop_it(line: str) -> None:
        if stopped:
            psutil.Process(int(line)).suspend()
        raise Interrupted

    script = f"trap 'touch {asked}; exit' {ask.name.removeprefix('SIG')}; echo $$; while :; do sleep 0.02; done"
    with pytest.raises(Interrupted):
        tool.run(shell(script), on_line=stop_it, ask=ask, grace=60)

    assert asked.exists()


def test_capture() -> None:
    """A short command's stdout is in the result, byte for byte."""
    done = tool.capture(shell(r"printf 'a\r\n\377'; echo b >&2"))

    assert (done.stdout, done.stderr, done.returncode) == (b"a\r\n\xff", ("b",), 0)


def test_capture_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short command that writes or runs without end is stopped."""
    monkeypatch.setattr(tool, "MAX_CAPTURED", 100_000)
    with pytest.raises(RunError, match="yes wrote more than 100000 bytes"):
        tool.capture(["yes"])
    start = time.monotonic()
    with pytest.raises(RunError, match=r"sleep did not end within 0.2 s"):
        tool.capture(["sleep", "1000"], timeout=0.2)

    assert time.monotonic() - start < 100
    assert children() == []


def test_pause_is_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that goes by while the process is stopped does not count."""
    clock = itertools.count(step=1000.0)
    monkeypatch.setattr(tool, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    assert tool.capture(["sleep", "0.3"], timeout=60).returncode == 0


def test_handler_is_put_back() -> None:
    """The handler for SIGTERM afterwards is the one from before."""
    before = signal.getsignal(signal.SIGTERM)

    tool.run(["true"])

    assert signal.getsignal(signal.SIGTERM) == before
