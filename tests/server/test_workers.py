"""Workers that vanish, and what becomes of their jobs."""

import contextlib
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.storage.store import MAX_TAKES
from server.workers import LISTED_FOR, AwakeClock, Workers
from tests.support.api_server import OUTCOME, SOON, Process, connected, serving
from tests.support.clock import HandClock
from tests.support.waiting import pass_time, until


def test_the_job_of_a_vanished_worker_goes_back_to_the_head(database: Path | str, logged: list[str]) -> None:
    """When the worker that named it is silent, a job is put back before all others, under its id, and logged once."""
    with serving(database, vanished_after=SOON) as api:
        first, second, third = (api.submit(name) for name in "abc")
        assert [api.poll(), api.poll()] == [first, second]
        api.beat("w", first)
        api.beat("v", second)
        until(lambda: len(api.queued()) == 3, "the jobs to be put back")
        queued = api.queued()
        told = [line for line in logged if "goes back" in line]
        again = [api.poll() for _ in range(4)]

    assert queued == again[:3]
    assert {*queued[:2]} == {first, second}  # the later one first, if a look came between both
    assert queued[2] == third
    assert again[3] is None
    assert sorted(told) == sorted(
        [
            f"Job {first} goes back to the head of the queue: worker 'w' has sent no heartbeat for {SOON} s",
            f"Job {second} goes back to the head of the queue: worker 'v' has sent no heartbeat for {SOON} s",
        ]
    )


def test_a_job_that_nobody_ever_named_goes_back(database: Path | str, logged: list[str]) -> None:
    """When its worker dies right after the poll, or the answer to that is lost, a job is put back too."""
    with serving(database, vanished_after=SOON) as api:
        job_id = api.submit()
        api.poll()
        until(api.queued, "the job to be put back")
        queued = api.queued()

    assert queued == [job_id]
    assert [line for line in logged if "goes back" in line] == [
        f"Job {job_id} goes back to the head of the queue: no worker has named it for {2 * SOON:g} s"
    ]


def test_a_job_that_its_workers_do_not_survive_fails(database: Path | str, logged: list[str]) -> None:
    """A job is not handed out for ever: when five workers have vanished with it, it fails, and its record says why."""
    with serving(database, vanished_after=SOON) as api:
        job_id = api.submit()
        for number in range(MAX_TAKES):
            until(api.queued, "the job to be in the queue")
            api.poll()
            api.beat(f"w{number}", job_id)
        until(lambda: any("fails" in line for line in logged), "the job to fail")
        verdict = api("GET", f"/jobs/{job_id}/completed").json()
        queued = api.queued()

    assert queued == []
    assert verdict["failed"] is True
    assert verdict["info"]["error"]["reason"] == "lost"
    assert "'w4'" in verdict["info"]["message"]


def test_a_job_stays_with_a_worker_that_names_it(database: Path | str, logged: list[str]) -> None:
    """The others go back: one that its worker, which lives and names another, has forgotten, and one that nobody named.

    To name a job that nobody has taken does not take it.
    """
    with serving(database, vanished_after=1.0) as api:
        kept, forgotten, left, waiting = (api.submit(name) for name in "abcd")
        for _ in range(3):
            api.poll()
        api.beat("v", forgotten)

        def put_back() -> bool:
            api.beat("w", kept)
            api.beat("v", waiting)
            return {forgotten, left} <= set(api.queued())

        until(put_back, "the others to be put back")
        queued = api.queued()
        status = api.status("GET", f"/jobs/{kept}")

    assert sorted(queued[:2]) == sorted([forgotten, left])
    assert queued[2:] == [waiting]
    assert status == 200
    assert any("goes back" in line and forgotten in line for line in logged)


def test_a_late_verdict_counts(database: Path | str) -> None:
    """A worker believed vanished may still complete its job, which then leaves the queue; a second verdict is late."""
    with serving(database, vanished_after=SOON) as api:
        job_id = api.submit()
        api.poll()
        api.beat("w", job_id)
        until(api.queued, "the job to be put back")
        late = api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME)
        later = api.status("PATCH", f"/jobs/{job_id}/completed", OUTCOME | {"failed": True})
        queued, polled = api.queued(), api.poll()
        verdict = api("GET", f"/jobs/{job_id}/completed").json()

    assert (late, later) == (204, 404)
    assert (queued, polled) == ([], None)
    assert verdict["failed"] is False


def test_a_worker_that_comes_back_keeps_its_job(database: Path | str, logged: list[str]) -> None:
    """When the worker of a job that was put back names it again, before anybody took it, it leaves the queue."""
    with serving(database, vanished_after=SOON) as api:
        job_id = api.submit()
        api.poll()
        until(api.queued, "the job to be put back")

        def taken_again() -> bool:
            api.beat("w", job_id)
            return not api.queued()

        until(taken_again, "the job to leave the queue")
        status = api.status("GET", f"/jobs/{job_id}")

    assert status == 200
    assert f"Job {job_id} is out of the queue again: its worker is back" in logged


