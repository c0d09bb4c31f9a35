"""Small file systems, and full ones."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# --- a directory that cannot be written ---


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


# --- a full disk ---


def fill(place: Path) -> Path:
    """Take all the space that is left; returns the file that has it."""
    file = place / "filler"
    with file.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(512))
    return file
