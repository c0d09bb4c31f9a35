"""Whole jobs with the `mkvextract` module."""

import os
import shutil
from pathlib import Path

import pytest

from tests.modules.mkvextract.scene import carry_out, failure, sound
from tests.support.films import (
    MODULES,
    mkvmerge,
)
from tests.support.supervised import Supervised, job
from tests.support.waiting import until


def test_cancelled_job(supervised: Supervised, large: Path, tmp_path: Path) -> None:
    """A job that is cancelled in the middle leaves nothing, and its tool is gone."""
    supervised.configure(modules=MODULES)
    (tmp_path / "work").mkdir()
    client = supervised.start(job(("mkvextract", sound(large, "work/a.wav"))), "--json")
    until(lambda: [file for file in (tmp_path / "work").iterdir() if file.stat().st_size], "the file to grow")

    client.terminate()
    client.communicate()

    assert client.returncode == 143
    assert os.listdir(tmp_path / "work") == []


def test_failing_job(supervised: Supervised, film: Path, tmp_path: Path) -> None:
    """mkvextract's refusal is on the job's record, with its exit status and its words."""
    supervised.configure(modules=MODULES)
    (tmp_path / "work").mkdir()
    data = {"source": str(film), "cues": [{"id": 1, "filename": "work/a"}], "chapters": "work/c"}

    error = supervised.record(job(("mkvextract", data)))["error"]

    assert (error["type"], error["reason"], error["exit_status"]) == ("RunError", "exit", 2)
    assert "There are no cues for track ID 1." in error["message"]
    assert os.listdir(tmp_path / "work") == []


@pytest.mark.parametrize("asked", ["fra", "fre", "FRA"])
def test_two_codes_of_a_language(asked: str, tmp_path: Path) -> None:
    """A language that has two codes of three letters is found by both."""
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nBonjour\n")
    mkvmerge("-o", tmp_path / "a.mkv", "--language", "0:fre", tmp_path / "a.srt")
    entry = {"id": 0, "language": asked, "filename": str(tmp_path / "b.srt")}

    carry_out({"source": str(tmp_path / "a.mkv"), "tracks": [entry]})

    assert "Bonjour" in (tmp_path / "b.srt").read_text()


def test_half_an_extract(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that exits with 0, and has written half of a track, is not believed."""
    stand_in = tmp_path / "bin" / "mkvextract"
    stand_in.parent.mkdir()
    cut = f'for f in "{tmp_path}"/.half.*; do truncate -s $(($(stat -c %s "$f") / 2)) "$f"; done'
    stand_in.write_text(f'#!/bin/sh\n{shutil.which("mkvextract")} "$@"\n{cut}\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")

    error = failure({"source": str(film), "tracks": [{"id": 0, "filename": str(tmp_path / "half.h264")}]})

    assert "bytes of a track of" in error.message
    assert os.listdir(tmp_path) == ["bin"]
