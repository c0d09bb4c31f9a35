"""The log of each job: kept in the state directory, within bounds, and sent to the embedded server."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from supervisor.worker import job_logs
from supervisor.worker.job_logs import MAX_AGE, MAX_FILES, MAX_LOG, JobLogs
from tests.support.api_server import Process
from tests.support.client import TOKEN, Client, Served, await_verdicts
from tests.support.farm import Farm
from tests.support.supervised import BENIGN, job
from tests.support.waiting import until

PRINTING = job(("hostile", {"step": "run", "act": "warn_and_leave_threads"}))


def log_of(served: Served, job_id: str) -> str:
    """The log of a job, once the server has it."""
    return str(
        until(lambda: (answer := served.api("GET", f"/jobs/{job_id}/log")).status_code == 200 and answer.text, "log")
    )


@pytest.mark.parametrize("level", ["ERROR", "DEBUG"])
def test_a_log_is_sent_with_the_verdict(served: Served, level: str) -> None:
    """It holds what the client, the module and its tool say of the job, and nothing of another job or a secret."""
    served.client.start(LOGURU_LEVEL=level, API_TOKEN=TOKEN)
    other, job_id = served.submit(), served.submit(PRINTING, job_title="a title")
    log = log_of(served, job_id)

    assert "Job 'a title' begins (1 tasks)" in log
    assert "0:hostile printed" in log
    assert "0:hostile Task completed" in log
    assert ("Step run" in log, "0:hostile step run" in log) == (level == "DEBUG",) * 2
    assert other not in log
    assert TOKEN not in log


def test_logs_are_sent_after_an_outage_and_a_crash(served_by_it: Served, server: Process, tmp_path: Path) -> None:
    """A log that the server could not take is sent later, by the next start if need be; verdicts do not wait for it."""
    served, client = served_by_it, served_by_it.client
    client.start()
    held, job_id = served.hold(tmp_path)
    server.kill()
    held.let_go()
    until(lambda: any("is completed" in line for line in client.log), "the end of the job")
    until(lambda: any("job's log" in line for line in client.log), "the attempt to send the log")
    client.kill()
    server.start()
    client.start()

    assert "Job 'held' is completed" in log_of(served, job_id)
    assert served.await_state(job_id, "completed")


def test_the_real_server_gets_no_logs(farm: Farm, client: Client, tmp_path: Path) -> None:
    """They stay in the state directory, for the owner alone."""
    job_id = farm.post(BENIGN)
    client.start()
    await_verdicts(farm, 1)
    client.stop()
    file = tmp_path / "state" / "logs" / f"{job_id}.log"

    assert not farm.calls("PUT *")
    assert "is completed" in file.read_text()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


# --- bounds ---


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[JobLogs]:
    logs = JobLogs(tmp_path / "logs")
    with logs.collecting("INFO"):
        yield logs


@pytest.mark.parametrize("job_id", ["../../x", "a/b", "..", "x" * 5000, "\u00e9 \udc80", ""], ids=range(6))
def test_an_id_of_any_kind_is_a_file_name(logs: JobLogs, tmp_path: Path, job_id: str) -> None:
    """No id leads out of the directory."""
    logger.bind(job=job_id).info("spam")
    log = asyncio.run(logs.read(job_id))

    assert log.endswith(b"spam\n")
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_the_middle_of_a_long_log_is_left_out(logs: JobLogs, tmp_path: Path) -> None:
    """The beginning and the end are kept, in whole lines, and the file does not grow."""
    sizes = []
    for number in range(30):
        for line in range(1000):
            logger.bind(job="j").info("{} {} {}", number, line, "x" * 80)
        log = asyncio.run(logs.read("j"))
        sizes.append((tmp_path / "logs" / "j.log").stat().st_size)
    lines = log.splitlines()

    assert max(sizes) <= MAX_LOG + job_logs.SLACK + job_logs.MAX_WAITING
    assert len(log) <= MAX_LOG
    assert lines[0].split()[3:5] == [b"0", b"0"]
    assert lines[-1].split()[3:5] == [b"29", b"999"]
    assert [line for line in lines if not line.endswith(b"x")] == [b"(the middle of this log was left out)"]


def test_old_logs_and_many_are_deleted(logs: JobLogs, tmp_path: Path) -> None:
    """The newest are kept."""
    (tmp_path / "logs").mkdir(exist_ok=True)
    for number in range(MAX_FILES + 10):
        file = tmp_path / "logs" / f"{number}.log"
        file.touch()
        age = MAX_AGE + 60 if number < 2 else MAX_FILES - number + 60
        os.utime(file, (time.time() - age, time.time() - age))
    asyncio.run(logs.read("none"))
    kept = {int(file.stem) for file in (tmp_path / "logs").iterdir()}

    assert kept == set(range(10, MAX_FILES + 10))


def test_a_disk_that_takes_no_logs(logs: JobLogs, tmp_path: Path, logged: list[str]) -> None:
    """It is said once, and nobody waits."""
    (tmp_path / "logs").write_text("no directory")
    for _ in range(3):
        logger.bind(job="j").info("spam")
        kept = asyncio.run(logs.read("j"))

    assert kept == b""
    assert len([line for line in logged if "cannot be kept" in line]) == 1
