"""Through a server and workers: verdicts agree, jobs share nothing, `submit --wait` follows a job to its end."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cases.checks import require_words
from tests.cases.client import Client, Farm, until
from tests.cases.tasks import ENCODE, JOBS, cleanup, ffmpeg, handbrake, job, load, mkvmerge
from tests.cases.test_table import prepare
from tests.farm import Farm as ReferenceServer

ROOT = Path(__file__).parents[2]
SLOW = ENCODE | {"vf": "realtime=speed=2"}

# --- one job's file, four readers ---

FILES = [
    *sorted(path.stem for path in JOBS.iterdir()),
    *sorted(path.name for path in (ROOT / "examples").glob("*.json")),
]


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
    document = ready(client, name)
    status, said = client.validate(document)
    result = client.run(document)

    assert (status != 0) == result.is_refused, f"validate: {status}, {said}; run: {result}"
    client.shell("rm -rf *")
    submitted = farm.submit(ready(client, name))
    if "unknown key" in said and result.status == 2:  # what is wrong with the file itself: nobody takes it
        assert submitted.wait(30) != 0
        return
    assert submitted.wait(30) == 0, farm.log(submitted)
    farm.start_worker()
    there = farm.verdict(farm.output(submitted).strip())
    ends = [(each.completed, each.record.get("error", {}).get("step")) for each in (result, there)]
    assert ends[0] == ends[1], there.message


# --- texts ---

ENTITIES = {
    "Q&notes.srt": "Q&notes.srt",
    "a&copy=b.srt": "a&copy=b.srt",
    "Tom &amp; Jerry.srt": "Tom & Jerry.srt",
    "&lt;x&gt;": "<x>",
    "&quot;&#39;&#x27;&#34;": "\"''\"",
    "&amp;lt;": "&lt;",
    "&nbsp;&eacute;&apos;&#65;&hellip;": "&nbsp;&eacute;&apos;&#65;&hellip;",
    "a&lt b&amp": "a&lt b&amp",
}


@pytest.fixture
def reference() -> Any:
    """A server that is not ours."""
    server = ReferenceServer()
    yield server
    server.close()


def test_entities(client: Client, farm: Farm, reference: ReferenceServer) -> None:
    """Of another server's texts the seven entities with semicolon are unescaped, once; of our own's none."""
    client.put("s.srt")
    copies = cleanup(copy=[("s.srt", f"{client.work}/done/{name}") for name in ENTITIES])
    for url in (reference.url, farm.url):
        farm.url, own = url, farm.url
        worker = farm.start_worker()
        job_id = reference.post(job(copies)) if url == reference.url else None
        farm.url = own
        if job_id:
            assert not reference.await_verdict(job_id).failed
            assert sorted(os.listdir(client.work / "done")) == sorted(ENTITIES.values())
            client.shell("rm -r done")
        else:
            assert farm.verdict(farm.post(job(copies))).completed
            assert sorted(os.listdir(client.work / "done")) == sorted(ENTITIES)
        worker.terminate()
        worker.wait()


def test_names_that_are_there(client: Client, farm: Farm, reference: ReferenceServer) -> None:
    """A name that exists as it is written, and not unescaped, is meant as it is written."""
    client.put("s.srt")
    client.shell("cp s.srt 'Tom &amp; Jerry.srt'")
    farm.url = reference.url
    farm.start_worker()

    verdict = reference.await_verdict(reference.post(job(cleanup(move=[("Tom &amp; Jerry.srt", "moved")]))))
    assert not verdict.failed
    assert (client.work / "moved").exists()


def test_undecodable_name(client: Client, farm: Farm) -> None:
    """A name that is no UTF-8 can be worked on, and the server hears of it, escaped."""
    name = os.fsdecode(b"caf\xe9.mkv")
    client.put("clip.mkv")
    client.shell("cp clip.mkv $(printf 'caf\\351.mkv')")
    farm.start_worker()

    result = farm.verdict(farm.post(job(ffmpeg(name, target=f"out-{name}"), cleanup(move=[(name, "done/")]))))
    assert result.completed, str(result)
    assert os.listdir(os.fsencode(client.work / "done")) == [b"caf\xe9.mkv"]


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
    farm.url = reference.url
    farm.start_worker()

    reference.await_verdict(reference.post(job(ffmpeg(video=ENCODE | {"vf": "setpts=4*PTS,realtime=speed=4"}))))
    beats = [beat for beat in reference.beats() if beat.get("info", {}).get("phase") == "encoding"]
    assert beats
    assert not [beat["progress"] for beat in beats if beat.get("progress")]


# --- two jobs at once ---

LONG = "L" * 243
X264, X265 = SLOW | {"b": "90k"}, SLOW | {"b": "90k", "codec": "libx265"}


def passes(target: str, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A job of two passes."""
    return job(
        ffmpeg(target="/dev/null", overwrite=True, video=first | {"f": "null"}), ffmpeg(target=target, video=second)
    )


AT_ONCE: dict[str, list[dict[str, Any]]] = {
    "two passes": [passes(f"{n}.mkv", X264 | {"pass": 1}, X264 | {"pass": 2}) for n in "ab"],
    "two passes by x265's own options": [
        passes(f"{n}.mkv", *(X265 | {"x265-params": {"pass": number}} for number in (1, 2))) for n in "ab"
    ],
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
    process = farm.submit(job(ffmpeg(video=ENCODE | {"vf": "realtime=speed=0.1"})), "--wait")
    until(farm.working, "the job to run")
    farm.call("DELETE", f"/jobs/{farm.output(process).strip()}")

    assert process.wait(30) == 1


def test_wait_where_nobody_tells(client: Client, farm: Farm, reference: ReferenceServer) -> None:
    """A server that does not tell how a job ended: status 3."""
    farm.url = reference.url
    farm.start_worker()

    assert farm.submit(job(cleanup(delete=["x"])), "--wait").wait(30) == 3


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
    until(lambda: "no worker" in farm.log(process).lower(), "a word about workers")
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
    until(lambda: "disabled" in farm.log(process).lower(), "a word about it")
    assert process.poll() is None
    farm.call("PATCH", path, {"disabled": False})

    assert process.wait(30) == 0
