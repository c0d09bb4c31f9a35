"""Times, ids and a worker's words as a person reads them."""

import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click

from app.config import ConfigError
from supervisor.commands.display import SHORT_ID, is_terminal

_AGO = re.compile(r"(\d+)\s*(s|m|h|d|w)")
_NUMBER = (int, float)
_TASK = {"seconds": _NUMBER, "cpu_seconds": _NUMBER, "peak_memory": _NUMBER, "results": dict, "warnings": list}
_OUTPUT = {"path": str, "bytes": _NUMBER}
_ERROR = {"stderr": list, "log": list}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_time(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """The value of an option that is a time, as ISO 8601 in UTC: so long ago ("2h"), "today", "yesterday", or ISO 8601.

    A day begins in the machine's time zone, or API_TIMEZONE's.
    """
    if text is None:
        return None
    try:
        return _read_time(text, datetime.now(_zone()).astimezone(_zone())).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise click.BadParameter(f'{text!r} is no time (such as "2h", "yesterday", "2026-01-31 22:00")') from None


def _read_time(text: str, now: datetime) -> datetime:
    if found := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    if text in ("today", "yesterday"):
        return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=text == "yesterday")
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=now.tzinfo)


def _zone() -> ZoneInfo | None:
    """The operator's time zone: API_TIMEZONE; `None` for the machine's."""
    name = os.environ.get("API_TIMEZONE", "").strip()
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"API_TIMEZONE: {name!r} is not a time zone of this system (such as Europe/Berlin)"
        ) from error


def show_time(time: str | None) -> str:
    """A time of the server's as a person reads it; empty if there is none."""
    return f"{datetime.fromisoformat(time).astimezone(_zone()):%Y-%m-%d %H:%M}" if time else ""


def short(identifier: str) -> str:
    """An id, short on a terminal."""
    return identifier[:SHORT_ID] if is_terminal() else identifier


def find_beat(job: Mapping[str, Any], workers: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The heartbeat of the worker that runs a job; empty if none does. One that has lost it may still be listed."""
    beats = [beat for beat in workers if beat.get("job_id") == job["job_id"]]
    return next((beat for beat in beats if beat["worker_id"] == job.get("worker_id")), beats[0] if beats else {})


def describe_task(beat: dict[str, Any]) -> str:
    """What a worker's heartbeat tells of its task: module, phase, percent, speed and time left."""
    info = beat.get("info") or {}
    progress, left = beat.get("progress"), info.get("eta_seconds")
    parts = (
        beat.get("task", ""),
        info.get("phase", ""),
        f"{progress:.0f} %" if isinstance(progress, (int, float)) else "",
        f"{info['speed']:.2f}x" if isinstance(info.get("speed"), (int, float)) else "",
        f"{timedelta(seconds=int(left))} left" if isinstance(left, (int, float)) and 0 <= left < 1e7 else "",
        "paused" if info.get("paused") else "",
        str(info.get("trouble", "")),
    )
    return ", ".join(filter(None, map(str, parts)))


def info_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a job's worker told, without what is not of our workers' form: it may be another program's, or a lie."""
    info: dict[str, Any] = record.get("info", {})
    tasks = info.get("tasks")
    read = [_in_form(task, _TASK) for task in tasks] if isinstance(tasks, list) else []
    for task in read:
        outputs = task.get("outputs")
        found = [_in_form(output, _OUTPUT) for output in outputs] if isinstance(outputs, list) else []
        task["outputs"] = [output for output in found if output.keys() >= _OUTPUT.keys()]
    return info | {"tasks": read, "error": _in_form(info.get("error"), _ERROR)}


def _in_form(told: Any, forms: Mapping[str, Any]) -> dict[str, Any]:
    known = told.items() if isinstance(told, dict) else ()
    return {key: value for key, value in known if isinstance(value, forms.get(key, object))}
