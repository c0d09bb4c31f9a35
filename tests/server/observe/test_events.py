"""`GET /events`: what changes is told, by every server of a database, to every reader."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from server.config import ServerSettings
from server.main import in_background
from server.observe import events
from tests.server.postgresql import postgresql
from tests.support.api_server import BEAT, OUTCOME, Api, connected, serving
from tests.support.waiting import until

Event = tuple[str, dict[str, Any]]


class Reader:
    """A stream of events."""

    def __init__(self, api: Api, last_id: str = "") -> None:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        self._answer = api("GET", "/events", stream=True, headers=headers)
        assert self._answer.headers["Content-Type"].startswith("text/event-stream")
        self._lines = self._answer.iter_lines(decode_unicode=True)
        self.last_id = ""

    def next(self) -> Event:
        """Wait for the next event."""
        event = ""
        for line in self._lines:
            key, _, value = line.partition(": ")
            if key == "id":
                self.last_id = value
            elif key == "event":
                event = value
            elif key == "data":
                return event, json.loads(value)
        raise AssertionError("the stream has ended")

    def until(self, wanted: Callable[[str, dict[str, Any]], bool]) -> list[Event]:
        """Wait for an event; returns all until then."""
        got = [self.next()]
        while not wanted(*got[-1]):
            got.append(self.next())
        return got

    def until_all(self, *wanted: Callable[[str, dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Wait for some events, in any order; returns what they tell."""
        got: list[Event] = []
        while not all(any(each(*event) for event in got) for each in wanted):
            got.append(self.next())
        return [next(event[1] for event in got if each(*event)) for each in wanted]

    def close(self) -> None:
        """End it."""
        self._answer.close()


@contextlib.contextmanager
def reading(api: Api, last_id: str = "") -> Iterator[Reader]:
    """A reader with a connection of its own."""
    with connected(api.url) as own, contextlib.closing(Reader(own, last_id)) as reader:
        yield reader


def is_job(job_id: str, state: str) -> Callable[[str, dict[str, Any]], bool]:
    """Recognise the event of a job's state."""
    return lambda event, data: event == "job" and data["job_id"] == job_id and data["state"] == state


def is_worker(status: str) -> Callable[[str, dict[str, Any]], bool]:
    """Recognise the event of a worker's status."""
    return lambda event, data: event == "worker" and data["status"] == status


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for changes more often than in earnest."""
    monkeypatch.setattr(events, "INTERVAL", 0.05)


def test_the_way_of_a_job_is_told(api: Api) -> None:
    """Every state of a job, its priority and its deletion are events; so is the queue's length."""
    with reading(api) as reader:
        first = reader.next()
        job_id = api.submit("a title")
        # PostgreSQL may show the new length an instant before the job.
        queued, length = reader.until_all(
            is_job(job_id, "queued"), lambda event, data: event == "queue" and data["entries"] == 1
        )
        api("PATCH", f"/jobs/{job_id}", {"priority": 7})
        moved = reader.until(is_job(job_id, "queued"))
        api.poll()
        reader.until(is_job(job_id, "running"))
        api("PATCH", f"/jobs/{job_id}/completed", OUTCOME)
        done = reader.until(is_job(job_id, "completed"))
        other = api.submit()
        reader.until(is_job(other, "queued"))
        api("DELETE", f"/jobs/{other}")
        deleted = reader.until(is_job(other, "deleted"))
        api("PATCH", "/queue", {"disabled": True})
        reader.until(lambda event, data: event == "queue" and data["disabled"])
        api("DELETE", "/queue")
        reader.until(lambda event, data: event == "reset")
    listed = api("GET", "/jobs?limit=1").json()["jobs"]

    assert first == ("reset", {})
    assert queued["job_title"] == "a title"
    assert length == {"entries": 1, "running": 0, "disabled": False}
    assert moved[-1][1]["priority"] == 7
    assert listed == [done[-1][1]]
    assert deleted[-1][1] == {"job_id": other, "state": "deleted"}


