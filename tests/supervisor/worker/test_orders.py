"""Orders of an operator that reach the worker through the embedded server: cancel, pause, disable; and its hours."""

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from tests.support.api_server import serving
from tests.support.client import QUICK, WORKER, Client, Held, Served
from tests.support.clock import WallClock
from tests.support.waiting import pass_time, until


def stands_still(served: Served, job_id: str) -> bool:
    """A job that could end does not, for some heartbeats."""
    pass_time(3 * float(QUICK["HEARTBEAT_INTERVAL"]))
    return served.await_beat()["info"].get("paused") is True and served.record(job_id)["state"] == "running"


@pytest.mark.parametrize("state", ["running", "paused by an order", "paused by a signal"])
def test_a_job_is_cancelled(served: Served, tmp_path: Path, state: str) -> None:
    """It ends as `cancelled`, with who ordered that, also where it stands still; it is not queued again, and the worker
    takes the next job."""
    served.client.start()
    _, job_id = served.hold(tmp_path)
    if "order" in state:
        served.order(paused=True)
    if "signal" in state:
        served.client.process.send_signal(signal.SIGUSR2)
    served.await_beat(**{"paused": True} if "paused" in state else {})
    served.api("POST", f"/jobs/{job_id}/cancel?by=anna")
    record = served.await_state(job_id, "cancelled")

    assert record["cancelled_by"] == "anna"
    assert record["info"]["error"]["reason"] == "cancelled"
    assert "cancelled" in record["message"]
    assert served.api.queued() == []
    if state == "running":
        assert served.await_state(served.submit(), "completed")["worker_id"] == WORKER


def test_a_cancelled_job_does_not_wait_for_a_worker_in_trouble(served: Served, tmp_path: Path) -> None:
    """A job that waits until its worker is well again ends when it is cancelled."""
    served.client.start()
    held, job_id = served.hold(tmp_path)
    zygote = psutil.Process(served.client.process.pid).children()[0]
    served.client.process.send_signal(signal.SIGSTOP)
    zygote.kill()
    served.api("POST", f"/jobs/{job_id}/cancel")
    served.client.process.send_signal(signal.SIGCONT)

    assert served.await_state(job_id, "cancelled")["state"] == "cancelled"
    held.let_go()


def hold_paused(served: Served, directory: Path) -> tuple[Held, str]:
    """A job that could end, if the worker were not paused by an order; and its id."""
    served.client.start()
    held, job_id = served.hold(directory)
    served.order(paused=True)
    served.await_beat(paused=True)
    return held, job_id


@pytest.mark.parametrize("last", ["signal", "order"])
def test_either_pauses(served: Served, tmp_path: Path, last: str) -> None:
    """A job that signal and order have paused stands still until both are taken back, whichever is first."""
    held, job_id = hold_paused(served, tmp_path)
    served.client.process.send_signal(signal.SIGUSR2)
    until(lambda: any("SIGUSR2 again resumes" in line for line in served.client.log), "the signal")
    held.let_go()

    def take_back(what: str) -> None:
        if what == "order":
            served.order(paused=False)
        else:
            served.client.process.send_signal(signal.SIGUSR2)
        words = {"order": "not paused any more", "signal": "Resumed after a pause"}[what]
        until(lambda: any(words in line for line in served.client.log), words)

    take_back("order" if last == "signal" else "signal")
    still = stands_still(served, job_id)
    take_back(last)

    assert still
    assert served.await_state(job_id, "completed")


def test_a_worker_that_is_told_to_stop_goes_on(served: Served, tmp_path: Path) -> None:
    """The server's pause holds no worker up that drains: it could not end."""
    held, job_id = hold_paused(served, tmp_path)
    held.let_go()

    assert served.client.stop() == 0
    assert served.record(job_id)["state"] == "completed"


@pytest.mark.parametrize("order", ["disabled", "paused"])
def test_a_worker_that_takes_no_jobs(served: Served, order: str) -> None:
    """It takes none while the order holds, and takes one as soon as it is taken back."""
    served.client.start()
    served.await_beat()
    served.order(**{order: True})
    until(lambda: any("by the server" in line or "is disabled" in line for line in served.client.log), "the order")
    job_id = served.submit()
    before = served.await_beat()["status"], served.record(job_id)["state"]
    served.order(**{order: False})

    assert before == ("idle", "queued")
    assert served.await_state(job_id, "completed")


