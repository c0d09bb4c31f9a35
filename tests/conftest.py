"""Fixtures of all tests: every one ends with no process alive that it started."""

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from loguru import logger

from ipc import linux
from tests.support.client import Client, Held, reporting
from tests.support.exchanges import Tasks
from tests.support.farm import Farm
from tests.support.processes import SURVIVAL, await_none_alive, kept
from tests.support.supervised import Supervised, Supervisor


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for each processor: half of the time, a test waits for processes that wait."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.fixture(scope="session", autouse=True)
def _default_signals() -> None:
    """A shell that starts the tests in the background has these ignored, or nohup does: all below them inherit it."""
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> None:
    """What a supervisor under test leaves behind falls to this process, where it is seen, whatever it did to hide."""
    linux.become_subreaper()


@pytest.fixture(autouse=True)
def _no_survivors() -> Iterator[None]:
    yield
    alive = await_none_alive()
    described = [(process.pid, process.cmdline()) for process in alive if process.is_running()]
    for process in alive:
        process.kill()
    await_none_alive()
    assert not described, f"still alive {SURVIVAL} s after the test: {described}"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of a test session share, for what takes long to make."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the state or the settings of the one who runs it."""
    for name in ("API_URL", "API_TIMEZONE", "HOSTNAME_OVERRIDE", "HOST_UUID", "SISYPHUS_CONFIG", "LOGURU_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SISYPHUS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))  # all tests use the same tools


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """The supervisor that the tests of a file share."""
    with contextlib.closing(Supervisor(tmp_path_factory.mktemp("supervisor"))) as supervisor:
        yield supervisor


@pytest.fixture
def supervised(tmp_path: Path, supervisor: Supervisor) -> Iterator[Supervised]:
    """A client with the test modules enabled, to run jobs with."""
    supervised = Supervised(tmp_path, supervisor)
    yield supervised
    supervised.close()


@pytest.fixture
def farm() -> Iterator[Farm]:
    """A server; at the end the client must have kept to the protocol."""
    farm = Farm()
    yield farm
    farm.close()
    assert not farm.violations


@pytest.fixture
def client(farm: Farm, supervised: Supervised) -> Iterator[Client]:
    """A client of the farm, not yet started."""
    client = reporting(farm, supervised)
    yield client
    client.close()
    print(*client.log[-50:], sep="\n")  # seen where a test fails


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client at work, shared by the tests of a file, and its server; it must keep to the protocol."""
    directory = tmp_path_factory.mktemp("running")
    with contextlib.closing(Farm()) as farm, contextlib.closing(reporting(farm, Supervised(directory))) as client:
        client.start(SISYPHUS_STATE_DIR=str(directory / "state"))
        process = psutil.Process(client.process.pid)
        with kept(lambda: {process.pid, *(child.pid for child in process.children())}):
            yield client
    assert not farm.violations


@pytest.fixture
def at_work(running: Client) -> Iterator[Client]:
    """The client that the tests of a file share."""
    yield running
    running.farm.behave()
    print(*running.log[-50:], sep="\n")  # seen where a test fails


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What this process logs, a line each."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=farm", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def held(tmp_path: Path) -> Held:
    """A job that runs until it is let go."""
    return Held(tmp_path)


@pytest.fixture
def tasks(supervised: Supervised) -> Tasks:
    """Task processes in the supervisor of the file."""
    return Tasks(supervised)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, one that uses `tasks` in their supervisor."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    run = arguments["tasks"].run if "tasks" in arguments else asyncio.run
    run(pyfuncitem.obj(**arguments))
    return True
