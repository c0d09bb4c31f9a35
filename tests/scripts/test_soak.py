"""`scripts/soak`, with few jobs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_soak() -> None:
    """Jobs of each kind end as their kind does, and the worker keeps nothing of them."""
    command = [sys.executable, "scripts/load/soak.py", "--jobs", "50"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
