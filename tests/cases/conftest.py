"""Fixtures of the cases: media for the session; a directory for each file; a client and services for each test."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.client import Client, Services, empty
from tests.cases.media import Media
from tests.support.api_server import serving
from tests.support.supervised import Supervisor


@pytest.fixture(scope="session")
def media(shared: Path) -> Media:
    """The files that were made so far, for all tests."""
    (shared / "media").mkdir(exist_ok=True)
    return Media(shared / "media")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of all jobs of a file. The supervisor is in it, and so are its tasks: names are relative to it."""
    with contextlib.chdir(tmp_path_factory.mktemp("work")):
        yield Path.cwd()


@pytest.fixture
def client(tmp_path: Path, work: Path, media: Media, supervisor: Supervisor) -> Client:
    """Runs jobs in the directory of the file, which is empty."""
    empty(work)
    return Client(tmp_path, work, media, supervisor)


@pytest.fixture
def services(client: Client, tmp_path: Path) -> Iterator[Services]:
    """The program's own API server, without workers."""
    with (
        serving(tmp_path / "jobs.db", vanished_after=60.0) as api,
        contextlib.closing(Services(client, api)) as services,
    ):
        yield services
