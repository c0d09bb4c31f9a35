"""Load a module's class, and ask a module what the supervisor must know of it. All of this runs the module's code."""

import contextlib
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import Any

from loguru import logger

import modules
import modules.tool
from app.exceptions import ClientError
from child.text import to_text
from ipc.messages import Encoder, Inspection, Start, Tool
from modules import context
from modules.base import BaseModule, listed, location


class UnusableError(Exception):
    """The module cannot be imported, or is no module."""


def ask_tools(start: Start) -> None:
    """Before the sandbox closes, let a bundled module ask its tools what is kept of them for all tasks.

    Within `roots`, a task cannot write that itself: it could lie to the others. Here nothing of the task was read yet,
    and only our own modules are found: `load` adds the places of others.
    """
    package, _, name = start.target.rpartition(".")
    if start.roots is None or not package.startswith(f"{modules.__name__}."):
        return
    context.current.roots = start.roots
    with contextlib.suppress(ImportError, AttributeError, ClientError):  # the task will meet the same, and say so
        getattr(importlib.import_module(package), name).ask_tools()


def load(start: Start) -> Callable[[dict[str, Any]], Any]:
    """Import the class that serves the task, named as `package.module.Class`.

    Raises:
        UnusableError: The class cannot be imported, or is no class; the message says why.
    """
    sys.path += start.paths
    modules.__path__ += start.paths
    os.environ[modules.PATHS] = os.pathsep.join(start.paths)  # for processes that the module spawns
    package, _, name = start.target.rpartition(".")
    try:
        found = getattr(importlib.import_module(package), name, None)
    except (Exception, SystemExit) as error:  # the module's own top level ran
        logger.opt(exception=error).debug("Importing {} failed", package)
        raise UnusableError(
            f"module {start.module!r} ({start.target}) cannot be imported: {type(error).__name__}: {to_text(error)}"
        ) from error
    if not isinstance(found, type):
        raise UnusableError(f"module {start.module!r} ({start.target}) cannot be used: {package} has no class {name}")
    return found


def inspect(kind: Any, *, probe: bool) -> Inspection:
    """Say where a module's class was loaded from, which tools it needs and, with `probe`, which encoders work.

    A class that is not derived from `BaseModule` names no tools and no encoders.

    Raises:
        UnusableError: The class lacks a method that every module has.
    """
    for method in ("validate", "run", "cleanup"):
        if not callable(getattr(kind, method, None)):
            raise UnusableError(f"{kind.__module__}.{kind.__qualname__} is no module: it has no method {method}")
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    tools = getattr(kind, "tools", ()) if issubclass(kind, BaseModule) else ()
    encoders = kind.probe_encoders() if probe and issubclass(kind, BaseModule) else ()
    return Inspection(
        to_text(file),
        tuple(_find_tool(to_text(name)) for name in listed(tools)),
        tuple(Encoder(to_text(name), to_text(problem)) for name, problem in encoders),
    )


def _find_tool(name: str) -> Tool:
    path = shutil.which(name) or ""
    try:
        return Tool(name, to_text(path), version=modules.tool.version(name))
    except ClientError as error:
        return Tool(name, to_text(path), problem=to_text(error.message))


def declared_paths(module: Any, method: str) -> tuple[bytes, ...]:
    """The absolute paths that the module's `outputs`, `removes` or `inputs` returns; none if it has none or it fails.

    The guide promises no such method, and the task's data is not validated yet.
    """
    try:
        told: Iterable[object] = listed(getattr(module, method)())
        names = [name for name in told if isinstance(name, str)]
    except Exception as error:  # noqa: BLE001 - data that validate has not seen yet may be anything
        logger.debug("{}() of the module failed: {}: {}", method, type(error).__name__, to_text(error))
        return ()
    paths = []
    for name in names:
        with contextlib.suppress(ValueError):  # a NUL, or characters that no file name can hold: validation says so
            paths.append(os.fsencode(location(name)))
    return tuple(paths)
