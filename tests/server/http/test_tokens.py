"""The token for workers, and wrong tokens."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.http import tokens
from tests.support.api_server import BEAT, JOB, OUTCOME, UNKNOWN, connected, serving
from tests.support.waiting import until


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
        unknown = [
            worker.status("PATCH", f"/jobs/{UNKNOWN}/completed", OUTCOME),
            worker.status("DELETE", f"/jobs/{job_id}"),  # its place is taken already
        ]

    assert [status for status in done if status not in (200, 204)] == []
    assert refused == [403] * len(refused)
    assert unknown == [404, 404]


def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses are answered later and later; a right token is taken at once where right ones came from before."""
    monkeypatch.setattr(tokens, "FIRST_DELAY", 0.05)
    with serving(tmp_path / "jobs.db", token="right") as api, ThreadPoolExecutor(1) as pool:
        right = [api.status("GET", "/queue")]
        begun = time.monotonic()
        guesses = pool.submit(lambda: [_guess(api.url)[0] for _ in range(4)])
        while not guesses.done():
            right.append(api.status("GET", "/queue"))
        seconds = time.monotonic() - begun

    assert set(right) == {200}
    assert guesses.result() == [401] * 4
    assert seconds >= 15 * tokens.FIRST_DELAY  # once, twice, four and eight times that


@pytest.mark.parametrize("by_login", [False, True])
def test_guesses_at_once_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_login: bool) -> None:
    """While a guess waits for its answer others are not looked at, even a right one; by the page's login neither."""
    monkeypatch.setattr(tokens, "FIRST_DELAY", 2.0)
    guess = _log_in if by_login else _guess
    with serving(tmp_path / "jobs.db", token="right") as api, ThreadPoolExecutor(8) as pool:
        guesses = [pool.submit(guess, api.url) for _ in range(8)]
        until(lambda: any(each.done() for each in guesses), "the first answer")
        right = [guess(api.url, "right"), _guess(api.url, "right")]
        answers = [each.result() for each in guesses]
        until(lambda: _guess(api.url, "right")[0] == 200, "the address to be forgiven")
        logged_in = _log_in(api.url, "right")[0]

    assert sorted(status for status, _ in answers) == [403 if by_login else 401] + [429] * 7
    assert [status for status, _ in right] == [429, 429]
    assert right[1][1] in ("1", "2")
    assert logged_in == 303


def _guess(url: str, token: str = "wrong") -> tuple[int, str]:
    with connected(url, token) as api:
        answer = api("GET", "/queue")
    return answer.status_code, answer.headers.get("Retry-After", "")


def _log_in(url: str, token: str = "wrong") -> tuple[int, str]:
    with connected(url) as api:
        answer = api("POST", "/farm/login", data={"token": token}, headers={"Origin": url}, allow_redirects=False)
    return answer.status_code, ""
