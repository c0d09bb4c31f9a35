"""The context of a task: facts that the client gives a module beside the data, and results that it collects.

A module's constructor takes the task's data and nothing else, so the context comes another way: the client puts it
into `current` before it makes the module, and `BaseModule` takes a copy for each instance.
"""

import copy
import dataclasses
import itertools
import json
import os
from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.exceptions import ClientError
from ipc.messages import Data, FinishedTask, Request
from ipc.results import encode_results


class Results(UserDict[str, Any]):
    """Results of a task: names with values that JSON can hold.

    A value is a copy: to change a list or dict that is in here, assign it again.
    """

    @property
    def text(self) -> str:
        """All of them as a JSON object in ASCII; empty if there is none."""
        return encode_results(self.data) if self.data else ""

    def __getitem__(self, name: str) -> Any:
        return copy.deepcopy(self.data[name])

    def __setitem__(self, name: str, value: Any) -> None:
        """Raises `ClientError` if the record cannot hold the value; the message says why."""
        try:
            self.data = json.loads(encode_results(self.data | {name: value}))
        except ValueError as error:
            raise ClientError(message=str(error)) from error

    def __ior__(self, other: Any) -> "Results":  # type: ignore[override,misc]  # its own passes by `__setitem__`
        self.update(other)
        return self


@dataclass(frozen=True)
class EarlierTask:
    """A task of the job that has ended before this one runs."""

    module: str
    result: str
    """`completed`, `skipped`, `failed` or `not run`."""
    reason: str
    """Why it was skipped; else empty."""
    results: Mapping[str, Any]
    """The results that it has set. To change them changes nothing."""


@dataclass
class CurrentJob:
    """The job that the task belongs to. Outside the client, it has no id and no title."""

    id: str = ""
    title: str = ""
    finished: bytes = b"[]"
    """The tasks before this one, as the client tells them; none before `run`."""

    @property
    def tasks(self) -> tuple[EarlierTask, ...]:
        """The tasks before this one, in their order. Made when it is asked for: the last of a thousand has many."""
        finished = msgspec.json.decode(self.finished, type=list[FinishedTask])
        return tuple(
            EarlierTask(each.module, each.result, each.reason, json.loads(each.results or "{}")) for each in finished
        )


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
    results: Results = field(default_factory=Results)
    """The results that the module has set."""
    job: CurrentJob = field(default_factory=CurrentJob)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The operator's settings for the module."""
    phase: tuple[str, float, float] | None = None
    """The phase that the module is in: its name, and the percent of the task at its begin and at its end."""
    phased: float = 0.0
    """The percent of the task at the end of its last phase."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """The status that the module reported last."""


current = TaskContext()
"""The context of modules made from now on in this process."""


def copy_current() -> TaskContext:
    """A context for a new instance, so that two modules in one process do not mix their warnings and statuses."""
    return dataclasses.replace(current, results=Results(), job=dataclasses.replace(current.job))


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
