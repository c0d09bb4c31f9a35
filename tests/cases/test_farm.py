"""Through a server and workers: verdicts agree, jobs share no file, `submit --wait` follows a job to its end."""

import os
import re
import signal

import pytest

from tests.cases.checks import require_words
from tests.cases.client import Client, Services
from tests.cases.tasks import ENCODE, Task, cleanup, encode, ffmpeg, job
from tests.support.farm import Farm
from tests.support.waiting import until

SLOW = ENCODE | {"vf": "realtime=speed=2"}

# --- texts ---

ENTITIES = {
    "Q&notes.srt": "Q&notes.srt",
    "a&copy=b.srt": "a&copy=b.srt",
    "Tom &amp; Jerry.srt": "Tom & Jerry.srt",
    "&lt;&gt;&quot;&#39;&#x27;&#34;": "<>\"''\"",
    "&amp;lt;": "&lt;",
    "&nbsp;&apos;&#65;&hellip;": "&nbsp;&apos;&#65;&hellip;",
    "a&lt b&amp": "a&lt b&amp",
    "is &amp; there.srt": "is &amp; there.srt",
}
COPIES = job(cleanup(copy=[("s.srt", f"done/{name}") for name in ENTITIES]))


def test_entities(client: Client, services: Services, farm: Farm) -> None:
    """Texts from another server have the seven entities unescaped once, unless the text names an existing file."""
    client.put("s.srt")
    client.shell("mkdir done; cp s.srt 'done/is &amp; there.srt'")
    services.start_worker(API_URL=farm.url)

    assert not farm.await_verdict(farm.post(COPIES)).failed
    assert sorted(os.listdir(client.work / "done")) == sorted(ENTITIES.values())


def test_texts_of_our_own_server(client: Client, services: Services) -> None:
    """Texts from our own server are taken as they were submitted."""
    services.start_worker()

    assert services.verdict(services.post(COPIES)).completed
    assert sorted(os.listdir(client.work / "done")) == sorted(ENTITIES)


def test_undecodable_name(client: Client, services: Services, farm: Farm) -> None:
    """A job whose names are no UTF-8 completes, and its heartbeats are valid UTF-8."""
    name = os.fsdecode(b"caf\xe9.mkv")
    client.put("clip.mkv")
    os.rename(client.work / "clip.mkv", client.work / name)
    services.start_worker(API_URL=farm.url)
    document = job(ffmpeg(name, video=SLOW), cleanup(move=[(name, "done/")]), job_title=name)

    assert not farm.await_verdict(farm.post(document)).failed
    assert os.listdir(os.fsencode(client.work / "done")) == [b"caf\xe9.mkv"]
    assert {beat["job_title"].encode() for beat in farm.beats() if "job_title" in beat}


def test_unknown_keys_are_a_warning(client: Client, services: Services) -> None:
    """A worker runs a job with unknown keys, and the record has a warning."""
    client.put("s.srt")
    services.start_worker()
    task = cleanup(copy=[("s.srt", "o.srt")]) | {"enabled": False}
    job_id = services.call("POST", "/queue", {"job_title": "x", "tasks": [task]})["job_id"]

    result = services.verdict(job_id)
    assert result.completed, str(result)
    assert "enabled" in result.warnings


def test_forms_of_a_record(client: Client) -> None:
    """Times and `runtime` have the forms that the field's programs compare and sort, and `seconds` is a number."""
    record = client.run(cleanup(delete=["none"])).record

    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00"
    assert re.fullmatch(time, record["start_time"])
    assert re.fullmatch(time, record["end_time"])
    assert re.fullmatch(r"\d+:\d\d:\d\d\.\d{6}", record["runtime"])
    assert isinstance(record["seconds"], float)


# --- submit --wait ---


@pytest.mark.parametrize(
    ("encoding", "status", "words"),
    [(ffmpeg(), 0, ["A Title", "out.mkv", "gone.mkv", "completed"]), (ffmpeg("none.mkv"), 1, ["none.mkv"])],
)
def test_wait_for_the_end(encoding: Task, status: int, words: list[str], client: Client, services: Services) -> None:
    """The status is 0 or 1, and title, outputs and warnings are shown, or the reason."""
    services.start_worker()
    process = services.submit(job(encoding, cleanup(delete=["gone.mkv"]), job_title="A Title"), "--wait")

    assert process.wait(30) == status, services.log(process)
    require_words(services.output(process), words)


@pytest.mark.parametrize("is_running", [False, True])
def test_wait_for_a_deleted_job(client: Client, services: Services, is_running: bool) -> None:
    """A job that was deleted from the queue, or while it ran, has not completed: status 1."""
    process = services.submit(job(encode(vf="realtime=speed=0.1")), "--wait")
    job_id = until(lambda: services.output(process).strip(), "the id")
    if is_running:
        services.start_worker(CANCEL_DELETED_JOBS="1")
        until(services.working, "the job to run")
    services.call("DELETE", f"/jobs/{job_id}")

    assert process.wait(30) == 1
    require_words(services.output(process) + services.log(process), ["deleted"])


def test_wait_where_nobody_tells(client: Client, services: Services, farm: Farm) -> None:
    """A server that does not tell how a job ended: status 3."""
    services.start_worker(API_URL=farm.url)

    process = services.submit(job(cleanup(delete=["x"])), "--wait", API_URL=farm.url)
    assert process.wait(30) == 3


def test_wait_for_a_job_that_was_handed_back(client: Client, services: Services) -> None:
    """A job that goes back to the queue gets a new id, and `submit` follows it there."""
    worker = services.start_worker()
    process = services.submit(job(ffmpeg(video=SLOW)), "--wait")
    until(services.working, "the job to run")
    worker.send_signal(signal.SIGQUIT)
    worker.wait()
    assert process.poll() is None, services.log(process)
    services.start_worker()

    assert process.wait(30) == 0, services.log(process)
    require_words(services.output(process), ["out.mkv"])


def test_wait_without_a_worker(client: Client, services: Services) -> None:
    """With no worker alive `submit` says so, and goes on waiting."""
    process = services.submit(job(cleanup(delete=["x"])), "--wait")
    until(lambda: "no worker" in services.log(process).lower(), "a word about workers", 10)
    assert process.poll() is None
    services.start_worker()

    assert process.wait(30) == 0


@pytest.mark.parametrize("what", ["/queue", "/workers/"])
def test_wait_for_the_disabled(what: str, client: Client, services: Services) -> None:
    """With the queue or all workers disabled `submit` says so, and goes on waiting."""
    services.start_worker()
    worker = until(lambda: services.call("GET", "/workers")["workers"], "the worker")[0]
    path = what + (worker["worker_id"] if what.endswith("/") else "")
    services.call("PATCH", path, {"disabled": True})
    process = services.submit(job(cleanup(delete=["x"])), "--wait")
    until(lambda: "disabled" in services.log(process).lower(), "a word about it", 10)
    assert process.poll() is None
    services.call("PATCH", path, {"disabled": False})

    assert process.wait(30) == 0
