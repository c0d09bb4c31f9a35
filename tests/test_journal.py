"""The journal: what a method has returned from is on disk, whatever happens next."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.worker.journal import Journal, JournalError, OutboxItem, UnfinishedJob
from tests.farm import Farm
from tests.supervised import BENIGN, Supervised, job, until
from tests.test_worker import REPORTER, Client, Held, await_beats, await_idle

ROOT = Path(__file__).parent.parent

LEEWAY = 10.0
"""Seconds that a busy machine may take for what takes milliseconds."""

NOON = "2026-01-01T12:00:00+00:00"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that does not exist yet."""
    return tmp_path / "deep" / "state"


@contextlib.contextmanager
def opened(state: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(state)) as journal:
        yield journal


def written(state: Path) -> tuple[list[UnfinishedJob], list[tuple[Any, ...]]]:
    """What is in the journal for one that opens it: the unfinished jobs, and the debts but for their numbers."""

    async def read(journal: Journal) -> tuple[list[UnfinishedJob], list[OutboxItem]]:
        return await journal.unfinished(), await journal.outbox_items()

    with opened(state) as journal:
        entries, debts = asyncio.run(read(journal))
    return entries, [(debt.job_id, debt.kind, debt.body, debt.posting, debt.new_id) for debt in debts]


# --- what it keeps ---


def test_a_new_one_is_empty(state: Path) -> None:
    """It is made where there is none, its directory too, and nothing is in it."""
    assert written(state) == ([], [])
    assert written(state) == ([], [])


def test_a_job_is_kept_until_its_verdict(state: Path) -> None:
    """Each stage of a job is found again by one that opens the journal after it."""
    document = '{"job_id": "j", "job_title": "\\ud800 \u20ac", "tasks": []}'
    first, second = {"module": "a", "result": "completed"}, {"module": "b", "warnings": ["\ud800", "\u20ac"]}
    steps: list[Callable[[Journal], Any]] = [
        lambda journal: journal.begin("j", document, NOON),
        lambda journal: journal.run_task("j", 0),
        lambda journal: journal.finish_task("j", 0, first),
        lambda journal: journal.run_task("j", 1),
        lambda journal: journal.resume("j"),
        lambda journal: journal.uncount_start("j"),
        lambda journal: journal.finish_task("j", 1, second),
        lambda journal: journal.queue_verdict("j", {"failed": False, "info": {"x": 1}}),
    ]
    seen = []
    for step in steps:
        with opened(state) as journal:
            asyncio.run(_done(step(journal)))
        seen.append(written(state))

    begun = UnfinishedJob("j", document, NOON, 1)
    assert [entries for entries, _ in seen] == [
        [begun],
        [UnfinishedJob("j", document, NOON, 1, (), 0)],
        [UnfinishedJob("j", document, NOON, 1, (first,), 0)],
        [UnfinishedJob("j", document, NOON, 1, (first,), 1)],
        [UnfinishedJob("j", document, NOON, 2, (first,), 1)],
        [UnfinishedJob("j", document, NOON, 1, (first,), 1)],
        [UnfinishedJob("j", document, NOON, 1, (first, second), 1)],
        [],
    ]
    assert seen[-1][1] == [("j", "verdict", '{"failed": false, "info": {"x": 1}}', False, None)]


async def _done(step: Any) -> Any:
    return await step


def test_a_return_is_kept_as_far_as_it_has_come(state: Path) -> None:
    """A job that goes back to the queue is no unfinished job any more, and how far its return came is known."""

    async def go(journal: Journal) -> None:
        await journal.begin("j", "{}", NOON)
        await journal.finish_task("j", 0, {})
        await journal.queue_return("j", "{}")

    async def go_on(journal: Journal, step: Callable[[OutboxItem], Any]) -> None:
        (debt,) = await journal.outbox_items()
        await step(debt)

    with opened(state) as journal:
        asyncio.run(go(journal))
    owed = written(state)
    with opened(state) as journal:
        asyncio.run(go_on(journal, journal.begin_posting))
    posting = written(state)
    with opened(state) as journal:
        asyncio.run(go_on(journal, lambda debt: journal.has_posted(debt, "k")))
    posted = written(state)

    assert owed == ([], [("j", "return", "{}", False, None)])
    assert posting == ([], [("j", "return", "{}", True, None)])
    assert posted == ([], [("j", "return", "{}", True, "k")])


