"""Makes the pictures of the page: fills a server with a day of a farm, starts workers, and looks at every view."""

import contextlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import update

from server.storage.database import ServerDatabase
from server.storage.store import Store
from server.storage.tables import jobs
from tests.server.pages.chromium import launch
from tests.support.api_server import Api, serving

WIDTHS = (390, 1280, 1920)

MAX_HEIGHT = 1500

HOSTS = ("encoder02", "encoder03", "gpu01", "gpu02", "attic")

TITLES = ("The Third Man", "Metropolis", "Nosferatu", "Sunrise", "M", "The General", "Safety Last!", "City Lights")

FAILURES = [
    ("exit", "ffmpeg exited with 1: Error while decoding stream #0:0: Invalid data found when processing input",
     {"exit_status": 1, "stderr": ["[hevc @ 0x55d0c1] Could not find ref with POC 41",
                                   "Error while decoding stream #0:0: Invalid data found when processing input",
                                   "Conversion failed!"]}),
    ("memory", "the task used more memory than it may have", {"limit": "8GiB", "value": "8.1GiB", "progress": 43.1}),
    ("stall", "nothing happened for 15 minutes: no report, no CPU time, no input or output", {"progress": 71.8}),
    ("signal", "ffmpeg was killed by SIGSEGV", {"signal": "SIGSEGV", "progress": 3.4}),
]  # fmt: skip


def job(title: str, number: int, **more: Any) -> dict[str, Any]:
    """A job of two tasks."""
    data = {
        "sources": [f"/srv/media/incoming/{title} - S01E{number:02}.mkv"],
        "source_maps": [{"source": 0, "specifier": "v", "stream": 0}, {"source": 0, "specifier": "a", "stream": 0}],
        "output_maps": [
            {"specifier": "v", "stream": 0, "options": {"codec": "libx265", "crf": 19}},
            {"specifier": "a", "stream": 0, "option_set": "opus-128k-stereo"},
        ],
        "output_file": f"/srv/media/encoded/{title} - S01E{number:02}.mkv",
    }
    tasks = [{"module": "ffmpeg", "data": data}, {"module": "cleanup", "data": {"delete": data["sources"]}}]
    return {"job_title": f"{title} - S01E{number:02}", "tasks": tasks, **more}


def record(document: dict[str, Any], host: str, failure: Any) -> dict[str, Any]:
    """The record of an ended job."""
    path = document["tasks"][0]["data"]["output_file"]
    seconds = random.uniform(400, 4000)
    done = {"module": "ffmpeg", "result": "completed", "seconds": seconds, "cpu_seconds": seconds * 7.6,
            "peak_memory": random.randrange(400, 2600) * 10**6, "attempts": 1,
            "outputs": [{"path": path, "bytes": random.randrange(200, 4000) * 10**6}]}  # fmt: skip
    cleanup = {"module": "cleanup", "result": "completed", "seconds": 0.2, "cpu_seconds": 0.1, "peak_memory": 21000000}
    info = {"worker": host, "worker_id": worker_id(host), "version": "1.4.0", "seconds": seconds, "completed": True}
    if not failure:
        return info | {"tasks": [done, cleanup]}
    reason, words, more = failure
    error = {
        "type": "RunError",
        "reason": reason,
        "step": "run",
        "module": "ffmpeg",
        "task": 0,
        "message": words,
    } | more
    failed = {key: value for key, value in done.items() if key != "outputs"} | {"result": "failed"}
    info |= {"completed": False, "module": "ffmpeg", "message": f"Failed to run task: {words}", "error": error}
    return info | {"tasks": [failed, {"module": "cleanup", "result": "not run"}]}


def fill(place: Path) -> None:
    """Make a day of history."""
    random.seed(11)
    with contextlib.closing(ServerDatabase(place)) as database:
        store = Store(database)
        failures = itertools.cycle(FAILURES)
        for age in sorted((random.uniform(0.02, 23.9) for _ in range(230)), reverse=True):
            document = job(random.choice(TITLES), random.randrange(1, 24))
            failure = next(failures) if random.random() < 0.05 or age < 0.1 else None
            job_id = store.submit(document["job_title"], document["tasks"])
            store.take(worker_id="x")
            store.complete(job_id, bool(failure), record(document, random.choice(HOSTS), failure))
            end = datetime.now(UTC) - timedelta(hours=age)
            times = {"ended_at": end, "started_at": end - timedelta(hours=0.8), "added_at": end - timedelta(hours=2)}
            with database.begin() as db:
                db.execute(update(jobs).where(jobs.c.job_id == job_id).values(times))


