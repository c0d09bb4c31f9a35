"""Orders for jobs and workers: each does what it says on the server, and says what it did."""

import getpass
import json
import os
import socket
import subprocess

import pytest

from tests.supervisor.commands.farm.conftest import BAD, GOOD, Operator
from tests.support.supervised import CLIENT

NAMELESS = (
    []
    if os.geteuid()
    else ["env", "-u", "LOGNAME", "-u", "USER", "-u", "LNAME", "-u", "USERNAME", "setpriv", "--reuid=54321"]
)


def test_retry(operator: Operator) -> None:
    """A copy of each job that is named goes to the queue; --failed takes each failed job once."""
    good, bad = operator.post(GOOD), operator.post(BAD)
    operator.until_state(good, "completed")
    operator.until_state(bad, "failed")

    one = operator("retry", good[:13])
    failed = operator("retry", "--failed", "--since", "1h", "--json")
    copy = json.loads(failed.stdout)[-1]
    operator.until_state(copy["copy"], "failed")
    again = operator("retry", "--failed", "--json")

    assert operator.api("GET", f"/jobs/{one.stdout.strip()}/record").json()["retry_of"] == good
    assert (failed.returncode, copy["job_id"]) == (0, bad)
    assert [each["job_id"] for each in json.loads(again.stdout)] == [copy["copy"]]
    assert operator("retry", "--failed", "--since", "1s", "--module", "none").returncode == 1
    assert operator("retry").returncode == operator("retry", good, "--failed").returncode == 2


def test_cancel(operator: Operator, held_job: str) -> None:
    """A job that waits ends at once, one that runs when its worker hears of it; one that has ended is status 1.

    The operator may be a user without a name, as in a container.
    """
    waiting = operator.post(GOOD | {"requires": ["gpu"]})

    done = subprocess.run(
        [*NAMELESS, CLIENT, "cancel", waiting[:13], held_job], env=operator.environ, capture_output=True, text=True
    )
    operator.until_state(held_job, "cancelled")

    assert done.stdout == f"{waiting}: cancelled\n{held_job}: its worker is told to stop\n", done.stderr
    by = operator.api("GET", f"/jobs/{waiting}/record").json()["cancelled_by"]
    assert by == f"{54321 if NAMELESS else getpass.getuser()}@{socket.gethostname()}"
    assert operator.state(waiting) == "cancelled"
    again = operator("cancel", waiting)
    assert (again.returncode, again.stderr) == (1, f"{waiting}: No job with this id is queued or running.\n")


def test_move(operator: Operator) -> None:
    """Jobs go to the head, in the order in which they are named, or get a priority."""
    first, second, third = (operator.post(GOOD | {"requires": ["gpu"]}) for _ in range(3))

    moved = operator("move", third, second)
    after_moving = operator.api.queued()
    operator("move", first, "--priority", "9")

    assert moved.returncode == 0
    assert after_moving == [third, second, first]
    assert operator.api.queued() == [first, third, second]
    for job_id in (first, second, third):
        operator.api("POST", f"/jobs/{job_id}/cancel")


@pytest.mark.parametrize(
    ("orders", "queue", "expected"),
    [
        (["disable encoder01", "enable enc", "pause 8b5c", "resume encoder01"], False, ["disabled", "", "paused", ""]),
        (["disable --queue", "enable --queue", "pause --queue", "resume --queue"], True, ["disabled", ""] * 2),
    ],
)
def test_workers(operator: Operator, orders: list[str], queue: bool, expected: list[str]) -> None:
    """A worker is named by its host, its id or a beginning; it, or the queue, is disabled, enabled, paused, resumed."""
    shown = []
    for order in orders:
        assert operator(*order.split()).returncode == 0
        worker = operator.api("GET", "/workers").json()["workers"][0]["attributes"]
        both = [worker, operator.api("GET", "/queue").json()["attributes"]]
        shown.append([" ".join(name for name in ("disabled", "paused") if each.get(name)) for each in both])

    assert [each[queue] for each in shown] == expected
    assert [each[not queue] for each in shown] == [""] * 4


def test_data(operator: Operator) -> None:
    """Sets of options are kept, listed, printed as they were and deleted; what is no object is refused."""
    words = ("data", "put", "ffmpeg", "best of/all")

    refused = operator(*words, input="[1]")
    put = operator(*words, input='{"crf": 18}')
    listed, got = operator("data", "list"), operator("data", "get", "ffmpeg", "best of/all")
    deleted, gone = operator("data", "delete", "ffmpeg", "best of/all"), operator("data", "list")

    assert (refused.returncode, refused.stderr) == (2, "<stdin>: expected a JSON object\n")
    assert (put.returncode, put.stderr) == (0, "")
    assert listed.stdout == "ffmpeg  best of/all\n"
    assert json.loads(got.stdout) == {"crf": 18}
    assert (deleted.returncode, gone.returncode, gone.stdout) == (0, 1, "")
