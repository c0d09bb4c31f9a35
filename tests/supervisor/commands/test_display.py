"""What `sisyphus-client run` shows, on a terminal and without one."""

import errno
import io
import os
import signal
from pathlib import Path

from supervisor.commands.bars import Terminal
from tests.support.supervised import Supervised, job
from tests.support.waiting import until


def test_lines_where_there_is_no_terminal(supervised: Supervised) -> None:
    """Without a terminal: plain log lines marked with job, task and pid, then the table on standard output."""
    done = supervised.run(job(("hostile", {"step": "run", "act": "warn_and_leave_threads"}), job_id="j-1"))

    assert done.returncode == 0
    (printed,) = [line for line in done.stderr.splitlines() if line.endswith(" printed")]
    assert " job=j-1 task=0:hostile pid=" in printed
    assert "\x1b" not in done.stderr + done.stdout
    for word in ("task", "result", "wall time", "CPU time", "peak memory", "0:hostile", "completed"):
        assert word in done.stdout
    assert "Warning of task 0:hostile: odd" in done.stdout


def test_output_is_shown_where_it_is(supervised: Supervised, tmp_path: Path) -> None:
    """The table is followed by the files that were made, where the last task left them."""
    made, moved = tmp_path / "made file.txt", tmp_path / "done" / "moved.txt"
    document = job(
        ("benign", {"make": str(made)}), ("cleanup", {"move": [{"source": str(made), "destination": str(moved)}]})
    )

    done = supervised.run(document)

    assert done.returncode == 0, done.stderr
    assert f"Output: {moved} (4 bytes)" in done.stdout
    assert str(made) not in done.stdout


def test_colour_and_control_characters_of_a_module_are_harmless(supervised: Supervised, tmp_path: Path) -> None:
    """What a module prints, and why it skips its task, cannot steer a terminal, or look like a line of ours."""
    (tmp_path / "rude.py").write_text(
        "from app.exceptions import Skipped\nfrom modules.base import BaseModule\n"
        "class Rude(BaseModule):\n    def run(self):\n        print('\\x1b[2J[bold]{x}\\x07')\n"
        "        raise Skipped('\\x1b[1Jred\\u202e\\nnext')\n"
    )
    supervised.configure(modules={"rude": "rude.Rude"}, paths=(str(tmp_path),))

    done = supervised.run(job(("rude", {})))

    assert "\\x1b[2J[bold]{x}\\x07" in done.stderr
    assert "Task skipped: \\x1b[1Jred\\u202e next\n" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


def test_bars_on_a_terminal(supervised: Supervised, tmp_path: Path) -> None:
    """On a terminal: a live bar per task with percent and memory, and log lines above it."""
    ours, theirs = os.openpty()
    ready = tmp_path / "ready"
    client = supervised.start(
        job(("benign", {}), ("hostile", {"step": "run", "act": "quiet", "ready": str(ready)})),
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""

    def saw(text: bytes) -> bool:
        nonlocal shown
        shown += os.read(ours, 1 << 16)
        return text in shown

    until(ready.exists, "the second task to run")
    until(lambda: saw(b"MB"), "the memory to be shown")
    client.send_signal(signal.SIGINT)
    until(lambda: saw(b"again to kill it"), "the interrupt to be taken")
    out, _ = client.communicate()
    os.close(ours)

    assert client.returncode == 130
    for text in (b"0:benign", b"1:hostile", b"100%", b"step run"):
        assert text in shown
    assert "cancelled by SIGINT" in out


def test_line_that_cannot_be_written_is_forgotten() -> None:
    """A line that cannot be written is not kept: it would be rendered and written again with every later line."""

    class FullDisk(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    console = Terminal(file=FullDisk())

    console.print("spam")

    assert not console._buffer


def test_title_that_is_not_unicode(supervised: Supervised) -> None:
    """A title with a lone surrogate, which no message can carry, is shown escaped and harms nothing."""
    assert supervised.record({"job_title": "a\ud800b", "tasks": [{"module": "benign"}]})["completed"]
