"""Servers and their clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.main import ServerSettings, in_background
from tests.support.api_server import Api, Process, connected


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that all tests share."""
    database = tmp_path_factory.mktemp("server") / "jobs.db"
    with in_background(ServerSettings(database, port=0)) as url:
        yield url


@pytest.fixture
def api(url: str) -> Iterator[Api]:
    """A client of the shared server, its queue empty and enabled."""
    with connected(url) as api:
        api("DELETE", "/queue")
        api("PATCH", "/queue", {"disabled": False})
        yield api


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A server that can be killed, not started yet."""
    process = Process(tmp_path)
    yield process
    process.kill()
