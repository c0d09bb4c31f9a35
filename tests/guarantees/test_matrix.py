"""The matrix of attacks and faults: three good jobs run beside each, under the same supervisor.

Who, what, what is expected: `HOSTILE_JOBS` (modules), `FAULTS` of faults.py (the client's surroundings), and `ATTACKS`
of tests/attacks.py, which `test_out_of_reach` runs. The containment is the same for all: the good jobs complete, and no
gap between the heartbeats of any slot reaches twice the interval.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guarantees.faults import FAULTS, Surroundings
from tests.guarantees.test_containment import FAILURES, HARMLESS
from tests.supervisor.isolation.test_channel import HOSTILE
from tests.support.client import SLOW_BEAT, Client, await_beats, await_verdicts, hold_jobs, longest_gap
from tests.support.disks import mounted
from tests.support.farm import Farm
from tests.support.lacking import launcher
from tests.support.supervised import BENIGN, Supervised, job

HOGS = {
    "leak": "memory",
    "leak_without_first_thread": "memory",
    "leak_in_a_tool": "memory",
    "bomb": "processes",
    "crowd": "processes",
    "threads": "timeout",
    "spin": "timeout",
    "tool": "timeout",
    "resign_and_hide": "timeout",
    "half_frame": "timeout",  # which is shorter here than the patience with a frame
    "take_all_descriptors": "exception",
    "zombies": "timeout",
    "kill_all_in_a_namespace": "",
    "deep_scratch": "",
}
ENDS = {act: reason for act, (reason, _) in FAILURES.items()} | dict.fromkeys(HOSTILE, "protocol") | HOGS
ENDS |= dict.fromkeys(HARMLESS, "")
"""How a hostile job ends: the reason on its record; empty if it completes."""

HOSTILE_JOBS: dict[str, tuple[dict[str, Any], str]] = {
    act: (job(("hostile", {"step": "run", "count": 40, "argv": ["bomb"], "act": act})), reason)
    for act, reason in ENDS.items()
} | {
    "module not enabled": (job(("late", {})), "unfit"),
    "tool missing": (job(("hostile", {"step": "run", "act": "run_tool", "argv": ["spam-and-eggs"]})), "unfit"),
}

OF_ROOT = ("full", "read-only", "no descriptors")
"""Faults whose names end so take root: to mount a small disk, to count the client's descriptors."""

with_and_without = pytest.mark.parametrize("lacking", [[], ["capabilities"]], ids=["as_it_is", "no_capabilities"])


@pytest.mark.slow
@pytest.mark.timeout(300)
@with_and_without
def test_good_jobs_go_on_beside_hostile_ones(
    farm: Farm, client: Client, supervised: Supervised, tmp_path: Path, lacking: list[str]
) -> None:
    """Each hostile job ends as it must, the good ones complete, and the heartbeat does not falter."""
    limits = {"run_timeout": "3s", "memory": "250MB", "processes": 20}
    supervised.configure({"hostile": limits}, modules={"reporter": "tests.support.modules.Reporter"})
    client.launcher = launcher(*lacking)
    good, ids = hold_jobs(farm, client, tmp_path)

    ended = {name: farm.await_verdict(farm.post(document)).info for name, (document, _) in HOSTILE_JOBS.items()}
    for each in good:
        each.let_go()
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    reasons = {name: info.get("error", {}).get("reason", "") for name, info in ended.items()}
    assert reasons == {name: reason for name, (_, reason) in HOSTILE_JOBS.items()}
    assert not any(each.failed for each in verdicts)
    assert longest_gap(farm) < 2 * SLOW_BEAT
    assert client.stop() == 0


@contextlib.contextmanager
def small_disks(*places: Path) -> Iterator[bool]:
    """Make each a disk of its own, if this user may; gives whether he may."""
    with contextlib.ExitStack() as stack:
        try:
            for place in places:
                stack.enter_context(mounted(place, "8M"))
        except pytest.skip.Exception:
            for place in places:
                place.mkdir(exist_ok=True)
            yield False
        else:
            yield True


@pytest.mark.slow
@pytest.mark.timeout(300)
@with_and_without
def test_good_jobs_go_on_through_all_troubles(
    farm: Farm, supervised: Supervised, client: Client, tmp_path: Path, lacking: list[str]
) -> None:
    """No job fails of a fault, which the heartbeats tell; none is taken meanwhile, and all go on after it."""
    places = tmp_path / "scratch", tmp_path / "own"
    (code := tmp_path / "upgraded").mkdir()
    client.launcher = launcher(*lacking)
    client.settings |= {"TMPDIR": str(places[0]), "SISYPHUS_STATE_DIR": str(places[1]), "PYTHONPATH": str(code)}
    with small_disks(*places) as mounts, contextlib.ExitStack() as stack, contextlib.closing(client):
        good, ids = hold_jobs(farm, client, tmp_path)
        around = Surroundings(client, *places, code, mounts, stack)
        told = {name: suffer(name, around) for name in FAULTS if mounts or not name.endswith(OF_ROOT)}
        for each in good:
            each.let_go()
        verdicts = [farm.await_verdict(job_id) for job_id in ids]

        assert told == dict.fromkeys(told, "")
        assert not any(each.failed for each in verdicts)
        assert longest_gap(farm) < 2 * SLOW_BEAT
        # Beside the log, Python itself tells why a zygote of half an upgrade does not start.
        assert not any("Traceback" in line for line in client.log if line[:1].isdigit())
        assert client.stop() == 0


def suffer(name: str, around: Surroundings) -> str:
    """Go through a fault with jobs in the queue; returns what was wrong about it, in a line, if anything was."""
    _who, _what, fault, words = FAULTS[name]
    began = time.monotonic()
    farm = around.client.farm
    due, heard = len(farm.verdicts) + 2, len(around.client.log)
    with fault(around):
        for _ in range(2):
            farm.post(BENIGN)
        if words == "-":
            await_beats(farm, 4)
        elif words:
            await_beats(farm, 2, lambda beat: words in beat.get("info", {}).get("trouble", ""))
            since = time.monotonic()
            await_beats(farm, 2)
            if farm.calls("GET /queue/poll", since):
                return "it took jobs meanwhile"
        else:
            await_verdicts(farm, due)
    failed = [verdict.info["message"] for verdict in await_verdicts(farm, due)[due - 2 :] if verdict.failed]
    await_beats(farm, 2, lambda beat: "trouble" not in beat.get("info", {}))
    print(name, f"{longest_gap(farm, began):.1f} s")  # seen where it fails
    said = [line.split(" ", 2)[2] for line in around.client.log[heard:] if " WARNING " in line or " ERROR " in line]
    again = {line for line in said if said.count(line) > 1} | set([line for line in said if "in trouble" in line][1:])
    return "; ".join([*failed, *(f"said again: {line}" for line in again)])
