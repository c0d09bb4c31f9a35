"""No survivors, at scale: what will not die quietly, again and again."""

import pytest

from supervisor.isolation.zygote import Zygote
from tests.support.processes import none_below
from tests.support.supervised import Supervised, job
from tests.support.waiting import until

RUNS = 200

PROGRAMS = [["hydra", "3"], ["crowd", "12"], ["hydra", "1"], ["crowd", "5"]]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cgroups", [False, True], ids=["alone", "cgroup"])
def test_nothing_survives_two_hundred_times(supervised: Supervised, cgroups: bool) -> None:
    """Processes that fork while they are killed, change session, fork twice, scrub their environment, ignore TERM and
    stop themselves: after each of two hundred runs nothing of them is alive."""
    supervised.with_cgroups = cgroups
    supervised.configure({"processes": 100})
    jobs = [
        job(("hostile", {"step": "run", "act": "bomb", "argv": PROGRAMS[run % len(PROGRAMS)], "seconds": 0.1}))
        for run in range(RUNS // 2)
    ]
    ended: list[int] = []

    def check(zygote: Zygote) -> None:
        none_below(zygote)
        ended.append(zygote.pid)

    verdicts = supervised.verdicts(*jobs, between=check)

    assert [verdict.failure for verdict in verdicts] == [None] * len(jobs)
    assert len(set(ended)) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_bombs_again_and_again(supervised: Supervised) -> None:
    """Fork bombs over the limit of processes, one after the other: each is ended, under the same zygote."""
    supervised.configure({"processes": 30})
    zygotes: list[int] = []

    def check(zygote: Zygote) -> None:
        until(lambda: zygote.pid, "a zygote")
        none_below(zygote)
        zygotes.append(zygote.pid)

    verdicts = supervised.verdicts(
        *[job(("hostile", {"step": "run", "act": "bomb", "argv": ["bomb"]}))] * 5, between=check
    )

    assert [verdict.failure and verdict.failure.cause.reason for verdict in verdicts] == ["processes"] * 5
    assert len(set(zygotes)) == 1
