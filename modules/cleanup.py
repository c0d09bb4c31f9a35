"""The `cleanup` module: delete, copy and move files, in the order in which the task's data names the three.

Copies follow symbolic links and moves do not, as with cp(1) and mv(1). A directory can be moved within its file
system, which is a rename. Copying one, or moving it elsewhere, is an error: a failure could leave half a tree, and no
bundled module makes directories.
"""

import contextlib
import errno
import os
import shlex
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loguru import logger

from app.exceptions import CleanupError, RunError
from ipc.words import encodable
from modules import schema as task_schema
from modules.base import BaseModule, location
from modules.checks import chain_checks, is_settled, require_space, same_file, standing_directory
from modules.output import SPECIAL, Output, is_special, sync

CHUNK = 4 << 20
"""Bytes copied between two reports of progress."""

_NO_COPY_IN_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


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

    def __str__(self) -> str:
        return f"{self.verb} {self.source}" + (f" to {self.target}" if self.destination else "")


class Cleanup(BaseModule):
    """Puts the files of a job in order."""

    schema = task_schema.load("cleanup")
    cleanup_on_failure = True

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self._done = 0
        self._total = 0
        self._began = 0.0
        self.report()
        logger.debug("Data: {}", self.task)

    def outputs(self) -> list[str]:
        return [action.target for action in self._actions() if action.destination]

    def removes(self) -> list[str]:
        removed = [action for action in self._actions() if action.verb != "copy"]
        return [action.source for action in removed if location(action.source) != location(action.target or "/")]

    def plan(self) -> list[str]:
        lines: list[list[str]] = []
        made: set[str] = set()
        for action in self._actions():
            if action.verb == "delete":
                path = _bare(action.source)
                is_directory = os.path.isdir(path) and not os.path.islink(path)
                lines.append(["rmdir" if is_directory else "rm", "--", path])
                continue
            parent = os.path.dirname(action.target)
            if parent and parent not in made and not os.path.isdir(parent):
                made.add(parent)
                lines.append(["mkdir", "-p", "--", parent])
            lines.append(["cp" if action.verb == "copy" else "mv", "--", action.source, action.target])
        return [shlex.join(line) for line in lines]

    def find_problems(self) -> Iterator[str]:
        """Check that sources will exist, no target is written twice, and directories can be written."""
        yield from chain_checks(self._bad_sources(), self._doubled_targets(), self._bad_targets())

    def run(self) -> None:
        self.set_start_time()
        actions = self._actions()
        before = self._done_before()
        self._done, self._began = 0, time.monotonic()
        self._total = sum(_bytes_to_copy(action) for action in actions[before:])
        for number, action in enumerate(actions):
            if number < before:
                self.warn(f"{action}: taken for done by an earlier attempt")
                continue
            words = str(action)  # now: once a directory is moved, its destination would mean a place inside of it
            try:
                self._carry_out(action)
            except OSError as error:
                raise RunError(message=f"cannot {words}: {error.strerror or error}") from error
            except RunError as error:
                raise RunError(message=f"cannot {words}: {error.message}") from error
            logger.info("Done: {}", words)
            if not self._total:
                self.report((number + 1) / len(actions) * 100)
        self.report(done=True)

    def cleanup(self) -> None:
        """Remove the temporary copies that a killed process of this job may have left."""
        for action in self._actions():
            if action.destination:
                try:
                    _output(action).discard()
                except OSError as error:
                    raise CleanupError(message=f"temporary file of {action.target}: {error.strerror}") from error

    def _actions(self) -> list[Action]:
        return [
            Action(verb, entry) if verb == "delete" else Action(verb, entry["source"], entry["destination"])
            for verb, entries in self.task.to_dict().items()
            for entry in entries
        ]

    def _bad_sources(self) -> Iterator[str]:
        """Sources that will not exist after the actions before theirs, and sources that cannot be copied."""
        stands: dict[str, bool] = {}
        indices: dict[str, int] = {}
        before = self._done_before()
        for number, action in enumerate(self._actions()):
            index = indices[action.verb] = indices.get(action.verb, -1) + 1
            here = stands.get(location(action.source), self.will_exist(action.source))
            where = f"{action.verb}[{index}].source: {action.source}"
            if number >= before and action.destination and not here:
                yield f"{where}: no such file"
            elif number >= before and action.verb == "copy" and is_settled(self, action.source):
                if os.path.isdir(action.source):
                    yield f"{where}: is a directory, of which no copy is made"
                elif not os.access(action.source, os.R_OK):
                    yield f"{where}: cannot be read: permission denied"
            stands |= _effect(action)

    def _done_before(self) -> int:
        """How many of the actions an earlier attempt has done: the smallest number that agrees with the files.

        Actions are done in order, so the result of one shows that those before it were done. To repeat an action can
        lose a file: a second `move` of `a` to `a.bak` after one of `new` to `a`.
        """
        actions = self._actions()
        counts = range(len(actions) + 1) if self.resumed else ()
        return next((count for count in counts if self._agrees(actions, count)), 0)

    def _agrees(self, actions: list[Action], count: int) -> bool:
        """True if the files are as the first `count` actions leave them and as the other actions need them."""
        stands: dict[str, bool] = {}
        for action in actions[:count]:
            stands |= _effect(action)
        if any(os.path.lexists(path) != there for path, there in stands.items()):
            return False
        for action in actions[count:]:
            if action.destination and not stands.get(location(action.source), self.will_exist(action.source)):
                return False
            stands |= _effect(action)
        return True

    def _doubled_targets(self) -> Iterator[str]:
        """Targets that are written twice, so that the first file would be lost."""
        written: dict[str, str] = {}
        indices: dict[str, int] = {}
        for action in self._actions():
            index = indices[action.verb] = indices.get(action.verb, -1) + 1
            source, target = location(action.source), location(action.target) if action.destination else ""
            if source == target:
                continue
            if action.verb != "copy":
                written.pop(source, None)
            if target and (first := written.setdefault(target, f"{action.verb}[{index}]")) != f"{action.verb}[{index}]":
                yield f"{action.verb}[{index}].destination: {action.target} is written by {first} already"

    def _bad_targets(self) -> Iterator[str]:
        """Targets that are no regular files, and directories in which nothing can be made or removed."""
        changed = {path for action in self._actions() for path, stands in _effect(action).items() if not stands}
        changed |= set(self.sisyphus_context.files)
        for target in self.outputs():
            parent = _nearest(os.path.dirname(os.path.abspath(target)))
            if is_special(target) and location(target) not in changed:
                yield f"{target}: {SPECIAL}"
            if not os.path.isdir(parent) and location(parent) not in changed:
                yield f"{target}: {parent} is no directory"
        touched = [action.target for action in self._actions() if action.destination] + self.removes()
        for directory in dict.fromkeys(
            standing_directory(os.path.dirname(_bare(os.path.abspath(path)))) for path in touched
        ):
            if not os.access(directory, os.W_OK | os.X_OK):
                yield f"{directory}: the directory cannot be written"

    def _carry_out(self, action: Action) -> None:
        if action.verb == "delete":
            self._delete(action.source)
            return
        target = action.target
        status = os.lstat(action.source) if action.verb == "move" else os.stat(action.source)
        if location(action.source) == location(target) or (action.verb == "copy" and same_file(action.source, target)):
            self.warn(f"{action.source} and {target} are the same file: nothing to do")
            return
        if is_special(target):
            raise RunError(message=f"{target} {SPECIAL}")
        if self._is_loss(status, target):
            self.warn(f"{target} was there already: {action.verb} {action.source} replaces it")
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        if action.verb == "move" and self._rename(action.source, target):
            return
        if stat.S_ISLNK(status.st_mode):
            self._move_link(action)
            return
        self._copy(action)
        if action.verb == "move":
            os.unlink(action.source)

    def _is_loss(self, source: os.stat_result, target: str) -> bool:
        """True if another file is lost at `target`: not a second name of the source, nor an earlier attempt's copy."""
        try:
            there = os.lstat(target)
        except OSError:
            return False
        is_copy = (there.st_size, there.st_mtime_ns) == (source.st_size, source.st_mtime_ns)
        return not os.path.samestat(there, source) and not (self.resumed and is_copy)

    def _delete(self, named: str) -> None:
        path = _bare(named)
        try:
            is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
            (os.rmdir if is_directory else os.unlink)(path)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(path):
                raise
            self.warn(f"{named} is not there to delete")

    def _rename(self, source: str, target: str) -> bool:
        """Move within a file system. Returns false if `target` is on another one."""
        if os.path.lexists(target) and os.path.samestat(os.lstat(source), os.lstat(target)):
            os.unlink(source)  # two names of one file: rename(2) would leave both
            return True
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        sync(os.path.dirname(target) or ".")
        return True

    def _move_link(self, action: Action) -> None:
        with _output(action) as output:
            output.commit_link(os.readlink(action.source))
        os.unlink(action.source)

    def _copy(self, action: Action) -> None:
        """Copy with modes and times, to a temporary name first. The source stays as it is.

        Raises:
            RunError: The source is no file, or changed during the copy.
        """
        with contextlib.ExitStack() as stack:
            # Not blocking: the source may be a pipe that nobody writes to.
            descriptor = os.open(action.source, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                kind = "a directory" if stat.S_ISDIR(before.st_mode) else "no regular file"
                raise RunError(message=f"{action.source} is {kind}")
            require_space(self, {action.target: before.st_size})  # only now: earlier actions may have freed some
            output = stack.enter_context(_output(action))
            with open(output.temporary, "r+b", buffering=0) as destination:
                self._copy_bytes(descriptor, destination.fileno(), action)
            after = os.fstat(descriptor)
            size = os.path.getsize(output.temporary)
            if size != after.st_size or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
                raise RunError(message=f"{action.source} was written to meanwhile, or could not be read whole")
            shutil.copystat(action.source, output.temporary)
            output.commit()
        if (found := os.path.getsize(action.target)) != size:
            raise RunError(message=f"{action.target} has {found} bytes, not {size}")

    def _copy_bytes(self, source: int, destination: int, action: Action) -> None:
        copy = _copy_in_kernel
        while True:
            try:
                count = copy(source, destination)
            except OSError as error:
                if copy is _copy_here or error.errno not in _NO_COPY_IN_KERNEL:
                    raise
                count = 0
            if not count:
                if copy is _copy_here:
                    return
                copy = _copy_here  # some file systems return 0 if they cannot copy: read on, to see if it is the end
                continue
            self._done += count
            self._report_bytes(action)

    def _report_bytes(self, action: Action) -> None:
        seconds = time.monotonic() - self._began
        rate = self._done / seconds if seconds else 0.0
        info = {
            "phase": "copying",
            "current_file": encodable(action.source),
            "bytes_done": self._done,
            "bytes_total": self._total,
            "bytes_per_second": round(rate),
            "eta_seconds": round(max(self._total - self._done, 0) / rate, 1) if rate else None,
        }
        self.report(self._done / self._total * 100 if self._total else None, info)


def _effect(action: Action) -> dict[str, bool]:
    """The files that the action changes, and whether each exists afterwards."""
    removed = {location(action.source): False} if action.verb != "copy" else {}
    return removed | ({location(action.target): True} if action.destination else {})


def _output(action: Action) -> Output:
    """The output of a copy or move. A move replaces a link at the target, as mv(1) does; a copy writes through it."""
    return Output(action.target, overwrite=True, follow=action.verb == "copy", keep_mode=False)


def _bare(path: str) -> str:
    """`path` without slashes at its end: with them, a link's name would mean the directory that it leads to."""
    return path.rstrip("/") or "/"


def _copy_in_kernel(source: int, destination: int) -> int:
    """Let the kernel copy: some file systems share the blocks, and a file server copies on its own disk."""
    return os.copy_file_range(source, destination, CHUNK)


def _copy_here(source: int, destination: int) -> int:
    data = os.read(source, CHUNK)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(destination, rest) :]
    return len(data)


def _bytes_to_copy(action: Action) -> int:
    """The file's size if its bytes must be copied; 0 if they need not be, or if it does not exist yet."""
    with contextlib.suppress(OSError):
        if action.verb == "copy":
            return os.stat(action.source).st_size
        if action.verb == "move" and os.lstat(action.source).st_dev != _device(action.target):
            return os.lstat(action.source).st_size
    return 0


def _device(path: str) -> int:
    """The number of the file system that `path` will be on."""
    return os.stat(standing_directory(os.path.dirname(os.path.abspath(path)))).st_dev


def _nearest(path: str) -> str:
    """The nearest existing entry, directory or not, on the way from `path` to the root."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