@pytest.mark.slow
def test_time_in_which_the_server_is_down_does_not_count(tmp_path: Path, database: Path | str) -> None:
    """A job whose worker could not beat, because the server was killed or stopped meanwhile, stays with it."""
    slow = 1.0
    with contextlib.closing(Process(tmp_path, database, vanished_after=slow)) as process:
        with connected(process.start()) as api:
            kept, ruler = api.submit(), api.submit()
            api.poll()
            api.poll()
            api.beat("w", kept)
            process.send(signal.SIGSTOP)
            pass_time(3 * slow)
            process.send(signal.SIGCONT)
            api.beat("w", kept)
            after_stop = api.queued()
            process.send(signal.SIGKILL)
            process.wait()
        pass_time(3 * slow)
        with connected(process.start()) as api:

            def put_back() -> list[str]:
                api.beat("w", kept)
                return api.queued()

            until(put_back, "the job that nobody names to be put back")
            after_kill = api.queued()

    assert after_stop == []
    assert after_kill == [ruler]
    assert kept not in process.log


def test_a_gap_is_no_time() -> None:
    """The clock counts what passes in small steps, and leaves out what passes at once."""
    source = HandClock()
    clock = AwakeClock(2.0, source)
    source.time = 2.0
    counted = [clock()]
    source.time = 3600.0
    counted.append(clock())
    source.time = 3601.5
    counted.append(clock())

    assert counted == [2.0, 2.0, 3.5]


def test_when_a_job_counts_as_lost() -> None:
    """The limits to the second: 30 s of silence, or 60 s in which nobody names the job."""
    clock = HandClock()
    workers = Workers(30.0, 30.0, clock)
    jobs = ["silent", "unnamed", "forgotten"]
    lost: dict[str, float] = {}
    workers.beat("w", {"job_id": "silent"})
    workers.beat("v", {"job_id": "forgotten"})
    for second in range(70):
        clock.time = float(second)
        workers.beat("v", {})
        for job_id in workers.look(lambda: {job: None for job in jobs if job not in lost}).lost:
            lost[job_id] = clock.time

    assert lost == {"silent": 31.0, "unnamed": 61.0, "forgotten": 61.0}


def test_a_job_that_is_taken_again_gets_its_whole_time_again() -> None:
    """What was known about a job before it went back does not count against whoever takes it next."""
    clock = HandClock()
    workers = Workers(30.0, 30.0, clock)
    workers.beat("w", {"job_id": "a"})
    found = []
    for second in range(100):
        clock.time = float(second)
        if workers.look(lambda: {"a": None}).lost:
            found.append(second)

    assert found == [31, 93]


def test_a_job_that_another_server_has_given_away_counts_as_new() -> None:
    """Two servers find the same job lost. The second one judges whoever has it by then, not the worker before."""
    clock = HandClock()
    workers = Workers(30.0, 30.0, clock)
    workers.beat("w", {"job_id": "a"})
    taken = datetime(2026, 1, 1, tzinfo=UTC)
    workers.look(lambda: {"a": taken})
    clock.time = 31.0

    assert not workers.look(lambda: {"a": taken + timedelta(seconds=31)}).lost


def test_a_worker_that_is_silent_is_lost_and_forgotten_after_a_day() -> None:
    """A record is shown for 30 s after the last heartbeat, then for a day as lost, and then it takes no memory."""
    clock = HandClock()
    workers = Workers(30.0, 30.0, clock)
    workers.beat("w", {"status": "idle"})
    clock.time = 30.0
    within = workers.get("w"), workers.all(), [*workers.lost()]
    clock.time = 31.0
    after = workers.get("w"), workers.all(), workers.forget("w"), [*workers.lost()]
    workers.beat("w", {"status": "idle"})
    clock.time = 31.0 + LISTED_FOR
    workers.look(dict)
    until_then = [*workers.lost()]
    clock.time += 1
    workers.look(dict)

    assert within == ({"status": "idle"}, {"w": {"status": "idle"}}, [])
    assert after == (None, {}, False, ["w"])
    assert until_then == ["w"]
    assert workers._beats == {}


def test_a_worker_that_took_its_leave_is_not_lost() -> None:
    """Its record is gone at once, and for other servers, too."""
    clock = HandClock()
    workers = Workers(30.0, 30.0, clock)
    workers.beat("w", {"status": "idle"})
    forgotten = workers.forget("w"), workers.forget("w"), workers.get("w")
    clock.time = 40.0
    unsent = workers.take_unsent()

    assert forgotten == (True, False, None)
    assert [*workers.lost()] == []
    assert [beat.status for beat in unsent.values()] == [None]


def test_a_worker_that_vanished_long_ago_is_no_evidence() -> None:
    """A server that starts hears of a vanished worker's last heartbeat; another one has its job by then."""
    clock = HandClock()
    workers = Workers(30.0, 30.0, clock)
    clock.time = 100.0
    for number, name, age in (("1", "new", 2.0), ("2", "old", 40.0)):
        workers.merge(number, name, {"job_id": "a"}, None, age)

    assert not workers.look(lambda: {"a": None}).lost
