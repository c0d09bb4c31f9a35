"""The slot's loop, seen from the server's side: it polls, takes jobs in order, and goes on whatever a poll answers."""

import json
import os
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.client import TOKEN, WORKER, Client, Served, await_calls, await_idle, await_verdicts, gaps
from tests.support.farm import LOST, Farm, Fault, says, status
from tests.support.supervised import BENIGN, hostile
from tests.support.waiting import until


def test_takes_jobs_in_order_and_leaves_when_asked(farm: Farm, client: Client) -> None:
    """Jobs are taken in the server's order and have one verdict each; SIGTERM ends an idle client with 0."""
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    verdicts = await_verdicts(farm, 3)
    await_idle(farm)
    ended = client.stop()

    assert [(verdict.job_id, verdict.failed) for verdict in verdicts] == [(job_id, False) for job_id in ids]
    assert {
        "start_time",
        "end_time",
        "runtime",
        "seconds",
        "worker",
        "worker_id",
        "version",
        "completed",
        "tasks",
    } == set(verdicts[0].info)
    assert (verdicts[0].info["worker"], verdicts[0].info["worker_id"]) == ("encoder01", WORKER)
    assert ended == 0
    assert len(farm.verdicts) == 3


def test_an_empty_queue_is_looked_at_once_per_interval(farm: Farm, client: Client) -> None:
    """While there is no work, there is one look and one poll an interval."""
    interval = 0.5
    client.start(QUEUE_POLL_INTERVAL=str(interval))
    await_calls(farm, "GET /queue/poll", 6)

    for route in ("GET /queue", "GET /queue/poll"):
        assert statistics.mean(gaps(farm.calls(route))) > 0.8 * interval


FAILED_POLLS = {
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "400": status(400),
    "401": status(401),
    "302": status(302, Location="/queue"),
    "garbage": says(b"\x00\xff\xfe spam"),
    "html": says("<h1>Spam</h1>"),
    "list": says("[]"),
    "number": says("3"),
    "deep": says("[" * 100_000),
    "lost": LOST,
    "reset": Fault(cut="reset"),
    "headers cut": Fault(False, 200, b"null", cut="headers"),
    "too short": Fault(False, 200, b'{"job_title": "spam", "tasks": [', length=1000),
    "huge": says(b'"' + b"x" * (64 << 20)),
}


@pytest.mark.slow
def test_a_failed_poll_is_not_repeated_at_once(farm: Farm, client: Client) -> None:
    """After each poll that failed, however it did, the client waits; and then it goes on."""
    wait = 0.6
    for fault in FAILED_POLLS.values():
        farm.misbehave("GET /queue/poll", fault, 1)
    client.start(QUEUE_POLL_INTERVAL="0.1", NETWORK_RETRY_INTERVAL=str(wait))
    polls = await_calls(farm, "GET /queue/poll", len(FAILED_POLLS) + 1)
    waited = dict(zip(FAILED_POLLS, gaps(polls), strict=False))
    verdict = farm.await_verdict(farm.post(BENIGN))

    assert {name: seconds for name, seconds in waited.items() if seconds < 0.8 * wait} == {}
    assert not verdict.failed


def test_null_means_that_the_queue_is_empty(farm: Farm, client: Client) -> None:
    """`200 null`, which a race on the server gives, is no failure: the next poll comes after the usual interval."""
    farm.misbehave("GET /queue/poll", says("null"), 3)
    job_id = farm.post(BENIGN)
    client.start(NETWORK_RETRY_INTERVAL="1000")

    assert not farm.await_verdict(job_id).failed


@pytest.mark.parametrize("failures", [0, 2], ids=["at once", "when it can be had"])
@pytest.mark.parametrize("fault", [Fault(cut=-2), Fault(length=-2), Fault(length=2)], ids=["cut", "short", "long"])
def test_a_job_of_a_broken_answer_is_fetched(farm: Farm, client: Client, fault: Fault, failures: int) -> None:
    """The job of a cut answer, which the server has given away for good, is fetched by the id in the part that came."""
    farm.misbehave("GET /queue/poll", fault, 1)
    farm.misbehave("GET /jobs/*", status(503), failures)
    ids = [farm.post(BENIGN), farm.post(BENIGN)]
    client.start()
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    assert [verdict.failed for verdict in verdicts] == [False, False]
    assert farm.taken == ids


def test_goes_on_when_a_job_is_lost(farm: Farm, client: Client) -> None:
    """A poll's answer that is cut before the id, or lost, costs that job and no other."""
    farm.misbehave("GET /queue/poll", Fault(cut=20), 1)
    farm.misbehave("GET /queue/poll", LOST, 1)
    ids = [farm.post(BENIGN) for _ in range(3)]
    client.start()
    verdict = farm.await_verdict(ids[2])

    assert not verdict.failed
    assert farm.taken == ids


