"""`scripts/bench --compare`: what has become slower since an earlier run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "load" / "bench.py"


def bench(*options: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, str(BENCH), "--quick", "--only", "tasks", *options]
    return subprocess.run(argv, capture_output=True, text=True, cwd=BENCH.parents[2])


def test_slower_is_what_exceeds_the_noise() -> None:
    """A cost is told if it grew by more than it varies, and by more than a twentieth."""
    steady, varying = [1.0, 1.01, 1.02], [1.0, 2.0, 3.0]
    table = [
        (steady, [value * 1.04 for value in steady], False),
        (steady, [value * 1.08 for value in steady], True),
        (steady, [value / 2 for value in steady], False),
        (varying, [value * 1.3 for value in varying], False),
        (varying, [value * 3 for value in varying], True),
        ([1.0], [1.09], False),
        ([1.0], [1.2], True),
    ]
    before = {f"{number}": old for number, (old, _, _) in enumerate(table)} | {"gone": steady}
    after = {f"{number}": new for number, (_, new, _) in enumerate(table)} | {"new": steady}
    program = f"from bench import compare\nprint(*[row[0] for row in compare({before}, {after})])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(BENCH.parent)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == [f"{number}" for number, (_, _, is_slower) in enumerate(table) if is_slower]


@pytest.mark.slow
def test_what_is_slower_is_told(tmp_path: Path) -> None:
    """Beside a run whose costs were a hundredth, all are slower; beside one of a hundred times, none is."""
    done = bench("--json")
    assert done.returncode == 0, done.stderr
    before: dict[str, Any] = json.loads(done.stdout)
    outputs = []
    for factor in (0.01, 100):
        changed = {name: [value * factor for value in values] for name, values in before["samples"].items()}
        (file := tmp_path / "before.json").write_text(json.dumps(before | {"samples": changed}))
        outputs.append(bench("--compare", str(file)))

    assert [done.returncode for done in outputs] == [1, 0], outputs
    told = [done.stdout.partition("Slower than before")[2] for done in outputs]
    assert "tasks: a task in a job of" in told[0]
    assert "tasks: " not in told[1]


@pytest.mark.parametrize("text", [None, "spam", "[]", "{}"])
def test_a_file_that_is_none_is_refused(text: str | None, tmp_path: Path) -> None:
    """What `--json` has not printed is refused before anything is measured."""
    file = tmp_path / "before.json"
    if text is not None:
        file.write_text(text)
    done = bench("--compare", str(file))

    assert done.returncode == 2
    assert f"argument --compare: {file} is not what scripts/bench --json has written: " in done.stderr.splitlines()[-1]