def test_the_ways_of_workers_are_told(api: Api) -> None:
    """A heartbeat that says something new, a pause and a leave are events; a heartbeat that repeats another is none."""
    with reading(api) as reader:
        reader.next()
        api("POST", "/workers/w", BEAT | {"progress": 10})
        reader.until(is_worker("idle"))
        api("POST", "/workers/w", BEAT | {"progress": 10})
        api("PATCH", "/workers/w", {"paused": True})
        paused = reader.until(is_worker("idle"))[-1]
        listed = api("GET", "/workers").json()["workers"]
        api("PATCH", "/workers/w", {"paused": False})
        api("DELETE", "/workers/w")
        gone = reader.until(is_worker("gone"))

    assert paused == ("worker", listed[0])
    assert listed[0]["attributes"] == {"disabled": False, "paused": True}
    assert gone[-1] == ("worker", {"worker_id": "w", "status": "gone"})


def test_servers_tell_each_others_changes() -> None:
    """A reader at one server hears of the jobs and workers of another one of the same database."""
    database = postgresql().make_database()
    with serving(database) as first, serving(database) as second, reading(first) as reader:
        job_id = second.submit()
        second.beat("w")
        told = reader.until(is_job(job_id, "queued"))
        if not any(is_worker("idle")(*event) for event in told):
            reader.until(is_worker("idle"))
        second("DELETE", f"/jobs/{job_id}")
        reader.until(is_job(job_id, "deleted"))


def test_a_reader_goes_on_where_it_was(database: Path | str) -> None:
    """With the id of its last event, a reader gets all events after it; with one of another server, `reset`."""
    with serving(database) as api:  # of its own: a shared one is cleared, which is a `reset` some time later
        with reading(api) as reader:
            reader.next()
            first = api.submit()
            reader.until(is_job(first, "queued"))
            last_id = reader.last_id
            second = api.submit()
            reader.until(is_job(second, "queued"))
        with reading(api, last_id) as reader:
            missed = reader.until(is_job(second, "queued"))
        with reading(api, "0123abcd-1") as reader:
            other = reader.next()

    assert "reset" not in {event for event, _ in missed}
    assert first not in {data.get("job_id") for _, data in missed}
    assert other == ("reset", {})


@pytest.mark.parametrize("last_id", ["x", "-", "é-1".encode().decode("latin-1"), "0123abcd-99999999999999999999999999"])
def test_an_id_that_is_none_begins_anew(api: Api, last_id: str) -> None:
    """Nonsense for an id is as good as no id."""
    with reading(api, last_id) as reader:
        assert reader.next() == ("reset", {})


def test_a_reader_that_does_not_read_costs_nothing(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others get their events meanwhile; the slow one gets `reset` in the place of what it missed."""
    monkeypatch.setattr(events, "MAX_BUFFER", 100_000)
    host, port = api.url.removeprefix("http://").split(":")
    with socket.socket() as slow, reading(api) as reader:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        begun = bytearray()
        until(lambda: begun.extend(slow.recv(4096)) or b"event: reset" in begun, "the first event")
        for number in range(120):
            api("POST", "/workers/w", BEAT | {"task": f"{number}", "info": {"x": "x" * 50_000}})
            reader.until(lambda event, data, number=number: data.get("task") == f"{number}")
        rest = bytearray()
        until(lambda: rest.extend(slow.recv(1 << 16)) or b"event: reset" in rest, "the end of what was sent")

    assert len(rest) < 120 * 60_000


def test_streams_end_with_the_server(tmp_path: Path) -> None:
    """A server that stops does not wait for its readers."""
    with in_background(ServerSettings(tmp_path / "jobs.db", port=0)) as url, connected(url) as api:
        answer = api("GET", "/events", stream=True)
    with contextlib.suppress(requests.RequestException):
        rest = answer.content

    assert b"event: reset" in rest
