"""Through a server and workers: verdicts agree, jobs share nothing, `submit --wait` follows a job to its end."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cases.checks import require_words
from tests.cases.client import Client, Farm, until
from tests.cases.tasks import ENCODE, JOBS, cleanup, encode, ffmpeg, handbrake, job, load, mkvmerge
from tests.cases.test_table import prepare
from tests.farm import Farm as ReferenceServer

ROOT = Path(__file__).parents[2]
SLOW = ENCODE | {"vf": "realtime=speed=2"}

# --- one job's file, four readers ---

FILES = sorted([*(path.stem for path in JOBS.iterdir()), *(path.name for path in ROOT.glob("examples/*.json"))])


def ready(client: Client, name: str) -> Any:
    """The document of a case or an example, with what it names in the client's directory."""
    if not name.endswith(".json"):
        prepare(client, name)
        return load(name)
    client.put("clip.mkv", directory="demo")
    shutil.copytree(ROOT / "examples", client.work / "examples")
    return json.loads((ROOT / "examples" / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_all_readers_agree(name: str, client: Client, farm: Farm) -> None:
    """`run`, `validate`, `submit` and a worker say the same of one file, and the worker does what `run` does."""
    farm.start_worker()
    document = ready(client, name)
    status, *_ = client.call("validate", str(client.write(document)))
    result = client.run(document)
    assert (status != 0) == result.is_refused, str(result)

    client.shell("rm -rf *")
    submitted = farm.submit(ready(client, name))
    if submitted.wait(30):  # what is wrong with the file itself: nobody takes it
        assert result.is_refused
        return
    there = farm.verdict(farm.output(submitted).strip())
    ends = [(each.completed, each.record.get("error", {}).get("step")) for each in (result, there)]
    assert ends[0] == ends[1], there.message


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


@pytest.fixture
def reference() -> Iterator[ReferenceServer]:
    """A server that is not ours."""
    server = ReferenceServer()
    yield server
    server.close()


def test_entities(client: Client, farm: Farm, reference: ReferenceServer) -> None:
    """Of another server's texts the seven entities are unescaped, once, unless the text names a file that is there."""
    client.put("s.srt")
    client.shell("mkdir done; cp s.srt 'done/is &amp; there.srt'")
    farm.start_worker(API_URL=reference.url)

    assert not reference.await_verdict(reference.post(COPIES)).failed
    assert sorted(os.listdir(client.work / "done")) == sorted(ENTITIES.values())


def test_texts_of_our_own_server(client: Client, farm: Farm) -> None:
    """Of our own server's nothing is unescaped: it has what was submitted."""
    farm.start_worker()

    assert farm.verdict(farm.post(COPIES)).completed
    assert sorted(os.listdir(client.work / "done")) == sorted(ENTITIES)


def test_undecodable_name(client: Client, farm: Farm, reference: ReferenceServer) -> None:
    """A name that is no UTF-8 can be worked on, and what the server hears of it is text."""
    name = os.fsdecode(b"caf\xe9.mkv")
    client.put("clip.mkv")
    os.rename(client.work / "clip.mkv", client.work / name)
    farm.start_worker(API_URL=reference.url)
    document = job(ffmpeg(name, video=SLOW), cleanup(move=[(name, "done/")]), job_title=name)

    assert not reference.await_verdict(reference.post(document)).failed
    assert os.listdir(os.fsencode(client.work / "done")) == [b"caf\xe9.mkv"]
    assert {beat["job_title"].encode() for beat in reference.beats() if "job_title" in beat}


def test_unknown_keys_are_a_warning(client: Client, farm: Farm) -> None:
    """A worker does a job with keys that it does not know, and says so on the record."""
    client.put("s.srt")
    farm.start_worker()
    task = cleanup(copy=[("s.srt", "o.srt")]) | {"enabled": False}
    job_id = farm.call("POST", "/queue", {"job_title": "x", "tasks": [task]})["job_id"]

    result = farm.verdict(job_id)
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


def test_no_percentage_of_an_uncertain_length(client: Client, farm: Farm, reference: ReferenceServer) -> None:
    """While an output of unknown length is encoded, no heartbeat has a percentage."""
    client.put("clip.mkv")
    farm.start_worker(API_URL=reference.url)

    reference.await_verdict(reference.post(job(encode(vf="setpts=4*PTS,realtime=speed=4"))))
    beats = [beat for beat in reference.beats() if beat.get("info", {}).get("phase") == "encoding"]
    assert beats
    assert not [beat["progress"] for beat in beats if beat.get("progress")]


# --- two jobs at once ---

LONG = "L" * 243


def passes(target: str, seconds: int, options: dict[str, Any], *both: dict[str, Any]) -> dict[str, Any]:
    """A job of two passes."""
    first, second = (SLOW | {"b": "90k", "t": seconds} | options | each for each in both)
    return job(
        ffmpeg(video=first | {"f": "null"}, target="/dev/null", overwrite=True), ffmpeg(video=second, target=target)
    )


X265 = ({"codec": "libx265"}, {"x265-params": {"pass": 1}}, {"x265-params": {"pass": 2}})
AT_ONCE: dict[str, list[dict[str, Any]]] = {
    "two passes": [passes("a.mkv", 1, {}, {"pass": 1}, {"pass": 2}), passes("b.mkv", 2, {}, {"pass": 1}, {"pass": 2})],
    "two passes by x265's own options": [passes("a.mkv", 1, *X265), passes("b.mkv", 2, *X265)],
    "long names": [job(ffmpeg(target=f"{LONG}-{n * 7}.mkv", video=SLOW)) for n in "ab"],
    "names of another case": [job(ffmpeg(target=f"{n}.mkv", video=SLOW)) for n in ("Film", "film")],
    "other extensions": [job(ffmpeg(target=f"film.{n}", video=SLOW)) for n in ("mkv", "mp4")],
    "long names of other modules": [
        job(handbrake(target=f"{LONG}-{'a' * 7}.mkv"), mkvmerge(target=f"{LONG}-{'b' * 7}.mkv")),
        job(handbrake(target=f"{LONG}-{'c' * 7}.mkv"), mkvmerge(target=f"{LONG}-{'d' * 7}.mkv")),
    ],
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_two_slots(case: str, client: Client, farm: Farm) -> None:
    """Two jobs at once share no file: both complete, and leave nothing but their outputs."""
    documents = AT_ONCE[case]
    client.put("clip.mkv")
    farm.start_worker(WORKER_SLOTS="2")
    for result in [farm.verdict(job_id) for job_id in [farm.post(document) for document in documents]]:
        assert result.completed, str(result)

    targets = {task["data"]["output_file"] for document in documents for task in document["tasks"]}
    assert set(os.listdir(client.work)) == targets - {"/dev/null"} | {"clip.mkv"}


# --- submit --wait ---


def test_wait_for_a_completed_job(client: Client, farm: Farm) -> None:
    """The status is 0, and title, outputs and warnings are shown."""
    farm.start_worker()
    process = farm.submit(job(ffmpeg(), cleanup(delete=["gone.mkv"]), job_title="A Title"), "--wait")

    assert process.wait(30) == 0, farm.log(process)
    require_words(farm.output(process), ["A Title", "out.mkv", "gone.mkv", "completed"])


def test_wait_for_a_failed_job(client: Client, farm: Farm) -> None:
    """The status is 1, and the reason is shown."""
    farm.start_worker()
    process = farm.submit(job(ffmpeg("none.mkv")), "--wait")

    assert process.wait(30) == 1
    require_words(farm.output(process), ["none.mkv"])


def test_wait_for_a_deleted_job(client: Client, farm: Farm) -> None:
    """A job that was deleted from the queue has not completed: status 1."""
    process = farm.submit(job(cleanup(delete=["x"])), "--wait")
    job_id = until(lambda: farm.output(process).strip(), "the id")
    farm.call("DELETE", f"/jobs/{job_id}")

    assert process.wait(30) == 1
    require_words(farm.output(process) + farm.log(process), ["deleted"])


def test_wait_for_a_cancelled_job(client: Client, farm: Farm) -> None:
    """Nor has a job that was deleted while it ran."""
    farm.start_worker(CANCEL_DELETED_JOBS="1")
    process = farm.submit(job(encode(vf="realtime=speed=0.1")), "--wait")
    until(farm.working, "the job to run")
    farm.call("DELETE", f"/jobs/{farm.output(process).strip()}")

    assert process.wait(30) == 1


def test_wait_where_nobody_tells(client: Client, farm: Farm, reference: ReferenceServer) -> None:
    """A server that does not tell how a job ended: status 3."""
    farm.start_worker(API_URL=reference.url)

    process = farm.submit(job(cleanup(delete=["x"])), "--wait", API_URL=reference.url)
    assert process.wait(30) == 3


def test_wait_for_a_job_that_was_handed_back(client: Client, farm: Farm) -> None:
    """A job that goes back to the queue gets a new id: it is followed, to the verdict of the one who did it."""
    worker = farm.start_worker()
    process = farm.submit(job(ffmpeg(video=SLOW)), "--wait")
    until(farm.working, "the job to run")
    worker.send_signal(signal.SIGQUIT)
    worker.wait()
    assert process.poll() is None, farm.log(process)
    farm.start_worker()

    assert process.wait(30) == 0, farm.log(process)
    require_words(farm.output(process), ["out.mkv"])


def test_wait_without_a_worker(client: Client, farm: Farm) -> None:
    """With no worker alive `submit` says so, and goes on waiting for one."""
    process = farm.submit(job(cleanup(delete=["x"])), "--wait")
    until(lambda: "no worker" in farm.log(process).lower(), "a word about workers", 10)
    assert process.poll() is None
    farm.start_worker()

    assert process.wait(30) == 0


@pytest.mark.parametrize("what", ["/queue", "/workers/"])
def test_wait_for_the_disabled(what: str, client: Client, farm: Farm) -> None:
    """With the queue or all workers disabled `submit` says so, and goes on waiting."""
    farm.start_worker()
    worker = until(lambda: farm.call("GET", "/workers")["workers"], "the worker")[0]
    path = what + (worker["worker_id"] if what.endswith("/") else "")
    farm.call("PATCH", path, {"disabled": True})
    process = farm.submit(job(cleanup(delete=["x"])), "--wait")
    until(lambda: "disabled" in farm.log(process).lower(), "a word about it", 10)
    assert process.poll() is None
    farm.call("PATCH", path, {"disabled": False})

    assert process.wait(30) == 0
