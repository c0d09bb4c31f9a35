"""Servers with HTTPS, whose certificate the environment names; and workers that need none of that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import Api, serving
from tests.support.client import Served
from tests.support.supervised import Supervised, job
from tests.support.waiting import until

KEEPER = """
from modules.base import BaseModule

class Keeper(BaseModule):
    def validate(self):
        self.put_data("profile", {"codec": "libx264"})

    def run(self):
        print(self.get_data("profile"))
"""


@pytest.fixture
def secure(tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A server with HTTPS that this process and its children trust."""
    cert, key = map(str, certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", cert)
    with serving(tmp_path / "secure.db", tls_cert=cert, tls_key=key) as api:
        api.session.verify = cert
        yield api


def loaded(pid: int) -> set[str]:
    """The names of the libraries that a process has loaded."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {Path(line.split()[-1]).name.partition(".")[0] for line in lines if "/" in line}


def test_data_of_modules_goes_by_https(supervised: Supervised, secure: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run`, which imports asyncio without TLS, stores and reads data."""
    monkeypatch.setenv("API_URL", secure.url)
    (supervised.directory / "keepers.py").write_text(KEEPER)
    supervised.configure(modules={"keeper": "keepers.Keeper"}, paths=(str(supervised.directory),))
    done = supervised.run(job(("keeper", {})))

    assert done.returncode == 0, done.stderr
    assert secure("GET", "/data/keeper/profile").json()["codec"] == "libx264"


@pytest.mark.parametrize("trusted", [True, False])
def test_a_worker_speaks_https(served: Served, secure: Api, tmp_path: Path, trusted: bool) -> None:
    """It does its jobs if it trusts the server, and says what is wrong if it does not."""
    served.client.settings |= {"API_URL": f" {secure.url}".replace("https", "HTTPS")}
    if not trusted:
        served.client.settings |= {"REQUESTS_CA_BUNDLE": ""}
    served.api = secure
    served.client.start()
    job_id = served.submit()
    if trusted:
        served.await_state(job_id, "completed")
    else:
        until(lambda: "certificate verify failed" in "\n".join(served.client.log), "the log to tell")

    assert served.client.stop() == 0


@pytest.mark.parametrize("options", [{}, {"https_proxy": "https://127.0.0.1:9"}])
def test_a_worker_without_https_loads_no_tls(served: Served, options: dict[str, str]) -> None:
    """OpenSSL takes 4 MB of its memory. With a proxy that speaks TLS, it may need it."""
    served.client.start(**options)
    served.await_state(served.submit(), "completed")

    assert bool({"libssl", "libcrypto"} & loaded(served.client.process.pid)) is bool(options)


def test_a_server_beside_has_tls_for_its_notices(served: Served) -> None:
    """A server that `start --standalone` runs may send them to HTTPS."""
    served.client._command.append("--standalone")
    served.client._command += ["--port", "0"]
    served.client.start()
    until(lambda: "Serving" in "\n".join(served.client.log), "the server beside")

    assert "libssl" in loaded(served.client.process.pid)