def test_the_oldest_is_first(state: Path) -> None:
    """Jobs come back in the order in which they were begun, and debts in that in which they were made."""

    async def go(journal: Journal) -> None:
        for hour in (11, 9, 10):
            await journal.begin(f"j{hour}", "{}", f"2026-01-01T{hour:02}:00:00+00:00")
        for name in ("z", "y", "x"):
            await journal.queue_verdict(name, {})
            await journal.queue_return(name, "{}")

    with opened(state) as journal:
        asyncio.run(go(journal))
    entries, debts = written(state)

    assert [entry.job_id for entry in entries] == ["j9", "j10", "j11"]
    assert [debt[:2] for debt in debts] == [(name, kind) for name in "zyx" for kind in ("verdict", "return")]


def test_the_order_does_not_hang_on_the_zone(state: Path) -> None:
    """The oldest job is the first to be resumed when the clocks have been changed meanwhile, too."""

    async def go(journal: Journal) -> None:
        await journal.begin("early", "{}", "2026-10-25T02:59:00+02:00")
        await journal.begin("late", "{}", "2026-10-25T02:01:00+01:00")

    with opened(state) as journal:
        asyncio.run(go(journal))

    assert [entry.job_id for entry in written(state)[0]] == ["early", "late"]


def test_dropped_jobs_leave_nothing(state: Path) -> None:
    """A job that is dropped goes with its tasks: begun again, it begins at the first."""

    async def go(journal: Journal) -> None:
        await journal.begin("j", "{}", NOON)
        await journal.finish_task("j", 0, {"module": "a"})
        await journal.drop("j")
        await journal.begin("j", "{}", NOON)

    with opened(state) as journal:
        asyncio.run(go(journal))

    assert written(state) == ([UnfinishedJob("j", "{}", NOON, 1)], [])


def test_what_is_settled_goes_with_the_next_change(state: Path) -> None:
    """A debt that is settled is on disk until something else is written, and is then forgotten, alone."""

    async def settle(journal: Journal, then: Callable[[], Any] | None) -> None:
        journal.acknowledge((await journal.outbox_items())[0])
        if then:
            await then()

    async def owe(journal: Journal) -> None:
        for name in ("a", "b", "c"):
            await journal.queue_verdict(name, {})

    with opened(state) as journal:
        asyncio.run(owe(journal))
    seen = []
    for then in (None, "flush", "begin"):
        with opened(state) as journal:
            steps = {None: None, "flush": journal.flush, "begin": lambda: journal.begin("j", "{}", NOON)}
            asyncio.run(settle(journal, steps[then]))
        seen.append([debt[0] for debt in written(state)[1]])

    assert seen == [["a", "b", "c"], ["b", "c"], ["c"]]


def test_numbers_of_debts_are_not_used_again(state: Path) -> None:
    """A debt that is settled late cannot take one with it that was made since."""

    async def owe(journal: Journal, name: str) -> int:
        return (await journal.queue_verdict(name, {})).number

    async def settle(journal: Journal) -> None:
        for debt in await journal.outbox_items():
            journal.acknowledge(debt)
        await journal.flush()

    numbers = []
    for name in ("a", "b"):
        with opened(state) as journal:
            numbers.append(asyncio.run(owe(journal, name)))
            asyncio.run(settle(journal))

    assert numbers[0] < numbers[1]


def test_what_was_given_up_is_written_all_the_same(state: Path) -> None:
    """A change that nobody waits for any more is done whole, and those after it too."""

    async def go(journal: Journal) -> None:
        writing = [asyncio.create_task(journal.begin(f"j{number}", "{}", NOON)) for number in range(20)]
        await asyncio.sleep(0)  # they have begun
        for each in writing[::2]:
            each.cancel()
        await asyncio.gather(*writing, return_exceptions=True)

    with opened(state) as journal:
        asyncio.run(go(journal))

    assert {entry.job_id for entry in written(state)[0]} == {f"j{number}" for number in range(20)}


