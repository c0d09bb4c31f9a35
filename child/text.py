"""Text of a module's making, in a form that fits into a message to the supervisor."""

from collections.abc import Iterable, Sequence

from ipc.words import encodable

MAX_TEXT = 16 << 10
"""Characters of one text, such as an error's message."""

MAX_LINE = 1000
"""Characters of one line among several."""

MAX_LINES = 200
"""Lines of one kind in one message."""


def to_text(value: object) -> str:
    """`str(value)` as text that UTF-8 can carry, at most `MAX_TEXT` characters."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - str() of a module's object runs its code
        text = f"(a {type(value).__name__} whose text cannot be had: {type(error).__name__})"
    return encodable(text[:MAX_TEXT])


def last_lines(values: Iterable[object]) -> tuple[str, ...]:
    """The last `MAX_LINES` of `values` as text."""
    return tuple(to_text(value)[:MAX_LINE] for value in list(values)[-MAX_LINES:])


def first_lines(values: Sequence[object]) -> tuple[str, ...]:
    """The first `MAX_LINES` of `values` as text, and a line with the number of those left out."""
    more = len(values) - MAX_LINES
    return last_lines(values[:MAX_LINES]) + ((f"and {more} more problems",) if more > 0 else ())
