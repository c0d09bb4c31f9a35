"""Answers that have another form than one expects, and refusals."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.api_server import serving
from tests.support.client import Client, Held, tasks_of
from tests.support.farm import Farm, says
from tests.support.supervised import BENIGN, CLIENT

WITH_NULL = '{"queue": [null], "entries": 1, "attributes": {"disabled": false}}'
"""A job whose id is queued, and which was deleted in the database: it stays so."""


def test_a_null_in_the_queue_does_not_keep_a_job_from_going_back(farm: Farm, client: Client, held: Held) -> None:
    """Whether the job is in the queue again is asked before it is posted."""
    old_id = farm.post(held.job)
    client.start()
    held.await_running()
    farm.misbehave("GET /queue", says(WITH_NULL))
    client.process.send_signal(signal.SIGQUIT)

    assert client.process.wait(60) == 0
    (job,) = farm.queue.values()
    assert [module for module, _ in tasks_of(job)] == ["reporter"]
    assert old_id not in farm.running


@pytest.mark.parametrize("command", ["jobs", "show benign", "cancel benign"])
def test_commands_pass_over_a_null_in_the_queue(farm: Farm, command: str) -> None:
    """The other jobs are listed and found, or there is none such."""
    farm.post(BENIGN)
    farm.misbehave(
        "GET /queue", says(WITH_NULL.replace("[", '[{"job_id": "17", "job_title": "benign", "tasks": []}, '))
    )
    done = subprocess.run(
        [CLIENT, *command.split()], env=os.environ | {"API_URL": farm.url}, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, "benign" in done.stdout + done.stderr) == (command != "jobs", True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusal_is_told_in_the_words_of_the_server(tmp_path: Path) -> None:
    """One that does not know its name by which it is called says so: no token is blamed."""
    with serving(tmp_path / "jobs.db") as api:
        url = api.url.replace("127.0.0.1", "127.1")
        environment = os.environ | {"API_URL": url, "NO_PROXY": "*"}
        done = subprocess.run([CLIENT, "jobs"], env=environment, capture_output=True, text=True, timeout=60)

    words = "status 403: This server is not called '127.1'. If it is, start it with --allow-host"
    assert (done.returncode, done.stderr) == (2, f"API server {url}: {words}\n")