def test_a_job_is_begun_once(state: Path) -> None:
    """What is written down already is not written over."""

    async def go(journal: Journal) -> None:
        await journal.begin("j", "{}", NOON)
        with pytest.raises(JournalError, match="cannot be written"):
            await journal.begin("j", '{"other": 1}', NOON)
        await journal.begin("k", "{}", NOON)

    with opened(state) as journal:
        asyncio.run(go(journal))

    assert [(entry.job_id, entry.document) for entry in written(state)[0]] == [("j", "{}"), ("k", "{}")]


def test_an_id_that_no_disk_can_hold(state: Path) -> None:
    """An id with half a character in it, which JSON can hold and UTF-8 cannot, is an error and no crash."""

    async def go(journal: Journal) -> None:
        with pytest.raises(JournalError):
            await journal.begin("\ud800", "{}", NOON)
        await journal.begin("k", "{}", NOON)

    with opened(state) as journal:
        asyncio.run(go(journal))

    assert [entry.job_id for entry in written(state)[0]] == ["k"]


def test_it_costs_an_fsync(state: Path) -> None:
    """A power cut loses nothing that was acknowledged: the database is told to wait for the disk at each change."""
    with opened(state) as journal:
        found = journal._thread.submit(journal._database.execute("PRAGMA synchronous").fetchone).result()

    assert found == (2,)  # FULL


# --- one at a time ---


def test_a_second_one_is_refused(state: Path) -> None:
    """Two journals on one directory: the second is refused with one line, also in the same process."""
    with opened(state), pytest.raises(JournalError) as caught:
        Journal(state)

    assert "\n" not in str(caught.value)
    assert "another client uses this state directory" in str(caught.value)
    assert str(state) in str(caught.value)
    assert written(state) == ([], [])


def test_a_refused_one_leaves_the_lock(state: Path) -> None:
    """One that could not be opened keeps no other from it, and no descriptor open."""
    state.mkdir(parents=True)
    (state / "journal.sqlite3").write_bytes(b"spam" * 1000)
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for _ in range(3):
        with pytest.raises(JournalError, match="journal"):
            Journal(state)
    (state / "journal.sqlite3").unlink()

    assert written(state) == ([], [])
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


# --- one that is no use ---


