"""The context of a task: facts that the client gives a module beside the data, and results that it collects.

A module's constructor takes the task's data and nothing else, so the context comes another way: the client puts it
into `current` before it makes the module, and `BaseModule` takes a copy for each instance.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ipc.messages import Data, Request


@dataclass
class TaskContext:
    """The context of one module instance. The defaults are those of a module that runs outside the client."""

    module: str = ""
    """The name under which the module is enabled; empty outside the client."""
    resumed: bool = False
    """An earlier attempt at the task was interrupted, and may have done a part of it."""
    free_space: tuple[float, int] | None = None
    """Space that must be free where the task writes: a share of its inputs' size, and bytes. `None`: no limit."""
    roots: tuple[str, ...] | None = None
    """The directories that tasks may use, besides what tools need to run; `None` for all."""
    network: bool = True
    """Tasks may use the network."""
    files: Mapping[str, bool] = field(default_factory=dict)
    """Files that earlier tasks of the job change, by absolute path: true for one that will be there, false for one
    that will be gone."""
    warnings: tuple[str, ...] = ()
    """Warnings of the module that the client has not yet taken."""
    saved_state: Any = None
    """The state that the module saved last, in this attempt or an earlier one."""
    exchange: Callable[[Request], Data] | None = None
    """Has the supervisor carry out a request; `None` outside the client."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """The status that the module reported last."""


current = TaskContext()
"""The context of modules made from now on in this process."""


def copy_current() -> TaskContext:
    """A context for a new instance, so that two modules in one process do not mix their warnings and statuses."""
    return dataclasses.replace(current)


def find_obstacle(path: str) -> str | None:
    """The reason, for a person, why a task may not use `path` by the limit `roots`, which the kernel enforces; `None`
    if it may. Symbolic links are followed."""
    roots = current.roots
    if roots is None or "\0" in path:  # no file has that name
        return None
    place = os.path.realpath(path)
    if place == os.devnull or any(is_below(place, root) for root in roots):
        return None
    return f"is outside of the limit roots ({', '.join(roots)})"


def is_within(path: str, roots: tuple[str, ...]) -> bool:
    """True if a path leads through a root: a task may have put anything there, such as a link to anywhere."""
    above = itertools.accumulate(os.path.dirname(os.path.abspath(path)).split("/"), os.path.join, initial="/")
    return any(is_below(os.path.realpath(place), root) for place in above for root in roots)


def is_below(place: str, root: str) -> bool:
    """True if a path is another, or in it. Both lead through no link."""
    return place == root or place.startswith(root.rstrip("/") + "/")
