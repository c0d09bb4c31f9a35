"""What the worker tells Prometheus."""

import contextlib
import re
import socket
from pathlib import Path

import pytest
import requests

from tests.support.client import Client, Served, await_idle
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, job
from tests.support.waiting import until


@pytest.fixture
def port() -> int:
    """A port that is free, as far as one can tell."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    """The metrics, by name and labels."""
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found = re.findall(r"^sisyphus_worker_(\S+?)(?:\{\w+=\"(.*)\"\})? (\S+)$", answer.text, re.MULTILINE)
    return {f"{name} {label}".strip(): float(value) for name, label, value in found}


def test_metrics_of_a_worker(served: Served, tmp_path: Path, port: int) -> None:
    """They tell of slots, memory, the outbox, jobs and trouble."""
    served.client.start(METRICS_PORT=str(port), WORKER_SLOTS="2")
    until(lambda: served.idle_workers() == 2, "both slots")
    held, job_id = served.hold(tmp_path)
    busy = until(lambda: (found := scrape(port))["memory_bytes tasks"] > 0 and found, "a measurement")
    held.let_go()
    ids = [served.submit(BENIGN), served.submit(job(("hostile", {"step": "run", "act": "raises"})))]
    for each, state in ((job_id, "completed"), (ids[0], "completed"), (ids[1], "failed")):
        served.await_state(each, state)
    _, cancelled = served.hold(tmp_path, "another")
    served.api("POST", f"/jobs/{cancelled}/cancel")
    served.await_state(cancelled, "cancelled")
    idle = until(
        lambda: (found := scrape(port))["slots idle"] == 2 and not found["outbox verdict or return"] and found,
        "both slots to be idle, and the last verdict to be taken",
    )

    assert {name: value for name, value in busy.items() if name.startswith("slots")} == {
        "slots running": 1,
        "slots idle": 1,
        "slots paused": 0,
        "slots disabled": 0,
        "slots trouble": 0,
    }
    assert min(busy["memory_bytes supervisor"], busy["memory_bytes zygote"]) > 1 << 20
    assert {name: value for name, value in idle.items() if name.startswith("jobs_total")} == {
        "jobs_total completed": 2,
        "jobs_total failed": 1,
        "jobs_total cancelled": 1,
    }
    assert idle["trouble"] == 0


def test_a_port_that_is_taken(client: Client) -> None:
    """The worker says so in one line, and does not start; so it does for what can be no host's name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = client.refuse(METRICS_PORT=address.removeprefix("127.0.0.1:"))

    assert f"METRICS_PORT: {address} cannot be listened on: " in said
    assert "METRICS_PORT: a..b:9100 cannot be listened on: " in client.refuse(METRICS_PORT="a..b:9100")


def test_strangers_cost_nothing(farm: Farm, client: Client, port: int) -> None:
    """Silent connections, however many, and garbage keep nobody out, and the worker goes on."""
    client.start(METRICS_PORT=str(port))
    await_idle(farm)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with socket.create_connection(("127.0.0.1", port)) as garbage, contextlib.suppress(OSError):
            garbage.sendall(b"\xff" * (1 << 20))
    metrics = until(lambda: _try(port), "an answer")

    assert metrics["slots idle"] == 1
    assert not farm.await_verdict(farm.post(BENIGN)).failed
    assert not [line for line in client.log if "Traceback" in line]


def _try(port: int) -> dict[str, float] | None:
    with contextlib.suppress(requests.RequestException):
        return scrape(port)
    return None
