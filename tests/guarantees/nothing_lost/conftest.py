"""A server and a client that can be killed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarantees.nothing_lost.scene import Server, a_client
from tests.support.client import Client
from tests.support.farm import Farm
from tests.support.supervised import Supervised


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()
    assert "Traceback" not in "\n".join(server.log)


@pytest.fixture
def client(farm: Farm, supervised: Supervised, tmp_path: Path) -> Iterator[Client]:
    with contextlib.closing(a_client(farm, supervised, tmp_path)) as client:
        yield client
