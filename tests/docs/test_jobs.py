"""The examples of the page about jobs do what it says, with real tools and media."""

import json
import re

import pytest

from tests.cases.checks import Check, Result, completes
from tests.cases.client import Client
from tests.cases.conftest import client, media, work  # noqa: F401 - fixtures
from tests.cases.tasks import job
from tests.docs.test_architecture import blocks, read

pytestmark = pytest.mark.tools

EXAMPLES = [json.loads(block) for block in blocks(read("docs/jobs.md"), "json")]

FILM, SMALL = "video hevc 320x180", "video h264 160x90"


def skipped(*words: str, changed: tuple[str, ...]) -> Check:
    """Expect that the last task was skipped, and why."""

    def check(result: Result) -> None:
        assert result.completed, str(result)
        task = result.record["tasks"][-1]
        assert task["result"] == "skipped"
        assert all(word in task["reason"] for word in words), task["reason"]
        assert result.changed == set(changed)

    return check


def results(*expected: str, changed: tuple[str, ...]) -> Check:
    def check(result: Result) -> None:
        assert [task["result"] for task in result.record["tasks"]] == list(expected), str(result)
        assert result.changed == set(changed)

    return check


CASES: dict[str, tuple[str, str, Check]] = {
    "streams in words": (
        '"disposition": "forced"',
        "mv subs.mkv film.mkv",
        completes(changed=["small.mkv"], holds={"small.mkv": [FILM, "audio aac jpn"]}),
    ),
    "tracks in words, and append": (
        '"append"',
        "cp clip.mkv part1.mkv; mv clip.mkv part2.mkv",
        completes(changed=["whole.mkv"], holds={"whole.mkv": [SMALL, "audio jpn", "audio eng"]}),
    ),
    "replace by a smaller one": (
        '"replace"',
        "mkdir films; mv av.mkv films/film.mkv; mv clip.mkv new.mkv",
        completes(
            changed=["new.mkv", "films/film.mkv", "films/old/film.mkv"],
            holds={"films/film.mkv": [SMALL, "audio", "audio"], "films/old/film.mkv": ["video", "audio", "audio"]},
        ),
    ),
    "replace by a larger one": (
        '"replace"',
        "mkdir films; mv clip.mkv films/film.mkv; mv av.mkv new.mkv",
        skipped("is not smaller than", changed=("new.mkv",)),
    ),
    "when, and all goes well": (
        '"when": "failure"',
        "mv clip.mkv in.mkv; touch notes.txt",
        results(
            *("completed", "completed", "skipped", "completed"),
            changed=("in.mkv", "done/in.mkv", "out.mkv", "notes.txt"),
        ),
    ),
    "when, and the encode fails": (
        '"when": "failure"',
        "mv zero30-70.av.mkv in.mkv; touch notes.txt",
        results(*("failed", "not run", "completed", "completed"), changed=("in.mkv", "failed/in.mkv", "notes.txt")),
    ),
    "a file for an editor": ('"$schema"', "mv clip.mkv out.mkv", completes(changed=["out.mkv", "done/out.mkv"])),
}


@pytest.mark.parametrize("case", CASES)
def test_examples(case: str, client: Client) -> None:  # noqa: F811
    """Each key that the page tells of with an example does that."""
    words, script, check = CASES[case]
    (example,) = [each for each in EXAMPLES if words in json.dumps(each)]
    text = json.dumps(example if "tasks" in example else job(example))
    text = text.replace('"/films/', '"films/').replace("hevc_nvenc", "libx264")
    client.provide(re.findall(r"[\w.-]+\.mkv", script))
    client.shell(script)

    check(client.run(json.loads(text)))
