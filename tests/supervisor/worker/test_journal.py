"""The journal: what a method has returned from is on disk, whatever happens next."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server.storage.database import ServerDatabase
from supervisor.worker.journal import Journal, JournalError, UnfinishedJob
from tests.support.client import NOON, Client, await_beats, await_idle, change, opened, run_script, written
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, Supervised
from tests.support.waiting import until

# --- what it keeps ---


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
        change(state, step)
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


def test_a_return_is_kept_as_far_as_it_has_come(state: Path) -> None:
    """A job that goes back to the queue is no unfinished job any more, and how far its return came is known."""

    async def go(journal: Journal) -> None:
        await journal.begin("j", "{}", NOON)
        await journal.finish_task("j", 0, {})
        await journal.queue_return("j", "{}")

    async def go_on(journal: Journal) -> None:
        (debt,) = await journal.outbox_items()
        await (journal.note_new_id(debt, "k") if debt.doubtful else journal.mark_doubtful(debt))

    change(state, go)
    owed = written(state)
    change(state, go_on)
    posting = written(state)
    change(state, go_on)
    posted = written(state)

    assert owed == ([], [("j", "return", "{}", False, None)])
    assert posting == ([], [("j", "return", "{}", True, None)])
    assert posted == ([], [("j", "return", "{}", True, "k")])


def test_the_oldest_is_first(state: Path) -> None:
    """Jobs come back in the order in which they were begun, whatever the time zone was, and items in that of making."""

    async def go(journal: Journal) -> None:
        for hour in (11, 9, 10):
            await journal.begin(f"j{hour}", "{}", f"2026-01-01T{hour:02}:00:00+00:00")
        await journal.begin("early", "{}", "2026-10-25T02:59:00+02:00")
        await journal.begin("late", "{}", "2026-10-25T02:01:00+01:00")
        for name in ("z", "y", "x"):
            await journal.queue_verdict(name, {})
            await journal.queue_return(name, "{}")

    change(state, go)
    entries, debts = written(state)

    assert [entry.job_id for entry in entries] == ["j9", "j10", "j11", "early", "late"]
    assert [debt[:2] for debt in debts] == [(name, kind) for name in "zyx" for kind in ("verdict", "return")]


def test_dropped_jobs_leave_nothing(state: Path) -> None:
    """A job that is dropped goes with its tasks: begun again, it begins at the first."""

    async def go(journal: Journal) -> None:
        await journal.begin("j", "{}", NOON)
        await journal.finish_task("j", 0, {"module": "a"})
        await journal.drop("j")
        await journal.begin("j", "{}", NOON)

    change(state, go)

    assert written(state) == ([UnfinishedJob("j", "{}", NOON, 1)], [])


def test_what_is_settled_goes_with_the_next_change(state: Path) -> None:
    """A debt that is settled is on disk until something else is written, and is then forgotten, alone."""

    async def settle(journal: Journal, then: str) -> None:
        journal.acknowledge((await journal.outbox_items())[0])
        if then == "flush":
            await journal.flush()
        elif then == "begin":
            await journal.begin("j", "{}", NOON)

    async def owe(journal: Journal) -> None:
        for name in ("a", "b", "c"):
            await journal.queue_verdict(name, {})

    change(state, owe)
    seen = []
    for then in ("", "flush", "begin"):
        change(state, partial(settle, then=then))
        seen.append([debt[0] for debt in written(state)[1]])

    assert seen == [["a", "b", "c"], ["b", "c"], ["c"]]


def test_numbers_of_debts_are_not_used_again(state: Path) -> None:
    """A debt that is settled late cannot take one with it that was made since."""

    async def owe_and_settle(journal: Journal) -> int | None:
        (debt,) = await journal.queue_verdict("a", {})
        journal.acknowledge(debt)
        await journal.flush()
        return debt.number

    numbers = [change(state, owe_and_settle) for _ in range(2)]

    assert numbers == sorted(set(numbers))


def test_what_was_given_up_is_written_all_the_same(state: Path) -> None:
    """A change that nobody waits for any more is done whole, and those after it too."""

    async def go(journal: Journal) -> None:
        writing = [asyncio.create_task(journal.begin(f"j{number}", "{}", NOON)) for number in range(20)]
        await asyncio.sleep(0)  # they have begun
        for each in writing[::2]:
            each.cancel()
        await asyncio.gather(*writing, return_exceptions=True)

    change(state, go)

    assert {entry.job_id for entry in written(state)[0]} == {f"j{number}" for number in range(20)}


def test_a_job_is_begun_once(state: Path) -> None:
    """What is written down already is not written over."""

    async def go(journal: Journal) -> None:
        await journal.begin("j", "{}", NOON)
        with pytest.raises(JournalError, match="cannot be written"):
            await journal.begin("j", '{"other": 1}', NOON)
        await journal.begin("k", "{}", NOON)

    change(state, go)

    assert [(entry.job_id, entry.document) for entry in written(state)[0]] == [("j", "{}"), ("k", "{}")]


def test_it_costs_an_fsync(state: Path) -> None:
    """A power cut loses nothing that was acknowledged: the database is told to wait for the disk at each change."""
    with opened(state) as journal:
        found = journal._thread.submit(journal._database.execute("PRAGMA synchronous").fetchone).result()

    assert found == (2,)  # FULL


# --- one at a time ---


def test_a_refused_one_leaves_the_lock(state: Path) -> None:
    """One that could not be opened keeps no other from it, and no descriptor open."""
    state.mkdir(parents=True)
    made_by(FOREIGN)(state / "journal.sqlite3")
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


FOREIGN = "CREATE TABLE jobs (spam);"
"""As another program would make it."""


def make_newer(file: Path) -> None:
    new_journal(file.parent)
    made_by("PRAGMA user_version = 1000")(file)


def made_by(script: str) -> Callable[[Path], None]:
    """Makes a database that a script of SQL makes."""

    def make(file: Path) -> None:
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.executescript(script)

    return make


def make_truncated(file: Path) -> None:
    """Its second half is missing."""

    async def fill(journal: Journal) -> None:
        for number in range(100):
            await journal.begin(f"j{number}", "x" * 1000, NOON)

    change(file.parent, fill)
    os.truncate(file, file.stat().st_size // 2)


def make_damaged(file: Path) -> None:
    """Rubbish in the middle."""
    make_truncated(file)
    with file.open("r+b") as database:
        database.seek(4096 * 2)
        database.write(os.urandom(4096 * 3))


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "newer": (make_newer, "newer version"),
    "foreign": (made_by(FOREIGN), "it is a database of another program"),
    "foreign, of the same version": (
        made_by(f"PRAGMA journal_mode = WAL; {FOREIGN} PRAGMA user_version = 1;"),
        "it is a database of another program",
    ),
    "an API server's": (lambda file: ServerDatabase(file).close(), "it is a database of another program"),
    "directory": (Path.mkdir, "unable to open"),
}


@pytest.mark.parametrize(("make", "complaint"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_one_is_one_line(
    supervised: Supervised, tmp_path: Path, make: Callable[[Path], object], complaint: str
) -> None:
    """A journal that cannot be used is one line that names the file and what to do; status 2; it is left as it is."""
    state = tmp_path / "state"
    state.mkdir()
    file = state / "journal.sqlite3"
    make(file)
    before = file.read_bytes() if file.is_file() else b""
    with contextlib.closing(Farm()) as farm:
        said = Client(farm, supervised).refuse()

    assert str(file) in said
    assert complaint in said
    assert "move it away" in said
    assert not farm.requests
    assert (file.read_bytes() if file.is_file() else b"") == before
    assert not [name for name in os.listdir(state) if name.endswith(("-wal", "-shm", "-journal"))]


def make_log(file: Path) -> None:
    """Only the write-ahead log of a killed client is left."""
    with run_script(WRITES, file.parent) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    file.unlink()


DAMAGED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "text": (lambda file: file.write_text("Spam.\n" * 999), "file is not a database", "No job can be read in it"),
    "truncated": (make_truncated, "malformed", "Jobs in it: j0, j1, "),
    "damaged": (make_damaged, "", "j20, "),
    "stump": (
        lambda file: file.write_bytes(b"SQLite format 3\0".ljust(100, b"\0")),
        "file is not a database",
        "No job can be read in it",
    ),
    "without its database": (make_log, "it is empty, and its write-ahead log is not", "No job can be read in it"),
}


@pytest.mark.parametrize(("make", "complaint", "held"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_one_is_moved_aside(
    client: Client, farm: Farm, tmp_path: Path, make: Callable[[Path], object], complaint: str, held: str
) -> None:
    """The client starts with an empty journal, keeps the damaged one, and says in one line which jobs it held."""
    state = tmp_path / "state"
    state.mkdir()
    file = state / "journal.sqlite3"
    make(file)
    before = {end: Path(f"{file}{end}").read_bytes() for end in ("", "-wal") if Path(f"{file}{end}").is_file()}
    client.start()
    verdict = farm.await_verdict(farm.post(BENIGN))
    client.stop()
    said = client.log[0]

    assert not verdict.failed
    assert complaint in said
    assert {end: Path(f"{file}.damaged-1{end}").read_bytes() for end in before} == before
    assert f"and is now {file.name}.damaged-1" in said
    assert held in said
    assert sorted(os.listdir(state)) == sorted(
        ["journal.sqlite3", "lock", "logs", *(f"{file.name}.damaged-1{e}" for e in before)]
    )


# --- its files ---


def remove_all(state: Path) -> None:
    shutil.rmtree(state)


def remove(*ends: str) -> Callable[[Path], None]:
    def remove(state: Path) -> None:
        for end in ends:
            (state / f"journal.sqlite3{end}").unlink()

    return remove


def replace_log(state: Path) -> None:
    remove("-wal")(state)
    (state / "journal.sqlite3-wal").write_bytes(b"spam")


REMOVALS = {
    "database": remove(""),
    "write-ahead log": remove("-wal"),
    "both": remove("", "-wal"),
    "directory": remove_all,
    "another log": replace_log,
}


@pytest.mark.parametrize("act", REMOVALS.values(), ids=REMOVALS)
def test_removed_files_are_written_anew(state: Path, logged: list[str], act: Callable[[Path], None]) -> None:
    """What is removed while it is open comes back whole with the next change, locked; the log says it once."""

    async def go(journal: Journal) -> None:
        await journal.begin("before", "{}", NOON)
        act(state)
        await journal.begin("after", "{}", NOON)
        with pytest.raises(JournalError, match="another client uses this state directory"):
            Journal(state)
        await journal.finish_task("after", 0, {"module": "a"})

    change(state, go)

    assert written(state)[0] == [
        UnfinishedJob("before", "{}", NOON, 1),
        UnfinishedJob("after", "{}", NOON, 1, ({"module": "a"},)),
    ]
    assert len([line for line in logged if "was removed while it was open, and has been written anew" in line]) == 1
    assert sorted(os.listdir(state)) == ["journal.sqlite3", "lock"]


def test_a_replaced_one_is_not_written_over(state: Path) -> None:
    """A file that somebody put in its place stays, and each change is an error that says so."""

    async def go(journal: Journal) -> None:
        await journal.begin("before", "{}", NOON)
        other.write_text("spam")
        os.replace(other, file)
        for job_id in ("one", "two"):
            with pytest.raises(JournalError, match="was replaced while it was open: start the program again"):
                await journal.begin(job_id, "{}", NOON)

    file, other = state / "journal.sqlite3", state / "other"
    change(state, go)

    assert file.read_text() == "spam"


@pytest.mark.parametrize("foreign", [False, True], ids=["ours alone", "shared"])
def test_only_its_owner_reads_it(state: Path, foreign: bool) -> None:
    """Files are for their owner alone, also older ones, and so is a directory of nothing else. No -shm is mapped."""
    make_version_1(state)
    for path in state.iterdir():
        path.chmod(0o644)
    state.chmod(0o755)
    if foreign:
        (state / "notes.txt").touch(0o644)
    with opened(state):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (state, *state.iterdir())}

    ours = {"journal.sqlite3": 0o600, "journal.sqlite3-wal": 0o600, "lock": 0o600}
    assert modes == ours | ({"state": 0o755, "notes.txt": 0o644} if foreign else {"state": 0o700})


VERSION_1 = """
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, document TEXT NOT NULL, began TEXT NOT NULL, starts INTEGER NOT NULL DEFAULT 1,
    running INTEGER
);
CREATE TABLE tasks (
    job_id TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE, place INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (job_id, place)
) WITHOUT ROWID;
CREATE TABLE workers (worker_id TEXT PRIMARY KEY);
CREATE TABLE debts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
    posting INTEGER NOT NULL DEFAULT 0, new_id TEXT
);
PRAGMA user_version = 1;
"""
"""The tables of the first version, which had no application id."""

VERSION_1_ROWS = """
INSERT INTO jobs VALUES
    ('j', '{"spam": 1}', '2026-01-01T12:00:00+00:00', 2, 1), ('k', '{}', '2026-01-01T11:00:00+00:00', 1, NULL);
