"""`jobs` and `show`: an operator's questions about jobs, answered by one command each."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.commands.farm.conftest import BAD, GOOD, Operator
from tests.supervisor.commands.terminal import on_terminal
from tests.support.api_server import BEAT
from tests.support.waiting import until


@pytest.fixture(scope="module")
def known(operator: Operator) -> dict[str, str]:
    """The ids of a job in each state."""
    done = {"completed": operator.post(GOOD), "failed": operator.post(BAD)}
    for state, job_id in done.items():
        operator.until_state(job_id, state)
    done["queued"] = operator.post(GOOD | {"requires": ["gpu"], "job_title": "for a GPU"})
    done["cancelled"] = operator.post(GOOD | {"requires": ["gpu"]})
    operator.api("POST", f"/jobs/{done['cancelled']}/cancel")
    return done


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", {"completed", "failed", "queued", "cancelled", "running"}),
        ("--state queued", {"queued"}),
        ("--state running", {"running"}),
        ("--state failed --since yesterday", {"failed"}),
        ("--state completed --since 1h --before today", set()),
        ("--state failed --before 2020-01-01", set()),
        ("--module cleanup", {"failed"}),
        ("--worker encoder01 --state completed", {"completed"}),
        ("--text GPU --since 2h", {"queued"}),
        ("--limit 1", {"running"}),
    ],
)
def test_filters(operator: Operator, known: dict[str, str], held_job: str, options: str, found: set[str]) -> None:
    """Each filter gives the jobs that it names; status 1 says that there are none."""
    done = operator("jobs", "--json", *options.split())

    ids = {job["job_id"] for job in json.loads(done.stdout)} & {*known.values(), held_job}
    assert ids == {(known | {"running": held_job})[state] for state in found}
    assert done.returncode == (0 if found else 1), done.stderr


def test_list_on_a_terminal(operator: Operator, known: dict[str, str], held_job: str) -> None:
    """The list fits 80 columns: short ids, how far what runs is and where, and why what failed did."""
    status, shown = on_terminal(operator.environ, "jobs")

    lines = shown.splitlines()
    assert status == 0
    assert any(line.startswith(held_job[:8] + "  running") and "encoder01" in line for line in lines), shown
    assert "    reporter, encoding, 43 %, 1.50x, 1:02:03 left" in lines
    assert "    Could not validate task data: copy[0].source: /none.mkv: no such file" in lines
    assert all(len(line) <= 80 for line in lines if not line.startswith("    "))


@pytest.mark.parametrize("time", ["soon", "2026-13-01", "99999999999d", "0001-01-01"])
def test_no_time(operator: Operator, time: str) -> None:
    """What is no time, or none that a calendar has, is told in a line."""
    done = operator("jobs", "--since", time, TZ="Asia/Tokyo")

    assert done.returncode == 2
    assert f"{time!r} is no time" in done.stderr


def test_hostile_words(operator: Operator) -> None:
    """Titles and tags from others neither steer the terminal nor break a table."""
    hostile = "a\x1b]0;b\x07c\nd\u202ee\x9b1m[/bold]"
    ids = [operator.post(GOOD | {"job_title": hostile, "requires": [hostile]}) for _ in range(2)]

    shown = [
        on_terminal(operator.environ, *words, raw=True)[1] for words in (("jobs",), ("show", ""), ("show", ids[0]))
    ]
    shown += [operator("top").stdout, operator("jobs", "--state", "queued").stdout]

    assert not any(part in text for text in shown for part in ("\x1b]", "\x07", "\u202e", "\x9b"))
    assert "a\\x1b]0;b\\x07c d\\u202ee\\x9b1m[/bold]" in shown[-1]
    assert "b\\x07c d" in shown[1]
    for job_id in ids:
        operator.api("POST", f"/jobs/{job_id}/cancel")


@pytest.mark.parametrize(
    "odd",
    [
        {"tasks": "done", "error": 7, "message": ["no"]},
        {
            "tasks": [
                3,
                {"seconds": "long", "peak_memory": [], "warnings": 1, "results": 2, "outputs": [1, {"path": "x"}]},
            ]
        },
        {"tasks": [{"outputs": 4, "cpu_seconds": {}, "module": []}], "error": {"stderr": 5, "log": True}, "worker": {}},
    ],
)
def test_odd_words(operator: Operator, odd: dict[str, Any]) -> None:
    """What another program says of a job or of itself, in a form that nobody expects, ends no command."""
    job_id = operator.post(GOOD | {"requires": ["gpu"]})
    operator.api("PATCH", f"/jobs/{job_id}/completed", {"failed": True, "info": odd})
    told = {"phase": odd, "fps": odd, "eta_seconds": odd, "trouble": odd}
    operator.api("POST", "/workers/odd", BEAT | {"status": "in_progress", "info": told})
    done = [operator(*words) for words in (("show", job_id), ("jobs",), ("workers",), ("top",))]
    operator.api("DELETE", "/workers/odd")

    assert [each.returncode for each in done] == [1, 0, 0, 0], [each.stderr for each in done]
    assert done[0].stdout.startswith(f"{job_id}  failed\n")


def test_show(operator: Operator, known: dict[str, str], held_job: str) -> None:
    """Everything of a job: times, worker, tasks, reason; why one waits; how far one is; and its log."""
    failed, queued, running = (operator("show", job[:12]) for job in (known["failed"], known["queued"], held_job))
    shown = len(failed.stdout)
    until(lambda: len(operator("show", "--log", known["failed"]).stdout) > shown, "the log", 60)
    record = json.loads(operator("show", "--json", known["failed"]).stdout)

    assert [failed.returncode, queued.returncode, running.returncode] == [1, 0, 0]
    assert f"{known['failed']}  failed\ntitle     a bad one\n" in failed.stdout
    assert "encoder01 (" in failed.stdout
    assert failed.stdout.endswith("Could not validate task data: copy[0].source: /none.mkv: no such file\n")
    assert "requires  gpu\nwaits     no live worker has the tag gpu\n" in queued.stdout
    assert "now       reporter, encoding, 43 %" in running.stdout
    assert record["info"]["error"]["reason"] == "exception"


def test_follow(operator: Operator, tmp_path: Path) -> None:
    """`show --follow` tells how a job proceeds, and its end; `jobs --follow` tells of a job that fails meanwhile."""
    job_id = operator.post(BAD | {"requires": ["gpu"]})
    files = [(tmp_path / name).open("w+") for name in ("show", "jobs")]
    show, jobs = (
        operator.start(*words, stdout=file, stderr=file)
        for words, file in zip((("show", "-f", job_id), ("jobs", "-f", "--text", "second")), files, strict=True)
    )
    until(lambda: "in the queue: no live worker has the tag gpu" in (tmp_path / "show").read_text(), "the state")
    operator.api("POST", f"/jobs/{job_id}/cancel")
    second = operator.post(GOOD | {"job_title": "the second"})

    assert show.wait(60) == 1
    assert "Cancelled" in (tmp_path / "show").read_text()
    until(lambda: second in (tmp_path / "jobs").read_text(), "the other job")
    jobs.send_signal(subprocess.signal.SIGINT)  # type: ignore[attr-defined]
    assert jobs.wait(60) == 130
    for file in files:
        file.close()
