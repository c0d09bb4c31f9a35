"""A module that `sisyphus-client modules new` writes: it works, and so does its test."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from app.config import ConfigError
from supervisor.commands.new_module import ROOT, write_module
from tests.support.supervised import CLIENT, Supervised, job

LONGEST = "a" * 30
"""A name as long as they may be: lines that hold it must not be too long."""

OVERWRITE = {"overwrite": True}

UNLIKELY = ("", "Cool", "cool-thing", "cool.thing", "../cool", "cool\n", "_cool", "9cool", "ä", LONGEST + "a")


def run_pytest(test: Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def configuration(lines: Iterable[str]) -> str:
    """The TOML in what a person is told."""
    text = "\n".join(lines)
    return text[text.index("[tool") : text.index("To try it")]


def enable(supervised: Supervised, lines: Iterable[str]) -> None:
    """Use the configuration that a person is told, and nothing else."""
    supervised.config.write_text(configuration(lines))


def test_package(tmp_path: Path) -> None:
    """The package that it writes is built and installed, is enabled by its name alone, and passes its test."""
    lines = write_module("cool_thing", tmp_path, as_package=True)
    project = tmp_path / "sisyphus-cool-thing"
    tried = run_pytest(project / "tests" / "test_cool_thing.py", tmp_path)
    site = install(project, tmp_path / "site")
    (tmp_path / "client.toml").write_text(configuration(lines))
    (tmp_path / "source").write_text("text")
    data = {"source": str(tmp_path / "source"), "target": str(tmp_path / "target")}
    (tmp_path / "job.json").write_text(json.dumps(job(("cool_thing", data))))
    command = [CLIENT, "run", "--config", str(tmp_path / "client.toml"), str(tmp_path / "job.json")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True)

    assert tried.returncode == 0, tried.stdout
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target").read_text() == "text"


def install(project: Path, site: Path) -> Path:
    """Do what pip does, without a network: build the wheel and unpack it."""
    wheels = site.parent / "wheels"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)], cwd=project, check=True
    )
    (wheel,) = wheels.iterdir()
    shutil.unpack_archive(wheel, site, "zip")
    return site


def test_where_there_is_no_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has only followed the README has no pytest, and maybe no pip: the lines to type begin with those."""
    for name in ("pytest", "pip"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [])

    *_, install_line, test_line = write_module("cool", tmp_path)

    assert install_line == f"{sys.executable} -m ensurepip && {sys.executable} -m pip install pytest"
    assert test_line == f"{sys.executable} -m pytest {tmp_path}/test_cool.py"


def test_its_test_fails_with_it(tmp_path: Path) -> None:
    """The test notices a module that no longer writes what it should."""
    write_module("cool", tmp_path)
    module = tmp_path / "cool.py"
    module.write_text(module.read_text().replace("target.write(data)", "target.write(data[1:])"))

    done = run_pytest(tmp_path / "test_cool.py", tmp_path)

    assert done.returncode == 1
    assert "test_target_is_written" in done.stdout


def test_job_with_it(supervised: Supervised, tmp_path: Path) -> None:
    """The configuration that it tells a person to use enables it, and a job with it writes the whole target."""
    enable(supervised, write_module("cool", tmp_path / "odd 'name\" ä"))
    content = os.urandom(3 << 20)
    (tmp_path / "source").write_bytes(content)
    data = {name: str(tmp_path / name) for name in ("source", "target")}

    first, again, overwriting = supervised.verdicts(*(job(("cool", data | more)) for more in ({}, {}, OVERWRITE)))

    assert first.failure is None
    assert (tmp_path / "target").read_bytes() == content
    assert again.info["error"]["message"] == f"target: {tmp_path}/target: exists, and overwrite is not true"
    assert overwriting.failure is None
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"source": "/none", "target": "/no/target", "overwrite": 1},
            "overwrite: expected true or false, got 1; source: /none: no such file; "
            "target: /no/target: there is no directory /no",
        ),
        ({"source": "{}/source", "target": "{}/./source"} | OVERWRITE, "target: {}/./source is also the source"),
    ],
)
def test_bad_data(supervised: Supervised, tmp_path: Path, data: dict[str, Any], message: str) -> None:
    """Everything that is wrong with the data is told at once."""
    enable(supervised, write_module("cool", tmp_path))
    (tmp_path / "source").write_text("text")

    here = {key: value.format(tmp_path) if isinstance(value, str) else value for key, value in data.items()}
    cause = supervised.cause(job(("cool", here)))

    assert cause.message == message.format(tmp_path)
    assert (tmp_path / "source").read_text() == "text"


