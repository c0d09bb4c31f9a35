"""What is wrong with the files of a task, in words: sources that are not there, targets that cannot be written.

For `find_problems` and `run` of modules. `where` is the place in the task's data, such as `sources[0]`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping

from rich.filesize import decimal

from app.exceptions import RunError
from modules.base import BaseModule, location
from modules.output import SPECIAL, is_special


def source_problems(module: BaseModule, where: str, name: str) -> Iterator[str]:
    """A source that will not be there when its turn comes, or is a directory, or cannot be read."""
    if not module.will_exist(name):
        yield f"{where}: {name}: {_why_not_there(name)}"
    elif os.path.islink(name) and not os.path.exists(name) and location(name) not in module.sisyphus_context.files:
        yield f"{where}: {name}: is a link to {os.readlink(name)}, and there is no such file"
    elif os.path.isdir(name):
        yield f"{where}: {name}: is a directory"
    elif os.path.exists(name) and not os.access(name, os.R_OK):
        yield f"{where}: {name}: cannot be read: permission denied"


def _why_not_there(name: str) -> str:
    try:
        os.lstat(name)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:  # a directory that may not be searched, or a file in the place of one
        return (error.strerror or str(error)).lower()
    return "no such file"  # an earlier task removes it


def target_problems(module: BaseModule, where: str, name: str, overwrite: bool = False) -> Iterator[str]:
    """A target that stands and may not be overwritten, or a directory that is missing or cannot be written."""
    directory = os.path.dirname(name) or "."
    if os.path.isdir(name) or name.endswith("/"):
        yield f"{where}: {name}: is a directory"
    elif is_special(name):
        yield f"{where}: {name}: {SPECIAL}"
    elif not overwrite and module.will_exist(name):
        yield f"{where}: {name}: exists, and overwrite is not true"
    if not os.path.isdir(directory):
        if not will_be_made(module, directory):
            yield f"{where}: {name}: there is no directory {directory}"
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield f"{where}: {name}: the directory {directory} cannot be written"


def same_file(one: str, other: str) -> bool:
    """Whether two paths are one file, or will be."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there yet
        return location(one) == location(other)


def will_be_made(module: BaseModule, directory: str) -> bool:
    """Whether an earlier task of the job writes a file there, and makes the directory with it."""
    inside = location(directory) + "/"
    return any(stands and path.startswith(inside) for path, stands in module.sisyphus_context.files.items())


def is_settled(module: BaseModule, name: str) -> bool:
    """Whether a file is there, and no earlier task of the job will change it: then it can be looked into."""
    return os.path.exists(name) and location(name) not in module.sisyphus_context.files


def chain_checks(*checks: Iterable[str]) -> Iterator[str]:
    """The problems that all of `checks` find: one that stumbles over unsound data does not hide the others'.

    Raises:
        Exception: what the first of those has raised that did, at the end.
    """
    first: Exception | None = None
    for check in checks:
        try:
            yield from check
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised below
            first = first or error
    if first:
        raise first


def size_of(names: Mapping[str, float] | list[str]) -> int:
    """Bytes of all those that are files, each but once; of a mapping, the share of each that is used."""
    shares = names if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    return round(sum(os.path.getsize(name) * share for name, share in shares.items() if os.path.isfile(name)))


def standing_directory(directory: str) -> str:
    """The nearest directory above an absolute path, or that one, that is there: the others will be made."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def require_space(module: BaseModule, sizes: Mapping[str, int]) -> None:
    """Check that there is room for targets, given how many bytes of input go into each: the limit `free_space`.

    Raises:
        RunError: there is not.
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
        if free < need and found.f_blocks:  # some network file systems know neither
            why = f": {share:.0%} of its inputs' size" if share else ""
            limit = f"(the limit free_space{why})"
            raise RunError(
                message=f"{directory}: has {decimal(free)} free, and {decimal(need)} must be for the output {limit}"
            )
