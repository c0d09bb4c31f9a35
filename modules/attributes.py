"""Attributes of a file that another one replaces: owner, group, mode, extended attributes, access control lists.

A rename replaces a file with all of them, so they are set on the new file before. What a file system or the user's
rights do not allow is told and is no failure: many shares know neither owners nor modes (EPERM).
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_LABELS = "security."
"""Prefix of extended attributes that the system's policy sets: SELinux labels, capabilities."""


@dataclass(frozen=True)
class Attributes:
    """The attributes of a regular file. `extended` holds the access control lists, too."""

    owner: int
    group: int
    mode: int
    extended: Mapping[str, bytes]

    def apply(self, path: str) -> list[str]:
        """Give them to the file at `path`; returns the names of those that could not be set."""
        failed: list[str] = []
        with _noting("owner", failed):
            self._apply_owner(path)
        with _noting("extended attributes", failed):
            for name, value in self.extended.items():
                os.setxattr(path, name, value)
        with _noting("mode", failed):  # last: a change of the owner or of an access control list changes it
            os.chmod(path, self.mode)
        return failed

    def _apply_owner(self, path: str) -> None:
        found = os.stat(path)
        if (found.st_uid, found.st_gid) == (self.owner, self.group):
            return  # some shares refuse even this
        try:
            os.chown(path, self.owner, self.group)
        except OSError:
            with contextlib.suppress(OSError):
                os.chown(path, -1, self.group)  # an ordinary user may choose among his own groups
            raise


def read_attributes(path: str) -> Attributes | None:
    """The attributes of a regular file; `None` if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    extended = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(path):
            if not name.startswith(_LABELS):
                extended[name] = os.getxattr(path, name)
    return Attributes(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode) & 0o777, extended)


def copy_attributes(source: str, target: str) -> list[str]:
    """Give `target` the attributes and times of `source`; returns the names of those that could not be set.

    The owner is left as it is without a word if the user may not change it, as cp(1) and mv(1) do.
    """
    kept = read_attributes(source)
    failed = [name for name in kept.apply(target) if name != "owner"] if kept else []
    return failed + copy_times(source, target)


def copy_times(source: str, target: str) -> list[str]:
    """Give `target` the times of `source`; returns their name if they could not be set."""
    failed: list[str] = []
    with _noting("times", failed):
        found = os.stat(source)
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    return failed


@contextlib.contextmanager
def _noting(name: str, failed: list[str]) -> Iterator[None]:
    try:
        yield
    except OSError:
        failed.append(name)