# --- the operator's command after each verdict ---

TELL = """
import json, os, sys
told = json.load(sys.stdin)
with open(sys.argv[1], "a") as file:
    print(json.dumps([told, dict(os.environ), os.getppid()]), file=file)
print("what the hook says")
"""


def configure(served: Served, *command: str, **limits: str) -> None:
    """Have the client run a command."""
    lines = [f"job_ended = {json.dumps(command)}", *(f"{name} = {json.dumps(value)}" for name, value in limits.items())]
    config = served.client.directory / "client.toml"
    config.write_text(config.read_text() + "\n".join(["[tool.client.hooks]", *lines, ""]))


def test_it_gets_the_record(served: Served, tmp_path: Path) -> None:
    """Each verdict, good or bad, is followed by the command, with all of the job and none of the secrets."""
    notes = tmp_path / "notes"
    configure(served, sys.executable, "-c", TELL, str(notes))
    served.client.start(API_TOKEN=TOKEN, NOTIFY_SECRET="pepper", WORK_PLACE="here")
    good = served.submit(job_title="R&D")
    bad = served.submit(hostile("own_error"))
    told: list[Any] = until(
        lambda: notes.exists() and len(lines := notes.read_text().splitlines()) == 2 and list(map(json.loads, lines)),
        "both commands",
        60,
    )
    records = [served.record(job_id) for job_id in (good, bad)]
    log = until(lambda: (text := served.api("GET", f"/jobs/{good}/log").text) and text, "the log")
    zygote = psutil.Process(served.client.process.pid).children()[0]

    assert [job["job_id"] for job, _, _ in told] == [good, bad]
    assert [job["record"] for job, _, _ in told] == [record["info"] for record in records]
    assert told[0][0]["job_title"] == "R&D"
    assert told[1][0]["tasks"] == records[1]["tasks"]
    assert all(environment["WORK_PLACE"] == "here" for _, environment, _ in told)
    assert not any({TOKEN, "pepper"} & set(environment.values()) for _, environment, _ in told)
    assert zygote.pid not in {parent for _, _, parent in told}, "a task process runs it"
    assert "what the hook says" in log


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/bin/sh", "-c", "exit 3"], "sh exited with status 3"),
        (["/bin/sh", "-c", "kill -9 $$"], "sh was killed by SIGKILL"),
        (["/nowhere/at-all"], "/nowhere/at-all cannot be started: No such file or directory"),
        (["/bin/sh", "-c", "setsid sleep 600 & sleep 601"], "run did not end within 500ms"),
    ],
    ids=["fails", "dies", "missing", "hangs"],
)
def test_what_goes_wrong_is_a_warning(served: Served, command: list[str], why: str) -> None:
    """A command that fails is one warning; verdicts stand, the next job runs, and nothing of it is left."""
    configure(served, *command, run_timeout="500ms", grace="100ms")
    client = served.client.start()
    done = [served.submit(), served.submit()]
    states = [served.await_state(job_id, "completed") for job_id in done]
    warned = until(lambda: len(found := [line for line in served.client.log if "hook" in line]) >= 2 and found, "words")
    left = psutil.Process(client.pid).children(recursive=True)
    zygote = until(lambda: len(left := psutil.Process(client.pid).children(recursive=True)) == 1 and left, "the end")

    assert all("message" not in state["info"] for state in states)
    assert [line for line in warned if "WARNING" in line and why in line] == [w for w in warned if "WARNING" in w]
    assert zygote[0] in left
    assert served.client.stop() == 0


@pytest.mark.parametrize("signals", [1, 2], ids=["a drain waits for it", "a cancel ends it"])
def test_a_client_that_stops(served: Served, tmp_path: Path, signals: int) -> None:
    """A drain lets the command end, and a snapshot names it; a second signal stops it. The verdict is there anyway."""
    begun, end = tmp_path / "begun", tmp_path / "end"
    configure(served, "/bin/sh", "-c", f"touch {begun}; while ! [ -e {end} ]; do sleep 0.05; done; touch {end}.done")
    client = served.client.start()
    job_id = served.submit(BENIGN)
    until(begun.exists, "the command")
    os.kill(client.pid, signal.SIGUSR1)
    until(
        lambda: any(f"job {job_id} has ended, and 'hook job_ended' runs" in line for line in served.client.log),
        "a snapshot",
    )
    for _ in range(signals):
        os.kill(client.pid, signal.SIGTERM)
        until(lambda: any("SIGTERM" in line for line in served.client.log), "the signal to be seen")
    if signals == 1:
        end.touch()

    assert client.wait(60) == 0
    assert Path(f"{end}.done").exists() == (signals == 1)
    assert served.record(job_id)["state"] == "completed"
