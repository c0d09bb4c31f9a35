"""Results that a task puts on the job's record: the values that every server can keep.

Both sides use this: the task process, so that the module's line with the wrong value fails, and the supervisor, which
does not trust it.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ipc.messages import MAX_RESULTS

MAX_DEPTH = 8
"""Levels of lists and objects in one value."""

_NAME = re.compile(r"[^\W\d_][\w -]{0,63}")
"""MongoDB takes no key with a NUL, and reads `.` and `$` as its own."""

_NAME_FORM = "a name of at most 64 letters, digits, spaces, - and _, which begins with a letter"

_INT_LIMIT = 1 << 63
"""Databases keep integers of 64 bits."""


def encode_results(results: Mapping[str, Any]) -> str:
    """Return `results` as JSON text in ASCII.

    Raises:
        ValueError: a name or a value cannot be kept, or all are too large; the message says which, and why.
    """
    text = json.dumps({_checked_name(name): _checked(value, name, 0) for name, value in results.items()})
    if len(text) > MAX_RESULTS:
        raise ValueError(f"the results take {len(text)} characters of JSON; at most {MAX_RESULTS} can be kept")
    return text


def decode_results(text: str) -> dict[str, Any]:
    """Return the results of what `encode_results` has made.

    Raises:
        ValueError: the text was made by something else.
    """
    if len(text) > MAX_RESULTS:
        raise ValueError(f"the results take {len(text)} characters of JSON; at most {MAX_RESULTS} can be kept")
    try:
        results = json.loads(text)
    except RecursionError as error:
        raise ValueError("the results are nested too deep") from error
    if not isinstance(results, dict):
        raise ValueError("the results are no object")  # noqa: TRY004 - the text is wrong, not an argument's type
    encode_results(results)
    return results


def _checked(value: Any, where: str, depth: int) -> Any:
    """Return a copy of `value` that shares nothing with it."""
    match value:
        case bool():
            return value
        case str():
            value.encode()  # raises UnicodeEncodeError, a ValueError, over a lone surrogate
            return str(value)
        case int() if -_INT_LIMIT <= value < _INT_LIMIT:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case list() | tuple() if depth < MAX_DEPTH:
            return [_checked(item, where, depth + 1) for item in value]
        case dict() if depth < MAX_DEPTH:
            return {_checked_name(key): _checked(item, where, depth + 1) for key, item in value.items()}
        case list() | tuple() | dict():
            raise ValueError(f"the result {where!r} is nested deeper than {MAX_DEPTH} levels")
        case float():
            raise ValueError(f"the result {where!r} is {value}: expected a finite number")
        case int():
            raise ValueError(f"the result {where!r} is an integer of {value.bit_length()} bits: expected at most 63")
        case _:
            raise ValueError(f"the result {where!r} is a {type(value).__name__}, which JSON or the record cannot hold")


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r:.80} cannot be a result's name: expected {_NAME_FORM}")
    return str(name)
