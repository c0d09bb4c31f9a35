"""The actions of a cleanup task: their order, their effect on files, and what they need."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modules.base import location
from modules.checks import same_entry


@dataclass(frozen=True)
class Action:
    """One thing to do. `destination` is as in the task's data, and empty for a deletion."""

    verb: str
    source: str
    destination: str = ""

    @property
    def target(self) -> str:
        """The file that will be written. It is inside `destination` if that is a directory or ends in a slash."""
        if self.destination.endswith("/") or os.path.isdir(self.destination):
            return os.path.join(self.destination, os.path.basename(self.source.rstrip("/")))
        return self.destination

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
        return f"{self.verb} {self.source}" + (f" to {self.target}" if self.destination else "")


def read_actions(task: Mapping[str, Any]) -> list[Action]:
    """The actions in the order in which they are carried out."""
    return [
        Action(verb, entry) if verb == "delete" else Action(verb, entry["source"], entry["destination"])
        for verb, entries in task.items()
        for entry in entries
    ]


def with_places(actions: list[Action]) -> Iterator[tuple[str, Action]]:
    """Each action with its place in the data, such as `move[1]`."""
    indices: dict[str, int] = {}
    for action in actions:
        index = indices[action.verb] = indices.get(action.verb, -1) + 1
        yield f"{action.verb}[{index}]", action


def effect(action: Action) -> dict[str, bool]:
    """The files that the action changes, and whether each exists afterwards."""
    removed = {location(action.source): False} if action.verb != "copy" else {}
    return removed | ({location(action.target): True} if action.destination else {})


def bare(path: str) -> str:
    """`path` without slashes at its end: with them, a link's name would mean the directory that it leads to."""
    return path.rstrip("/") or "/"
