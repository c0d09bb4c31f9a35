"""A client and its server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarantees.signals.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A client and its server; at the end the client must have kept to the protocol."""
    scene = Scene(tmp_path)
    yield scene
    scene.close()
    assert not scene.farm.violations
