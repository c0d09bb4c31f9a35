"""`GET /metrics`: jobs, workers and requests in numbers, the same from every server."""

import contextlib
import re
import signal
from pathlib import Path

from server.observe.metrics import MAX_MODULES
from tests.server.postgresql import postgresql
from tests.support.api_server import BEAT, JOB, OUTCOME, SOON, UNKNOWN, Api, Process, connected, serving
from tests.support.waiting import until


def metrics(api: Api) -> dict[str, float]:
    """All samples, by their names and labels."""
    answer = api("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    assert len(lines) == len({name for name, _, _ in lines}), "a sample is there twice"
    return {name: float(value) for name, _, value in lines}


def test_jobs_are_counted(database: Path | str) -> None:
    """By state and modules, as they are now and as they ended; and how long the queue's head waits."""
    two = {"job_title": "", "tasks": [{"module": "mkvmerge"}, {"module": "ffmpeg"}]}
    with serving(database) as api:
        empty = metrics(api)
        done = api.submit()
        api.poll()
        api("PATCH", f"/jobs/{done}/completed", OUTCOME)
        api("POST", f"/jobs/{api.submit()}/cancel")
        api.submit()
        api.poll()
        api("POST", "/queue", two)
        counted = metrics(api)

    assert empty["sisyphus_queue_length"] == empty["sisyphus_queue_head_age_seconds"] == 0
    assert counted['sisyphus_jobs{modules="ffmpeg",state="running"}'] == 1
    assert counted['sisyphus_jobs{modules="ffmpeg,mkvmerge",state="queued"}'] == counted["sisyphus_queue_length"] == 1
    assert counted["sisyphus_queue_head_age_seconds"] > 0
    assert counted['sisyphus_jobs_ended_total{modules="ffmpeg",state="completed"}'] == 1
    assert counted['sisyphus_jobs_ended_total{modules="ffmpeg",state="cancelled"}'] == 1
    assert counted['sisyphus_job_duration_seconds_count{modules="ffmpeg",state="completed"}'] == 1
    assert counted['sisyphus_job_duration_seconds_bucket{le="+Inf",modules="ffmpeg",state="completed"}'] == 1
    assert counted['sisyphus_job_duration_seconds_count{modules="ffmpeg",state="cancelled"}'] == 0
    assert counted["sisyphus_database_online"] == 1


def test_workers_are_counted(api: Api) -> None:
    """By what they do; and the speed that their heartbeats tell."""
    busy = BEAT | {"status": "in_progress", "task": "ffmpeg"}
    for name, beat in {
        "a": BEAT,
        "b": busy | {"info": {"speed": 1.5, "fps": 30}},
        "c": busy | {"info": {"speed": 0.25, "fps": "many"}},
        "d": busy | {"info": {}},
    }.items():
        api("POST", f"/workers/{name}", beat)
    api("PATCH", "/workers/a", {"disabled": True})
    counted = metrics(api)
    api("PATCH", "/workers/a", {"disabled": False})
    for name in "abcd":
        api("DELETE", f"/workers/{name}")

    assert counted['sisyphus_workers{state="in_progress"}'] == 3
    assert counted['sisyphus_workers{state="disabled"}'] == 1
    assert counted['sisyphus_encode_speed_ratio{module="ffmpeg"}'] == 1.75
    assert counted['sisyphus_encode_frames_per_second{module="ffmpeg"}'] == 30


def test_requests_are_counted_by_route(api: Api) -> None:
    """By the template of the route: names of jobs and of routes that there are not make no metric."""
    for path in (f"/jobs/{UNKNOWN}", "/jobs/other", "/nope/1", "/nope/2"):
        api("GET", path)
    counted = metrics(api)

    assert counted['sisyphus_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"}'] == 2
    assert counted['sisyphus_http_requests_total{method="GET",route="none",status="404"}'] == 2
    assert counted['sisyphus_http_request_duration_seconds_count{method="GET",route="/jobs/{job_id}"}'] == 2


def test_many_modules_make_few_metrics(api: Api) -> None:
    """Whoever may submit jobs could name any number of modules."""
    tasks = [{"module": f"module {number} \ud800"} for number in range(MAX_MODULES + 5)]
    for task in tasks:
        api("POST", "/queue", JOB | {"tasks": [task]})
    counted = metrics(api)
    api("DELETE", "/queue")

    assert counted['sisyphus_jobs{modules="other",state="queued"}'] >= 5
    assert len([name for name in counted if name.startswith("sisyphus_jobs{")]) <= MAX_MODULES + 1


def test_processes_count_together(tmp_path: Path) -> None:
    """Of several processes on one port any tells the sum, also of what a process had counted that was killed."""
    key = 'sisyphus_http_requests_total{method="GET",route="/queue",status="200"}'
    with contextlib.closing(Process(tmp_path, postgresql().make_database(), processes=2)) as process:
        url = process.start()
        until(lambda: process.log.count("Serving") == 2, "both processes")
        for _ in range(20):
            with connected(url) as api:
                api("GET", "/queue")
        seen = set()
        for _ in range(10):
            with connected(url) as api:
                seen.add(metrics(api)[key])
        process.send(signal.SIGTERM)
        process.wait()

    assert seen == {20}


def test_without_the_database_the_rest_is_told() -> None:
    """While PostgreSQL is away, the metrics of workers and requests are there, and tell that it is."""
    database = postgresql().make_database()
    with serving(database, vanished_after=SOON) as api:
        postgresql().allow_connections(database, False)
        until(lambda: metrics(api)["sisyphus_database_online"] == 0, "the server to notice")
        counted = metrics(api)
        postgresql().allow_connections(database, True)
        until(lambda: metrics(api)["sisyphus_database_online"] == 1, "the server to go on")

    assert "sisyphus_queue_length" not in counted
    assert [name for name in counted if re.match("sisyphus_http_requests_total", name)]
