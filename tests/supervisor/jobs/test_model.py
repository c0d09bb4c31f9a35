"""Reading a job: what the server sends is taken, made right, or refused in words."""

import html
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client, Held, await_beats, await_calls
from tests.support.farm import Farm, says
from tests.support.supervised import BENIGN, job


def test_escaped_strings_are_unescaped(farm: Farm, client: Client, tmp_path: Path) -> None:
    """Strings that were escaped for HTML are read as they were meant, once, and after the JSON was parsed."""
    seen = tmp_path / "seen & heard"
    data = {"seen": str(seen), "words": ['"Tom" & <Jerry>', {"deep": ["'", "ä", "&amp;"]}], "number": 5, "no": None}
    held = Held(tmp_path, "Tom & 'Jerry'", **data)
    farm.post(_escaped(held.job))
    client.start()
    held.await_running()
    beat = await_beats(farm, 1, lambda beat: "job_title" in beat)[0]
    (found, _) = json.loads(seen.read_text())
    held.let_go()

    assert {key: found[key] for key in data} == data
    assert beat["job_title"] == "Tom & 'Jerry'"


@pytest.mark.parametrize(
    ("there", "written"), [("R&amp;D", "R&amp;D"), ("R&D", "R&D"), (None, "R&D")], ids=["raw", "unescaped", "neither"]
)
def test_a_raw_path_that_exists_is_kept(at_work: Client, tmp_path: Path, there: str | None, written: str) -> None:
    """A string that names an existing path as it stands, and none once it is unescaped, is kept."""
    if there:
        (tmp_path / there).touch()
    at_work.farm.await_verdict(at_work.farm.post(job(("benign", {"make": str(tmp_path / "R&amp;D")}))))

    assert (tmp_path / written).read_text() == "made"
    assert len(list(tmp_path.glob("R*D"))) == 1


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return html.escape(value)
        case list():
            return list(map(_escaped, value))
        case dict():
            return {key: _escaped(inner) for key, inner in value.items()}
    return value


ODD_JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "no tasks": ({"job_title": "odd"}, "tasks"),
    "tasks are null": ({"job_title": "odd", "tasks": None}, "tasks"),
    "title is null": ({"job_title": None, "tasks": BENIGN["tasks"]}, "job_title"),
    "a task is text": ({"job_title": "odd", "tasks": ["spam"]}, "tasks[0]"),
    "unknown module": ({"job_title": "odd", "tasks": [*BENIGN["tasks"], {"module": "spam"}]}, "'spam'"),
    "data is wrong": ({"job_title": "odd", "tasks": [{"module": "cleanup", "data": {"delete": 5}}]}, "delete"),
    "an odd id": (BENIGN | {"job_id": "spam & eggs? 100%"}, "job_id"),
    "a long id": (BENIGN | {"job_id": "x" * 2000}, "job_id"),
}


@pytest.mark.parametrize(("document", "word"), ODD_JOBS.values(), ids=ODD_JOBS)
def test_an_odd_job_fails_and_says_why(at_work: Client, document: dict[str, Any], word: str) -> None:
    """A job that cannot be run is failed with a message that says so, and the next one is taken."""
    farm = at_work.farm
    odd, next_id = farm.post(document), farm.post(BENIGN)
    verdict = farm.await_verdict(odd)
    after = farm.await_verdict(next_id)

    assert verdict.failed
    assert verdict.info["completed"] is False
    assert word in verdict.info["message"]
    assert not after.failed


@pytest.mark.parametrize("job_id", ["null", "42", '""', "[]"])
def test_a_job_without_an_id_does_no_harm(at_work: Client, job_id: str) -> None:
    """Of a job that has no id nobody can be told anything; the next one is taken."""
    farm = at_work.farm
    before = len(farm.verdicts)
    since = time.monotonic()
    farm.misbehave("GET /queue/poll", says(f'{{"job_title": "odd", "tasks": [], "job_id": {job_id}}}'), 1)
    await_calls(farm, "GET /queue/poll", 2, since)  # one may have been under way
    next_id = farm.post(BENIGN)

    assert not farm.await_verdict(next_id).failed
    assert [verdict.job_id for verdict in farm.verdicts[before:]] == [next_id]
