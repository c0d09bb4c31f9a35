"""Where modules come from: the configuration file, installed packages, and the directories of `paths`.

A package's modules are its entry points of the group `sisyphus.modules`. Only its metadata is read. The task process
imports the module, like any other.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loguru import logger

GROUP = "sisyphus.modules"

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""The import path of a class, such as `modules.ffmpeg.Ffmpeg`."""


def read_enabled(table: Mapping[str, Any]) -> dict[str, str]:
    """Read `[tool.client.modules.enabled]`; returns the import path of each module's class.

    Raises:
        ValueError: One is malformed, or not installed; the message begins with the key.
    """
    enabled = {}
    for name, target in table.items():
        try:
            enabled[name] = find_installed(name) if target is True else target
        except ValueError as error:
            raise ValueError(f".{name}: {error}") from error
        if not (isinstance(target, str | bool) and _TARGET.fullmatch(str(enabled[name]))):
            raise ValueError(f'.{name}: expected "package.module.Class", or true, got {enabled[name]!r}')
    return enabled


def list_installed() -> Iterator[tuple[str, str, str]]:
    """Yield name, import path (`package.module.Class`) and package of each, sorted."""
    from importlib.metadata import distributions  # takes 30 ms, and few configurations need it

    found: dict[str, list[tuple[str, str, str]]] = {}
    for package in distributions():  # and no `entry_points()`, which fails for all packages if it cannot read one
        try:
            name = re.sub(r"[-_.]+", "-", package.name).lower()
            entries = package.entry_points.select(group=GROUP)
            found.setdefault(name, [(each.name, each.value, f"{package.name} {package.version}") for each in entries])
        except Exception as error:  # noqa: BLE001 - whatever strangers' metadata makes its reader raise
            logger.debug("Modules of an installed package cannot be listed: {}: {}", type(error).__name__, error)
    for name, value, package_name in sorted(itertools.chain(*found.values())):
        yield name, value.partition(" ")[0].replace(":", "."), package_name


def find_installed(name: str) -> str:
    """Return the import path of an installed package's module.

    Raises:
        ValueError: No package has it, or several have; the message says which there are.
    """
    installed = list(list_installed())
    found = {target: package for known, target, package in installed if known == name}
    if not found:
        known = ", ".join(dict.fromkeys(known for known, _, _ in installed)) or "none"
        raise ValueError(f"no installed package has a module of this name (there are: {known})")
    if len(found) > 1:
        packages = " and ".join(f"{package} ({target})" for target, package in found.items())
        raise ValueError(f"{packages} both have it: write the import path of the one to use")
    return next(iter(found))


def path_warnings(paths: Iterable[str]) -> Iterator[str]:
    """Yield a line for each file in `paths` that cannot be imported, and each directory that is not one of modules."""
    bundled = Path(__file__).parents[1] / "modules"
    known = _names_in(bundled)
    for path in paths:
        if os.path.isfile(f"{path}/modules/base.py") and os.path.isdir(f"{path}/supervisor"):
            yield f"paths: {path} is a checkout of the client: name the directory that your modules are in"
        if os.path.realpath(path) == os.path.realpath(bundled):
            continue
        for name, file in sorted(_names_in(Path(path)).items()):
            if name in known:
                yield f"paths: {file} is hidden by the client's own {known[name]}: give it another name"


def _names_in(directory: Path) -> dict[str, Path]:
    """The names that can be imported from a directory, and their files."""
    files = [*directory.glob("*.py"), *(file.parent for file in directory.glob("*/__init__.py"))]
    return {file.name.removesuffix(".py"): file for file in files if file.name != "__init__.py"}
