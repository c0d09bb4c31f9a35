"""The scripts' set-up on a machine where nothing is installed: every line that it prints."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

BASICS = [
    "awk", "bash", "cat", "dirname", "env", "find", "flock", "grep", "mkdir", "readlink", "sha256sum", "tail", "wc",
]  # fmt: skip

PYTHON = f"""
case "$*" in
    *ensurepip*) exit 1 ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
"""A Python as Debian has it without python3-venv."""

OLD_PYTHON = """
case "$*" in
    *print*) echo 3.10 ;;
    *) exit 1 ;;
esac
"""

APT = """
case "$*" in
    *--print-uris*) printf "'http://x/%%2b.deb' x.deb 1234567 MD5Sum:1\\n'http://x/y.deb' y.deb 66234567 MD5Sum:1\\n" ;;
    *" install "*) echo "E: spam" >&2 && exit 100 ;;
esac
"""
"""An apt-get that fails when it has fetched the packages."""

REFUSING = {"apt_get": "exit 1\n", "sudo": "exit 1\n"}

VENV = f"python3.{sys.version_info.minor}-venv"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory with a checkout, and the only programs that there are in `bin`."""
    (tmp_path / "bin").mkdir()
    for name in BASICS:
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    shutil.copytree(ROOT / "scripts", tmp_path / "checkout" / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def install(machine: Path, **programs: str) -> None:
    """Put shell scripts into the machine's PATH; their names have _ for -."""
    for name, script in programs.items():
        file = machine / "bin" / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{script}")
        file.chmod(0o755)


def call(machine: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Call a script of the checkout, with nobody at the terminal."""
    return subprocess.run(
        [str(machine / "checkout" / "scripts" / command[0]), *command[1:]],
        env={"PATH": str(machine / "bin"), "HOME": str(machine), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "packages"),
    [
        (["run"], f"{VENV} ffmpeg mkvtoolnix"),
        (["run", "job.json"], f"{VENV} ffmpeg"),
        (["test"], f"{VENV} ffmpeg mkvtoolnix handbrake-cli faketime strace man-db postgresql chromium"),
        (["check"], VENV),
    ],
    ids=" ".join,
)
def test_all_that_is_missing_is_one_line(machine: Path, command: list[str], packages: str) -> None:
    """Who may not install packages is told all of them at once, as a command to paste."""
    install(machine, python3=PYTHON, **REFUSING)
    done = call(machine, *command)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "setup: some packages are missing; as root, run: "
        f"apt-get update && apt-get install -y --no-install-recommends {packages}\n"
    )


@pytest.mark.parametrize(
    ("programs", "line"),
    [
        (
            REFUSING,
            "some packages are missing; as root, run: apt-get update && "
            "apt-get install -y --no-install-recommends python3 python3-venv ffmpeg mkvtoolnix",
        ),
        (
            {"python3": OLD_PYTHON},
            "Python 3.10 is too old (install 3.11 or newer beside it, as python3.11); missing, too: ffmpeg mkvtoolnix",
        ),
        ({"python3": PYTHON}, f"missing, and there is no apt-get to install it: {VENV} ffmpeg mkvtoolnix"),
    ],
    ids=["no Python", "an old Python", "no apt-get"],
)
def test_other_machines(machine: Path, programs: dict[str, str], line: str) -> None:
    """Python is a package like the others; without apt-get no command is named that is not there."""
    install(machine, **programs)
    done = call(machine, "run")

    assert (done.returncode, done.stderr) == (1, f"setup: {line}\n")


def test_downloads_are_announced(machine: Path) -> None:
    """Before each download, a line says what and about how much; a failure is told with its last lines."""
    install(machine, python3=PYTHON, apt_get=APT, sudo='while [ "$1" != env ]; do shift; done; exec "$@"\n')
    done = call(machine, "run")

    assert done.returncode == 1
    assert done.stderr.splitlines()[:3] == [
        f"setup: missing: {VENV} ffmpeg mkvtoolnix; reading the lists of packages (10 to 40 MB)",
        f"setup: installing {VENV} ffmpeg mkvtoolnix (about 67 MB to download)",
        "E: spam",
    ]
    assert done.stderr.splitlines()[-1].startswith("setup: failed: ")


def test_a_checkout_that_cannot_be_written_is_one_line(machine: Path) -> None:
    """Where the environment cannot be made, the line says so."""
    (machine / "checkout" / ".venv").touch()  # which stops root, too
    done = call(machine, "check")

    assert done.returncode == 1
    assert done.stderr == f"setup: {machine}/checkout/.venv cannot be written: use a checkout of your own\n"


def test_another_system_is_one_line(machine: Path) -> None:
    """On macOS, whose bash and tools are others, the line comes before anything fails."""
    done = call(machine, "run", OSTYPE="darwin24")

    assert (done.returncode, done.stderr) == (1, "setup: the client needs Linux, and this is darwin24\n")


def test_the_matrix_has_all_that_the_tests_need() -> None:
    """What `scripts/test` would install, nobody there may: the matrix ran no test for want of strace."""
    scripts = {name: (ROOT / "scripts" / name).read_text() for name in ("setup.sh", "test", "matrix")}
    package_of = dict(re.findall(r"\[(\S+)\]=(\S+?)\)?(?=\s)", scripts["setup.sh"]))
    (programs,) = re.findall(r"^set_up \S+ (.+)$", scripts["test"], re.MULTILINE)
    (installed,) = re.findall(r'^packages="(.+)"$', scripts["matrix"], re.MULTILINE)

    assert {package_of[program] for program in programs.split()} <= set(installed.split())


@pytest.mark.parametrize("script", ["screenshots", "image-test"])
def test_a_stranger_asks_for_help(machine: Path, script: str) -> None:
    """A script without options says how it is called, and does nothing of what takes a quarter of an hour."""
    done = call(machine, script, "--help")

    assert done.returncode == 1
    assert f"usage: scripts/{script}" in done.stderr
    assert not (machine / "checkout" / ".venv").exists()