INSERT INTO tasks VALUES ('j', 1, '{"module": "b"}'), ('j', 0, '{"module": "a"}');
INSERT INTO workers VALUES ('former');
INSERT INTO debts (number, job_id, kind, body, posting, new_id) VALUES
    (3, 'told', 'verdict', '{"failed": true}', 0, NULL), (5, 'posting', 'return', '{}', 1, NULL),
    (6, 'posted', 'return', '{}', 1, 'new'), (9, 'gone', 'verdict', '{}', 0, NULL);
DELETE FROM debts WHERE number = 9;
"""


def make_version_1(state: Path, rows: str = VERSION_1_ROWS) -> Path:
    state.mkdir(parents=True)
    file = state / "journal.sqlite3"
    made_by(f"{VERSION_1}{rows} PRAGMA journal_mode = WAL;")(file)
    return file


def test_one_of_version_1_is_upgraded(state: Path) -> None:
    """A journal of an older client opens with all its jobs, items and workers, and is then as a new one."""

    async def go(journal: Journal) -> tuple[frozenset[str], int | None]:
        workers = await journal.remember_workers(["mine"])
        await journal.finish_task("k", 0, {"module": "c"})
        return workers, (await journal.queue_verdict("last", {}))[0].number

    file = make_version_1(state)
    first = written(state)
    workers, number = change(state, go)
    entries, items = written(state)

    assert first == (
        [
            UnfinishedJob("k", "{}", "2026-01-01T11:00:00+00:00", 1),
            UnfinishedJob("j", '{"spam": 1}', NOON, 2, ({"module": "a"}, {"module": "b"}), 1),
        ],
        [
            ("told", "verdict", '{"failed": true}', False, None),
            ("posting", "return", "{}", True, None),
            ("posted", "return", "{}", True, "new"),
        ],
    )
    assert workers == {"former", "mine"}
    assert number == 10
    assert entries[0].tasks == ({"module": "c"},)
    assert [item[0] for item in items] == ["told", "posting", "posted", "last"]
    assert columns(file) == columns(new_journal(state.parent / "new"))


def new_journal(state: Path) -> Path:
    with opened(state):
        return state / "journal.sqlite3"


def columns(file: Path) -> dict[str, list[Any]]:
    """What is in the header of a database, and each of its tables' columns."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        header = [database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")]
        return {"header": header} | {
            name: database.execute(f"PRAGMA table_xinfo({name})").fetchall() for name in sorted(tables)
        }


