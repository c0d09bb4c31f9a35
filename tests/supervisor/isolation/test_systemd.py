"""What systemd is told: ready at once, alive while the loop runs, and what the client waits for."""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client, Held
from tests.support.farm import Farm
from tests.support.waiting import pass_time, until

UNITS = sorted((Path(__file__).parents[3] / "scripts" / "systemd").glob("*.service"))


class Systemd:
    """The socket that a unit's notifications go to."""

    def __init__(self, place: Path) -> None:
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(place))
        self._socket.setblocking(False)

    def hear(self) -> list[str]:
        """All lines so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.said += self._socket.recv(1 << 16).decode().splitlines()
        return self.said

    def await_line(self, pattern: str) -> None:
        until(lambda: any(re.search(pattern, line) for line in self.hear()), pattern)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(client: Client, tmp_path: Path) -> Iterator[Systemd]:
    with contextlib.closing(Systemd(tmp_path / "notify")) as systemd:
        client.settings |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        yield systemd


def test_a_server_that_is_away_is_no_reason_to_be_restarted(farm: Farm, client: Client, systemd: Systemd) -> None:
    """The client is ready and feeds the watchdog without a server, and says that it waits for one."""
    farm.go_down()
    client.start()
    systemd.await_line("READY=1")
    systemd.await_line("STATUS=working; the server .* cannot be reached")
    systemd.hear().clear()
    until(lambda: systemd.hear().count("WATCHDOG=1") > 3, "the watchdog to be fed")
    farm.come_up()
    systemd.await_line("STATUS=working$")


def test_what_it_says(client: Client, farm: Farm, systemd: Systemd, held: Held) -> None:
    """Paused, stopping; and nothing any more when the loop stands still, so that the watchdog bites."""
    farm.post(held.job)
    client.start()
    held.await_running()
    client.process.send_signal(signal.SIGUSR2)
    systemd.await_line("STATUS=paused")
    client.process.send_signal(signal.SIGSTOP)
    systemd.hear().clear()
    pass_time(1)  # more than the watchdog's patience
    silent = "WATCHDOG=1" not in systemd.hear()
    client.process.send_signal(signal.SIGCONT)
    client.process.terminate()
    systemd.await_line("STOPPING=1")
    held.let_go()

    assert silent
    assert client.process.wait(30) == 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units(unit: Path, tmp_path: Path) -> None:
    """systemd itself finds nothing wrong with the units, and they write no core files."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = unit.read_text()
    here = re.sub(r"/opt/sisyphus-client/.venv/bin/sisyphus-client", "/bin/true", text)
    (tmp_path / unit.name).write_text(here.replace("User=sisyphus", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / unit.name)], capture_output=True, text=True)

    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    assert "LimitCORE=0" in text
    assert "/bin/kill" not in text
