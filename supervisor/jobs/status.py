"""What modules say of their progress, made safe to show and to send on."""

import math
from typing import Any

import msgspec

_LEGAL = frozenset({"status", "task", "progress", "info", "online_at", "hostname", "version", "job_id", "job_title"})

MAX_INFO = 64 << 10
"""Bytes of what a module says that are shown and sent on."""


class Status(msgspec.Struct, frozen=True):
    """What a module last said."""

    progress: float | None = None
    """Percent, 0 to 100."""
    info: dict[str, Any] = {}


def read_status(raw: msgspec.Raw) -> Status:
    """Understand a status as far as it makes sense; what does not is left out, and unknown keys go under `info`."""
    try:
        said = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return Status()
    if not isinstance(said, dict):
        return Status()
    info = said.get("info")
    unknown = {key: value for key, value in said.items() if key not in _LEGAL}
    known = _without_nulls(unknown | (info if isinstance(info, dict) else {}))
    if len(raw) > MAX_INFO:
        known = {"left_out": f"{len(raw)} bytes; at most {MAX_INFO} are sent on"}
    return Status(_percent(said.get("progress")), known)


def _without_nulls(value: Any) -> Any:
    """The server takes none; they are also what numbers such as NaN have become on the way here."""
    match value:
        case dict():
            return {key: _without_nulls(item) for key, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value if item is not None]
        case _:
            return value


def _percent(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return min(max(number, 0.0), 100.0) if math.isfinite(number) else None
