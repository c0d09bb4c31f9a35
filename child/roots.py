"""The limit `roots`: the files that a task and its tools may use, and which file a failure is about.

Besides the operator's directories, tools need programs, libraries, fonts, certificates and devices. The lists below are
what ffmpeg, HandBrakeCLI, MKVToolNix and Python were seen to open.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from app.exceptions import ValidationError
from child.loader import declared_paths
from ipc import landlock
from ipc.messages import Cause, Done, Failed, Ready, Start
from modules import context
from modules.context import find_obstacle, is_within
from modules.installed import cache_directory

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store")

_FACTS = (
    *("/proc", "/sys"),
    *("/etc/ld.so.cache", "/etc/ld.so.preload", f"/etc/python3.{sys.version_info.minor}"),
    *("/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/magic", "/etc/mime.types"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/fonts", "/var/cache/fontconfig"),
    *("/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/resolv.conf", "/run/systemd/resolve"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/var/lib/ca-certificates", "/etc/crypto-policies"),
    *("/etc/OpenCL", "/etc/vulkan", "/etc/glvnd", "/etc/drirc", "/etc/libva.conf"),
)
"""Files to read: the machine, what programs load, time and language, users' names, fonts, servers and their
certificates, GPUs. /proc tells only what everybody may know of other processes: Landlock forbids the rest."""

_OWN_FACTS = (".fonts", ".local/share/fonts", ".config/fontconfig", ".cache/fontconfig")
"""Files of the home directory to read."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "dri", "nvidia", "kfd", "video", "media", "dma_heap", "mpp_")
"""Devices to use: how their names in /dev begin. Those from `dri` on encode."""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - no temporary file of ours
"""A directory to write, because `multiprocessing` has its locks there. All tasks share it."""

_DENIED = re.compile(
    r"""
    Permission\ denied:\ '(?P<after>[^']+)'            # Python
    | (?P<denied>:\ [Pp]ermission\ denied)            # most programs, after the name
    | '(?P<quoted>/[^']+)'\ could\ not\ be\ opened    # MKVToolNix
    | open\ stats\ file                               # x264: a file of its own in the working directory
    """,
    re.VERBOSE,
)
"""The words with which programs say that a file was denied."""

_CUT_OFF = re.compile("[Pp]ermission denied|[Nn]ame resolution")
"""The words of a program that has no network."""

_URL = re.compile(r"\b\w+://\S+")


def places(start: Start) -> Iterator[tuple[str, int]]:
    """The files and directories that the task and its tools have besides the roots, each with its rights."""
    own = [start.environment.get(name, "") for name in ("TMPDIR", "SISYPHUS_JOB_DIR")]
    kept = str(cache_directory())  # one task must not tell another what it takes for the words of a tool
    for path in filter(os.path.isabs, (*own, kept)):  # the user may have no home directory
        with contextlib.suppress(OSError):
            os.makedirs(path, 0o700, exist_ok=True)  # a rule holds for what is there
    roots = start.roots or ()
    yield _SHARED_MEMORY, landlock.WRITE
    for path in _PROGRAMS:
        yield path, landlock.RUN
    for path in _FACTS:
        yield path, landlock.READ
    code = (*sys.path, sys.prefix, sys.base_prefix, *start.paths, *_searched())
    facts = [kept, *(os.path.join(os.path.expanduser("~"), name) for name in _OWN_FACTS)]
    for paths, rights in ((own, landlock.WRITE), (code, landlock.RUN), (facts, landlock.READ)):
        yield from ((path, rights) for path in paths if not is_within(path, roots))
    for name in os.listdir("/dev"):
        if name.startswith(_DEVICES):
            yield f"/dev/{name}", landlock.USE


def _searched() -> list[str]:
    """The directories in which the operator has programs and libraries looked for."""
    searched = os.get_exec_path() + os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [path for path in searched if os.path.isabs(path)]


def refuse_outside(module: Any) -> None:
    """Check a module's `outputs` and `removes`, since not every module checks its paths itself.

    Raises:
        ValidationError: One of the paths is outside of the roots.
    """
    if context.current.roots is None:
        return
    names = map(os.fsdecode, declared_paths(module, "outputs") + declared_paths(module, "removes"))
    # The directory counts: a link may be removed or replaced wherever it leads.
    found = [f"{name}: {obstacle}" for name in names if (obstacle := find_obstacle(os.path.dirname(name)))]
    if found:
        raise ValidationError(problems=found)


def explain(answer: Ready | Done | Failed) -> Ready | Done | Failed:
    """Add the limit to the message of a failure that says that a file or an address was denied."""
    if not isinstance(answer, Failed) or not (reason := _find_reason(answer.cause)):
        return answer
    explained = msgspec.structs.replace(answer.cause, message=f"{answer.cause.message}; {reason}")
    return msgspec.structs.replace(answer, cause=explained)


def _find_reason(cause: Cause) -> str | None:
    if context.current.roots is None and context.current.network:
        return None
    for text in (cause.message, *cause.problems, *cause.stderr):
        for match in _DENIED.finditer(_URL.sub("", text)):
            for name in _names(match):
                if (obstacle := find_obstacle(name)) and obstacle not in text and _is_permitted(name):
                    return f"{os.path.abspath(name)} {obstacle}"
        if not context.current.network and _URL.search(text) and _CUT_OFF.search(text):
            return "the limit network forbids it"
    return None


def _names(match: re.Match[str]) -> Iterator[str]:
    """The file names that a message may mean, the most likely first. A name may follow words, and may have spaces."""
    # Not in the pattern, which would look from each place of a message of megabytes to its end.
    before = re.split("[:'\"]", match.string[: match.start()])[-1] if match["denied"] else ""
    yield from filter(None, (match["after"], match["quoted"], before[before.find("/") :] if "/" in before else None))
    yield from (word for word in before.split() if "/" in word)
    yield before.split()[-1] if before.split() else "."


def _is_permitted(name: str) -> bool:
    """True if the file's permissions allow it, so that Landlock was the obstacle: access(2) does not know Landlock."""
    try:
        return os.access(name, os.R_OK) if os.path.lexists(name) else os.access(os.path.dirname(name) or ".", os.W_OK)
    except ValueError:  # NUL
        return False
