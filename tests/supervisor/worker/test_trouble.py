"""The worker's own trouble: it says what is wrong, takes no job meanwhile, keeps those it has, and goes on after it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.client import Client, Held, await_idle
from tests.support.farm import Farm
from tests.support.supervised import BENIGN
from tests.support.waiting import until


@pytest.mark.parametrize("how", [shutil.rmtree, lambda place: [shutil.rmtree(one) for one in place.iterdir()]])
def test_scratch_space_is_made_anew(client: Client, farm: Farm, tmp_path: Path, how: Callable[[Path], object]) -> None:
    """TMPDIR, or what the client has in it, may be removed under the client."""
    (own := tmp_path / "own").mkdir()
    (link := tmp_path / "link").symlink_to(own)
    client.start(TMPDIR=str(link))
    await_idle(farm)
    how(own)
    verdict = farm.await_verdict(farm.post(BENIGN))
    ended = client.stop()

    assert not verdict.failed
    assert ended == 0
    assert not list(own.iterdir())


@pytest.mark.parametrize("is_link", [False, True])
def test_the_journal_is_made_anew(client: Client, farm: Farm, tmp_path: Path, held: Held, is_link: bool) -> None:
    """A state directory that is removed comes back with what the journal held: a job in hand survives a crash then.

    It is made where a link leads, too.
    """
    state = tmp_path / "state"
    if is_link:
        shutil.rmtree(state, ignore_errors=True)
        state.symlink_to(tmp_path / "disk" / "state")
    job_id = farm.post(held.job)
    client.start(WORKER_SLOTS="2")
    held.await_running()
    shutil.rmtree(state.resolve().rename(tmp_path / "removed"))  # at once, or files are made in it meanwhile
    until((state / "journal.sqlite3").exists, "the journal to be there again")
    other = farm.await_verdict(farm.post(BENIGN))
    client.kill()
    client.start(WORKER_SLOTS="2")
    held.let_go()

    assert not other.failed
    assert not farm.await_verdict(job_id).failed
