"""Tables, times and lines for a person: whole where the output is no terminal, within its width where it is one."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.cells import cell_len, set_cell_size

from app.config import ConfigError
from supervisor.commands.display import plain, say

SHORT_ID = 8
"""Characters of an id that a terminal shows."""

_AGO = re.compile(r"(\d+)\s*(s|m|h|d|w)")
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


def is_terminal() -> bool:
    """Return whether a person sees standard output."""
    return bool(sys.stdout) and sys.stdout.isatty()


def short(identifier: str) -> str:
    """An id, short on a terminal."""
    return identifier[:SHORT_ID] if is_terminal() else identifier


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]], below: Sequence[str] = ()) -> None:
    """Print rows under their names. On a terminal, the widest columns are cut so that all fit.

    `below` has a line for each row to follow it, whole, if it is not empty.
    """
    cells = [[plain(re.sub(r"\s", " ", str(cell))) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    if is_terminal():
        room = shutil.get_terminal_size().columns - 2 * (len(widths) - 1)
        while sum(widths) > room and max(widths) > SHORT_ID:
            widths[widths.index(max(widths))] -= 1
    click.secho(_line(names, widths), bold=is_terminal())
    for row, more in zip(cells, below or [""] * len(cells), strict=True):
        say(_line(row, widths))
        if more:
            say(f"    {more}")


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(map(_fit, row, widths)).rstrip()


def _fit(cell: str, width: int) -> str:
    return set_cell_size(cell, width) if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"


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
