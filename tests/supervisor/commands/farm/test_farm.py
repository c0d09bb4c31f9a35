"""The commands on jobs in unusual states."""

from tests.supervisor.commands.farm.conftest import GOOD, Operator


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
