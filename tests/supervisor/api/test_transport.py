"""How requests are sent: with the token, and to no other address."""

import base64
import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.client import TOKEN, Client, Held, await_calls, await_idle
from tests.support.farm import Farm, says, status
from tests.support.supervised import BENIGN
from tests.support.waiting import until


def environment(process: psutil.Process) -> str:
    """What a process was started with, as others of its user see it.

    Of the zygote, they see nothing. Its task processes have the same, for they were forked and not started.
    """
    try:
        return Path(f"/proc/{process.pid}/environ").read_text()
    except PermissionError:
        return ""


@pytest.mark.parametrize("by_token", [True, False], ids=["token", "address"])
def test_the_token_is_sent_and_kept_secret(
    farm: Farm, client: Client, held: Held, tmp_path: Path, by_token: bool
) -> None:
    """The token, or the name and the password in the address, goes to the server with every request, and is seen
    nowhere else: no log, title or task has it."""
    if by_token:
        own, sent, secrets = {"API_TOKEN": TOKEN}, f"Bearer {TOKEN}", [TOKEN]
    else:
        own = {"API_URL": farm.url.replace("//", "//us%C3%A9r:p%40ss@")}
        sent, secrets = "Basic " + base64.b64encode("us\u00e9r:p@ss".encode()).decode(), ["p%40ss", "p@ss"]
    netrc = tmp_path / "netrc"
    netrc.write_text("default login spam password eggs\n")  # must not take the token's place
    farm.misbehave("* /queue*", status(401), 3)
    job_id = farm.post(held.job)
    client.start(**own, LOGURU_LEVEL="TRACE", NETRC=str(netrc))
    held.await_running()
    supervisor = psutil.Process(client.process.pid)
    below = supervisor.children(recursive=True)
    titles = [" ".join(process.cmdline()) for process in (supervisor, *below)]
    environments = list(map(environment, below))
    held.let_go()
    farm.await_verdict(job_id)
    client.stop()
    kept = [file.read_text(errors="replace") for file in (tmp_path / "state").rglob("*") if file.is_file()]

    assert {request.headers["Authorization"] for request in farm.requests} == {sent}
    assert len(environments) == 2
    assert environments[1]
    seen = "\n".join((*titles, *environments, *kept, *client.log))
    assert not [secret for secret in secrets if secret in seen]


def test_redirects_are_not_followed(farm: Farm, client: Client) -> None:
    """Neither the token nor anything else goes to where a redirect points."""
    with contextlib.closing(Farm("127.0.0.2")) as other:
        client.start(API_TOKEN=TOKEN)
        for code in (301, 302, 307, 308):
            since = time.monotonic()
            farm.misbehave("*", status(code, Location=other.url + "/queue/poll"))
            await_calls(farm, "POST /workers/*", 4, since)
            farm.behave()
            farm.misbehave("PATCH /jobs/*", status(code, Location=other.url + "/"), 2)

            assert not farm.await_verdict(farm.post(BENIGN)).failed
        assert not other.requests


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_loopback_address_has_no_proxy(farm: Farm, client: Client, name: str) -> None:
    """A proxy in the environment is for other machines."""
    client.start(**{name: "http://127.0.0.1:1", "NO_PROXY": ""})

    assert await_idle(farm)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://user:secret@127.0.0.1:1", "Connection refused (through the proxy http://127.0.0.1:1)"),
        ("socks5://127.0.0.1:1", "a SOCKS proxy needs the package PySocks"),
    ],
)
def test_a_proxy_is_named(client: Client, proxy: str, words: str) -> None:
    """Where a proxy stands between, an error names it, without its password."""
    client.start(API_URL="http://farm.invalid:5000", HTTP_PROXY=proxy, NO_PROXY="")
    until(lambda: words in "\n".join(client.log), words)

    assert "secret" not in "\n".join(client.log)


@pytest.mark.parametrize("order", ["last", "first"])
def test_a_queue_of_any_size(farm: Farm, client: Client, order: str) -> None:
    """Of `GET /queue` only the flag is wanted, wherever it stands, and a flag in a job's data is not meant."""
    job = b'{"job_title":"x","tasks":[{"module":"m","data":{"attributes":{"disabled":true}}}]},' * 10_000
    queue, flag = b'"queue":[' + job[:-1] + b"]", b'"attributes":{"disabled":false}'
    parts = [flag, b'"entries":10000', queue] if order == "first" else [queue, b'"entries":10000', flag]
    farm.misbehave("GET /queue", says(b"{" + b",".join(parts) + b"}"))
    client.start()

    assert not farm.await_verdict(farm.post(BENIGN)).failed


def test_tables_of_international_names_come_when_there_is_one() -> None:
    """No international host name is refused for want of them."""
    script = """if True:
        import sys
        import supervisor.api, requests
        assert "idna" not in sys.modules
        print(requests.Request("GET", "http://b\u00fccher.example/").prepare().url)
    """

    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert told == "http://xn--bcher-kva.example/\n"
