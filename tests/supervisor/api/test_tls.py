"""Servers with HTTPS, whose certificate the environment names; and workers that need none of that."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import VERSION
from tests.guarantees.test_imports import PROGRAM
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


def imported(served: Served, directory: Path) -> set[str]:
    """Have the worker tell which modules it has imported, when it has started."""
    asked, told = directory / "asked", directory / "told"
    served.client._command[:1] = [sys.executable, "-c", PROGRAM, str(asked), str(told)]
    served.client.start()
    until(lambda: f"sisyphus-client {VERSION} on" in "\n".join(served.client.log), "the start")
    asked.touch()
    until(told.exists, "the worker to tell what it has imported")
    return set(json.loads(told.read_text()))


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


@pytest.mark.parametrize(
    ("words", "settings", "is_needed"),
    [
        ([], {}, False),
        ([], {"https_proxy": "https://127.0.0.1:9"}, True),
        (["--standalone", "--port", "0"], {}, True),  # the server may send its notices to HTTPS
    ],
)
def test_tls_is_loaded_where_it_may_be_needed(
    served: Served, tmp_path: Path, words: list[str], settings: dict[str, str], is_needed: bool
) -> None:
    """OpenSSL takes 4 MB of a worker."""
    served.client._command += words
    served.client.settings |= settings

    found = {"ssl", "_hashlib"} & imported(served, tmp_path)

    assert found == ({"ssl", "_hashlib"} if is_needed else set())
    assert served.client.stop() == 0
