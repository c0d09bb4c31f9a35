"""Clients of the embedded server, and a place for a journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import Process, connected, serving
from tests.support.client import Client, Served


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that does not exist yet."""
    return tmp_path / "deep" / "state"


@pytest.fixture
def served(client: Client, tmp_path: Path) -> Iterator[Served]:
    """A client of the embedded server, not yet started."""
    with serving(tmp_path / "jobs.db", vanished_after=5) as api:
        yield Served(client, api)
        client.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    """The embedded server in a process of its own, which can be killed and started again."""
    server = Process(tmp_path, tmp_path / "jobs.db")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def served_by_it(client: Client, server: Process) -> Iterator[Served]:
    """A client of that server, not yet started."""
    with connected(server.url) as api:
        yield Served(client, api)
        client.close()
