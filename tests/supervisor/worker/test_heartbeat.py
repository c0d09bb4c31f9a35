"""The heartbeat, seen from the server's side: it never stops, and it never lies."""

import json
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import serving
from tests.support.client import (
    BEAT,
    SLOW_BEAT,
    WORKER,
    Client,
    Held,
    await_beats,
    await_calls,
    await_idle,
    gaps,
    is_paused,
    longest_gap,
    own_beats,
)
from tests.support.clock import WallClock
from tests.support.farm import LOST, SILENCE, Farm, Fault, says, status
from tests.support.supervised import BENIGN, hostile, job
from tests.support.waiting import pass_time, until


def test_beats_before_it_polls(farm: Farm, client: Client) -> None:
    """The server hears of a worker before the worker asks for anything."""
    farm.post(BENIGN)
    client.start()
    await_calls(farm, "GET /queue/poll")
    (first, *others) = farm.requests

    assert first.call == f"POST /workers/{WORKER}"
    assert first.json["hostname"] == "encoder01"
    assert f"GET /workers/{WORKER}" in [request.call for request in others]


@pytest.mark.slow
def test_beats_while_it_is_paused_and_drains(farm: Farm, client: Client, held: Held) -> None:
    """The heartbeat goes on while a job is paused, and says so; and while it is finished after SIGTERM."""
    job_id, other = farm.post(held.job), farm.post(BENIGN)
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    held.await_running()
    client.process.send_signal(signal.SIGUSR2)
    await_beats(farm, 1, is_paused)
    paused = await_beats(farm)
    client.process.send_signal(signal.SIGUSR2)
    await_beats(farm, 1, lambda beat: not is_paused(beat))
    client.process.terminate()
    draining = await_beats(farm)
    held.let_go()
    ended = client.process.wait(60)

    assert all(map(is_paused, paused))
    assert not any(map(is_paused, draining))
    assert {beat["job_id"] for beat in (*paused, *draining)} == {job_id}
    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert ended == 0
    assert [(verdict.job_id, verdict.failed) for verdict in farm.verdicts] == [(job_id, False)]
    assert list(farm.queue) == [other]


BAD_LISTENERS = {
    "late": Fault(delay=3 * BEAT),
    "500": status(500),
    "lost": LOST,
    "silent": SILENCE,
    "slow headers": Fault(pace=0.1 * BEAT),
    "slow body": Fault(True, 200, b"x" * 100, pace=0.1 * BEAT, dribbles="body"),
    "huge": says(b"x" * (64 << 20)),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BAD_LISTENERS.values(), ids=BAD_LISTENERS)
def test_beats_whatever_the_answers_are(farm: Farm, client: Client, held: Held, fault: Fault) -> None:
    """The next heartbeat does not wait for the answer to the last, and work goes on beside it."""
    await_none = farm.post(BENIGN)
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    farm.await_verdict(await_none)
    farm.misbehave("POST /workers/*", fault)
    job_id = farm.post(held.job)
    held.await_running()
    since = time.monotonic()
    until(lambda: len(own_beats(farm, since)) >= 8, "heartbeats")
    held.let_go()
    verdict = farm.await_verdict(job_id)

    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert not verdict.failed


@pytest.mark.slow
def test_beats_while_answers_never_end(farm: Farm, client: Client, held: Held) -> None:
    """A server that says a byte now and then to polls and questions holds up neither heartbeats nor a job in hand."""
    job_id = farm.post(held.job)
    client.start(HEARTBEAT_INTERVAL=str(BEAT), WORKER_SLOTS="2")
    held.await_running()
    farm.misbehave("GET *", Fault(False, 200, b" " * 10_000, pace=0.1 * BEAT, dribbles="body"))
    await_beats(farm, 16)
    held.let_go()
    verdict = farm.await_verdict(job_id)

    assert longest_gap(farm) < 2 * BEAT
    assert not verdict.failed


