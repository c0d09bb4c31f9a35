"""Word of events, to a receiver on loopback: signed, sent once, sent again until it is taken, bundled."""

import contextlib
import hmac
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import make_database
from tests.support.api_server import OUTCOME, Api, Process, connected, serving
from tests.support.receiver import Receiver
from tests.support.waiting import pass_time, until

PEPPER = "pepper-4711"


class Hook(Receiver):
    """Takes word of events."""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for message in list(self.taken) for event in message.json["events"]]

    def await_events(self, count: int) -> list[dict[str, Any]]:
        return until(lambda: len(self.events) >= count and self.events, f"{count} events", 60)  # type: ignore[no-any-return]


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with contextlib.closing(Hook()) as receiver:
        yield receiver


@pytest.fixture
def table(receiver: Hook, tmp_path: Path) -> dict[str, Any]:
    """`[tool.server.notify]` with the receiver as its only target."""
    (tmp_path / "secret").write_text(f"{PEPPER}\n")
    target = {"webhook": f"http://anna:{PEPPER}@{receiver.address}/{PEPPER}", "secret": f"file:{tmp_path}/secret"}
    return {"every": "1s", "stuck_after": "1s", "targets": {"ops": target}}


def end_job(api: Api, title: str, failed: bool = True) -> str:
    """Submit a job and end it; returns its id."""
    job_id = api.submit(title)
    outcome = OUTCOME | {"failed": failed, "info": {"worker": "encoder01", "message": "it has no end"}}
    assert api.status("PATCH", f"/jobs/{job_id}/completed", outcome) == 204
    return job_id


def test_a_webhook_is_signed(database: Path | str, receiver: Hook, table: dict[str, Any]) -> None:
    """A failed job is one message, whose signature holds for its time and body; others are told only if wanted."""
    with serving(database, notify=table) as api:
        end_job(api, "good", failed=False)
        cancelled = api.submit("cancelled")
        api("POST", f"/jobs/{cancelled}/cancel")
        job_id = end_job(api, "bad")
        (event,) = receiver.await_events(1)
    message = receiver.taken[0]
    seconds, signature = (part.partition("=")[2] for part in message.headers["X-Sisyphus-Signature"].split(","))
    expected = hmac.digest(PEPPER.encode(), seconds.encode() + b"." + message.body, "sha256").hex()

    assert hmac.compare_digest(signature, expected)
    assert abs(time.time() - int(seconds)) < 60
    assert (message.json["count"], message.json["counts"]) == (1, {"failed": 1})
    assert event.items() >= {"id": f"failed {job_id}", "event": "failed", "job_id": job_id}.items()
    assert event.items() >= {"job_title": "bad", "hostname": "encoder01", "message": "it has no end"}.items()


@pytest.mark.slow
@pytest.mark.parametrize("status", [503, 302], ids=["refuses", "leads elsewhere"])
def test_a_flood_is_bundled_and_sent_again(
    tmp_path: Path, database: Path | str, receiver: Hook, table: dict[str, Any], status: int
) -> None:
    """What a target does not take is sent again, also after a kill, as one message that counts; no secret is logged."""
    receiver.status = status
    with contextlib.closing(Process(tmp_path, database, notify=table)) as process:
        with connected(process.start()) as api:
            ids = [end_job(api, f"bad {number}") for number in range(120)]
            until(lambda: receiver.asked, "an attempt", 60)
            shown = api("GET", "/status/config").text + api("GET", "/metrics").text
        until(lambda: "next try in" in process.log, "the log")
        log = process.log
        process.kill()
        receiver.status = 200
        process.start()
        receiver.await_events(100)
        until(lambda: "is told of 120 events" in process.log, "the log")
        process.kill()
        process.start()
        pass_time(4.0)
    message = receiver.taken[0]

    assert len(receiver.taken) == 1, "sent once, also after another start"
    assert (message.json["count"], message.json["counts"]) == (120, {"failed": 120})
    assert [event["job_id"] for event in message.json["events"]] == ids[:100]
    assert log.count("'ops'") == 1
    assert f"{status}; next try in" in log
    assert PEPPER not in log + process.log + shown


def test_servers_of_one_database_send_once(tmp_path: Path, receiver: Hook, table: dict[str, Any]) -> None:
    """Of two servers one sends each event, whichever of them has written it."""
    database = make_database("postgresql", tmp_path)
    with serving(database, notify=table) as one, serving(database, notify=table) as other:
        ids = [end_job(api, "bad") for _ in range(10) for api in (one, other)]
        receiver.await_events(20)
        ids += [end_job(api, "bad") for api in (one, other)]
        receiver.await_events(22)
        pass_time(3.0)

    assert Counter(event["job_id"] for event in receiver.events) == Counter(ids)
    assert sum(message.json["count"] for message in receiver.taken) == 22


def test_lost_workers_and_a_stuck_queue(database: Path | str, receiver: Hook, table: dict[str, Any]) -> None:
    """A worker that vanishes, and jobs that nobody takes, are told once, also across a restart; a busy farm is not."""
    quick = {"vanished_after": 3.0, "notify": table}

    def keep_beating(worker: str, job_id: str = "", seconds: float = 3.0) -> None:
        end = time.monotonic() + seconds
        until(lambda: api.beat(worker, job_id) or time.monotonic() > end, "time to pass")

    with serving(database, **quick) as api:
        first, _ = api.submit("first"), api.submit("second")
        assert api.poll() == first
        keep_beating("lively", first)
        busy = receiver.events
        api.beat("idle")
        until(lambda: api.beat("spry") or len(receiver.events) >= 3, "word of three", 60)
    with serving(database, **quick) as api:
        keep_beating("spry", seconds=6.0)
    told = {event.get("worker_id") or event["event"]: event for event in receiver.events}

    assert busy == []
    events = Counter(event.get("worker_id") or event["event"] for event in receiver.events)
    assert events.items() >= {"lively": 1, "idle": 1, "queue stuck": 1}.items(), "a slow machine may lose the spry one"
    assert told["lively"].items() >= {"hostname": "encoder01", "job_id": first}.items()
    assert "job_id" not in told["idle"]
    assert told["queue stuck"]["job_title"] in ("first", "second")
    assert told["queue stuck"]["why"] == "waiting for a free worker"


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_apprise(tmp_path: Path, receiver: Hook, table: dict[str, Any]) -> None:
    """Apprise gets a title that counts, and a line for each of the first events."""
    table["targets"]["ops"] = {"apprise": f"json://{receiver.address}", "events": ["failed", "completed"]}
    receiver.status = 200
    with serving(tmp_path / "jobs.db", notify=table) as api:
        bad = end_job(api, "bad\nnews")
        for number in range(11):
            end_job(api, f"good {number}", failed=False)
        until(lambda: receiver.taken, "a message", 60)
    told = receiver.taken[0].json
    lines = told["message"].splitlines()

    assert told["title"] == "Sisyphus: 1 failed, 11 completed"
    assert lines[0] == f"failed: 'bad\\nnews' ({bad}) on encoder01: it has no end"
    assert len(lines) == 11
    assert lines[-1] == "… and 2 more"