def worker_id(host: str) -> str:
    """An id as workers have it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, host))


def imagine(api: Api, host: str, tags: str, modules: str) -> dict[str, Any]:
    """A worker that encodes nothing: its heartbeat, with the job that it gets."""
    name = worker_id(host)
    status = {"status": "idle", "online_at": str(datetime.now(UTC) - timedelta(hours=30)), "hostname": host}
    status |= {"version": "1.4.0"}
    api("POST", f"/workers/{name}", status)
    if taken := api("GET", f"/queue/poll?worker_id={name}&modules={modules}cleanup,mkvmerge&tags={tags}").json():
        info = {"phase": "pass 2 of 2", "fps": random.uniform(20, 90), "speed": random.uniform(0.8, 3.5)}
        info |= {"memory": random.randrange(600, 2400) * 10**6, "eta_seconds": random.randrange(200, 4000)}
        status |= {"status": "in_progress", "job_id": taken["job_id"], "job_title": taken["job_title"]}
        status |= {"task": "ffmpeg", "progress": random.uniform(5, 95), "info": info}
    return status


def populate(api: Api) -> list[dict[str, Any]]:
    """Give the farm its workers, its queue and its data; returns the workers' heartbeats."""
    options = {"codec": "libopus", "b": "128k", "ac": 2}
    api("POST", "/data/ffmpeg/opus-128k-stereo", options)
    api("POST", "/data/ffmpeg/hevc-archive", {"codec": "libx265", "crf": 17, "preset": "slow"})
    api("POST", "/data/handbrake/1080p-fast", {"encoder": "x265_10bit", "quality": 21})
    for number, title in enumerate((*TITLES, *TITLES), 1):
        api("POST", "/queue", job(title, number, requires=["studio"]))
    for number in range(1, 4):
        api("POST", "/queue", job("Sherlock Jr.", number, requires=["av1-hardware"], priority=5 if number == 2 else 0))
    beats = []
    for host in HOSTS:
        tags = "studio,gpu" if host.startswith("gpu") else "studio"
        beats.append(imagine(api, host, tags, "" if host == "attic" else "ffmpeg,"))
    beats[-1]["info"] = {"trouble": "no scratch directory: /var/tmp: no space left on device"}
    api("PATCH", "/workers/" + worker_id("encoder03"), {"paused": True})
    api("PATCH", "/workers/" + worker_id("gpu02"), {"disabled": True})
    return beats


def take(
    browser: Browser, api: Api, views: dict[str, str], target: Path, scheme: str, beats: Any = (), widths: Any = WIDTHS
) -> None:
    """Take pictures of views, before each of which the workers send their heartbeats."""
    for width, (name, path) in itertools.product(widths, views.items()):
        for beat in beats:
            api("POST", f"/workers/{worker_id(beat['hostname'])}", beat)
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(api.url + path)
        if "login" not in path:
            page.wait_for_selector("#connection[data-state=live]")
        page.wait_for_timeout(1000)  # bars move
        # Not a picture of the full page: a browser does not lay out the rows that nobody sees.
        height = min(MAX_HEIGHT, int(page.evaluate("document.documentElement.scrollHeight")))
        page.set_viewport_size({"width": width, "height": height})
        picture = page.screenshot()
        context.close()
        argv = ["ffmpeg", "-v", "error", "-y", "-f", "image2pipe", "-i", "-", "-c:v", "libwebp", "-quality", "45"]
        folder = target / (str(width) if scheme == "light" else scheme)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*argv, str(folder / f"{name}.webp")], input=picture, check=True)


def main() -> None:
    """Make all pictures."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="films-") as name, sync_playwright() as playwright:
        directory = Path(name)
        fill(directory / "jobs.db")
        browser = launch(playwright)
        with serving(directory / "jobs.db") as api:
            beats = populate(api)
            failed = api("GET", "/jobs?state=failed&limit=1").json()["jobs"][0]["job_id"]
            running = api("GET", "/jobs?state=running").json()["jobs"][0]["job_id"]
            views = {"now": "/", "running": "/farm/running", "queue": "/farm/queue", "history": "/farm/history",
                     "job-failed": f"/farm/jobs/{failed}", "job-running": f"/farm/jobs/{running}",
                     "workers": "/farm/workers", "data": "/farm/data",
                     "document": "/farm/data/ffmpeg/opus-128k-stereo"}  # fmt: skip
            take(browser, api, views, target, "light", beats)
            take(browser, api, {key: views[key] for key in ("now", "job-failed")}, target, "dark", beats, (1280,))
        with serving(directory / "locked.db", token=json.dumps(time.time())) as api:
            take(browser, api, {"login": "/farm/login"}, target, "light")
        with serving(directory / "stuck.db") as api:
            for number in range(1, 4):
                api("POST", "/queue", job("Metropolis", number))
            take(browser, api, {"now-stuck": "/"}, target, "light")
        browser.close()


if __name__ == "__main__":
    main()
