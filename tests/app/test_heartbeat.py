"""The heartbeat that modules report to."""

import threading
from pathlib import Path
from typing import Any

from app.heartbeat import Heartbeat


def test_heartbeat_takes_anything() -> None:
    """A report never makes a module fail, whatever it is given."""
    heartbeat = Heartbeat()
    sent: list[bytes] = []
    heartbeat.connect(sent.append)
    loop: dict[str, Any] = {}
    loop["loop"] = loop

    class BadStr:
        def __str__(self) -> str:
            raise RuntimeError

    for odd in ({"a": float("nan")}, {"a": Path("/x")}, loop, {"a": BadStr()}, {"a": "\udcff"}, {1: {2}}, 5, None):
        heartbeat.set_data(odd)  # type: ignore[arg-type]

    assert heartbeat.message["status"] == "idle"


def test_heartbeat_coalesces() -> None:
    """Of a hundred thousand statuses few travel, and the last of them does."""
    heartbeat = Heartbeat()
    sent: list[bytes] = []
    arrived = threading.Event()

    def send(status: bytes) -> None:
        sent.append(status)
        if b"99999" in status:
            arrived.set()

    heartbeat.connect(send)
    for number in range(100_000):
        heartbeat.set_data({"progress": number})

    assert arrived.wait(10)
    assert len(sent) < 100