def test_an_upgrade_that_fails_changes_nothing(state: Path) -> None:
    """An upgrade is done whole or not at all: the older client can go on with the file."""
    file = make_version_1(state, "ALTER TABLE tasks RENAME COLUMN place TO spam; INSERT INTO workers VALUES ('mine');")
    before = columns(file)

    with pytest.raises(JournalError, match='no such column: "place"'):
        Journal(state)
    assert "debts" in before
    assert columns(file) == before


def test_a_file_that_a_crash_left_empty(state: Path) -> None:
    """It is a new journal."""
    state.mkdir(parents=True)
    (state / "journal.sqlite3").touch()

    assert written(state) == ([], [])


def test_a_second_client_is_refused(supervised: Supervised) -> None:
    """A second client with the same state directory is one line and status 2; `run` is none, nor is a killed one."""
    with contextlib.closing(Farm()) as farm, contextlib.closing(Client(farm, supervised)) as client:
        client.start()
        await_idle(farm)
        refused = [client.refuse(), client.refuse(HOST_UUID=""), client.refuse(API_URL="http://127.0.0.1:9")]
        ran = supervised.run(BENIGN)
        beats = await_beats(farm, 2)
        first = farm.await_verdict(farm.post(BENIGN))
        client.kill()
        client.start()
        verdict = farm.await_verdict(farm.post(BENIGN))

    assert all("another client uses this state directory" in line for line in refused)
    assert ran.returncode == 0
    assert beats
    assert not first.failed
    assert not verdict.failed


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
                (debt,) = await journal.queue_verdict(job_id, {"of": job_id})
                say("owed", job_id)
            elif number % 3 == 1:
                debt = await journal.queue_return(job_id, job_id)
                say("owed", job_id)
                await journal.note_new_id(debt, "new")
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
        with run_script(WRITES, state) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            said = process.stdout.readline()
            until_instant(instants.uniform(0, 0.25))
            process.kill()
            # Not `communicate`: it passes over what `readline` has read ahead, several lines if this process is slow.
            out, err = process.stdout.read(), process.stderr.read()
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
