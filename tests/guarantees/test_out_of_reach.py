"""A module reaches no process but its own: not the client, and not the other slots' tasks."""

import json
import socket
from pathlib import Path

import psutil
import pytest

from ipc import landlock
from supervisor.isolation.landlock import find_lacking
from supervisor.isolation.zygote import SO_PASSRIGHTS
from tests.support.client import SLOW_BEAT, Client, await_beats, hold_jobs, longest_gap
from tests.support.farm import Farm
from tests.support.lacking import launcher
from tests.support.supervised import BENIGN, Supervised, hostile, job
from tests.support.waiting import until

has_scopes = pytest.mark.skipif(landlock.abi() < landlock.SCOPES_ABI, reason="takes Linux 6.12")


@has_scopes
@pytest.mark.parametrize("lacking", [[], ["capabilities"]], ids=["as it is", "without capabilities"])
def test_attacks_reach_nobody(
    farm: Farm, client: Client, supervised: Supervised, tmp_path: Path, lacking: list[str]
) -> None:
    """Signals, tracing, memory, descriptors, limits: whatever a module tries fails, and three good jobs and the
    heartbeat go on beside it under the same supervisor and zygote."""
    supervised.configure(modules={"reporter": "tests.support.modules.Reporter", "attacker": "tests.attacks.Attacker"})
    client.launcher = launcher(*lacking)
    good, ids = hold_jobs(farm, client, tmp_path)
    (zygote,) = psutil.Process(client.process.pid).children()
    victims = [task.pid for task in zygote.children()]

    out = tmp_path / "found.json"
    verdict = farm.await_verdict(farm.post(job(("attacker", {"victims": victims, "out": str(out)}))))
    found = json.loads(out.read_text())
    await_beats(farm, 8)
    still = [process.pid for process in (zygote, *zygote.children()) if process.status() != psutil.STATUS_STOPPED]
    for each in good:
        each.let_go()
    verdicts = [farm.await_verdict(job_id) for job_id in ids]

    assert len(victims) == 3
    assert len(found) == 23 * (2 + 3)
    assert [(attack, victim) for attack, victim, succeeded in found if succeeded] == []
    assert verdict.info["message"] == "Failed to run task: every attack failed"
    assert {zygote.pid, *victims} <= set(still)
    assert not any(each.failed for each in verdicts)
    assert longest_gap(farm) < 2 * SLOW_BEAT
    assert client.stop() == 0


def test_descriptors_on_their_way_are_left_for_others(
    farm: Farm, client: Client, supervised: Supervised, tmp_path: Path
) -> None:
    """A module that uses up what its user may have on the way through sockets leaves the client enough for tasks."""
    supervised.configure(modules={"hoarder": "tests.attacks.Hoarder"})
    client.launcher = [*launcher("capabilities"), "prlimit", "--nofile=1024:20000"]
    ready, end = tmp_path / "ready", tmp_path / "end"
    hoarding = farm.post(job(("hoarder", {"ready": str(ready), "until": str(end)})))
    client.start(WORKER_SLOTS="2")
    until(ready.exists, "the module to have them")

    others = [farm.await_verdict(farm.post(BENIGN)) for _ in range(3)]
    end.touch()

    assert not any(each.failed for each in others)
    assert not farm.await_verdict(hoarding).failed


def takes_no_descriptors() -> bool:
    with socket.socket(socket.AF_UNIX) as any_socket:
        try:
            any_socket.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError:
            return False
    return True


@pytest.mark.skipif(not takes_no_descriptors(), reason="takes Linux 6.16")
def test_no_descriptor_is_left_to_the_client_to_close(supervised: Supervised) -> None:
    """Closing the last one of a TCP socket may take as long as its sender likes: the client takes none."""
    assert supervised.record(hostile("send_descriptor"))["completed"]


def test_nobody_is_traced_without_landlock(supervised: Supervised, tmp_path: Path) -> None:
    """Client and zygote cannot be traced, read or robbed by a module of the same user, even where there is no Landlock,
    and limits cannot be set for them."""
    supervised.configure(modules={"attacker": "tests.attacks.Attacker"})
    supervised.launcher = launcher("capabilities", "landlock")
    attacks = ["ptrace attach", "ptrace seize", "process_vm_readv", "/proc/PID/mem", "pidfd_getfd", "/proc/PID/fd"]
    attacks += ["limit of CPU time", "limit by a 32-bit call", "limit from a tool"]
    out = tmp_path / "found.json"

    record = supervised.record(job(("attacker", {"victims": [], "attacks": attacks, "out": str(out)})))

    assert record["message"] == "Failed to run task: every attack failed", out.read_text()


has_all = pytest.mark.skipif(bool(find_lacking()), reason="the kernel lacks something")


@pytest.mark.parametrize("lacking", [["landlock"], ["seccomp"], pytest.param([], marks=has_all)], ids=str)
def test_what_the_kernel_lacks_is_told_at_the_start(farm: Farm, client: Client, lacking: list[str]) -> None:
    """One line of the log says what modules can do where the kernel cannot keep them from it, and none where nothing is
    lacking; jobs run all the same."""
    client.launcher = launcher(*lacking)
    client.start()

    assert not farm.await_verdict(farm.post(BENIGN)).failed
    assert sum("Modules can harm the client" in line for line in client.log) == len(lacking)


def test_modules_may_limit_themselves(supervised: Supervised, tmp_path: Path) -> None:
    """A module still reads limits of others, and sets those of its own process; its tools set theirs."""
    supervised.configure(modules={"modest": "tests.attacks.Modest"})

    assert supervised.record(job(("modest", {})))["completed"]
