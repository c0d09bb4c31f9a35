"""Signals to a client with an API server of its own."""

import contextlib
import os
import sqlite3
import subprocess

import pytest

from supervisor.worker.worker import FLUSH_TIMEOUT
from tests.guarantees.signals.scene import Scene, Waiting, rest_is_slow
from tests.support.supervised import CLIENT


@pytest.mark.parametrize(
    ("names", "expected"),
    rest_is_slow({"names0-0": (["TERM"], 0), "names1-0": (["QUIT"], 0), "names2-131": (["QUIT", "QUIT"], 131)}),
)
def test_standalone(scene: Scene, names: list[str], expected: int) -> None:
    """With the server in the same process it is the same: what the client owes, its own server takes before the end."""
    deaf = len(names) == 2
    scene.configure(**({"grace": "1h"} if deaf else {}))
    waiting = Waiting(scene.directory, "run", deaf)
    scene.client._command += ["--standalone", "--port", "0"]
    scene.start()
    (line,) = scene.await_log("Serving http")
    submitted = subprocess.run(
        [CLIENT, "submit", str(scene.supervised.write_job(waiting.job))],
        env=os.environ | {"API_URL": line.split()[4]},
        capture_output=True,
        text=True,
        check=True,
    )
    job_id = submitted.stdout.strip()
    waiting.await_running()
    scene.signal(*names)
    if names == ["TERM"]:
        waiting.let_go()
    ended = scene.await_end(FLUSH_TIMEOUT)
    with contextlib.closing(sqlite3.connect(scene.directory / "state" / "server.sqlite3")) as database:
        states = database.execute("SELECT state, job_id FROM jobs").fetchall()
    completed, queued, running = (
        [job_id for found, job_id in states if found == state] for state in ("completed", "queued", "running")
    )

    assert ended == expected
    assert completed == ([job_id] if names == ["TERM"] else [])
    assert running == ([job_id] if deaf else [])
    assert len(queued) == (names == ["QUIT"])
    assert job_id not in queued
