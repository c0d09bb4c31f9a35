"""Limits of a task: read from `[tool.client.limits]` once at the start, and applied to its process."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from app.config import Client, ConfigError
from supervisor.isolation import landlock

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[KMGT]i?B|%)")
_BYTES = {"B": 1} | {
    f"{prefix}{infix}B": base**power
    for infix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("KMGT", 1)
}

_IO_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
"""The numbers of ioprio_set(2)."""


HOOK = "hook job_ended"
"""The name of the operator's command among modules and their limits: no module that can be enabled has a space."""

HOOK_LIMITS = {"run_timeout": "60s", "max_attempts": 1}


class LimitError(Exception):
    """A limit cannot be applied to a process; the text says which and why."""


class Duration(msgspec.Struct, frozen=True):
    """A span of time, and the text that the operator wrote."""

    seconds: float
    text: str


class Size(msgspec.Struct, frozen=True):
    """An amount of memory, and the text that the operator wrote."""

    bytes: int
    text: str


class Space(msgspec.Struct, frozen=True):
    """Free space that a file system must have before a task writes there, and the text that the operator wrote."""

    share: float
    """Share of the inputs' size; 1 is all of it."""
    bytes: int
    """Bytes besides that share."""
    text: str


class IoPriority(msgspec.Struct, frozen=True):
    """An I/O scheduling class and, except for `idle`, the level in it (0 is served first): ioprio_set(2)."""

    io_class: str
    level: int | None


class Limits(msgspec.Struct, frozen=True):
    """The limits of one module's tasks. `None` means no limit. Time while paused does not count."""

    init_timeout: Duration = Duration(60.0, "60s")
    validate_timeout: Duration = Duration(120.0, "2m")
    run_timeout: Duration = Duration(86400.0, "24h")
    cleanup_timeout: Duration = Duration(300.0, "5m")
    stall_timeout: Duration | None = Duration(900.0, "15m")
    """Longest time without a report, CPU time or I/O in the whole process tree."""
    progress_timeout: Duration | None = None
    """Longest time without a new progress value, once one was reported."""
    grace: Duration = Duration(10.0, "10s")
    """Time between asking a task to stop and killing it."""
    memory: Size | None = None
    """Memory of the whole process tree; shared pages are counted once."""
    processes: int | None = None
    """Live processes in the tree, the task process included."""
    open_files: int | None = None
    """Open files in each process."""
    nice: int | None = None
    ionice: IoPriority | None = None
    cpus: tuple[int, ...] | None = None
    max_attempts: int = 2
    """Attempts at a task whose tool is killed by a signal."""
    free_space: Space | None = Space(1.0, 0, "100%")
    """Checked by the modules, on each target's file system."""
    roots: tuple[str, ...] | None = None
    """The only directories in which tasks and their tools find files, besides what tools need to run."""
    network: bool = True
    """Tasks and their tools may use the network. With `roots`, the default is false."""
    core_files: bool = False
    """The kernel writes core files of them, as the client's own limit allows."""


def load_limits(client: Client) -> dict[str, Limits]:
    """The limits of every enabled module: `[tool.client.limits]`, overridden by `[tool.client.limits.NAME]`.

    Those of `HOOK`, if there is one, are in `[tool.client.hooks]`: the operator's own command is no job's.

    Raises:
        ConfigError: a key, a unit or a value is wrong, or this kernel cannot do it.
    """
    where = f"{client.file}: tool.client.limits"
    general = {key: value for key, value in client.limits.items() if not isinstance(value, dict)}
    special = {key: value for key, value in client.limits.items() if isinstance(value, dict)}
    for name in special:
        if name not in client.modules:
            enabled = ", ".join(sorted(client.modules)) or "none"
            raise ConfigError(f"{where}.{name}: no module of this name is enabled (enabled: {enabled})")
    base = _parse(general, where)
    limits = {name: _make(base | _parse(special.get(name, {}), f"{where}.{name}"), where) for name in client.modules}
    hooks, where = client.hooks, f"{client.file}: tool.client.hooks"
    own = {key: hooks[key] for key in hooks if key != "job_ended"}
    given = _parse(HOOK_LIMITS | own, where, "job_ended")
    return limits | ({HOOK: _make(given, where)} if hooks.get("job_ended") else {})


def _make(given: Mapping[str, Any], where: str) -> Limits:
    limits = Limits(**{"network": given.get("roots") is None, **given})
    if problem := landlock.find_obstacle(limits.roots is not None, limits.network):
        raise ConfigError(f"{where}.{problem}")
    return limits


def apply(limits: Limits, pid: int) -> None:
    """Set the priorities and processors of a process. Its children inherit them, so the module must not run yet.

    Raises:
        LimitError: the operating system refuses.
        ProcessLookupError: it is gone.
    """
    settings: list[tuple[str, object, Callable[[], object]]] = [
        ("nice", limits.nice, lambda: os.setpriority(os.PRIO_PROCESS, pid, limits.nice or 0)),
        ("ionice", limits.ionice, lambda: _set_ionice(pid, limits.ionice)),
        ("cpus", limits.cpus, lambda: os.sched_setaffinity(pid, limits.cpus or ())),
    ]
    for name, value, set_it in settings:
        if value is None:
            continue
        try:
            set_it()
        except ProcessLookupError:
            raise
        except (OSError, ValueError) as error:
            reason = "not permitted" if isinstance(error, PermissionError) else str(error)
            raise LimitError(f"tool.client.limits.{name} cannot be applied: {reason}") from error


