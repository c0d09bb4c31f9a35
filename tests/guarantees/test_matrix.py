"""The matrix of attacks: three good jobs run beside every hostile one, under the same supervisor and zygote."""

from pathlib import Path

import pytest

from tests.guarantees.test_containment import FAILURES, HARMLESS
from tests.supervisor.isolation.test_channel import HOSTILE
from tests.support.client import BEAT, Client, gaps, hold_jobs, own_beats
from tests.support.farm import Farm
from tests.support.lacking import launcher
from tests.support.supervised import Supervised, job

HOGS = {
    "leak": "memory",
    "leak_in_a_tool": "memory",
    "bomb": "processes",
    "crowd": "processes",
    "threads": "timeout",
    "spin": "timeout",
    "tool": "timeout",
    "resign_and_hide": "timeout",
    "half_frame": "timeout",  # which is shorter here than the patience with a frame
}
ENDS = {act: reason for act, (reason, _) in FAILURES.items()} | dict.fromkeys(HOSTILE, "protocol") | HOGS
ENDS |= dict.fromkeys(HARMLESS, "")
"""How a hostile job ends: the reason on its record; empty if it completes."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("lacking", [[], ["capabilities"]], ids=["as it is", "without capabilities"])
def test_good_jobs_go_on_beside_all_of_it(
    farm: Farm, client: Client, supervised: Supervised, tmp_path: Path, lacking: list[str]
) -> None:
    """Each hostile job ends as it must, the good ones complete, and the heartbeat does not falter."""
    limits = {"run_timeout": "2s", "memory": "400MB", "processes": 20}
    supervised.configure({"hostile": limits}, modules={"reporter": "tests.support.modules.Reporter"})
    client.launcher = launcher(*lacking)
    good, ids = hold_jobs(farm, client, tmp_path)

    data = {"step": "run", "count": 40, "argv": ["bomb"]}
    ended = {act: farm.await_verdict(farm.post(job(("hostile", data | {"act": act})))).info for act in ENDS}
    for each in good:
        each.let_go()
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    assert {act: info.get("error", {}).get("reason", "") for act, info in ended.items()} == ENDS
    assert not any(each.failed for each in verdicts)
    assert max(gaps(own_beats(farm))) < 2 * BEAT
    assert client.stop() == 0
