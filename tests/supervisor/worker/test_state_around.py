"""A state directory whose files somebody else has, or that cannot be read."""

import contextlib
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.worker.journal import PROBE
from tests.support import lacking
from tests.support.client import WORKER, Client, await_beats, await_verdicts, written
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, Supervised


@pytest.fixture
def client(supervised: Supervised) -> Iterator[Client]:
    """A client that is a user like any other, not yet started."""
    with contextlib.closing(Farm()) as farm, contextlib.closing(Client(farm, supervised)) as client:
        client.launcher = lacking.launcher("capabilities")
        yield client


@contextlib.contextmanager
def in_use(file: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def forbidden(file: Path) -> Iterator[None]:
    file.chmod(0)
    yield


@pytest.mark.parametrize(
    ("around", "advice"),
    [(in_use, "end the other program that has it open"), (forbidden, "let this user read and write it")],
    ids=["in use", "forbidden"],
)
def test_a_sound_journal_is_not_to_be_given_up(
    client: Client, tmp_path: Path, around: Callable[[Path], contextlib.AbstractContextManager[None]], advice: str
) -> None:
    """Of a journal that another program uses or that may not be read, the line says what to do, and loses no job."""
    file = tmp_path / "state" / "journal.sqlite3"
    written(file.parent)
    with around(file):
        said = client.refuse()

    assert f"{file}: " in said
    assert f"({advice})" in said


def test_a_lock_that_cannot_be_opened_is_named(client: Client, tmp_path: Path) -> None:
    """The line names the file that is wrong, and not the directory alone."""
    lock = tmp_path / "state" / "lock"
    lock.mkdir(parents=True)

    assert client.refuse().startswith(f"{lock}: ")


def test_an_id_that_cannot_be_read_is_kept(client: Client, tmp_path: Path) -> None:
    """A worker whose id may not be read does not become another one: it says so, and leaves the file as it is."""
    file = tmp_path / "state" / "host_uuid"
    file.parent.mkdir()
    file.write_text(f"{WORKER}\n")
    file.chmod(0)
    said = client.refuse(HOST_UUID="")
    file.chmod(0o600)

    assert f"{file}: cannot be read" in said
    assert file.read_text() == f"{WORKER}\n"
    assert os.listdir(file.parent) == [file.name]


def test_no_job_is_taken_in_vain(client: Client, tmp_path: Path) -> None:
    """While the journal takes no change, though there is room for other files, jobs stay in the queue."""
    farm, log = client.farm, tmp_path / "state" / "journal.sqlite3-wal"
    process = client.start()
    done = 0
    while not log.exists() or log.stat().st_size < PROBE:
        farm.post(BENIGN)
        await_verdicts(farm, done := done + 1)
    limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    farm.post(BENIGN)
    await_beats(farm, 1, lambda beat: "disk I/O error" in beat.get("info", {}).get("trouble", ""))
    taken = len(farm.taken)
    beats = await_beats(farm, 10)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)

    assert all("trouble" in beat.get("info", {}) for beat in beats)
    assert len(farm.taken) == taken
    await_verdicts(farm, done + 1)
