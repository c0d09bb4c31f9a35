"""Makes pages from the templates: values for people, and headers that let a page load and do only what is ours."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from app.config import VERSION
from app.formats import quote_part

FOLDER = Path(__file__).parent

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # `no-referrer` would make browsers send `Origin: null` with our forms
    "Cross-Origin-Opener-Policy": "same-origin",
}

REASONS = {
    "exception": "The module raised an error.",
    "exit": "A tool ended with an error.",
    "signal": "A signal killed a tool or the task's process: it crashed, or somebody killed it.",
    "timeout": "A step took longer than its timeout.",
    "memory": "It used more memory than it may have.",
    "stall": "It did nothing for too long.",
    "processes": "It had more processes or threads than it may have.",
    "protocol": "The task's process sent something that is no message.",
    "cancelled": "An operator stopped it.",
    "shutdown": "The worker was told to stop.",
    "lost": "Its worker or its process was lost again and again.",
    "unfit": "No worker has what it needs: a module, a tool, an encoder or a device.",
}
"""The reasons of a job's record, for a person."""


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page. What it shows is what was true now: nobody may keep it."""
    state = request.app.state.services
    page = _environment.get_template(template).render(
        root=request.scope.get("root_path", ""),
        version=VERSION,
        now=datetime.now(UTC).isoformat(),
        status=status,
        has_token=bool(state.settings.token),
        queue_disabled="" in state.orders.standing.disabled,
        **values,
    )
    # A lone surrogate in a title is not UTF-8.
    body = page.encode("utf-8", "replace")
    return Response(body, status, HEADERS | {"Cache-Control": "no-store"}, "text/html; charset=utf-8")


def duration(seconds: Any) -> str:
    """Return a duration in at most two units."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (value, _) in enumerate(parts) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value)


def size(number: Any) -> str:
    """Return a number of bytes with three digits."""
    if not isinstance(number, int | float):
        return ""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.3g} {units[0]}"


def facts(status: dict[str, Any]) -> dict[str, str]:
    """Return what a heartbeat tells of the work, as `progress.js` shows it, too."""
    info = status.get("info") or {}
    numbers = {key: value for key, value in info.items() if isinstance(value, int | float)}
    progress = status.get("progress")
    return {
        "percent": "" if progress is None else f"{progress:.1f} %",
        "task": str(status.get("task", "")),
        "phase": str(info.get("phase", "")),
        "fps": f"{numbers['fps']:.1f} fps" if "fps" in numbers else "",
        "speed": f"{numbers['speed']:.2f} x" if "speed" in numbers else "",
        "left": duration(numbers.get("eta_seconds")),
        "memory": size(numbers.get("memory")),
    }


def time_of(value: str | float) -> str:
    """Return an instant, ISO 8601 or seconds since 1970, as a browser reads it; empty if it is none."""
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).isoformat()


@pass_context
def _link(context: Context, path: str, *parts: str) -> str:
    """A path of ours under the root, with parts to quote."""
    return "/".join([f"{context['root']}{path}", *map(quote_part, parts)])


_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "urlencode": quote_part,
    "duration": duration,
    "size": size,
    "facts": facts,
    "time_of": time_of,
}
_environment.globals |= {"link": _link, "reasons": REASONS}
