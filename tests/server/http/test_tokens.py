"""The token for workers, and wrong tokens."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.http import tokens
from tests.support.api_server import BEAT, JOB, OUTCOME, UNKNOWN, connected, serving


def test_the_token_for_workers_is_for_their_calls(database: Path | str) -> None:
    """With it, a worker can do all that it does, hand a job back included, and nothing else."""
    with serving(database, token="all", worker_token="some") as api, connected(api.url, "some") as worker:
        job_id = api.submit()
        returned = {**JOB, "tasks": [JOB["tasks"][0] | {"handed_back": job_id}]}  # type: ignore[index]
        done = [
            worker.status("GET", "/status/config"),
            worker.status("GET", "/queue"),
            worker.status("POST", "/workers/w", BEAT),
            worker.status("GET", "/workers/w"),
            worker.status("GET", "/queue/poll?worker_id=w"),
            worker.status("POST", "/queue", returned),
            worker.status("DELETE", f"/jobs/{job_id}"),
            worker.status("GET", "/queue/poll"),
            worker.status("POST", "/data/status/config", {}),
            worker.status("GET", "/data/status/config"),
            worker.status("DELETE", "/workers/w"),
        ]
        refused = [
            worker.status(method, path, body)
            for method, path, body in (
                ("POST", "/queue", JOB),
                ("POST", "/queue", {**JOB, "tasks": [{"module": "x", "handed_back": UNKNOWN}]}),
                ("PATCH", "/queue", {"disabled": True}),
                ("DELETE", "/queue", None),
                ("GET", "/jobs", None),
                ("POST", f"/jobs/{UNKNOWN}/cancel", None),
                ("PATCH", f"/jobs/{UNKNOWN}", {"priority": 1}),
                ("PATCH", "/workers/w", {"disabled": True}),
                ("GET", "/workers", None),
                ("GET", "/events", None),
                ("GET", "/metrics", None),
                ("GET", "/farm", None),
            )
        ]
        unknown = worker.status("PATCH", f"/jobs/{UNKNOWN}/completed", OUTCOME)

    assert [status for status in done if status not in (200, 204)] == []
    assert refused == [403] * len(refused)
    assert unknown == 404


def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses from one address are answered later and later; the right token from there is answered meanwhile."""
    monkeypatch.setattr(tokens, "FIRST_DELAY", 0.2)
    with serving(tmp_path / "jobs.db", token="right") as api, ThreadPoolExecutor(4) as pool:
        begun = time.monotonic()
        guesses = [pool.submit(_guess, api.url) for _ in range(4)]
        right = [api.status("GET", "/queue") for _ in range(5)]
        are_waiting = not all(guess.done() for guess in guesses)
        statuses = [guess.result() for guess in guesses]
        seconds = time.monotonic() - begun

    assert right == [200] * 5
    assert are_waiting
    assert statuses == [401] * 4
    assert seconds >= 1.6  # the last of 0.2, 0.4, 0.8 and 1.6


def _guess(url: str) -> int:
    with connected(url, "wrong") as api:
        return api.status("GET", "/queue")
