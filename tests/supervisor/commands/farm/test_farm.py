"""The commands on jobs in unusual states."""

import json
import signal
import subprocess
from pathlib import Path

from tests.supervisor.commands.farm.conftest import GOOD, Operator
from tests.supervisor.commands.terminal import on_terminal
from tests.support.api_server import serving
from tests.support.supervised import CLIENT


def test_farm_a_former_id_will_do(operator: Operator) -> None:
    """A job that a worker has handed back is found by the beginning of the id that `submit` has printed."""
    job_id = operator.post(GOOD | {"requires": ["gpu"]})
    job = operator.api("GET", "/queue/poll?tags=gpu").json()
    tasks = [job["tasks"][0] | {"handed_back": job_id}, *job["tasks"][1:]]
    new_id = operator.post(GOOD | {"tasks": tasks})
    done = [operator(command, job_id[:12]) for command in ("show", "move", "cancel", "retry")]
    copy = done[-1].stdout.strip()
    operator.api("POST", f"/jobs/{copy}/cancel")

    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done]
    assert done[0].stdout.startswith(f"{new_id}  queued\n")
    assert operator.api("GET", f"/jobs/{copy}/record").json()["retry_of"] == new_id


def test_farm_an_empty_name_names_nothing(tmp_path: Path) -> None:
    """A script's variable that is not set is no order for the only job or worker that there is."""
    with serving(tmp_path / "server.sqlite3") as api:
        operator, job_id = Operator(tmp_path, api), api.submit()
        api.beat("w")
        done = [operator(command, "") for command in ("show", "move", "cancel", "pause", "disable")]
        (worker,) = api("GET", "/workers").json()["workers"]
        queued = api.queued()

    assert [each.returncode for each in done] == [1] * 5
    assert done[2].stderr == "There is no job whose id or name begins with ''.\n"
    assert (queued, worker["attributes"]) == ([job_id], {"disabled": False})


def test_farm_a_list_that_is_followed_is_json(operator: Operator) -> None:
    """Its beginning, too: what waits already is a JSON list, as what comes later is."""
    job_id = operator.post(GOOD | {"requires": ["gpu"]})
    following = operator.start("jobs", "--state", "queued", "-f", "--json", stdout=subprocess.PIPE, text=True)
    assert following.stdout
    lines = [next(following.stdout)]
    while lines[-1] != "]\n":
        lines.append(next(following.stdout))
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=60)
    operator.api("POST", f"/jobs/{job_id}/cancel")

    assert job_id in [job["job_id"] for job in json.loads("".join(lines))]
    assert following.returncode == 130


def test_farm_top_tells_that_nothing_can_be_written(operator: Operator) -> None:
    """A full disk is told, as by other commands, and is not status 0."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([CLIENT, "top"], env=operator.environ, stdout=full, stderr=subprocess.PIPE, timeout=90)

    assert done.returncode == 2
    assert b"No space left on device" in done.stderr


def test_farm_top_shows_what_runs_however_many_reasons_to_wait_there_are(operator: Operator, held_job: str) -> None:
    """On a terminal of few lines, many reasons are summed up."""
    for number in range(40):
        operator.post(GOOD | {"requires": [f"tag {number}"]})

    def interrupt(process: "subprocess.Popen[bytes]", shown: str) -> bool:
        process.send_signal(signal.SIGINT) if "43 %" in shown or shown.count("queue 40") > 3 else None
        return "43 %" in shown or shown.count("queue 40") > 3

    _, shown = on_terminal(operator.environ, "top", "--interval", "0.2", act=interrupt, raw=True)
    for job_id in operator.api.queued():
        operator.api("POST", f"/jobs/{job_id}/cancel")

    assert "43 %" in shown
    assert " wait for other reasons" in shown
