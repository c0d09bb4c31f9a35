"""The journal on disks that are read-only or full."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.worker.journal import Journal, JournalError, UnfinishedJob
from tests.support.client import (
    NOON,
    WORKER,
    Client,
    Held,
    await_beats,
    await_idle,
    change,
    reporting,
    written,
)
from tests.support.disks import files_limited_to, fill, mounted
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, Supervised, job
from tests.support.waiting import until

LEEWAY = 10.0
"""Seconds that a busy machine may take for what takes milliseconds."""


# --- a directory that cannot be written ---


@pytest.mark.parametrize(
    ("place", "uuid"), [("/dev/null/state", WORKER), ("/proc/self/state", "")], ids=["id", "no id"]
)
def test_a_place_where_no_directory_can_be(supervised: Supervised, place: str, uuid: str) -> None:
    """A state directory that cannot be made is one line that says so and what to set; status 2."""
    with contextlib.closing(Farm()) as farm:
        said = Client(farm, supervised).refuse(SISYPHUS_STATE_DIR=place, HOST_UUID=uuid)

    assert place in said
    assert "SISYPHUS_STATE_DIR" in said
    assert not farm.requests


@pytest.mark.parametrize("begun", [False, True], ids=["new", "used"])
def test_a_directory_that_is_read_only(supervised: Supervised, tmp_path: Path, begun: bool) -> None:
    """A state directory that cannot be written is one line and status 2, whether there is a journal in it or not."""
    state = tmp_path / "state"
    with mounted(state, "512k") as mount:
        if begun:
            written(state)
            (state / "host_uuid").write_text(f"{WORKER}\n")
        mount("-o", "remount,ro")
        with contextlib.closing(Farm()) as farm:
            said = Client(farm, supervised).refuse(HOST_UUID="")

    assert str(state) in said
    assert not farm.requests


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a disk of its own, with room for a journal."""
    with mounted(tmp_path / "state", "512k"):
        yield tmp_path / "state"


@pytest.fixture
def client(small_disk: Path, farm: Farm, supervised: Supervised) -> Iterator[Client]:
    """A client on a small disk, not yet started."""
    with contextlib.closing(reporting(farm, supervised)) as client:
        yield client


def says(client: Client, words: str) -> list[str]:
    return until(lambda: [line for line in client.log if words in line], f"{words!r} in the log")


@contextlib.contextmanager
def filled(place: Path) -> Iterator[None]:
    """Fill a small disk for as long."""
    filler = fill(place)
    yield
    filler.unlink()


@pytest.mark.parametrize("how", ["full disk", "limit of files"])
def test_no_room_is_an_error_and_no_harm(request: pytest.FixtureRequest, tmp_path: Path, how: str) -> None:
    """What cannot be written is a `JournalError`; what was there stays, and with room again all goes on."""
    state = request.getfixturevalue("small_disk") if how == "full disk" else tmp_path / "state"

    async def go(journal: Journal) -> None:
        await journal.begin("before", "{}", NOON)
        (owed,) = await journal.queue_verdict("told", {})
        journal.acknowledge(owed)
        with filled(state) if how == "full disk" else files_limited_to(100_000):
            try:
                for number in range(1000):
                    await journal.begin(f"j{number}", "x" * 10_000, NOON)
            except JournalError as error:
                found.extend([error, number])
            for write in (journal.flush, lambda: journal.queue_return("before", "x" * 10_000)):
                with contextlib.suppress(JournalError):
                    await write()
            kept.extend(await journal.unfinished())
        await journal.begin("after", "{}", NOON)

    found: list[Any] = []
    kept: list[UnfinishedJob] = []
    change(state, go)
    error, count = found
    entries, debts = written(state)
    fine = {"before", *(f"j{number}" for number in range(count))}

    assert how == "full disk" or count > 0
    assert "\n" not in str(error)
    assert how != "full disk" or "full" in str(error)
    assert str(error).startswith(f"{state}/journal.sqlite3: ")
    assert fine - {"before"} <= {entry.job_id for entry in kept} <= fine
    assert {entry.job_id for entry in entries} == {entry.job_id for entry in kept} | {"after"}
    assert "told" not in {debt[0] for debt in debts}


def test_a_disk_that_is_full_at_the_start(client: Client, farm: Farm, small_disk: Path) -> None:
    """A client that cannot make its journal says so in one line and exits with 2; no journal is to be given up."""
    fill(small_disk)
    said = client.refuse()

    assert str(small_disk) in said
    assert "make room there" in said
    assert "lost" not in said
    assert not farm.requests


def test_no_job_is_begun_that_cannot_be_written_down(client: Client, farm: Farm, small_disk: Path) -> None:
    """While the disk is full, jobs go back to the queue, the log and the heartbeat go on; with room, they are run."""
    client.start()
    await_idle(farm)
    filler = fill(small_disk)
    big = job(("benign", {"spam": "x" * 600_000}))  # does not fit into what is there already
    job_id = farm.post(big)
    says(client, "cannot be written down")
    until(lambda: farm.calls(f"DELETE /jobs/{job_id}") and farm.queue, "the job to be back")
    beats = await_beats(farm, 3)
    alive = client.process.poll() is None
    told = list(farm.verdicts)
    farm.queue.clear()
    filler.unlink()
    verdict = farm.await_verdict(farm.post(BENIGN))

    assert alive
    assert beats
    assert not told
    assert not verdict.failed
    assert "Traceback" not in "\n".join(client.log)


def test_a_disk_that_is_full_while_a_job_runs(client: Client, farm: Farm, small_disk: Path, tmp_path: Path) -> None:
    """A job in hand is finished though nothing more can be written, and its verdict is told; the log says so."""
    held = Held(tmp_path)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    fill(small_disk)
    held.let_go()
    verdict = farm.await_verdict(job_id)
    complaints = says(client, "cannot be written")

    assert not verdict.failed
    assert all("ERROR" in line for line in complaints)
    assert "Traceback" not in "\n".join(client.log)


def test_a_full_disk_does_not_keep_it_from_leaving(client: Client, farm: Farm, small_disk: Path) -> None:
    """An idle client that cannot write down what it has told the server ends with 0; the next start does no harm."""
    client.start()
    farm.await_verdict(farm.post(BENIGN))
    await_idle(farm)
    filler = fill(small_disk)
    ended = client.stop()
    filler.unlink()
    client.start()
    farm.await_verdict(farm.post(BENIGN))

    assert ended == 0
    assert "Traceback" not in "\n".join(client.log)
    assert len(farm.verdicts) == 2


@pytest.mark.parametrize("names", [["TERM"], ["QUIT"], ["QUIT", "QUIT"]], ids=["drain", "cancel", "kill"])
def test_a_full_disk_does_not_change_how_it_ends(
    client: Client, farm: Farm, small_disk: Path, tmp_path: Path, names: list[str]
) -> None:
    """A client whose journal cannot be written ends as it would: with its job done, given back, or killed."""
    held = Held(tmp_path, spam="x" * 300_000)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    fill(small_disk)
    for name in names:
        client.process.send_signal(signal.Signals[f"SIG{name}"])
    if names == ["TERM"]:
        says(client, "SIGTERM")
        held.let_go()
    ended = client.process.wait(LEEWAY + 10)
    known = {verdict.job_id for verdict in farm.verdicts}

    assert "Traceback" not in "\n".join(client.log)
    assert ended in ([0, 131, -3] if len(names) == 2 else [0]), client.log
    assert (job_id in known) == (names == ["TERM"])
    assert len(farm.queue) == (names == ["QUIT"]) or len(names) == 2
