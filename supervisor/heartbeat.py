"""What modules say of their progress, made safe to show and to send on."""

import math
from typing import Any

import msgspec

_LEGAL = frozenset({"status", "task", "progress", "info", "online_at", "hostname", "version", "job_id", "job_title"})


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
    return Status(_percent(said.get("progress")), unknown | (info if isinstance(info, dict) else {}))


def _percent(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return min(max(number, 0.0), 100.0) if math.isfinite(number) else None
