"""Put a new file in the place of an old one: what must hold before, the old one's backup, and a shell's words for it.

At each instant, the target's name leads to the old file or to the whole new one, whatever fails or is killed. The
backup is a second name of the old file, or a copy, and is made first.
"""

import contextlib
import os
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.filesize import decimal

from app.exceptions import RunError
from modules.base import location
from modules.checks import same_entry, same_file
from modules.cleanup.actions import Action
from modules.output import NO_HARD_LINKS, sync


def find_problems(action: Action, where: str, changed: Mapping[str, bool], resumed: bool) -> Iterator[str]:
    """Lines for a person about the files that are there. `changed` are those that are changed before."""
    source, target, backup = action.source, action.target, action.backup_target
    known = [path for path in (source, target) if location(path) not in changed and os.path.lexists(path)]
    for path in known:
        if problem := _file_problem(path):
            yield f"{where}: {path} {problem}"
    if len(known) == 2 and same_file(source, target):
        yield f"{where}: {source} and {target} are the same file"
    if backup and any(same_entry(backup, path) for path in (source, target)):
        yield f"{where}.backup: {backup} is the same file as the source or the target"
        return
    is_there = bool(backup) and os.path.lexists(backup) and location(backup) not in changed
    if is_there and not (target in known and _is_kept(backup, os.stat(target), resumed)):
        yield f"{where}.backup: {backup}: exists already, and no backup is overwritten"


def _file_problem(path: str) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFLNK: "a link: name the file that it leads to", stat.S_IFDIR: "a directory"}
    return f"is {kinds.get(stat.S_IFMT(mode), 'no regular file')}"


def require_files(action: Action) -> tuple[os.stat_result, os.stat_result]:
    """The states of the new file and the old one.

    Raises:
        RunError: One of them is not there or no regular file, they are the same file, the new one is empty, or the
            backup would be the old one itself.
    """
    for path in (action.source, action.target):
        if not os.path.lexists(path):
            hint = ": to put a file where there is none, use move" if path == action.target else ""
            raise RunError(message=f"{path}: no such file{hint}")
        if problem := _file_problem(path):
            raise RunError(message=f"{path} {problem}")
    new, old = os.stat(action.source), os.stat(action.target)
    if os.path.samestat(new, old):
        raise RunError(message=f"{action.source} and {action.target} are the same file")
    if action.backup_target and same_entry(action.backup_target, action.target):
        raise RunError(message=f"the backup {action.backup_target} is the same file as the target")
    if not new.st_size:
        raise RunError(message=f"{action.source} is empty")
    return new, old


def why_kept(action: Action, new: os.stat_result, old: os.stat_result) -> str:
    """Why the old file stays, by the action's condition; empty if it is to be replaced."""
    if action.condition != "smaller" or new.st_size < old.st_size:
        return ""
    sizes = f"{new.st_size} bytes, {decimal(new.st_size)}", f"{old.st_size} bytes, {decimal(old.st_size)}"
    return f"{action.source} ({sizes[0]}) is not smaller than {action.target} ({sizes[1]}), which stays"


def identity(path: str) -> list[int]:
    """What tells a file from a copy in its place."""
    found = os.lstat(path)
    return [found.st_dev, found.st_ino]


def is_replaced(action: Action, state: Mapping[str, Any] | None, number: int) -> bool:
    """True if an earlier attempt, which saved `state`, has put a copy of the source in the target's place and not yet
    removed the source.

    The action, which is that of `number`, cannot be done once more: the new file would be compared with its own copy,
    and the backup be none of the file in the target's place.
    """
    if not state or "replaced" not in state or state["done"] != number:
        return False
    with contextlib.suppress(OSError):
        is_other = identity(action.target) != state["replaced"]
        return is_other and os.lstat(action.source).st_size == os.lstat(action.target).st_size
    return False


@contextlib.contextmanager
def backing_up(action: Action, old: os.stat_result, copy: Callable[[Action], None], resumed: bool) -> Iterator[None]:
    """Keep the old file under the name of its backup, if the action has one. It goes if the replacement fails.

    `copy` copies a file, where a second name is not possible. What an earlier attempt has kept is taken for the backup.

    Raises:
        RunError: There is another file of that name.
    """
    backup = action.backup_target
    is_new = bool(backup) and not _is_kept(backup, old, resumed)
    if is_new:
        _keep(action, backup, copy)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if is_new and os.path.samestat(os.lstat(action.target), old):  # the old file is in its place
                os.unlink(backup)
        raise


def _keep(action: Action, backup: str, copy: Callable[[Action], None]) -> None:
    if os.path.lexists(backup):
        raise RunError(message=f"the backup {backup} exists already")
    directory = os.path.dirname(backup) or "."
    os.makedirs(directory, exist_ok=True)
    try:
        os.link(action.target, backup)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        copy(Action("copy", action.target, backup))
    sync(directory)


def _is_kept(backup: str, old: os.stat_result, resumed: bool) -> bool:
    """True if an earlier attempt has made the backup: it is the old file, or a copy with its size and time."""
    with contextlib.suppress(OSError):
        found = os.lstat(backup)
        is_copy = resumed and (found.st_size, found.st_mtime_ns) == (old.st_size, old.st_mtime_ns)
        return is_copy or os.path.samestat(found, old)
    return False


def shell_line(action: Action) -> str:
    """A line for a shell that does much the same. It keeps the times, and of the owner and mode what mv(1) does."""
    source, target = shlex.quote(action.source), shlex.quote(action.target)
    steps = [f"touch -r {target} -- {source}", f"mv -- {source} {target}"]
    if backup := action.backup_target:
        parent = shlex.quote(os.path.dirname(backup) or ".")
        steps = [f"mkdir -p -- {parent}", f"cp -lp -- {target} {shlex.quote(backup)}", *steps]
    line = " && ".join(steps)
    if not action.condition:
        return line
    sizes = [f'"$(stat -c %s -- {path})"' for path in (source, target)]
    return f"if [ {sizes[0]} -lt {sizes[1]} ]; then {line}; else rm -- {source}; fi"