@pytest.mark.slow
def test_beats_while_the_clock_jumps(farm: Farm, client: Client, tmp_path: Path) -> None:
    """A wall clock that is set days forward or back ends no job and no rest, and is in no job's seconds."""
    clock, pipe = WallClock(tmp_path / "clock"), tmp_path / "pipe"
    os.mkfifo(pipe)
    # Under libfaketime, `time.sleep` fails when the clock jumps: neither the module nor the wait for a tool may sleep.
    job_id, began = farm.post(hostile("read_file", path=str(pipe))), time.monotonic()
    client.start(HEARTBEAT_INTERVAL=str(SLOW_BEAT), **clock.environment)
    with pipe.open("w"):  # when the job has opened it
        stepped = time.monotonic()
        for days in (3, -3):
            clock.step(days * 86400)
            await_beats(farm)
    verdict = farm.await_verdict(job_id)
    after = farm.await_verdict(farm.post(BENIGN))

    assert not verdict.failed
    assert not after.failed
    assert longest_gap(farm, stepped) < 2 * SLOW_BEAT
    assert 3 * SLOW_BEAT < verdict.info["tasks"][0]["seconds"] < time.monotonic() - began


@pytest.mark.slow
def test_beats_while_the_queue_is_long(farm: Farm, client: Client) -> None:
    """A look at the flags, which costs the whole queue, holds up no heartbeat, however long the queue is."""
    waiting = json.dumps({"job_title": "x" * 100_000, "tasks": [{"module": "benign"}] * 100, "job_id": "x"})
    listing = f'{{"queue": [{", ".join([waiting] * 300)}], "entries": 300, "attributes": {{"disabled": false}}}}'
    farm.misbehave("GET /queue", says(listing))
    job_id = farm.post(BENIGN)
    client.start(HEARTBEAT_INTERVAL=str(BEAT))
    await_calls(farm, "GET /queue", 4)
    until(lambda: len(own_beats(farm)) > 4, "heartbeats")

    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert not farm.await_verdict(job_id).failed


@pytest.mark.slow
def test_heartbeats_jitter(farm: Farm, client: Client) -> None:
    """Workers that were started at one instant do not beat in step for ever."""
    interval = 0.5
    client.start(HEARTBEAT_INTERVAL=str(interval))
    until(lambda: len(own_beats(farm)) > 16, "heartbeats")
    steady = gaps(own_beats(farm))[2:]  # the first is sent at once, the second may be

    assert statistics.pstdev(steady) > 0.01 * interval
    assert 0.5 * interval < statistics.mean(steady) < 1.5 * interval


def test_heartbeat_shows_the_task_that_runs(at_work: Client, tmp_path: Path) -> None:
    """All modules report from their first step on, and the server is shown the one whose turn it is."""
    farm = at_work.farm
    tasks, names = [], ("first", "second", "third")
    for place, name in enumerate(names):
        words = [f"{{'status': 'in_progress', 'task': '{name}', 'progress': {10 * place + step}}}" for step in range(3)]
        data = dict(zip(("init", "validate", "run"), words, strict=True))
        tasks.append((name, data | {"ready": str(tmp_path / f"{name}.ready"), "until": str(tmp_path / f"{name}.end")}))
    job_id = farm.post(job(*tasks, job_title="three"))
    shown = []
    for name in names:
        until((tmp_path / f"{name}.ready").exists, f"{name} to run")
        await_beats(farm, 1)  # one may have been under way
        shown.append(await_beats(farm, 2)[-1])
        (tmp_path / f"{name}.end").touch()
    farm.await_verdict(job_id)

    assert [(beat["task"], beat["progress"], beat["job_title"]) for beat in shown] == [
        ("first", 2, "three"),
        ("second", 12, "three"),
        ("third", 22, "three"),
    ]


ODD_STATUSES = {
    "too much": ("{'progress': 250}", {"progress": 100}),
    "too little": ("{'progress': -3}", {"progress": 0}),
    "NaN": ("{'progress': nan, 'info': {'x': nan, 'deep': [inf, {'y': None}], 'z': 1}}", {}),
    "infinite": ("{'progress': inf, 'ratio': -inf, 'info': {}}", {}),
    "None": ("{'task': None, 'progress': None, 'info': None, 'spam': None}", {}),
    "unknown keys": ("{'progress': 5, 'speed': 2.5, 'info': {'frame': 7}}", {"info": {"speed": 2.5, "frame": 7}}),
    "types": ("{'status': 7, 'task': [], 'progress': '43%', 'info': 'spam'}", {}),
    "huge": ("{'progress': 10 ** 400, 'info': {'x': 2 ** 70}}", {}),
    "forged": (
        "{'job_id': 'x', 'job_title': 'y', 'hostname': 'z', 'version': '0', 'online_at': 'w', 'status': 'startup'}",
        {"job_title": "held", "hostname": "encoder01"},
    ),
    "text": ("{'info': {'x': '\\ud800 \\0'}}", {}),
    "no object": ("[1, 2]", {}),
}


