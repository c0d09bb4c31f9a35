"""The commands on jobs in unusual states."""

import json
import signal
import subprocess
from pathlib import Path

from tests.supervisor.commands.farm.conftest import GOOD, Operator
from tests.support.api_server import serving


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