def test_failed_run(supervised: Supervised, tmp_path: Path) -> None:
    """What fails in the middle is a RunError with a message, and leaves nothing behind."""
    enable(supervised, write_module("cool", tmp_path))
    (tmp_path / "cool.py").write_text(
        (tmp_path / "cool.py").read_text().replace("target.write(data)", 'raise OSError(5, "Input/output error")')
    )
    (tmp_path / "source").write_text("text")

    cause = supervised.cause(job(("cool", {name: str(tmp_path / name) for name in ("source", "target")})))

    assert (cause.reason, cause.message) == (
        "exception",
        f"cannot make {tmp_path}/target: [Errno 5] Input/output error",
    )
    assert not list(tmp_path.glob("*target*"))
    assert not list(tmp_path.glob(".*"))


def test_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory, both files go into the checkout, which needs no path; the test passes with its settings."""
    checkout = copy_of_checkout(tmp_path)

    lines = write_module("cool", root=checkout)
    monkeypatch.setenv("PYTHONPATH", str(checkout))  # before what is installed: the checkout that we run from
    done = run_pytest(checkout / "tests" / "test_cool.py", checkout)

    assert (checkout / "modules" / "cool.py").is_file()
    enabled = {"enabled": {"cool": "modules.cool.Cool"}}
    assert tomllib.loads(configuration(lines)) == {"tool": {"client": {"modules": enabled}}}
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def copy_of_checkout(tmp_path: Path) -> Path:
    checkout = tmp_path / "checkout"
    unwanted = shutil.ignore_patterns("__pycache__", "test_*.py")
    for name in ("app", "ipc", "modules", "server", "supervisor", "tests"):
        shutil.copytree(ROOT / name, checkout / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    return checkout


def test_directory_that_the_client_imports_from_anyway(tmp_path: Path) -> None:
    """For a module beside the bundled ones no path is needed, however its directory was named."""
    checkout = copy_of_checkout(tmp_path)
    (tmp_path / "link").symlink_to(checkout / "modules")

    lines = write_module("cool", tmp_path / "link", checkout)

    assert "paths" not in configuration(lines)
    assert (checkout / "modules" / "test_cool.py").is_file()


def test_installed_program_needs_a_directory(tmp_path: Path) -> None:
    """Where the program does not run from a checkout, it says what to do."""
    with pytest.raises(ConfigError, match=r"does not run from a checkout: say with --directory where"):
        write_module("cool", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "expected lower-case letters, digits and _, at most 30") for name in UNLIKELY),
        ("class", "it is a word of Python's own"),
        ("none", "its class None would hide another of that name"),
        ("ffmpeg", "the client has modules/ffmpeg/__init__.py already"),
        ("base", "the client has modules/base.py already"),
        ("tool", "the client has modules/tool.py already"),
        *((name, "a Python package that is installed has it") for name in ("json", "sys", "loguru", "supervisor")),
        *((name, "pytest would take the file for one of its own") for name in ("conftest", "test_cool")),
        ("exception", "its class Exception would hide another of that name"),
        ("mapping", "its class Mapping would hide another of that name"),
        ("run_error", "its class RunError would hide another of that name"),
    ],
)
def test_name_that_will_not_do(name: str, reason: str, tmp_path: Path) -> None:
    """A name that cannot be imported, or means something else, is refused, and nothing is written."""
    with pytest.raises(ConfigError) as raised:
        write_module(name, tmp_path / "mine")

    assert str(raised.value) == f"{name!r} cannot be a module's name: {reason}"
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("taken", ["cool.py", "test_cool.py"])
def test_nothing_is_overwritten(taken: str, tmp_path: Path) -> None:
    """If one of the files is there, it stays as it is, and the other is not written."""
    (tmp_path / taken).write_text("mine")

    with pytest.raises(ConfigError) as raised:
        write_module("cool", tmp_path)

    assert str(raised.value) == f"{tmp_path / taken}: cannot be written: File exists"
    assert [file.read_text() for file in tmp_path.glob("*.py")] == ["mine"]


@pytest.mark.parametrize("name", ["a", LONGEST])
def test_code_is_clean(name: str, tmp_path: Path) -> None:
    """Both files are formatted and linted as the project's own, in the checkout and outside of it."""
    checkout = copy_of_checkout(tmp_path)
    write_module(name, root=checkout)
    write_module(name, tmp_path / "mine")
    files = [checkout / "modules" / f"{name}.py", checkout / "tests" / f"test_{name}.py", tmp_path / "mine"]
    settings = ["--config", str(checkout / "pyproject.toml"), "--no-cache"]

    for command in (["format", "--check", "--diff"], ["check"]):
        argv = [sys.executable, "-m", "ruff", *command, *settings, *map(str, files)]
        done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True)

        assert done.returncode == 0, done.stdout + done.stderr
    assert len(files[0].read_text().splitlines()) <= 60
    assert len(files[1].read_text().splitlines()) <= 50


@pytest.mark.slow
def test_types_are_clean(tmp_path: Path) -> None:
    """Both files pass the project's strict type checks."""
    checkout = copy_of_checkout(tmp_path)
    write_module("cool", root=checkout)

    argv = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", "modules/cool.py", "tests/test_cool.py"]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