@pytest.mark.parametrize(("said", "expected"), ODD_STATUSES.values(), ids=ODD_STATUSES)
def test_what_a_module_says_is_made_legal(at_work: Client, tmp_path: Path, said: str, expected: dict[str, Any]) -> None:
    """Whatever a module reports, the server gets a heartbeat that it takes, and the client's own words stand."""
    farm = at_work.farm
    held = Held(tmp_path, run=said)
    job_id = farm.post(held.job)
    held.await_running()
    await_beats(farm, 1)
    beat = await_beats(farm, 2)[-1]
    held.let_go()
    farm.await_verdict(job_id)

    assert (beat["job_id"], beat["status"], beat["task"]) == (job_id, "in_progress", "reporter")
    beat.get("info", {}).pop("memory", None)  # which is the client's
    assert {key: beat.get(key) for key in expected} == expected


def test_nothing_of_a_job_is_left_after_it(at_work: Client, tmp_path: Path) -> None:
    """An idle worker's heartbeat says nothing of the last job."""
    farm = at_work.farm
    held = Held(tmp_path, run="{'progress': 43, 'speed': 3, 'info': {'frame': 1}}")
    job_id = farm.post(held.job)
    held.await_running()
    await_beats(farm, 1, lambda beat: beat.get("progress") == 43)
    held.let_go()
    farm.await_verdict(job_id)
    await_idle(farm)
    after = await_beats(farm)

    assert all(beat["status"] == "idle" for beat in after)
    assert not any({"job_id", "job_title", "task", "progress"} & set(beat) for beat in after)
    assert not any({"speed", "frame"} & set(beat.get("info", {})) for beat in after)


def test_it_adapts_to_the_servers_patience(client: Client, tmp_path: Path, held: Held) -> None:
    """An interval over the patience of our server would cost the worker its job: it beats more often, and says so."""
    with serving(tmp_path / "jobs.db", vanished_after=1.5) as api:
        job_id = api("POST", "/queue", held.job).json()["job_id"]
        client.start(HEARTBEAT_INTERVAL="60", API_URL=api.url)
        held.await_running()
        pass_time(2 * 1.5 + 1)  # a job that no worker names goes back by then
        queued = api.queued()
        held.let_go()
        until(lambda: api.status("GET", f"/jobs/{job_id}/completed") == 200, "the verdict")

    assert queued == []
    assert any("HEARTBEAT_INTERVAL" in line for line in client.log)


def test_a_slow_server_is_asked_again_what_it_offers(farm: Farm, client: Client) -> None:
    """Heartbeats take the place of one that waits for the answer: the orders must reach the worker all the same."""
    farm.misbehave("GET /status/config", Fault(delay=5.0), 1)
    client.start()

    assert await_calls(farm, "GET /status/config", 2)


@pytest.mark.parametrize("noticed_by", ["all calls", "a poll"])
def test_it_adapts_again_after_an_outage(farm: Farm, client: Client, noticed_by: str) -> None:
    """A server that comes back may have another patience, also where no heartbeat was lost meanwhile."""
    client.start(HEARTBEAT_INTERVAL="2")
    await_calls(farm, "GET /status/config")
    await_idle(farm)
    if noticed_by == "all calls":
        farm.go_down()
        until(lambda: any("cannot be reached" in line for line in client.log), "the outage to be noticed")
    farm.misbehave("GET /status/config", says('{"vanished_after": 1.0}'))
    farm.misbehave("GET /queue/poll", LOST, times=1)
    if noticed_by == "all calls":
        farm.come_up()
    until(lambda: any("HEARTBEAT_INTERVAL: 2 s" in line for line in client.log), "it to beat more often")
