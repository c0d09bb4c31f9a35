"""`scripts/chaos`, for seconds."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import until

ROOT = Path(__file__).parents[2]

COMMAND = [sys.executable, "scripts/load/chaos.py", "--every", "1", "--seed", "1"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not `tmp_path`: as root, PostgreSQL runs as another user, who cannot enter that."""
    with tempfile.TemporaryDirectory(prefix="sisyphus-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.slow
def test_chaos(directory: Path) -> None:
    """Each job has exactly one verdict, and nothing is left."""
    environ = os.environ | {"TMPDIR": str(directory)}
    command = [*COMMAND, "--minutes", "0.3", "--jobs", "40"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr

    assert "submitted and acknowledged" in done.stdout

    assert not [*directory.iterdir()]


@pytest.mark.slow
def test_ctrl_c(directory: Path) -> None:
    """Ctrl-C leaves no process and no file, and says nothing more."""
    environ = os.environ | {"TMPDIR": str(directory)}
    with subprocess.Popen(COMMAND, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as chaos:
        until(lambda: [*directory.glob("*/worker8/log")], "the workers", 100.0)
        started = psutil.Process(chaos.pid).children(recursive=True)
        chaos.send_signal(signal.SIGINT)
        said, _ = chaos.communicate(timeout=60)

    assert (chaos.returncode, said) == (130, b"seed 1\n")

    assert len(started) > 10  # and none of them is alive: `conftest.py` looks

    assert not [*directory.iterdir()]
