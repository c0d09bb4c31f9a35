"""The `cleanup` module: delete, copy, move and replace files, in the order in which the task's data names the four.

Copies follow symbolic links and moves do not, as with cp(1) and mv(1). A directory can be moved within its file
system, which is a rename. Copying one, or moving it elsewhere, is an error: a failure could leave half a tree, and no
bundled module makes directories.

No action removes what may be the only name of a file. Each action that is done is saved before the next begins, so that
an interrupted task does none twice: a second `copy` of `f` to `f.bak` would overwrite the backup.
"""

import contextlib
import errno
import os
import shlex
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any

from loguru import logger

from app.exceptions import RunError, Skipped
from ipc.words import encodable
from modules import schema as task_schema
from modules.attributes import Attributes, copy_attributes, copy_times, read_attributes
from modules.base import location
from modules.checks import require_space, same_file
from modules.cleanup import checks, replacing
from modules.cleanup.actions import Action, bare, read_actions
from modules.cleanup.copying import bytes_to_copy, copy_bytes, device
from modules.output import SPECIAL, Output, WritingModule, is_special, sync
from modules.sources import Watch


class Cleanup(WritingModule):
    """Puts the files of a job in order."""

    schema = task_schema.load("cleanup")

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self._done = 0
        self._total = 0
        self._began = 0.0
        self._kept: list[str] = []
        self._links: list[str] = []
        self._number = 0

    def outputs(self) -> list[str]:
        return [path for action in self._actions() for path in action.written]

    def removes(self) -> list[str]:
        removed = [action for action in self._actions() if action.verb != "copy"]
        return [action.source for action in removed if location(action.source) != location(action.target or "/")]

    def plan(self) -> list[str]:
        lines: list[str] = []
        made: set[str] = set()
        for action in self._actions():
            if action.verb == "delete":
                path = bare(action.source)
                is_directory = os.path.isdir(path) and not os.path.islink(path)
                lines.append(shlex.join(["rmdir" if is_directory else "rm", "--", path]))
                continue
            if action.verb == "replace":
                lines.append(replacing.shell_line(action))
                continue
            parent = os.path.dirname(action.target)
            if parent and parent not in made and not os.path.isdir(parent):
                made.add(parent)
                lines.append(shlex.join(["mkdir", "-p", "--", parent]))
            lines.append(shlex.join(["cp" if action.verb == "copy" else "mv", "--", action.source, action.target]))
        return lines

    def find_problems(self) -> Iterator[str]:
        """Check that sources will exist, no file is lost or written twice, and directories can be written."""
        actions = self._actions()
        yield from checks.find_problems(self, actions, self._done_before(actions))

    def run(self) -> None:
        self.set_start_time()
        actions = self._actions()
        before = self._done_before(actions)
        self._done, self._began = 0, time.monotonic()
        self._links = _moved_links(actions[:before])
        self._total = sum(bytes_to_copy(action) for action in actions[before:])
        for number, action in enumerate(actions):
            if number < before:
                self.warn(f"{action}: taken for done by an earlier attempt")
                if replacing.is_replaced(action, self.load_state(), number):
                    _unlink_moved(action.source, action.target)
                continue
            self._number = number
            self._save(number, action)
            self._carry_out(action)
            self._links += _moved_links([action])
            if [each.verb for each in actions[number : number + 2]] != ["delete", "delete"]:
                self._save(number + 1)  # it takes 10 ms; deletions do the same if all of them are done once more
            if not self._total:
                self.report((number + 1) / len(actions) * 100)
        if self._kept and len(self._kept) == len(actions):
            raise Skipped("; ".join(self._kept))
        for why in self._kept:
            self.warn(f"skipped: {why}")
        for link in _moved_links(actions):
            if not os.path.exists(link):
                self.warn(f"{link} is a link to {os.readlink(link)}, and leads to no file from there")
        self.report(done=True)

    def _possible_outputs(self) -> list[Output]:
        return [Output(path, follow=action.verb == "copy") for action in self._actions() for path in action.written]

    def _actions(self) -> list[Action]:
        return read_actions(self.task.to_dict())

    def _output(self, action: Action) -> Output:
        """The output of a copy or move. A move replaces a link at the target, as mv(1) does; a copy writes through."""
        return Output(action.target, overwrite=True, follow=action.verb == "copy", warn=self.warn)

    def _done_before(self, actions: list[Action]) -> int:
        """How many of the actions an earlier attempt has done: those that it saved, and a move after them.

        A move may be done and not yet saved. Then its source is gone and its target stands. The other actions do the
        same if they are done once more, as long as the next has not begun.
        """
        if not self.resumed:
            return 0
        state = self.load_state() or {}
        self._kept = list(state.get("kept", ()))
        done = int(state.get("done", 0))
        is_more = done < len(actions) and (
            _is_moved(actions[done]) or replacing.is_replaced(actions[done], state, done)
        )
        return done + is_more

    def _save(self, done: int, begun: Action | None = None) -> None:
        """Save how many actions are done, and which file the replacement that begins now is to replace.

        The replacements that were not made are saved, too: another attempt must know that the task was skipped.
        """
        state: dict[str, Any] = {"done": done, "kept": self._kept}
        if begun and begun.verb == "replace":
            with contextlib.suppress(OSError):  # that it is not there, the action says
                state["replaced"] = replacing.identity(begun.target)
        elif begun:
            return
        self.save_state(state)

    # --- one action ---

    def _carry_out(self, action: Action) -> None:
        words = str(action)  # now: once a directory is moved, its destination would mean a place inside of it
        try:
            if action.verb == "delete":
                self._delete(action.source)
            elif action.verb == "replace":
                self._replace(action)
            else:
                self._put(action)
        except OSError as error:
            raise RunError(message=f"cannot {words}: {error.strerror or error}") from error
        except RunError as error:
            raise RunError(message=f"cannot {words}: {error.message}") from error
        logger.info("Done: {}", words)

    def _delete(self, named: str) -> None:
        path = bare(named)
        try:
            is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
            if not os.path.islink(path):
                if link := next((link for link in self._links if same_file(link, path)), None):
                    raise RunError(message=f"{link}, which was moved, is a link to it")
                with Watch(self, lambda: [path]) as watch:
                    watch.require_unchanged()
            (os.rmdir if is_directory else os.unlink)(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.lexists(path):
                raise
            if problem := checks.wildcard_problem(named):
                raise RunError(message=problem) from error
            self.warn(f"{named} is not there to delete")

    def _replace(self, action: Action) -> None:
        """Put a file in the place of another one; or delete it, if the condition does not hold."""
        source, target = action.source, action.target
        new, old = replacing.require_files(action)
        with Watch(self, lambda: [source, target]) as watch:
            watch.require_unchanged()  # one that is still being written would be smaller
        if why := replacing.why_kept(action, new, old):
            self._kept = [*dict.fromkeys([*self._kept, why])]
            self._save(self._number)  # before: a source that is gone would be taken for a replacement that was made
            os.unlink(source)
            return
        if old.st_nlink > 1:
            self.warn(f"{target} has {old.st_nlink} names (hard links): the others keep the old file")
        with replacing.backing_up(action, old, self._copy, self.resumed):
            if new.st_nlink > 1 or not self._rename_with_times(action, new):
                self._copy(action)
                _unlink_moved(source, target)

    def _rename_with_times(self, action: Action, new: os.stat_result) -> bool:
        """Rename a file in the place of another one, of which it gets the times, too. False between file systems."""
        sync(action.source)  # it takes the place of the only other copy
        failed = copy_times(action.target, action.source)
        is_renamed = False
        try:
            is_renamed = self._rename(action.source, action.target)
        finally:
            if not is_renamed:
                with contextlib.suppress(OSError):
                    os.utime(action.source, ns=(new.st_atime_ns, new.st_mtime_ns))
        if is_renamed and failed:
            self.warn(f"{action.target}: could not keep the replaced file's times")
        return is_renamed

    def _put(self, action: Action) -> None:
        """Copy or move a file to its target."""
        source, target = action.source, action.target
        status = os.lstat(source) if action.verb == "move" else os.stat(source)
        if action.is_onto_itself:
            _put_onto_itself(action)
            return
        if action.verb == "copy" and same_file(source, target):
            self.warn(f"{source} and {target} are two names of the same file: nothing to do")
            return
        if is_special(target):
            raise RunError(message=f"{target} {SPECIAL}")
        if self._is_loss(status, target):
            self.warn(f"{target} was there already: {action.verb} {source} replaces it")
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        if action.verb == "move" and self._rename(source, target):
            return
        if stat.S_ISLNK(status.st_mode):
            with self._output(action) as output:
                output.commit_link(os.readlink(source))
        else:
            self._copy(action)
        if action.verb == "move":
            _unlink_moved(source, target)

    def _is_loss(self, source: os.stat_result, target: str) -> bool:
        """True if another file is lost at `target`: not a second name of the source, nor an earlier attempt's copy."""
        try:
            there = os.lstat(target)
        except OSError:
            return False
        is_copy = (there.st_size, there.st_mtime_ns) == (source.st_size, source.st_mtime_ns)
        return not os.path.samestat(there, source) and not (self.resumed and is_copy)

    def _rename(self, source: str, target: str) -> bool:
        """Move within a file system. Returns false if `target` is on another one."""
        if os.path.lexists(target) and os.path.samestat(os.lstat(source), os.lstat(target)):
            os.unlink(source)  # two names of one file: rename(2) would leave both
            return True
        before = None
        if os.lstat(source).st_dev == device(target):
            before = self._keep_attributes(source, target)
        try:
            os.rename(source, target)
        except OSError as error:
            if before:
                before.apply(source)
            if error.errno != errno.EXDEV:
                raise
            return False
        sync(os.path.dirname(target) or ".")
        return True

    def _keep_attributes(self, source: str, target: str) -> Attributes | None:
        """Before a rename that replaces a file, give the new file that one's owner, mode and other attributes.

        Returns those that it had before; `None` if they stay: a link, or a directory, replaces no file.
        """
        if os.path.islink(source) or os.path.islink(target):
            return None
        before, replaced = read_attributes(source), read_attributes(target)
        if before and replaced and (failed := replaced.apply(source)):
            self.warn(f"{target}: could not keep the replaced file's {' and '.join(failed)}")
        return before if replaced else None

    def _copy(self, action: Action) -> None:
        """Copy with attributes and times, to a temporary name first. The source stays as it is.

        A file that is replaced keeps its owner, mode and other attributes, as with cp(1).

        Raises:
            RunError: The source is no file, or changed during the copy.
        """
        with contextlib.ExitStack() as stack:
            # Not blocking: the source may be a pipe that nobody writes to.
            descriptor = os.open(action.source, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            watch = stack.enter_context(Watch(self, lambda: [action.source]))
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                kind = "a directory" if stat.S_ISDIR(before.st_mode) else "no regular file"
                raise RunError(message=f"{action.source} is {kind}")
            require_space(self, {action.target: before.st_size})  # only now: earlier actions may have freed some
            is_new = not os.path.isfile(action.target)
            output = stack.enter_context(self._output(action))
            with open(output.temporary, "r+b", buffering=0) as destination:
                copy_bytes(descriptor, destination.fileno(), lambda count: self._report_bytes(action, count))
            size = os.path.getsize(output.temporary)
            if size != before.st_size:
                raise RunError(message=f"{action.source} was written to meanwhile, or could not be read whole")
            watch.require_unchanged()
            model = action.target if action.verb == "replace" else action.source
            failed = (copy_attributes if is_new else copy_times)(model, output.temporary)
            if failed:
                self.warn(f"{action.target}: could not be given {' and '.join(failed)} of {model}")
            output.commit()
        if (found := os.path.getsize(action.target)) != size:
            raise RunError(message=f"{action.target} has {found} bytes, not {size}")

    def _report_bytes(self, action: Action, count: int) -> None:
        self._done += count
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


def _put_onto_itself(action: Action) -> None:
    """Give a file another name in the same place. Else, source and target are the same file, which is an error."""
    if not action.is_change_of_case:
        raise RunError(message=f"{action.source} and {action.target} are the same file")
    os.rename(action.source, action.target)
    directory, name = os.path.split(action.target)
    if name not in os.listdir(directory or "."):  # to the kernel both are names of one file: it does nothing
        other = f"{action.target}.renamed"
        if os.path.lexists(other):
            raise RunError(message=f"{other} is in the way of a change of case")
        os.rename(action.source, other)
        os.rename(other, action.target)


def _is_moved(action: Action) -> bool:
    return action.verb in ("move", "replace") and not os.path.lexists(action.source) and os.path.lexists(action.target)


def _moved_links(actions: list[Action]) -> list[str]:
    """The links among the files that were moved: each is worth no more than the file that it leads to."""
    return [action.target for action in actions if _is_moved(action) and os.path.islink(action.target)]


def _unlink_moved(source: str, target: str) -> None:
    """Remove the source of a move after its copy, if the target is there as a file of its own."""
    if not os.path.lexists(target) or os.path.samestat(os.lstat(source), os.lstat(target)):
        raise RunError(message=f"{target} is not there as a file of its own: {source} is kept")
    os.unlink(source)
