"""How the values of a task's data become arguments of a program.

Every JSON value is written in one way, whatever the program: a number as text, and a whole one without a fraction;
an object as `key=value:key=value`.
"""

from collections.abc import Mapping
from typing import Any

Options = Mapping[str, Any]
"""Options of a program by their names, as they stand in a task's data."""


def to_argument(value: object) -> str:
    """`value` as one argument. Within an object, true and false are 1 and 0, and null leaves the bare key."""
    if isinstance(value, Mapping):
        return ":".join(key if item is None else f"{key}={to_argument(item)}" for key, item in value.items())
    if isinstance(value, bool | float) and value == int(value):
        return str(int(value))
    return str(value)
