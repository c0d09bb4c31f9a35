"""Whole jobs with the `mkvmerge` module."""

import os
from pathlib import Path

from tests.modules.mkvmerge.scene import task, tracks
from tests.support.films import MODULES
from tests.support.supervised import Supervised, job


def test_job(supervised: Supervised, film: Path, tmp_path: Path) -> None:
    """A job that extracts, muxes what it has extracted, and puts the result in its place."""
    supervised.configure(modules=MODULES)
    subtitles = {"id": 1, "track_type": "subtitles", "language": "jpn", "filename": "work/subs.srt"}
    (tmp_path / "work").mkdir()
    mux = {
        "sources": [{"filename": str(film)}, {"filename": "work/subs.srt"}],
        "tracks": [{"source": 0, "track": 0}, {"source": 1, "track": 0, "options": {"language": "ger"}}],
        "attachments": [{"filename": "work/font.ttf"}],
        "output_file": "work/muxed.mkv",
    }
    document = job(
        (
            "mkvextract",
            {"source": str(film), "tracks": [subtitles], "attachments": [{"id": 1, "filename": "work/font.ttf"}]},
        ),
        ("mkvmerge", mux),
        (
            "cleanup",
            {
                "delete": ["work/subs.srt", "work/font.ttf"],
                "move": [{"source": "work/muxed.mkv", "destination": "done/"}],
            },
        ),
    )

    plan = supervised.run(document, "--dry-run")
    record = supervised.record(document)

    assert plan.returncode == 0, plan.stderr
    assert "mkvextract" in plan.stdout
    assert "--subtitle-tracks 0 --button-tracks 0 --language 0:ger '(' work/subs.srt ')'" in plan.stdout
    assert record["completed"], record
    assert ["warnings" in entry for entry in record["tasks"]] == [False, False, False]
    assert tracks(tmp_path / "done" / "muxed.mkv") == [("video", "und"), ("subtitles", "ger")]
    assert os.listdir(tmp_path / "work") == []


def test_failing_job(supervised: Supervised, film: Path, tmp_path: Path) -> None:
    """mkvmerge's refusal is on the job's record, with its exit status and its words."""
    supervised.configure(modules=MODULES)
    (tmp_path / "work").mkdir()

    error = supervised.record(job(("mkvmerge", task(film, "work/out.mkv", options={"cluster-length": "x"}))))["error"]

    assert (error["type"], error["reason"], error["exit_status"]) == ("RunError", "exit", 2)
    assert "Cluster length" in error["message"]
    assert any("Cluster length" in line for line in error["stderr"])
    assert os.listdir(tmp_path / "work") == []
