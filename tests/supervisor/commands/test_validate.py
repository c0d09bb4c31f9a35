"""`sisyphus-client validate`: everything that is wrong with a job, task by task, and nothing is run."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.media import encode, make_clip
from tests.support.supervised import CLIENT, TOOLS, Supervised, job
from tests.support.waiting import until

COPY = {"_copy-video-tracks": None}


def validate(supervised: Supervised, document: Any) -> "subprocess.CompletedProcess[str]":
    return supervised.command("validate", str(supervised.write_job(document)))


def test_sound_job(supervised: Supervised, tmp_path: Path) -> None:
    """A job whose later tasks use what earlier ones will write is sound, and nothing of it is run."""
    supervised.configure(modules=TOOLS)
    make_clip(tmp_path / "clip.mkv")
    chain = job(
        encode("clip.mkv", "encoded.mp4"),
        ("mkvmerge", {"sources": [{"filename": "encoded.mp4", "options": COPY}], "output_file": "muxed.mkv"}),
        ("mkvextract", {"source": "muxed.mkv", "chapters": "chapters.xml"}),
        ("cleanup", {"move": [{"source": "muxed.mkv", "destination": "done/"}], "delete": ["encoded.mp4"]}),
    )
    before = sorted(os.listdir(tmp_path))

    done = validate(supervised, chain)

    assert done.stdout.splitlines() == ["0:ffmpeg: ok", "1:mkvmerge: ok", "2:mkvextract: ok", "3:cleanup: ok"]
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "job.json", "state"])


def test_everything_at_once(supervised: Supervised, tmp_path: Path) -> None:
    """All that is wrong with all tasks is told, whatever is wrong with the ones before."""
    make_clip(tmp_path / "clip.mkv")
    _, wrong = encode("clip.mkv", "no/encoded.mp4")
    wrong |= {"overwrit": True, "source_maps": [{"source": 0, "specifier": "s"}, {"source": 4}]}
    document = job(
        ("ffmpeg", wrong),
        ("spam", {}),
        ("cleanup", {"move": [{"source": "none.mkv", "destination": "x"}], "remove": []}),
        ("benign", {}),
    )

    done = validate(supervised, document)

    assert done.stdout.splitlines() == [
        "0:ffmpeg: 4 problems",
        "    overwrit: unknown key (did you mean 'overwrite'?)",
        "    source_maps[1].source: 4, but there are only sources 0 to 0",
        "    output_file: no/encoded.mp4: there is no directory no",
        "    source_maps[0]: 0:s, but sources[0] has 0 subtitle streams",
        "1:spam: 1 problem",
        "    tasks[1].module: 'spam' is not enabled (enabled: benign, cleanup, ffmpeg, hostile, stubborn)",
        "2:cleanup: 2 problems",
        "    remove: unknown key (did you mean 'move'?)",
        "    move[0].source: none.mkv: no such file",
        "3:benign: ok",
    ]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("document", "said", "status"),
    [
        ("{", "job.json: line 1, column 2: is not JSON", 2),
        ({"tasks": []}, "job.json: tasks: the job has no tasks", 1),
        ([], "job.json: a job is an object", 1),
    ],
)
def test_no_job(supervised: Supervised, document: Any, said: str, status: int) -> None:
    """What is no job at all is told in one line."""
    done = validate(supervised, document)

    assert said in done.stdout + done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert done.returncode == status


def test_very_many_problems(supervised: Supervised) -> None:
    """Of more problems than anybody reads, the first are shown, and how many more there are."""
    document = job(("cleanup", {"copy": [{"source": f"none{number}", "destination": "x/"} for number in range(300)]}))

    lines = validate(supervised, document).stdout.splitlines()

    assert lines[1] == "    copy[0].source: none0: no such file"
    assert lines[-1] == "    and 100 more problems"
    assert len(lines) == 202


def test_dying_modules(supervised: Supervised) -> None:
    """A module that crashes or hangs in its validation, or cannot start, harms no other task's."""
    supervised.configure({"validate_timeout": "500ms"}, {"absent": "absent.Absent"})
    document = job(
        ("hostile", {"step": "validate", "act": "segfault"}),
        ("hostile", {"step": "validate", "act": "quiet", "ready": "/dev/null"}),
        ("absent", {}),
        ("benign", {}),
    )

    done = validate(supervised, document)

    first, crash, second, hang, third, absent, last = done.stdout.splitlines()
    problems = [f"{task}: 1 problem" for task in ("0:hostile", "1:hostile", "2:absent")]
    assert [first, second, third, last] == [*problems, "3:benign: ok"]
    assert "SIGSEGV" in crash
    assert "validate did not end within 500ms" in hang
    assert "cannot be imported" in absent
    assert done.returncode == 1


def test_rude_data(supervised: Supervised) -> None:
    """What stands in a job cannot steer the operator's terminal."""
    done = validate(supervised, job(("cleanup", {"move": [{"source": "\x1b[2J", "destination": "x"}]})))

    assert "no such file" in done.stdout
    assert "\x1b" not in done.stdout


def test_interrupted(supervised: Supervised, tmp_path: Path) -> None:
    """Ctrl-C ends it, with what a module does in its validation."""
    ready = tmp_path / "ready"
    file = supervised.write_job(job(("hostile", {"step": "validate", "act": "quiet", "ready": str(ready)})))
    with subprocess.Popen([CLIENT, "validate", "--config", supervised.config, file], stderr=subprocess.PIPE) as client:
        until(ready.exists, "the validation")
        client.send_signal(signal.SIGINT)
        client.communicate()

    assert client.returncode == 130
