"""Spans of time as operators write them."""

from datetime import timedelta

from server.errors import ServerError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

MAX_DIGITS = 5


def read_time(name: str, text: object, expected: str = "a time such as 12h or 90d, or 0 for ever") -> timedelta:
    """Return the time that a text such as `12h` means; `0` is none.

    Raises:
        ServerError: it cannot be read; the message begins with `name`.
    """
    number, unit = (text[:-1], text[-1:]) if isinstance(text, str) else ("", "")
    if text == "0":
        return timedelta()
    if not number.isdecimal() or len(number) > MAX_DIGITS or unit not in _SECONDS:
        raise ServerError(f"{name}: {text!r} is not {expected}")
    return timedelta(seconds=int(number) * _SECONDS[unit])
