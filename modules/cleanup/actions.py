"""The actions of a cleanup task: their order, their effect on files, and what they need."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modules.base import location
from modules.checks import same_entry


@dataclass(frozen=True)
class Action:
    """One thing to do. `destination` is as in the task's data, and empty for a deletion.

    A replacement also has a `condition` and a `backup`, which may be empty; `destination` is the file to be replaced.
    """

    verb: str
    source: str
    destination: str = ""
    condition: str = ""
    backup: str = ""

    @property
    def target(self) -> str:
        """The file that will be written. It is inside `destination` if that is a directory or ends in a slash; a
        replacement is in the place of the file that a link leads to."""
        if self.verb == "replace":
            return os.path.realpath(self.destination) if os.path.islink(self.destination) else self.destination
        return _inside(self.destination, self.source)

    @property
    def backup_target(self) -> str:
        """The backup's file, inside `backup` if that is a directory or ends in a slash; empty if there is none."""
        return _inside(self.backup, self.destination)

    @property
    def written(self) -> list[str]:
        """The files that will be written."""
        return [path for path in (self.backup_target, self.target) if path]

    @property
    def is_onto_itself(self) -> bool:
        """The file to be written is the source itself, or the only file that a link as the source leads to.

        A copy follows links at both ends, as cp(1) does, and a move at neither, as mv(1) does.
        """
        if not self.destination:
            return False
        target = os.path.realpath(self.target) if self.verb == "copy" else self.target
        is_itself = self.verb == "move" and same_entry(self.source, target)
        return is_itself or same_entry(os.path.realpath(self.source), target)

    @property
    def is_change_of_case(self) -> bool:
        """A move within a directory to the same name in other letters: on some file systems that is one name."""
        one, other = os.path.split(self.source), os.path.split(self.target)
        return self.verb == "move" and one != other and (one[0], one[1].casefold()) == (other[0], other[1].casefold())

    def __str__(self) -> str:
        if self.verb == "replace":
            return f"replace {self.target} by {self.source}"
        return f"{self.verb} {self.source}" + (f" to {self.target}" if self.destination else "")


def _inside(destination: str, name: str) -> str:
    if destination.endswith("/") or os.path.isdir(destination):
        return os.path.join(destination, os.path.basename(name.rstrip("/")))
    return destination


def read_actions(task: Mapping[str, Any]) -> list[Action]:
    """The actions in the order in which they are carried out."""
    return [_read_action(verb, entry) for verb, entries in task.items() for entry in entries]


def _read_action(verb: str, entry: Any) -> Action:
    match verb:
        case "delete":
            return Action(verb, entry)
        case "replace":
            return Action(verb, entry["source"], entry["target"], entry.get("if", ""), entry.get("backup", ""))
        case _:
            return Action(verb, entry["source"], entry["destination"])


def with_places(actions: list[Action]) -> Iterator[tuple[str, Action]]:
    """Each action with its place in the data, such as `move[1]`."""
    indices: dict[str, int] = {}
    for action in actions:
        index = indices[action.verb] = indices.get(action.verb, -1) + 1
        yield f"{action.verb}[{index}]", action


def effect(action: Action) -> dict[str, bool]:
    """The files that the action changes, and whether each exists afterwards."""
    removed = {location(action.source): False} if action.verb != "copy" else {}
    return removed | {location(path): True for path in action.written}


def bare(path: str) -> str:
    """`path` without slashes at its end: with them, a link's name would mean the directory that it leads to."""
    return path.rstrip("/") or "/"