def test_what_a_worker_has_to_bear(served: Served, tmp_path: Path) -> None:
    """Its heartbeats tell the memory that its task uses, and the machine's load."""
    served.client.start()
    served.hold(tmp_path)
    info = until(lambda: "memory" in (info := served.await_beat()["info"]) and info, "its task to be measured")

    assert info["memory"] > 1 << 20
    assert info["load"] >= 0


def test_a_disabled_worker_finishes_its_job(served: Served, tmp_path: Path) -> None:
    """Only the next job waits."""
    served.client.start()
    held, job_id = served.hold(tmp_path)
    served.order(disabled=True)
    until(lambda: any("is disabled" in line for line in served.client.log), "the order")
    held.let_go()
    served.await_state(job_id, "completed")
    waiting = served.submit()
    served.await_beat()

    assert served.record(waiting)["state"] == "queued"


def test_a_disabled_queue_is_told_as_such(served: Served) -> None:
    """An operator who reads the log does not look for a worker that somebody has disabled."""
    served.client.start()
    served.await_beat()
    assert served.api.status("PATCH", "/queue", {"disabled": True}) == 200
    (told,) = until(lambda: [line for line in served.client.log if "is disabled" in line], "the order")

    assert f"Worker {WORKER} or the queue is disabled on the server" in told


def test_one_slot_of_two_is_disabled(served: Served) -> None:
    """The other one takes the jobs, though the first had the turn to wait for them."""
    served.client.start(WORKER_SLOTS="2")
    until(lambda: served.api("GET", "/workers").json()["count"] == 2, "two workers")
    served.order(disabled=True)
    until(lambda: any("is disabled" in line for line in served.client.log), "the order")
    workers = {served.await_state(served.submit(), "completed")["worker_id"] for _ in range(3)}

    assert len(workers) == 1
    assert WORKER not in workers


# --- WORK_HOURS ---

HOUR = 3600


def at(hours: int) -> str:
    """A time of the wall clock so many hours from now."""
    return f"{datetime.now(UTC) + timedelta(hours=hours):%H:%M}"


def test_jobs_wait_for_the_hours(served: Served, tmp_path: Path) -> None:
    """Jobs wait, with the reason for all to see, until the hours begin; when they end, so does the poll that waits."""
    clock, hours = WallClock(tmp_path / "clock"), f"{at(2)}-{at(4)}"
    served.client.start(**clock.environment, WORK_HOURS=hours)
    beat = served.await_beat(hours=f"outside of WORK_HOURS ({hours})")
    waiting = served.submit()
    waits = served.api("GET", "/status/farm").json()["waits"]
    pass_time(1.0)
    queued = served.api.queued()
    clock.step(3 * HOUR)
    served.await_state(waiting, "completed")
    until(served.idle_workers, "the worker to be idle")
    clock.step(5 * HOUR)
    served.await_beat(hours=beat["info"]["hours"])
    late = served.submit()
    pass_time(1.0)

    assert beat["status"] == "idle"
    assert "paused" not in beat["info"]
    assert "outside of WORK_HOURS" in waits[0]["why"]
    assert queued == [waiting]
    assert served.api.queued() == [late]
    assert served.client.stop() == 0


def test_jobs_stand_still_outside_the_hours(client: Client, tmp_path: Path) -> None:
    """With WORK_HOURS_PAUSE, a job in hand stands still outside of the hours, but not when the client is to stop."""
    with serving(tmp_path / "patient.db", vanished_after=60) as api:
        served = Served(client, api)
        client.start(WORK_HOURS=f"{at(-2)}-{at(2)}", WORK_HOURS_PAUSE="1")
        held, job_id = served.hold(tmp_path)
        client.kill()
        client.start(WORK_HOURS=f"{at(2)}-{at(4)}", WORK_HOURS_PAUSE="1")
        beat = served.await_beat(paused=True)
        held.let_go()
        pass_time(1.0)
        state = served.record(job_id)["state"]
        status = client.stop()

        assert (beat["job_id"], state, status) == (job_id, "running", 0)
        assert served.record(job_id)["state"] == "completed"
