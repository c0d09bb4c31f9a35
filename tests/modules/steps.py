"""A module's steps, called as the client does, but in this process."""

import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import RunError, ValidationError
from modules.base import BaseModule


def carry_out(kind: type[BaseModule], data: dict[str, Any]) -> Any:
    """Validate, run and clean up; returns the module."""
    module = kind(data)
    module.validate()
    module.run()
    module.cleanup()
    return module


def problems(kind: type[BaseModule], data: dict[str, Any]) -> list[str]:
    """What validation finds, line by line."""
    with pytest.raises(ValidationError) as caught:
        kind(data).validate()
    return list(caught.value.problems)


def refusal(kind: type[BaseModule], data: dict[str, Any]) -> str:
    """What validation finds, in one line."""
    return "; ".join(problems(kind, data))


def failure(kind: type[BaseModule], data: dict[str, Any]) -> RunError:
    """The error of a run without validation."""
    with pytest.raises(RunError) as caught:
        kind(data).run()
    return caught.value


def put_program(directory: Path, name: str, lines: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program of shell lines into a directory and before all others of its name, which the lines may call."""
    directory.mkdir(exist_ok=True)
    program, path = directory / name, os.environ["PATH"]
    program.write_text(f"#!/bin/sh\nPATH={shlex.quote(path)}\n{lines}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{path}")
    return program
