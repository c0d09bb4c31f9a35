"""`GET /status/farm`, on both databases."""

from datetime import UTC, datetime

from tests.support.api_server import BEAT, JOB, OUTCOME, Api


def test_the_farm_in_numbers(api: Api) -> None:
    """Queue, running jobs, workers, and what ended in the last day are counted; each wait has its reason."""
    before = api("GET", "/status/farm").json()
    api("POST", "/workers/numbers", BEAT | {"status": "in_progress"})
    api("GET", "/queue/poll?worker_id=numbers&modules=ffmpeg&tags=cpu")
    ended = [api.submit(f"ended {number}") for number in range(3)]
    for job_id, failed in zip(ended[:2], (True, False), strict=True):
        api.poll()
        api("PATCH", f"/jobs/{job_id}/completed", OUTCOME | {"failed": failed})
    api("POST", f"/jobs/{ended[2]}/cancel")
    api.submit("running")
    api.poll()
    head = api.submit("waits")
    api("POST", "/queue", JOB | {"requires": ["gpu"]})
    api("POST", "/queue", JOB | {"requires": ["gpu"]})
    api("PATCH", "/workers/numbers", {"paused": True})
    farm = api("GET", "/status/farm").json()
    api("PATCH", "/workers/numbers", {"paused": False})

    added_at = api("GET", f"/jobs/{head}/record").json()["added_at"]
    assert farm["queue"] == {"entries": 3, "disabled": False, "head_added_at": added_at}
    assert farm["running"] == 1
    assert farm["workers"].items() >= {"live": 1, "working": 1, "paused": 1, "disabled": 0}.items()
    assert farm["waits"] == [
        {"why": "no live worker has the tag gpu", "entries": 2},
        {"why": "every worker that can do it is disabled or paused", "entries": 1},
    ]
    grown = {state: farm["day"][state] - before["day"][state] for state in farm["day"]}
    assert grown == {"completed": 1, "failed": 1, "cancelled": 1}
    assert len(farm["hours"]) == 24
    assert {state: farm["hours"][-1][state] for state in farm["day"]} == farm["day"]
    assert datetime.fromisoformat(farm["hours"][-1]["begin"]) < datetime.now(UTC)
