"""One verdict per job: whatever is killed and whenever, no job is lost, none is done twice, and nothing half is left.

The server here is the real one, in a process of its own, since what counts is what it has recorded.
"""

import collections
import contextlib
import itertools
import random
import socket
import time
from collections.abc import Iterator
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

KILLS = 25
"""In each of four tests, which can run beside each other."""


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


class Killing:
    """A server, a client and its jobs, between whose start and end something is killed at random.

    `hint` tells how to have it once more.
    """

    def __init__(self, server: Api, client: Client, works: Works) -> None:
        seed = random.randrange(1 << 32)
        self.server, self.client, self.works = server, client, works
        self.hint = f"seed {seed}"
        self.chance = random.Random(seed)
        self.failed: dict[str, bool] = {}

    def fill(self, count: int = 6) -> None:
        """Have so many jobs in the queue."""
        while len(self.server.queue()) < count:
            self.server.post(self.works.next())

    def end(self, excusable: tuple[str, ...]) -> None:
        """Let all jobs end, and the client."""
        await_all_told(self.server)
        self.failed = check(self.server, self.works, self.hint, excusable)
        assert self.client.stop() == 0, self.hint
        check_left_over(self.works, self.failed, self.client, self.hint)
        assert "Traceback" not in "\n".join(self.client.log), self.hint


@contextlib.contextmanager
def killing(
    server: Api, supervised: Supervised, directory: Path, *excusable: str, overwrite: bool = False
) -> Iterator[Killing]:
    """A client that is not yet started; it must run at the end."""
    works = Works(directory, supervised, overwrite)
    with contextlib.closing(a_client(server, supervised, directory)) as client:
        scene = Killing(server, client, works)
        yield scene
        scene.end(excusable)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(4))
def test_kills_of_the_client(server: Server, supervised: Supervised, tmp_path: Path, part: int) -> None:
    """Killed at a hundred random instants while it works, the client has one verdict for each job in the end."""
    with killing(server, supervised, tmp_path, CRASHED_THRICE) as scene:
        for seconds in instants(scene.chance, KILLS, seconds_to_start(scene.client, server)):
            scene.fill()
            began = time.monotonic()
            scene.client.start()
            await_instant(seconds, began)
            scene.client.kill()
            assert not scene.works.halves(), scene.hint
        scene.client.start()

    for file in itertools.islice(scene.works.done.glob("*.ts"), 3):
        assert look(file)["streams"]
    assert not all(scene.failed.values()), scene.hint
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_the_server(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """With the server killed again and again, each job has one verdict in the end, and the client lives on."""
    with killing(server, supervised, tmp_path) as scene:
        scene.fill(60)
        scene.client.start(WORKER_SLOTS="2")
        for seconds in instants(scene.chance, 25):
            await_instant(seconds, time.monotonic())
            server.kill()
            server.start()
        until(lambda: answers(server), "the server to be back")


FAILED = "the client went down while this job ran"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("on_restart", "words"), [("requeue", ()), ("fail", (FAILED,))])
def test_kills_with_other_ways_to_restart(
    server: Server, supervised: Supervised, tmp_path: Path, on_restart: str, words: tuple[str, ...]
) -> None:
    """With ON_RESTART=requeue, what was in hand is done anew, once; with fail, it has failed and says why."""
    with killing(server, supervised, tmp_path, *words, overwrite=True) as scene:
        for seconds in instants(scene.chance, 20, seconds_to_start(scene.client, server)):
            scene.fill()
            began = time.monotonic()
            scene.client.start(ON_RESTART=on_restart)
            await_instant(seconds, began)
            scene.client.kill()
        scene.client.start(ON_RESTART=on_restart)

    assert any(scene.failed.values()) == (on_restart == "fail"), scene.hint


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_both_in_one(supervised: Supervised, tmp_path: Path) -> None:
    """The same with --standalone, where client and server are one process and die at one instant."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    server = Api(f"http://127.0.0.1:{port}", tmp_path / "log")
    with killing(server, supervised, tmp_path, CRASHED_THRICE) as scene:
        scene.client._command += ["--standalone", "--port", str(port)]
        for seconds in instants(scene.chance, 12):
            scene.client.start()
            until(lambda: answers(server), "the server to serve")
            scene.fill()
            await_instant(seconds, time.monotonic())
            scene.client.kill()
        scene.client.start()
        until(lambda: answers(server), "the server to serve")


@pytest.mark.slow
def test_kills_of_the_client_and_its_zygote(server: Server, supervised: Supervised, tmp_path: Path) -> None:
    """What survives when both are killed at one instant is killed by the next start, before it begins anything."""
    with killing(server, supervised, tmp_path, CRASHED_THRICE) as scene:
        start = seconds_to_start(scene.client, server)
        for _ in range(12):
            scene.fill()
            scene.client.start()
            await_instant(start + scene.chance.uniform(0, 0.4), time.monotonic())
            client = psutil.Process(scene.client.process.pid)
            victims = client.children()
            for victim in [client, *victims]:
                victim.suspend()
            for victim in victims:
                victim.kill()
            scene.client.kill()
        scene.client.start()
