"""Small file systems, and full ones."""

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loguru import logger


@contextlib.contextmanager
def mounted(place: Path, size: str) -> Iterator[Callable[..., None]]:
    """A file system of this size, in memory, at `place`; gives mount(8) for it."""
    place.mkdir()

    def mount(*options: str) -> None:
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")

    mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the space that is left; returns the file that has it."""
    file = place / "filler"
    with file.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(512))
    return file


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """For as long, no process of ours can write more bytes to a file: that is a full disk to each."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    logger.disable("modules")  # the log is in a file as well
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        logger.enable("modules")
