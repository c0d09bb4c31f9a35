"""Checks of a task's files, for `find_problems` and `run` of modules: missing sources, targets that cannot be written.

A problem is a line for a person. `where` is the place of a file in the task's data, such as `sources[0]`.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping

from rich.filesize import decimal

from app.exceptions import RunError
from modules import context
from modules.base import BaseModule, location
from modules.output import SPECIAL, is_special


def source_problems(module: BaseModule, where: str, name: str) -> Iterator[str]:
    """Problems of a source: it will not exist when the task runs, is a directory or a pipe, or cannot be read."""
    if obstacle := context.find_obstacle(name):
        yield f"{where}: {name}: {obstacle}"
    elif not module.will_exist(name):
        yield f"{where}: {name}: {_why_not_there(name)}"
    elif os.path.islink(name) and not os.path.exists(name) and location(name) not in module.sisyphus_context.files:
        yield f"{where}: {name}: is a link to {os.readlink(name)}, and there is no such file"
    elif os.path.isdir(name):
        yield f"{where}: {name}: is a directory"
    elif is_special(name) and not stat.S_ISBLK(os.stat(name).st_mode):  # a disc may be a source of HandBrakeCLI
        yield f"{where}: {name}: is no regular file (a pipe or a device), which can be read once only"
    elif os.path.exists(name) and not os.access(name, os.R_OK):
        yield f"{where}: {name}: cannot be read: permission denied"
    elif is_settled(module, name) and os.path.isfile(name) and os.path.getsize(name) == 0:
        yield f"{where}: {name}: is empty"


def _why_not_there(name: str) -> str:
    try:
        os.lstat(name)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:  # a directory on the way may not be searched, or is a file
        return (error.strerror or str(error)).lower()
    return "no such file"  # an earlier task removes it


def target_problems(module: BaseModule, where: str, name: str, overwrite: bool = False) -> Iterator[str]:
    """Problems of a target: it exists and must not be overwritten, or its directory is missing or cannot be written."""
    directory = os.path.dirname(name) or "."
    if obstacle := SPECIAL if is_special(name) else context.find_obstacle(name):
        yield f"{where}: {name}: {obstacle}"
        return  # its directory does not matter then; /dev, for one, cannot be written
    if is_too_long(name):
        yield f"{where}: {name}: the name is too long"
    elif os.path.isdir(name) or name.endswith("/"):
        yield f"{where}: {name}: is a directory"
    elif not overwrite and module.will_exist(name):
        yield f"{where}: {name}: exists, and overwrite is not true"
    if not os.path.isdir(directory):
        if not will_be_made(module, directory):
            yield f"{where}: {name}: there is no directory {directory}"
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield f"{where}: {name}: the directory {directory} cannot be written"


def is_too_long(name: str) -> bool:
    """True if the file system can have no such name. Its directory need not exist."""
    try:
        os.lstat(os.path.join(standing_directory(os.path.dirname(os.path.abspath(name))), os.path.basename(name)))
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def same_file(one: str, other: str) -> bool:
    """True if two paths lead to the same file, or will when both exist."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist yet
        return location(one) == location(other)


def same_entry(one: str, other: str) -> bool:
    """True if two paths are one directory entry, so that to remove one removes both: by a link on the way, by a bind
    mount, or on a file system that takes `Film.mkv` for `film.mkv`. Two hard links are two entries of one file."""
    if location(one) == location(other):
        return True
    try:
        first, second = os.lstat(one), os.lstat(other)
        if not os.path.samestat(first, second):
            return False
        if first.st_nlink == 1 or stat.S_ISDIR(first.st_mode):
            return True
        (directory, name), (other_directory, other_name) = map(os.path.split, map(os.path.abspath, (one, other)))
        is_one_directory = os.path.samestat(os.stat(directory), os.stat(other_directory))
        return is_one_directory and (name == other_name or not {name, other_name} <= set(os.listdir(directory)))
    except OSError:
        return False


def will_be_made(module: BaseModule, directory: str) -> bool:
    """True if an earlier task of the job writes a file into `directory`, and so makes the directory."""
    inside = location(directory) + "/"
    return any(stands and path.startswith(inside) for path, stands in module.sisyphus_context.files.items())


def is_settled(module: BaseModule, name: str) -> bool:
    """True if a file exists and no earlier task of the job changes it, so that its contents can be checked now."""
    if context.find_obstacle(name):
        return False
    return os.path.exists(name) and location(name) not in module.sisyphus_context.files


def chain_checks(*checks: Iterable[str]) -> Iterator[str]:
    """Run all `checks` and yield their problems. A check that raises, over unsound data say, does not stop the others.

    Raises:
        Exception: The first exception of a check, raised after the last check.
    """
    first: Exception | None = None
    for check in checks:
        try:
            yield from check
        except Exception as error:  # noqa: BLE001 - raised again below
            first = first or error
    if first:
        raise first


def size_of(names: Mapping[str, float] | list[str]) -> int:
    """Bytes of the named files, each counted once. In a mapping, the value is the share of the file that counts."""
    shares = names if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    return round(sum(os.path.getsize(name) * share for name, share in shares.items() if os.path.isfile(name)))


def standing_directory(directory: str) -> str:
    """The nearest existing directory on the way from an absolute path to the root. Those below it will be made."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def require_space(module: BaseModule, sizes: Mapping[str, int]) -> None:
    """Check that the targets' file systems have as much room as the limit `free_space` demands.

    `sizes` holds, for each target, the bytes of input that go into it.

    Raises:
        RunError: A file system has less.
    """
    if module.sisyphus_context.free_space is None:
        return
    share, more = module.sisyphus_context.free_space
    needs: dict[int, tuple[str, int]] = {}
    for target, size in sizes.items():
        directory = standing_directory(os.path.dirname(os.path.realpath(target)))
        device = os.stat(directory).st_dev
        needs[device] = (directory, needs.get(device, ("", more))[1] + round(size * share))
    for directory, need in needs.values():
        found = os.statvfs(directory)
        free = found.f_bavail * found.f_frsize
        if free < need and found.f_blocks:  # some network file systems state 0 for both
            why = f": {share:.0%} of its inputs' size" if share else ""
            limit = f"(the limit free_space{why})"
            raise RunError(
                message=f"{directory}: has {decimal(free)} free, and {decimal(need)} must be for the output {limit}"
            )
