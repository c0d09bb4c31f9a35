"""What the installed programs say of themselves: their options and encoders.

To ask takes as long as all else of a short task, so the answers are kept in the user's cache directory
(`XDG_CACHE_HOME`, else `~/.cache`) while the program is the same. Where that directory cannot be written, each task
asks the program. What a task may write within `roots` counts for nothing: it could lie to the others (see
`child.loader.ask_tools`).
"""

import contextlib
import functools
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs

from modules import context, tool

LOCALE: Mapping[str, str] = {"LC_ALL": "C.UTF-8"}
"""The programs translate their messages. In the C locale, MKVToolNix reads a non-ASCII name as empty; with a locale
that is not installed it aborts."""


@functools.cache
def help_of(
    program: str, arguments: tuple[str, ...], condense: Callable[[str], str] = str, *, anew: bool = False
) -> str:
    """The text that a program prints for `arguments`, made shorter by `condense`; empty if it prints none.

    The kept text counts while path, size and time of modification of the program are those that it was made with. Its
    libraries may have been exchanged since: ask `anew` before a task is refused for what the text lacks.

    Raises:
        RunError: The program cannot be started, or failed: what it printed may be half of the text.
    """
    path = shutil.which(program) or program
    code = str(getattr(getattr(condense, "__code__", None), "co_filename", ""))
    kept, stamp = _kept(path, arguments, code), _stamp(path, arguments, code)
    with contextlib.suppress(OSError, ValueError):  # nothing is kept yet, or it is no text
        text = kept.read_text(encoding="utf-8") if kept and not anew else ""
        if stamp and text.startswith(stamp):
            return text.removeprefix(stamp)
    text = condense(tool.capture([path, *arguments], environment=LOCALE).check().stdout.decode(errors="replace"))
    if text and stamp and kept:
        _keep(kept, stamp + text)
    return text


def cache_directory() -> Path:
    """The directory of what is kept. It is relative, and not used, if the user has no home directory."""
    return platformdirs.user_cache_path("sisyphus-client")


def _stamp(path: str, arguments: tuple[str, ...], code: str) -> str:
    """The line that stands before a kept text, and tells it from all others; empty if there is no such program.

    It changes with the program, and with the file of the code that makes the text shorter, if there is one.
    """
    try:
        found = [os.stat(name) for name in (path, code) if name]
    except OSError:
        return ""
    return " ".join([repr((path, *arguments)), *(f"{each.st_size} {each.st_mtime_ns}" for each in found)]) + "\n"


def _kept(path: str, arguments: tuple[str, ...], code: str) -> Path | None:
    """One file for each program, arguments and installation of ours: an upgrade replaces it. `None` if tasks could
    write any there."""
    directory, roots = cache_directory(), context.current.roots
    if not directory.is_absolute() or (roots is not None and context.is_within(f"{directory}/", roots)):
        return None
    whole = zlib.crc32("\0".join((path, *arguments, code)).encode(errors="surrogateescape"))
    return directory / f"{os.path.basename(path)}-{whole:08x}.txt"


def _keep(file: Path, text: str) -> None:
    """Write the file at once, because other tasks may read it now."""
    with contextlib.suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as part:
            part.write(text)
        try:
            os.replace(part.name, file)
        except OSError:
            os.unlink(part.name)
