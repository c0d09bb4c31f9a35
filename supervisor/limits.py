"""Limits: what a task may use, from `[tool.client.limits]`, and what its process tree does use."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import psutil

from app.config import Client, ConfigError
from supervisor import kernel

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(msgspec.Struct, frozen=True):
    """A span of time, and how the operator wrote it."""

    seconds: float
    text: str


class Limits(msgspec.Struct, frozen=True):
    """The limits of one module's tasks."""

    init_timeout: Duration = Duration(60.0, "60s")
    validate_timeout: Duration = Duration(120.0, "2m")
    run_timeout: Duration = Duration(86400.0, "24h")
    cleanup_timeout: Duration = Duration(300.0, "5m")
    grace: Duration = Duration(10.0, "10s")
    """The wait between asking a task to stop and killing it."""


class Usage(msgspec.Struct, frozen=True):
    """What a process tree uses at one instant."""

    memory: int
    """Bytes, pages that processes share counted once (PSS)."""
    processes: int


def load_limits(client: Client) -> dict[str, Limits]:
    """The limits of every enabled module: those of `[tool.client.limits]`, and over them `[tool.client.limits.NAME]`.

    Raises:
        ConfigError: a key, a unit or a value is wrong.
    """
    where = f"{client.file}: tool.client.limits"
    general = {key: value for key, value in client.limits.items() if not isinstance(value, dict)}
    special = {key: value for key, value in client.limits.items() if isinstance(value, dict)}
    for name in special:
        if name not in client.modules:
            enabled = ", ".join(sorted(client.modules)) or "none"
            raise ConfigError(f"{where}.{name}: no module of this name is enabled (enabled: {enabled})")
    base = _parse(general, where)
    return {
        name: msgspec.structs.replace(Limits(**base), **_parse(special.get(name, {}), f"{where}.{name}"))
        for name in client.modules
    }


def _parse(table: Mapping[str, Any], where: str) -> dict[str, Duration]:
    for key in table:
        if key not in Limits.__struct_fields__:
            raise ConfigError(f"{where}.{key}: unknown limit (known: {', '.join(Limits.__struct_fields__)})")
    return {key: _duration(value, f"{where}.{key}") for key, value in table.items()}


def _duration(value: object, where: str) -> Duration:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = f"{value}s"
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not (0 < seconds < float("inf")):
        raise ConfigError(f'{where}: {value!r} is not a time greater than 0 (such as "90s", "15m", "12h")')
    return Duration(seconds, str(value).strip())


def measure(pid: int) -> Usage:
    """What the tree below and including `pid` uses now. What ends meanwhile counts as nothing."""
    memory = processes = 0
    for member in [pid, *kernel.descendants(pid)]:
        try:
            memory += psutil.Process(member).memory_full_info().pss
            processes += 1
        except psutil.Error:
            continue
    return Usage(memory, processes)
