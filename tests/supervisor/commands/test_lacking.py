"""A machine that lacks what the client needs, or takes nothing that it prints: one line, and no traceback."""

import os
import subprocess

import pytest

from tests.support.supervised import CLIENT, Supervised, job

UID = 54323 + os.getpid() % 1000  # its own: a limit of processes counts those of tests beside this one, too
AS_USER = "" if os.geteuid() else f"setpriv --reuid={UID} --inh-caps=+dac_override --ambient-caps=+dac_override"
"""A user whose number of processes can be limited, as root's cannot."""

COMMANDS = {
    "run": "run --config {config} {job}",
    "start": "start --config {config}",
    "serve": "serve --port 0",
    "submit": "submit {job}",
    "plan": "run --dry-run --config {config} {job}",
    "record": "run --json --config {config} {job}",
    "config": "config --config {config}",
    "version": "--version",
    "wrong": "run --no-such-option",
}


def call(supervised: Supervised, before: str, name: str, after: str = "") -> "subprocess.CompletedProcess[str]":
    document = job(("benign", {"make": str(supervised.directory / "made")}), ("hostile", {"act": "flood_stdout"}))
    command = COMMANDS[name].format(config=supervised.config, job=supervised.write_job(document))
    words = f"set -o pipefail; API_URL=http://127.0.0.1:1 {before} {CLIENT} {command} {after}"
    return subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        *(("nproc=1", name) for name in ("run", "start", "serve")),
        *(("nproc=3", name) for name in ("run", "start")),
        ("nproc=2", "serve"),
        ("nproc=4", "run"),
        ("nproc=5", "start"),
        ("nofile=16", "run"),
        *(("data=10000000", name) for name in ("run", "submit")),
        *(("data=30000000", name) for name in ("start", "serve")),
    ],
)
def test_low_limits(supervised: Supervised, limit: str, name: str) -> None:
    """Too few processes, threads, descriptors, too little memory: one line and status 2, and it does not hang."""
    done = call(supervised, f"{AS_USER} prlimit --{limit}", name)

    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("name", "after", "status", "said"),
    [
        *(("run", after, 0, "") for after in (">&- 2>&- <&-", "2>/dev/full", "2>&1 | head -c 1", "> /dev/full")),
        ("plan", "> /dev/full", 1, "the command lines cannot be written: No space left on device\n"),
        ("plan", ">&-", 0, ""),
        ("record", "> /dev/full", 1, "the record cannot be written: No space left on device\n"),
        ("record", ">&-", 0, ""),
        ("config", "> /dev/full", 2, ""),
        ("config", ">&-", 0, ""),
        ("version", "> /dev/full", 2, ""),
        ("wrong", "2>/dev/full", 2, ""),
    ],
)
def test_nobody_reads(supervised: Supervised, name: str, after: str, status: int, said: str) -> None:
    """A job goes on to its end, whoever has stopped reading; but what a command was for cannot be lost in silence."""
    done = call(supervised, "", name, after)

    assert done.returncode == status, done.stderr
    assert done.stderr.endswith(said)
    assert "Traceback" not in done.stderr
    assert (supervised.directory / "made").exists() == (name in ("run", "record"))


def test_a_missing_file_is_named(supervised: Supervised) -> None:
    """Where /proc shows processes alone, as in some containers, a share of the memory cannot be told: one line why."""
    supervised.configure(limits={"memory": "80%"})
    lacking = "unshare -Urm --pid --fork sh -c 'mount -t proc -o subset=pid proc /proc; exec \"$@\"' sh"
    done = call(supervised, lacking, "run")

    assert done.returncode == 2
    assert done.stderr == "sisyphus-client cannot work here: [Errno 2] No such file or directory: '/proc/meminfo'\n"
