"""The worker's own trouble: it says what is wrong, takes no job meanwhile, keeps those it has, and goes on after it."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.client import Client, Held, await_beats, await_idle, await_verdicts, reporting
from tests.support.disks import fill, mounted
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, Supervised
from tests.support.waiting import until

USER = 54321
"""A user without other processes, whose number can be limited."""

AS_USER = (
    *("setpriv", f"--reuid={USER}", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
    *("prlimit", "--nproc=60"),
)

CROWD = """
import os, time
try:
    while os.fork():
        pass
except OSError:
    print("full", flush=True)
time.sleep(1000)
"""

Trouble = Callable[[Client, Path], contextlib.AbstractContextManager[None]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The client's TMPDIR, on a disk of its own."""
    with mounted(tmp_path / "scratch", "8M"):
        yield tmp_path / "scratch"


@pytest.fixture
def client(farm: Farm, supervised: Supervised, place: Path, tmp_path: Path) -> Iterator[Client]:
    with contextlib.closing(reporting(farm, supervised)) as client:
        client.settings |= {"TMPDIR": str(place), "PYTHONPATH": str(tmp_path / "upgraded")}
        yield client
        print(*client.log[-50:], sep="\n")


@contextlib.contextmanager
def full(_client: Client, place: Path) -> Iterator[None]:
    filler = fill(place)
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only(_client: Client, place: Path) -> Iterator[None]:
    os.system(f"mount -o remount,ro {place}")
    yield
    os.system(f"mount -o remount,rw {place}")


@contextlib.contextmanager
def no_process(_client: Client, _place: Path) -> Iterator[None]:
    command = [*AS_USER, sys.executable, "-c", CROWD]
    crowd = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert crowd.stdout is not None
    assert crowd.stdout.readline() == b"full\n"
    yield
    os.killpg(crowd.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # the crowd's children have fallen to this process
        while True:
            os.waitpid(-crowd.pid, 0)
    crowd.communicate()


@contextlib.contextmanager
def no_descriptors(client: Client, _place: Path) -> Iterator[None]:
    pid = client.process.pid
    used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, before[1]))  # a call to the server needs one at a time
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def upgrading(client: Client, place: Path) -> Iterator[None]:
    """The zygote is lost while its code is being replaced."""
    broken = place.parent / "upgraded" / "child.py"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("raise ImportError('half an upgrade')")
    for child in psutil.Process(client.process.pid).children():
        child.kill()
    yield
    broken.unlink()


@contextlib.contextmanager
def full_journal(client: Client, place: Path) -> Iterator[None]:
    filler = fill(place.parent / "state")
    yield
    filler.unlink()


TROUBLES: dict[str, tuple[Trouble, str]] = {
    "full": (full, "No space left on device"),
    "read-only": (read_only, "Read-only file system"),
    "no process": (no_process, "cannot fork"),
    "no descriptors": (no_descriptors, "Too many open files"),
    "upgrading": (upgrading, "the zygote was lost"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_it_is_not_the_jobs(client: Client, farm: Farm, place: Path, name: str) -> None:
    """No job fails of the trouble, which is said once and shown in heartbeats; none is taken, and all go on."""
    trouble, words = TROUBLES[name]
    client._command[:0] = AS_USER if name == "no process" else ()
    client.start(WORKER_SLOTS="2")
    await_idle(farm)
    with trouble(client, place):
        ids = [farm.post(BENIGN) for _ in range(6)]
        beats = await_beats(farm, 6, lambda beat: words in beat.get("info", {}).get("trouble", ""))
        since, taken = time.monotonic(), len(farm.taken)
        await_beats(farm, 6)
        told, polls = list(farm.verdicts), farm.calls("GET /queue/poll", since)
    verdicts = await_verdicts(farm, len(ids))
    await_beats(farm, 2, lambda beat: "info" not in beat)

    assert beats
    assert not told
    assert not polls
    assert taken <= 2
    assert {verdict.job_id: verdict.failed for verdict in verdicts} == dict.fromkeys(ids, False)
    assert len([line for line in client.log if "in trouble" in line]) == 1
    assert "Traceback (most recent call last)" not in "\n".join(client.log) or name == "upgrading"


@pytest.mark.parametrize("how", [shutil.rmtree, lambda place: [shutil.rmtree(one) for one in place.iterdir()]])
def test_scratch_space_is_made_anew(client: Client, farm: Farm, tmp_path: Path, how: Callable[[Path], object]) -> None:
    """TMPDIR, or what the client has in it, may be removed under the client."""
    own = tmp_path / "own"
    own.mkdir()
    client.start(TMPDIR=str(own))
    await_idle(farm)
    how(own)
    verdict = farm.await_verdict(farm.post(BENIGN))
    ended = client.stop()

    assert not verdict.failed
    assert ended == 0
    assert not list(own.iterdir())


def test_the_journal_is_made_anew(client: Client, farm: Farm, tmp_path: Path, held: Held) -> None:
    """A state directory that is removed comes back with what the journal held: a job in hand survives a crash then."""
    state = tmp_path / "state"
    job_id = farm.post(held.job)
    client.start(WORKER_SLOTS="2")
    held.await_running()
    shutil.rmtree(state)
    until((state / "journal.sqlite3").exists, "the journal to be there again")
    other = farm.await_verdict(farm.post(BENIGN))
    client.kill()
    client.start(WORKER_SLOTS="2")
    held.let_go()

    assert not other.failed
    assert not farm.await_verdict(job_id).failed


def test_what_follows_an_order_to_stop_is_no_crash(client: Client, farm: Farm, held: Held) -> None:
    """A job that outlives the patience of `systemctl stop` again and again is not failed for crashes."""
    job_id = farm.post(held.job)
    for _ in range(4):
        held.ready.unlink(missing_ok=True)
        client.start()
        held.await_running()
        client.process.send_signal(signal.SIGTERM)
        until(lambda: any("SIGTERM" in line for line in client.log[-5:]), "the order to be taken")
        await_beats(farm, 2)
        client.kill()
    client.start()
    held.let_go()
    verdict = farm.await_verdict(job_id)

    assert not verdict.failed, verdict.info
