"""Proxies that answer for the server that they have lost, and proxies of the environment that are none."""

import os
import subprocess
import time

import pytest

from tests.supervisor.api.test_tls import KEEPER
from tests.support.client import Client, Held, await_beats, await_calls
from tests.support.farm import Farm, Fault, status
from tests.support.supervised import CLIENT, Supervised, job

PAGES = {
    "a page": status(404),
    "nothing": Fault(False, 404, b""),
    "JSON": Fault(False, 404, b'{"message": "no route matched"}'),
    "good": Fault(False, 200, b"<h1>We are back soon</h1>"),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("is_killed", [False, True], ids=["at work", "after a kill"])
def test_pages_of_a_proxy_lose_no_job(farm: Farm, client: Client, held: Held, is_killed: bool, page: str) -> None:
    """The verdict waits for the server itself, which alone can say that it knows the job no more; so does the job of
    a client that was killed."""
    job_id = farm.post(held.job)
    client.start(CANCEL_DELETED_JOBS="1")
    held.await_running()
    farm.misbehave("*", PAGES[page])
    await_calls(farm, f"GET /jobs/{job_id}", since=time.monotonic())
    if is_killed:
        client.kill()
        client.start()
        await_calls(farm, f"GET /jobs/{job_id}", since=time.monotonic())
    held.let_go()
    sent = await_calls(farm, f"PATCH /jobs/{job_id}/completed")
    await_calls(farm, f"GET /jobs/{job_id}", 2, since=sent[0].time)
    farm.behave()

    assert not farm.await_verdict(job_id).failed
    await_beats(farm, 1, lambda beat: beat["status"] == "idle")
    assert farm.taken == [job_id]


NOT_PROXIES = [
    "http://user:secret@127.0.0.1:99999",
    "http://user:secret@",
    "http://user:secret@[bad",
    "user:secret@127.0.0.1:3128",
]


@pytest.mark.parametrize("proxy", NOT_PROXIES)
def test_a_proxy_without_an_address_is_told_at_the_start(client: Client, proxy: str) -> None:
    """Each call would fail, some without a word, and others with the proxy's password."""
    status = client.start(API_URL="http://farm.invalid", HTTP_PROXY=proxy, NO_PROXY="").wait(60)

    assert status == 2
    assert client.log[-1].startswith("HTTP_PROXY or ALL_PROXY: what it holds is not the address of a proxy")
    assert "secret" not in "\n".join(client.log)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"HTTP_PROXY": "http://user:secret@127.0.0.1:1"}, "Connection refused (through the proxy http://127.0.0.1:1)"),
        ({"HTTP_PROXY": "http://user:secret@"}, "HTTP_PROXY or ALL_PROXY: what it holds is not the address of a proxy"),
        ({"API_URL": "http://user:secret@127.0.0.1:99999"}, "API_URL: what it holds is not the address of a server"),
    ],
)
def test_commands_tell_of_the_proxy(settings: dict[str, str], words: str) -> None:
    """As a worker's do, their errors name it, in one line without a password."""
    environment = os.environ | {"API_URL": "http://farm.invalid", "NO_PROXY": ""} | settings
    done = subprocess.run([CLIENT, "jobs"], env=environment, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr
    assert "secret" not in done.stderr


def test_a_module_is_told_what_is_wrong_with_the_proxy(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` looks at the proxy only when a module asks the server for data, and that module's task fails with it."""
    for name, value in {"API_URL": "http://farm.invalid", "HTTP_PROXY": "http://[bad", "NO_PROXY": ""}.items():
        monkeypatch.setenv(name, value)
    (supervised.directory / "keepers.py").write_text(KEEPER)
    supervised.configure(modules={"keeper": "keepers.Keeper"}, paths=(str(supervised.directory),))
    done = supervised.run(job(("keeper", {})))

    assert done.returncode == 1
    assert "HTTP_PROXY or ALL_PROXY: what it holds" in done.stdout, done.stderr


@pytest.mark.parametrize("page", [*PAGES][:3])
def test_any_404_of_a_server_that_is_there_counts(farm: Farm, client: Client, held: Held, page: str) -> None:
    """Servers have a page, nothing or JSON for what they do not know: a deleted job is cancelled all the same."""
    job_id = farm.post(held.job)
    client.start(CANCEL_DELETED_JOBS="1")
    held.await_running()
    farm.misbehave(f"GET /jobs/{job_id}", PAGES[page])

    verdict = farm.await_verdict(job_id)

    assert verdict.info["error"]["reason"] == "cancelled"


@pytest.mark.parametrize("page", [*PAGES][:3])
def test_commands_know_whose_404_it_is(farm: Farm, page: str) -> None:
    """That of a server that is there says that there is no such job; that of a proxy says nothing of it."""
    show = [CLIENT, "show", "00000000-0000-0000-0000-000000000000"]
    told = []
    for route in ("GET /jobs/*", "*"):
        farm.misbehave(route, PAGES[page])
        environment = os.environ | {"API_URL": farm.url}
        told.append(subprocess.run(show, env=environment, capture_output=True, text=True, timeout=60).stderr)

    assert ["no Sisyphus server is there" in words for words in told] == [False, True], told
    assert "Traceback" not in "".join(told)
