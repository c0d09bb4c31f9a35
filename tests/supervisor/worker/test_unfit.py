"""Jobs that a worker cannot do and another may: they go on, and the last one says where they were tried."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client, await_beats, await_calls, await_verdicts
from tests.support.farm import Farm
from tests.support.media import encode, make_clip
from tests.support.supervised import Supervised, job
from tests.support.waiting import until

LATE = job(("late", {"step": "none"}))
PICKY = job(("picky", {}))
TAGGED = {"job_title": "tagged", "tasks": [{"module": "benign", "requires": ["gpu"]}]}

LACKING: dict[str, dict[str, str]] = {"late": {}, "picky": {"picky": "tests.support.modules.Picky"}, "tagged": {}}
ABLE = {"late": "tests.hostile.Hostile", "picky": "tests.support.modules.Picky"}


class Workers:
    """Clients of one farm, each on a host of its own."""

    def __init__(self, farm: Farm, directory: Path) -> None:
        self._farm = farm
        self._directory = directory
        self._stack = contextlib.ExitStack()

    def start(self, name: str, modules: dict[str, str], **settings: str) -> Client:
        directory = self._directory / name
        directory.mkdir()
        supervised = Supervised(directory)
        supervised.configure(modules=modules)
        client = self._stack.enter_context(contextlib.closing(Client(self._farm, supervised)))
        own = {
            "HOSTNAME_OVERRIDE": name,
            "HOST_UUID": str(uuid.uuid4()),
            "SISYPHUS_STATE_DIR": str(directory / "state"),
        }
        client.start(**own, **settings)
        await_beats(self._farm, 1, lambda beat: (beat["hostname"], beat["status"]) == (name, "idle"))
        return client

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def workers(farm: Farm, tmp_path: Path) -> Iterator[Workers]:
    with contextlib.closing(Workers(farm, tmp_path)) as workers:
        yield workers


@pytest.mark.parametrize("name", LACKING)
def test_another_worker_does_it(farm: Farm, workers: Workers, name: str) -> None:
    """A module that is not enabled, a tool or a tag that is missing: the job goes to a worker that has it, and
    completes."""
    document = {"late": LATE, "picky": PICKY, "tagged": TAGGED}[name]
    rich = workers.start("rich", ABLE, TOOLBOX="sh", QUEUE_POLL_INTERVAL="1000")
    await_calls(farm, "GET /queue/poll")  # the only one: the poor one is first to get the job
    workers.start("poor", LACKING[name], TOOLBOX="")
    farm.post(document)
    await_beats(farm, 4)
    rich.stop()
    workers.start("richer", ABLE, TOOLBOX="sh", WORKER_TAGS="fast,gpu")
    verdict = await_verdicts(farm, 1)[0]

    assert not verdict.failed, verdict.info
    assert verdict.info["worker"] == "richer"


def test_a_job_waits_for_a_busy_worker(farm: Farm, workers: Workers) -> None:
    """A worker that has tried a job does not take it again and again while the one that may do it is busy."""
    workers.start("busy", ABLE, TOOLBOX="sh", QUEUE_POLL_INTERVAL="1000")
    await_calls(farm, "GET /queue/poll")
    workers.start("poor", LACKING["late"], TOOLBOX="")
    farm.post(LATE)
    until(lambda: len(farm.taken) >= 2, "the job to have come back")
    await_beats(farm, 20)
    taken = len(farm.taken)
    workers.start("idle", ABLE, TOOLBOX="sh")
    verdict = await_verdicts(farm, 1)[0]

    assert taken <= 3
    assert verdict.info["worker"] == "idle"


@pytest.mark.parametrize(("count", "slots"), [(1, "2"), (3, "1")])
def test_nobody_can(farm: Farm, workers: Workers, count: int, slots: str) -> None:
    """A job that no worker can do fails, and says on which it was tried; slots of one client are one worker."""
    names = [f"poor{number}" for number in range(count)]
    for name in names:
        workers.start(name, {}, WORKER_SLOTS=slots)
    farm.post(LATE)
    info: dict[str, Any] = await_verdicts(farm, 1)[0].info

    assert info["error"]["reason"] == "unfit"
    assert "'late' is not enabled" in info["message"]
    assert all(name in info["message"] for name in names)
    assert len(farm.taken) >= count


def test_an_encoder_without_its_device(supervised: Supervised, tmp_path: Path) -> None:
    """ffmpeg lists hardware encoders that the machine does not have: that is not the job's fault."""
    clip = make_clip(tmp_path / "clip.mkv", seconds=1)
    error = supervised.record(job(encode(clip, tmp_path / "out.mkv", codec="h264_nvenc")))["error"]

    assert (error["reason"], error["step"]) == ("unfit", "run"), error
