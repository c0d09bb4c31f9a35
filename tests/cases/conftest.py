"""Fixtures of the cases: media for the session; a client and services for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.client import Client, Services
from tests.cases.media import Media


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    """The files that were made so far, for all tests."""
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture
def client(tmp_path: Path, media: Media) -> Client:
    """The console program, in a directory of its own."""
    return Client(tmp_path, media)


@pytest.fixture
def services(client: Client) -> Iterator[Services]:
    """The program's own API server, without workers."""
    services = Services(client)
    yield services
    services.close()
