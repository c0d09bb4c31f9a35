"""Servers and their clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config import ServerSettings
from server.main import in_background
from tests.server.postgresql import postgresql
from tests.support.api_server import Api, Process, connected


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that all tests share."""
    database = make_database(request.param, tmp_path_factory.mktemp("server"))
    with in_background(ServerSettings(database, port=0)) as url:
        yield url


@pytest.fixture
def api(url: str) -> Iterator[Api]:
    """A client of the shared server, its queue empty and enabled."""
    with connected(url) as api:
        api("DELETE", "/queue")
        api("PATCH", "/queue", {"disabled": False})
        yield api


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database of each kind, one after the other."""
    return make_database(request.param, tmp_path)


def make_database(kind: str, directory: Path) -> Path | str:
    """A file that is not there yet, or an empty database of PostgreSQL."""
    return directory / "jobs.db" if kind == "sqlite" else postgresql().make_database()


@pytest.fixture
def process(tmp_path: Path, database: Path | str) -> Iterator[Process]:
    """A server that can be killed, not started yet."""
    process = Process(tmp_path, database)
    yield process
    process.kill()
