"""Checks of a cleanup task before anything of its job runs."""

import os
from collections import ChainMap, defaultdict
from collections.abc import Iterator, Sequence

from modules import context
from modules.base import BaseModule, location
from modules.checks import chain_checks, is_settled, is_too_long, same_entry, standing_directory
from modules.cleanup import replacing
from modules.cleanup.actions import Action, bare, effect, with_places
from modules.output import SPECIAL, is_special

WILDCARDS = "*?"


def find_problems(module: BaseModule, actions: Sequence[Action], done: int) -> Iterator[str]:
    """Lines for a person. An earlier attempt has carried out the first `done` actions."""
    yield from chain_checks(
        _out_of_reach(actions),
        _bad_sources(module, actions, done),
        _bad_replacements(module, actions, done),
        _lost_files(module, actions[done:]),
        _doubled_targets(actions),
        _bad_targets(module, actions),
    )


def _out_of_reach(actions: Sequence[Action]) -> Iterator[str]:
    """Files outside of the limit `roots`. A link that is moved or deleted counts for itself, wherever it leads."""
    for place, action in with_places(list(actions)):
        where = f"{place}.source" if action.destination else place
        touched = action.source if action.verb == "copy" else os.path.dirname(location(action.source))
        if obstacle := context.find_obstacle(touched):
            yield f"{where}: {action.source}: {obstacle}"
        for path in action.written:
            if obstacle := context.find_obstacle(os.path.dirname(location(path))):
                key = "backup" if path == action.backup_target else _key(action)
                yield f"{place}.{key}: {path}: {obstacle}"


def _key(action: Action) -> str:
    return "target" if action.verb == "replace" else "destination"


def wildcard_problem(name: str) -> str | None:
    """What to tell of a name that is not there, if it looks like a pattern; a name may hold these characters, too."""
    if any(character in os.path.basename(name) for character in WILDCARDS):
        return f"{name}: there is no file of that name; patterns (wildcards) are not expanded: name each file"
    return None


def _bad_sources(module: BaseModule, actions: Sequence[Action], done: int) -> Iterator[str]:
    """Sources that will not exist after the actions before theirs, and sources that cannot be copied."""
    stands: dict[str, bool] = {}
    for number, (place, action) in enumerate(with_places(list(actions))):
        here = stands.get(location(action.source), module.will_exist(action.source))
        where = f"{place}.source: {action.source}"
        if number < done:
            pass  # it has been carried out
        elif action.verb == "delete":
            if not here and (problem := wildcard_problem(action.source)):
                yield f"{place}: {problem}"
        elif not here:
            yield f"{where}: no such file"
        elif action.verb == "copy" and is_settled(module, action.source):
            if os.path.isdir(action.source):
                yield f"{where}: is a directory, of which no copy is made"
            elif not os.access(action.source, os.R_OK):
                yield f"{where}: cannot be read: permission denied"
        stands |= effect(action)


def _bad_replacements(module: BaseModule, actions: Sequence[Action], done: int) -> Iterator[str]:
    """Targets that will not be there to be replaced, and files that cannot be replaced or kept."""
    stands: dict[str, bool] = {}
    changed = ChainMap(stands, dict(module.sisyphus_context.files))
    for number, (place, action) in enumerate(with_places(list(actions))):
        if action.verb == "replace" and number >= done:
            if not stands.get(location(action.target), module.will_exist(action.target)):
                yield f"{place}.target: {action.target}: no such file: to put a file where there is none, use move"
            yield from replacing.find_problems(action, place, changed, module.resumed)
        stands |= effect(action)


def _lost_files(module: BaseModule, actions: Sequence[Action]) -> Iterator[str]:
    """Actions after which a file would have no name: what is copied or moved onto itself is deleted next."""
    changed: set[str] = set()
    renamed: list[Action] = []
    for place, action in with_places(list(actions)):
        paths = {location(path) for path in (action.source, action.target) if path}
        is_known = action.verb != "replace" and not paths & changed and all(is_settled(module, path) for path in paths)
        if is_known and action.is_onto_itself:
            if action.is_change_of_case:
                renamed.append(action)
            else:
                yield f"{place}: {action.source} and {action.target} are the same file"
        elif action.verb == "move" and location(action.target).startswith(f"{location(action.source)}/"):
            yield f"{place}: {action.target} is inside of {action.source}, which would move"
        for move in renamed if action.verb == "delete" else ():
            if same_entry(action.source, move.source):
                yield f"{place}: {action.source} is the same file as {move.target} here"
        changed |= effect(action).keys()


def _doubled_targets(actions: Sequence[Action]) -> Iterator[str]:
    """Targets that are written twice, so that the first file would be lost. The same file may be put there twice."""
    written: dict[str, str] = {}
    origins: dict[str, str] = {}
    copies: defaultdict[str, list[str]] = defaultdict(list)  # of each origin
    for place, action in with_places(list(actions)):
        source, target = location(action.source), location(action.target) if action.destination else ""
        if source == target:
            continue
        if action.verb != "copy":
            written.pop(source, None)
        if target and (first := written.setdefault(target, place)) != place and origins.get(target) != source:
            yield f"{place}.{_key(action)}: {action.target} is written by {first} already"
        for changed in {target, source} if action.verb != "copy" else {target}:
            for copy in copies.pop(changed, ()):
                if origins.get(copy) == changed:
                    del origins[copy]
        origins[target] = source
        copies[source].append(target)


def _bad_targets(module: BaseModule, actions: Sequence[Action]) -> Iterator[str]:
    """Targets that are no regular files, and directories in which nothing can be made or removed."""
    changed = {path for action in actions for path, stands in effect(action).items() if not stands}
    changed |= set(module.sisyphus_context.files)
    for target in module.outputs():
        parent = _nearest(os.path.dirname(os.path.abspath(target)))
        if is_special(target) and location(target) not in changed:
            yield f"{target}: {SPECIAL}"
        if is_too_long(target):
            yield f"{target}: the name is too long"
        elif not os.path.isdir(parent) and location(parent) not in changed:
            yield f"{target}: {parent} is no directory"
    touched = module.outputs() + module.removes()
    for directory in dict.fromkeys(
        standing_directory(os.path.dirname(bare(os.path.abspath(path)))) for path in touched
    ):
        if not os.access(directory, os.W_OK | os.X_OK):
            yield f"{directory}: the directory cannot be written"


def _nearest(path: str) -> str:
    """The nearest existing entry, directory or not, on the way from `path` to the root."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
