"""Fixtures of the cases: media for the session, and a client and a farm of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.client import Client, Farm
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
def farm(client: Client) -> Iterator[Farm]:
    """An API server without workers."""
    farm = Farm(client)
    yield farm
    farm.close()