def _set_ionice(pid: int, priority: IoPriority | None) -> None:
    import psutil  # slow to import, and here and for a share of the memory alone

    assert priority is not None
    try:
        psutil.Process(pid).ionice(_IO_CLASSES[priority.io_class], priority.level)
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError from error
    except psutil.AccessDenied as error:
        raise PermissionError from error


def _parse(table: Mapping[str, Any], where: str, *others: str) -> dict[str, Any]:
    """Read limits of a table, which may have `others` besides."""
    for key in table:
        if key not in _PARSERS:
            kind = "hook or limit" if others else "limit"
            raise ConfigError(f"{where}.{key}: unknown {kind} (known: {', '.join((*others, *_PARSERS))})")
    parsed: dict[str, Any] = {}
    for key, value in table.items():
        if value == "off" and key in _OPTIONAL:
            parsed[key] = None
            continue
        try:
            parsed[key] = _PARSERS[key](value)
        except _WrongError as error:
            choice = ', or "off"' if key in _OPTIONAL else ""
            raise ConfigError(f"{where}.{key}: {value!r} is not {error}{choice}") from error
    return parsed


class _WrongError(ValueError):
    """Raised by parsers; `str(error)` is the expected form, e.g. "a whole number from 1 to 9"."""


def _duration(value: object) -> Duration:
    text = f"{value}s" if _is_number(value) else value
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds < float("inf"):
        raise _WrongError('a time greater than 0 (such as "90s", "15m", "12h")')
    return Duration(seconds, str(text).strip())


def _size(value: object) -> Size:
    text = f"{value}B" if _is_number(value) else value
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    amount = 0.0
    if match and match[2] == "%":
        import psutil

        share = float(match[1])
        amount = psutil.virtual_memory().total * share / 100 if share <= 100 else 0.0
    elif match:
        amount = float(match[1]) * _BYTES[match[2]]
    if not 1 <= amount < float("inf"):
        raise _WrongError('an amount of memory (such as "8GiB", "500MB", or "80%" of the machine\'s)')
    return Size(int(amount), str(text).strip())


def _space(value: object) -> Space:
    text = value.strip() if isinstance(value, str) else ""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
        return Space(float(match[1]) / 100, 0, text)
    try:
        size = _size(value)
    except _WrongError as error:
        raise _WrongError('a share of the inputs\' size (such as "150%"), or an amount (such as "20GiB")') from error
    return Space(0.0, size.bytes, size.text)


def _whole(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _WrongError(f"a whole number from {least} to {most}")
        return value

    return parse


def _ionice(value: object) -> IoPriority:
    name, _, level = value.partition(":") if isinstance(value, str) else ("", "", "")
    if name not in _IO_CLASSES or not re.fullmatch("[0-7]?", level) or (name == "idle" and level):
        raise _WrongError('"idle", "best-effort:N" or "realtime:N" with N from 0 to 7')
    return IoPriority(name, int(level) if level else None if name == "idle" else 4)


def _cpus(value: object) -> tuple[int, ...]:
    numbers: set[int] = set()
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", str(part))
        if match is None:
            break
        numbers |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    else:
        here = os.sched_getaffinity(0)
        if numbers and numbers <= here:
            return tuple(sorted(numbers))
    available = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    raise _WrongError(f'a list of processors (such as "0-3,6"; the client may use {available})')


def _roots(value: object) -> tuple[str, ...]:
    paths = value if isinstance(value, list) and value else [None]
    if not all(isinstance(path, str) and os.path.isabs(path) and os.path.isdir(path) for path in paths):
        raise _WrongError("a list of directories that exist, with their absolute paths")
    return tuple(map(os.path.realpath, paths))  # now: a task that has one root may put a link in the place of another


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongError("true or false")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_PARSERS: dict[str, Callable[[object], Any]] = {
    "init_timeout": _duration,
    "validate_timeout": _duration,
    "run_timeout": _duration,
    "cleanup_timeout": _duration,
    "stall_timeout": _duration,
    "progress_timeout": _duration,
    "grace": _duration,
    "memory": _size,
    "processes": _whole(1, 1 << 22),
    "open_files": _whole(16, 1 << 20),
    "nice": _whole(-20, 19),
    "ionice": _ionice,
    "cpus": _cpus,
    "max_attempts": _whole(1, 100),
    "free_space": _space,
    "roots": _roots,
    "network": _yes_or_no,
    "core_files": _yes_or_no,
}
_OPTIONAL = {
    field.name
    for field in msgspec.structs.fields(Limits)
    if field.default is None or field.name in {"stall_timeout", "free_space"}
}
