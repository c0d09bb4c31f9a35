"""How requests are sent: with the token, and to no other address."""

import contextlib
from pathlib import Path

import psutil
import pytest

from tests.support.client import TOKEN, Client, Held, await_calls
from tests.support.farm import Farm, status
from tests.support.supervised import BENIGN


def environment(process: psutil.Process) -> str:
    """What a process was started with, as others of its user see it.

    Of the zygote, they see nothing. Its task processes have the same, for they were forked and not started.
    """
    try:
        return Path(f"/proc/{process.pid}/environ").read_text()
    except PermissionError:
        return ""


def test_the_token_is_sent_and_kept_secret(farm: Farm, client: Client, held: Held, tmp_path: Path) -> None:
    """The token goes to the server with every request, and is seen nowhere else: no log, title or task has it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login spam password eggs\n")  # must not take the token's place
    farm.misbehave("* /queue*", status(401), 3)
    job_id = farm.post(held.job)
    client.start(API_TOKEN=TOKEN, LOGURU_LEVEL="TRACE", NETRC=str(netrc))
    held.await_running()
    supervisor = psutil.Process(client.process.pid)
    below = supervisor.children(recursive=True)
    titles = [" ".join(process.cmdline()) for process in (supervisor, *below)]
    environments = list(map(environment, below))
    held.let_go()
    farm.await_verdict(job_id)
    client.stop()
    kept = [file.read_text(errors="replace") for file in (tmp_path / "state").rglob("*") if file.is_file()]

    assert {request.headers["Authorization"] for request in farm.requests} == {f"Bearer {TOKEN}"}
    assert len(environments) == 2
    assert environments[1]
    assert not [text for text in (*titles, *environments, *kept, *client.log) if TOKEN in text]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_are_not_followed(farm: Farm, client: Client, code: int) -> None:
    """Neither the token nor anything else goes to where a redirect points."""
    other = Farm("127.0.0.2")
    with contextlib.closing(other):
        farm.misbehave("*", status(code, Location=other.url + "/queue/poll"))
        job_id = farm.post(BENIGN)
        client.start(API_TOKEN=TOKEN)
        await_calls(farm, "POST /workers/*", 4)
        farm.behave()
        farm.misbehave("PATCH /jobs/*", status(code, Location=other.url + "/"), 2)
        verdict = farm.await_verdict(job_id)

        assert not other.requests
    assert not verdict.failed