def make_newer(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 1000")


def make_text(file: Path) -> None:
    file.write_text("Spam and eggs.\n" * 500)


def make_truncated(file: Path) -> None:
    """Its second half is missing."""

    async def fill(journal: Journal) -> None:
        for number in range(100):
            await journal.begin(f"j{number}", "x" * 1000, NOON)

    with opened(file.parent) as journal:
        asyncio.run(fill(journal))
    os.truncate(file, file.stat().st_size // 2)


def make_foreign(file: Path) -> None:
    """Another program's."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE jobs (spam)")
        database.commit()


def make_directory(file: Path) -> None:
    file.mkdir()


def make_damaged(file: Path) -> None:
    """Rubbish in the middle."""
    make_truncated(file)
    with file.open("r+b") as database:
        database.seek(4096 * 2)
        database.write(os.urandom(4096 * 3))


UNUSABLE = {
    "newer": (make_newer, "newer version"),
    "text": (make_text, "not a database"),
    "truncated": (make_truncated, "malformed"),
    "foreign": (make_foreign, "jobs"),
    "directory": (make_directory, "unable to open"),
    "damaged": (make_damaged, ""),
}


@pytest.mark.parametrize(("make", "complaint"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_one_is_one_line(
    supervised: Supervised, tmp_path: Path, make: Callable[[Path], None], complaint: str
) -> None:
    """A journal that cannot be used is one line that names the file and what to do; status 2; it is left as it is."""
    state = tmp_path / "state"
    state.mkdir()
    file = state / "journal.sqlite3"
    make(file)
    before = file.read_bytes() if file.is_file() else b""
    with contextlib.closing(Farm()) as farm:
        done = Client(farm, supervised).refuse()

    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(file) in done.stderr
    assert complaint in done.stderr
    assert "move it away" in done.stderr
    assert not farm.requests
    assert (file.read_bytes() if file.is_file() else b"") == before


@pytest.mark.parametrize("size", [0, 10, 100])
def test_the_stump_of_one(state: Path, size: int) -> None:
    """A file that a crash left empty is a new journal; the stump of a header is an error of one line."""
    state.mkdir(parents=True)
    (state / "journal.sqlite3").write_bytes(b"SQLite format 3\0".ljust(size, b"\0")[:size])

    if size == 0:
        assert written(state) == ([], [])
    else:
        with pytest.raises(JournalError, match="move it away"):
            Journal(state)


def test_a_second_client_is_refused(supervised: Supervised) -> None:
    """A second client with the same state directory is one line and status 2; `run` is none, nor is a killed one."""
    with contextlib.closing(Farm()) as farm, contextlib.closing(Client(farm, supervised)) as client:
        client.start()
        await_idle(farm)
        refused = [client.refuse(), client.refuse(HOST_UUID=""), client.refuse(API_URL="http://127.0.0.1:9")]
        ran = supervised.run(BENIGN)
        beats = await_beats(farm, 2)
        client.kill()
        client.start()
        verdict = farm.await_verdict(farm.post(BENIGN))

    for done in refused:
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "another client uses this state directory" in done.stderr
    assert ran.returncode == 0
    assert beats
    assert not verdict.failed


# --- a directory that cannot be written ---


@pytest.mark.parametrize("place", ["/dev/null/state", "/proc/self/state"])
@pytest.mark.parametrize("uuid", ["8b5c1d1e-6f0a-4c39-9a53-0d3a86a4d1f7", ""], ids=["id", "no id"])
def test_a_place_where_no_directory_can_be(supervised: Supervised, place: str, uuid: str) -> None:
    """A state directory that cannot be made is one line that says so and what to set; status 2."""
    with contextlib.closing(Farm()) as farm:
        done = Client(farm, supervised).refuse(SISYPHUS_STATE_DIR=place, HOST_UUID=uuid)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert place in done.stderr
    assert "SISYPHUS_STATE_DIR" in done.stderr
    assert not farm.requests


@pytest.mark.parametrize("begun", [False, True], ids=["new", "used"])
def test_a_directory_that_is_read_only(supervised: Supervised, tmp_path: Path, begun: bool) -> None:
    """A state directory that cannot be written is one line and status 2, whether there is a journal in it or not."""
    state = tmp_path / "state"
    with mounted(state, "512k") as mount:
        if begun:
            written(state)
            (state / "host_uuid").write_text("8b5c1d1e-6f0a-4c39-9a53-0d3a86a4d1f7\n")
        mount("-o", "remount,ro")
        with contextlib.closing(Farm()) as farm:
            done = Client(farm, supervised).refuse(HOST_UUID="")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(state) in done.stderr
    assert not farm.requests


@contextlib.contextmanager
def mounted(place: Path, size: str) -> Iterator[Callable[..., None]]:
    """A file system of this size, in memory, at `place`; gives mount(8) for it."""
    place.mkdir()

    def mount(*options: str) -> None:
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")

    mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(place)], check=True)


# --- a full disk ---


def fill(place: Path) -> Path:
    """Take all the space that is left; returns the file that has it."""
    file = place / "filler"
    with file.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(512))
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a disk of its own, with room for a journal."""
    with mounted(tmp_path / "state", "512k"):
        yield tmp_path / "state"


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """A server; at the end the client must have kept to the protocol."""
    farm = Farm()
    yield farm
    farm.close()
    assert not farm.violations


@pytest.fixture
def client(small_disk: Path, farm: Farm, supervised: Supervised, tmp_path: Path) -> Iterator[Client]:
    """A client on a small disk, not yet started."""
    (tmp_path / "reporter.py").write_text(REPORTER)
    supervised.configure(modules={"reporter": "reporter.Reporter"}, paths=(str(tmp_path),))
    client = Client(farm, supervised)
    yield client
    client.close()


def says(client: Client, words: str) -> list[str]:
    return until(lambda: [line for line in client.log if words in line], f"{words!r} in the log")


def test_a_full_disk_is_an_error_and_no_harm(small_disk: Path) -> None:
    """What cannot be written is a `JournalError`; what was there stays, and with room again all goes on."""

    async def go(journal: Journal) -> None:
        await journal.begin("before", "{}", NOON)
        owed = await journal.queue_verdict("told", {})
        journal.acknowledge(owed)
        filler = fill(small_disk)
        try:
            for number in range(1000):
                await journal.begin(f"j{number}", "x" * 10_000, NOON)
        except JournalError as error:
            found.extend([error, number])
        for write in (journal.flush, lambda: journal.queue_return("before", "x" * 10_000)):
            with contextlib.suppress(JournalError):
                await write()
        kept.extend(await journal.unfinished())
        filler.unlink()
        await journal.begin("after", "{}", NOON)

    found: list[Any] = []
    kept: list[UnfinishedJob] = []
    with opened(small_disk) as journal:
        asyncio.run(go(journal))
    error, count = found
    entries, debts = written(small_disk)
    fine = {"before", *(f"j{number}" for number in range(count))}

    assert "\n" not in str(error)
    assert "full" in str(error)
    assert str(small_disk / "journal.sqlite3") in str(error)
    assert fine - {"before"} <= {entry.job_id for entry in kept} <= fine
    assert {entry.job_id for entry in entries} == {entry.job_id for entry in kept} | {"after"}
    assert "told" not in {debt[0] for debt in debts}


def test_a_disk_that_is_full_at_the_start(client: Client, farm: Farm, small_disk: Path) -> None:
    """A client that cannot make its journal says so in one line and exits with 2."""
    fill(small_disk)
    done = client.refuse()

    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert str(small_disk) in done.stderr
    assert not farm.requests


def test_no_job_is_begun_that_cannot_be_written_down(client: Client, farm: Farm, small_disk: Path) -> None:
    """While the disk is full, jobs go back to the queue, the log and the heartbeat go on; with room, they are run."""
    client.start()
    await_idle(farm)
    filler = fill(small_disk)
    big = job(("benign", {"spam": "x" * 600_000}))  # does not fit into what is there already
    job_id = farm.post(big)
    says(client, "cannot be written down")
    until(lambda: farm.calls(f"DELETE /jobs/{job_id}") and farm.queue, "the job to be back")
    beats = await_beats(farm, 3)
    alive = client.process.poll() is None
    told = list(farm.verdicts)
    farm.queue.clear()
    filler.unlink()
    verdict = farm.await_verdict(farm.post(BENIGN))

    assert alive
    assert beats
    assert not told
    assert not verdict.failed
    assert "Traceback" not in "\n".join(client.log)


def test_a_disk_that_is_full_while_a_job_runs(client: Client, farm: Farm, small_disk: Path, tmp_path: Path) -> None:
    """A job in hand is finished though nothing more can be written, and its verdict is told; the log says so."""
    held = Held(tmp_path)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    fill(small_disk)
    held.let_go()
    verdict = farm.await_verdict(job_id)
    complaints = says(client, "cannot be written")

    assert not verdict.failed
    assert all("ERROR" in line for line in complaints)
    assert "Traceback" not in "\n".join(client.log)


def test_a_full_disk_does_not_keep_it_from_leaving(client: Client, farm: Farm, small_disk: Path) -> None:
    """An idle client that cannot write down what it has told the server ends with 0; the next start does no harm."""
    client.start()
    farm.await_verdict(farm.post(BENIGN))
    await_idle(farm)
    filler = fill(small_disk)
    ended = client.stop()
    filler.unlink()
    client.start()
    farm.await_verdict(farm.post(BENIGN))

    assert ended == 0
    assert "Traceback" not in "\n".join(client.log)
    assert len(farm.verdicts) == 2


@pytest.mark.parametrize("names", [["TERM"], ["QUIT"], ["QUIT", "QUIT"]], ids=["drain", "cancel", "kill"])
def test_a_full_disk_does_not_change_how_it_ends(
    client: Client, farm: Farm, small_disk: Path, tmp_path: Path, names: list[str]
) -> None:
    """A client whose journal cannot be written ends as it would: with its job done, given back, or killed."""
    held = Held(tmp_path, spam="x" * 300_000)
    job_id = farm.post(held.job)
    client.start()
    held.await_running()
    fill(small_disk)
    for name in names:
        client.process.send_signal(signal.Signals[f"SIG{name}"])
    if names == ["TERM"]:
        says(client, "SIGTERM")
        held.let_go()
    ended = client.process.wait(LEEWAY + 10)
    known = {verdict.job_id for verdict in farm.verdicts}

    assert "Traceback" not in "\n".join(client.log)
    assert ended in ([0, 131, -3] if len(names) == 2 else [0]), client.log
    assert (job_id in known) == (names == ["TERM"])
    assert len(farm.queue) == (names == ["QUIT"]) or len(names) == 2


def test_a_limit_on_file_sizes_is_an_error_and_no_harm(tmp_path: Path) -> None:
    """A journal that may not grow any more is no crash, and can be written again when it may."""
    done = run_script(
        """
        import asyncio, resource, sys
        from pathlib import Path
        from supervisor.worker.journal import Journal, JournalError

        async def main(journal):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            count = 0
            try:
                while True:
                    await journal.begin(f"j{count}", "x" * 10_000, "2026-01-01T12:00:00+00:00")
                    count += 1
            except JournalError as error:
                print(count, error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await journal.begin("after", "{}", "2026-01-01T12:00:01+00:00")
            print(len(await journal.unfinished()))

        asyncio.run(main(Journal(Path(sys.argv[1]))))
        """,
        tmp_path / "state",
    )
    out, err = done.communicate(timeout=60)
    first, second = out.splitlines()
    count, words = first.split(maxsplit=1)

    assert err == ""
    assert done.returncode == 0
    assert int(count) > 0
    assert words.startswith(f"{tmp_path}/state/journal.sqlite3: cannot be written: ")
    assert int(second) == int(count) + 1
    assert [entry.job_id for entry in written(tmp_path / "state")[0]][-1] == "after"


def run_script(script: str, *arguments: object) -> "subprocess.Popen[str]":
    lines = script.splitlines()[1:]
    indent = len(lines[0]) - len(lines[0].lstrip())
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(line[indent:] for line in lines), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- killed while it writes ---

WRITES = """
    import asyncio, itertools, os, sys
    from pathlib import Path
    from supervisor.worker.journal import Journal

    def say(*words):
        os.write(1, " ".join(map(str, words)).encode() + b"\\n")

    async def write(journal, name):
        for number in itertools.count():
            job_id = f"{name}-{os.getpid()}-{number}"
            await journal.begin(job_id, "x" * (number % 5000), "2026-01-01T12:00:00+00:00")
            say("begun", job_id)
            await journal.finish_task(job_id, 0, {"module": "a"})
            say("finished", job_id)
            if number % 3 == 0:
                debt = await journal.queue_verdict(job_id, {"of": job_id})
                say("owed", job_id)
            elif number % 3 == 1:
                debt = await journal.queue_return(job_id, job_id)
                say("owed", job_id)
                await journal.has_posted(debt, "new")
                say("posted", job_id)
                journal.acknowledge(debt)
                await journal.flush()
                say("settled", job_id)

    async def main(journal):
        await asyncio.gather(write(journal, "one"), write(journal, "two"))

    asyncio.run(main(Journal(Path(sys.argv[1]))))
"""


@pytest.mark.slow
def test_a_kill_while_writing_loses_nothing(tmp_path: Path) -> None:
    """Killed at any instant, the journal has all that was acknowledged, and can be opened and written at once."""
    state = tmp_path / "state"
    seed = random.randrange(1 << 32)
    instants = random.Random(seed)
    last: dict[str, str] = {}
    for _ in range(20):
        process = run_script(WRITES, state)
        assert process.stdout is not None
        said = process.stdout.readline()
        until_instant(instants.uniform(0, 0.25))
        process.kill()
        out, err = process.communicate()
        assert err == "", f"seed {seed}"
        for line in (said + out).splitlines():
            stage, job_id = line.split()
            last[job_id] = stage
        check(state, last, f"seed {seed}")

    assert len(last) > 100


def until_instant(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, "the instant")


def check(state: Path, last: dict[str, str], hint: str) -> None:
    """Compare the journal with what was acknowledged last of each job; the change after that may be there too."""
    entries, debts = written(state)
    begun = {entry.job_id: entry for entry in entries}
    owed = {debt[0]: debt for debt in debts}
    for job_id, stage in last.items():
        match stage:
            case "begun":
                assert job_id in begun, hint
            case "finished":
                assert job_id in owed or begun[job_id].tasks == ({"module": "a"},), hint
            case "owed":
                assert job_id in owed, hint
                assert job_id not in begun, hint
            case "posted":
                assert job_id not in owed or owed[job_id][3:] == (False, "new"), hint
            case "settled":
                assert job_id not in owed, hint
    assert not set(begun) & set(owed), hint
