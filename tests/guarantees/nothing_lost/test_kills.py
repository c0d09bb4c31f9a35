"""One verdict per job: whatever is killed and whenever, no job is lost, none is done twice, and nothing half is left.

The server here is the real one, in a process of its own, since what counts is what it has recorded.
"""

import collections
import contextlib
import itertools
import random
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.guarantees.nothing_lost.scene import (
    CRASHED_THRICE,
    Api,
    Server,
    Works,
    a_client,
    answers,
    await_all_told,
    await_instant,
)
from tests.support.client import Client
from tests.support.media import look
from tests.support.supervised import Supervised
from tests.support.waiting import until

KILLS = 100


def instants(chance: random.Random, count: int, start: float = 0.0) -> list[float]:
    """Seconds to a kill: a quarter of them before a client can be at work, which takes `start`, the rest after."""
    early = [chance.uniform(0.002, start) for _ in range(count // 4 if start else 0)]
    late = [start + chance.uniform(0, 0.8) for _ in range(count - len(early))]
    return chance.sample(early + late, count)


def seconds_to_start(client: Client, server: Api) -> float:
    """How long a client of this machine, as busy as it is, takes from its start to its first heartbeat."""
    began = time.monotonic()
    client.start()
    path = f"/workers/{client.settings['HOST_UUID']}"
    until(lambda: server.get(path), "a heartbeat")
    seconds = time.monotonic() - began
    client.stop()
    return seconds


def check(server: Api, works: Works, hint: str, excusable: tuple[str, ...] = ()) -> dict[str, bool]:
    """Each job has one verdict, and what came of it is there, whole. Returns which jobs have failed, by title.

    A job may have failed for a reason that is `excusable`.
    """
    verdicts = server.verdicts()
    by_title = collections.Counter(verdict["job_title"] for verdict in verdicts.values())
    failed = {verdict["job_title"]: verdict["failed"] for verdict in verdicts.values()}

    assert by_title == collections.Counter(server.posted.values()), hint
    assert set(server.completions().values()) == {1}, hint
    assert set(server.completions()) <= set(verdicts), hint
    assert not server.queue(), hint
    for verdict in verdicts.values():
        if verdict["failed"]:
            assert verdict["info"]["message"].endswith(excusable), (hint, verdict)
        else:
            for file in works.expected[verdict["job_title"]]:
                assert file.exists(), (hint, verdict)
                assert file.suffix == ".ts" or file.read_text() == "made", (hint, verdict)
    assert not works.halves(), hint
    return failed


def check_left_over(works: Works, failed: dict[str, bool], client: Client, hint: str) -> None:
    """Nothing temporary is left; of a job that failed because of the kills, what it had made may be."""
    numbers = {title.split()[1] for title, has_failed in failed.items() if has_failed}
    left = {file for file in works.left_over() if file.name.lstrip(".").split(".")[0] not in numbers}

    assert not left, hint
    assert not list(Path(client.settings["TMPDIR"]).iterdir()), hint


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_the_client(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """Killed at a hundred random instants while it drains, the client has one verdict for each job in the end."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        halves = []
        for seconds in instants(chance, KILLS, seconds_to_start(client, server)):
            while len(server.queue()) < 6:
                server.post(works.next())
            began = time.monotonic()
            client.start()
            await_instant(seconds, began)
            client.kill()
            halves += works.halves()
        client.start()
        await_all_told(server)
        ended = client.stop()
        failed = check(server, works, hint, (CRASHED_THRICE,))
        check_left_over(works, failed, client, hint)
        log = "\n".join(client.log)
    for file in itertools.islice(works.done.glob("*.ts"), 3):
        assert look(file)["streams"]

    assert ended == 0, hint
    assert not halves, hint
    assert "Traceback" not in log, hint
    assert not all(failed.values()), hint
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_the_server(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """With the server killed again and again, each job has one verdict in the end, and the client lives on."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    for _ in range(60):
        server.post(works.next())
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        client.start(WORKER_SLOTS="2")
        for seconds in instants(chance, 25):
            await_instant(seconds, time.monotonic())
            server.kill()
            server.start()
        until(lambda: answers(server), "the server to be back")
        await_all_told(server)
        alive = client.process.poll() is None
        ended = client.stop()
        failed = check(server, works, hint)
        check_left_over(works, failed, client, hint)
        log = "\n".join(client.log)

    assert alive, hint
    assert ended == 0, hint
    assert not any(failed.values()), hint
    assert "Traceback" not in log, hint


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("on_restart", ["requeue", "fail"])
def test_kills_with_other_ways_to_restart(
    server: Server, supervised: Supervised, tmp_path: Path, on_restart: str
) -> None:
    """With ON_RESTART=requeue, what was in hand is done anew, once; with fail, it has failed and says why."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised, overwrite=True)
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        for seconds in instants(chance, 20, seconds_to_start(client, server)):
            while len(server.queue()) < 6:
                server.post(works.next())
            began = time.monotonic()
            client.start(ON_RESTART=on_restart)
            await_instant(seconds, began)
            client.kill()
        client.start(ON_RESTART=on_restart)
        await_all_told(server)
        ended = client.stop()
        failed = check(
            server, works, hint, ("the client went down while this job ran",) if on_restart == "fail" else ()
        )
        check_left_over(works, failed, client, hint)

    assert ended == 0, hint
    assert any(failed.values()) == (on_restart == "fail"), hint


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_both_in_one(supervised: Supervised, tmp_path: Path) -> None:
    """The same with --standalone, where client and server are one process and die at one instant."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    server = Api(f"http://127.0.0.1:{port}", tmp_path / "log")
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        client._command += ["--standalone", "--port", str(port)]
        for seconds in instants(chance, 12):
            client.start()
            until(lambda: answers(server), "the server to serve")
            while len(server.queue()) < 6:
                server.post(works.next())
            await_instant(seconds, time.monotonic())
            client.kill()
        client.start()
        until(lambda: answers(server), "the server to serve")
        await_all_told(server)
        failed = check(server, works, hint, (CRASHED_THRICE,))
        ended = client.stop()
        check_left_over(works, failed, client, hint)
        log = "\n".join(client.log)

    assert ended == 0, hint
    assert "Traceback" not in log, hint


@pytest.mark.slow
def test_kills_of_the_client_and_its_zygote(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """What survives when both are killed at one instant is killed by the next start, before it begins anything."""
    seed = random.randrange(1 << 32)
    hint = f"seed {seed}"
    chance = random.Random(seed)
    works = Works(tmp_path, supervised)
    with contextlib.closing(a_client(server, supervised, tmp_path)) as client:
        start = seconds_to_start(client, server)
        for _ in range(12):
            while len(server.queue()) < 6:
                server.post(works.next())
            client.start()
            await_instant(start + chance.uniform(0, 0.4), time.monotonic())
            victims = psutil.Process(client.process.pid).children()
            for victim in [psutil.Process(client.process.pid), *victims]:
                victim.send_signal(signal.SIGSTOP)
            for victim in victims:
                victim.kill()
            client.kill()
        client.start()
        await_all_told(server)
        ended = client.stop()
        failed = check(server, works, hint, (CRASHED_THRICE,))
        check_left_over(works, failed, client, hint)

    assert ended == 0, hint
