"""The life of one task: its attempts, and its cleanup after a failure."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.media import make_clip
from tests.support.supervised import Supervised, job


def test_cleanup_after_failure_in_the_same_process(supervised: Supervised, tmp_path: Path) -> None:
    """A module that asks for it is cleaned up after its run failed, in the process where it ran."""
    log = tmp_path / "log"
    for module in ("hostile", "stubborn"):
        supervised.verdicts(job((module, {"step": "run", "act": "own_error", "log": str(log)})))
    lines = [line.split() for line in log.read_text().splitlines()]

    assert [step for step, _ in lines] == ["init", "validate", "run", "init", "validate", "run", "cleanup"]
    assert lines[-1][1] == lines[-2][1]


def test_cleanup_after_a_crash_in_a_fresh_process(supervised: Supervised, tmp_path: Path) -> None:
    """After a crash, cleanup runs on an instance that was only initialised; what it raises does not hide the crash."""
    log = tmp_path / "log"
    supervised.configure(modules={"messy": "tests.hostile.Messy"})

    (verdict,) = supervised.verdicts(job(("messy", {"step": "run", "act": "segfault", "log": str(log)})))
    lines = [line.split() for line in log.read_text().splitlines()]

    assert [step for step, _ in lines] == ["init", "validate", "run", "init", "cleanup"]
    assert verdict.failure is not None
    assert (verdict.failure.cause.reason, verdict.failure.cause.signal) == ("signal", "SIGSEGV")
    assert "cannot clean up" in verdict.info["tasks"][0]["warnings"][0]


@pytest.mark.parametrize(("crashes", "completes"), [(2, True), (3, False)])
def test_crashing_encoder_is_tried_again(
    supervised: Supervised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: int, completes: bool
) -> None:
    """A tool that dies of a signal is tried again, at most max_attempts times; each cause is on the record."""
    clip, count = make_clip(tmp_path / "clip.mkv", seconds=0.2, audio=False), tmp_path / "count"
    real, stand_in = shutil.which("ffmpeg"), tmp_path / "bin" / "ffmpeg"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\ncase "$*" in *-encoders*|*"-h full"*) exec {real} "$@";; esac\necho x >> {count}\n'
        f'[ $(wc -l < {count}) -le {crashes} ] && kill -SEGV $$\nexec {real} "$@"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    supervised.configure({"max_attempts": 3})
    data = {
        "sources": [str(clip)],
        "source_maps": [{"source": 0}],
        "output_maps": [{"stream": 0, "options": {"codec": "mpeg4"}}],
        "output_file": str(tmp_path / "out.mkv"),
    }

    record = supervised.record(job(("ffmpeg", data)))
    (task,) = record["tasks"]

    assert record["completed"] is completes
    assert task["attempts"] == min(crashes + 1, 3)
    assert len(task["warnings"]) == min(crashes, 2)
    assert all("ffmpeg was killed by SIGSEGV" in warning for warning in task["warnings"])
    assert sorted(path.name for path in tmp_path.glob("*out*")) == (["out.mkv"] if completes else [])
