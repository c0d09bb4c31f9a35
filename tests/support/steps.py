"""A module's steps, called as the client does, but in this process."""

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
