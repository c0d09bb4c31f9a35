"""A module's reports of its progress, made safe to show and to send on."""

import math
from typing import Any

import msgspec

_LEGAL = frozenset({"status", "task", "progress", "info", "online_at", "hostname", "version", "job_id", "job_title"})

MAX_INFO = 64 << 10
"""Bytes of a module's report that are shown and sent on."""


class Status(msgspec.Struct, frozen=True):
    """A module's last report."""

    progress: float | None = None
    """Percent, 0 to 100."""
    info: dict[str, Any] = {}


def read_status(raw: msgspec.Raw) -> Status:
    """Read a module's report. Values of a wrong type are left out, and unknown keys go under `info`."""
    try:
        report = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return Status()
    if not isinstance(report, dict):
        return Status()
    info = report.get("info")
    unknown = {key: value for key, value in report.items() if key not in _LEGAL}
    known = _without_nulls(unknown | (info if isinstance(info, dict) else {}))
    if len(raw) > MAX_INFO:
        known = {"left_out": f"{len(raw)} bytes; at most {MAX_INFO} are sent on"}
    return Status(_percent(report.get("progress")), known)


def _without_nulls(value: Any) -> Any:
    # The server refuses nulls. NaN and infinities have become nulls on the way here.
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
