"""Imports of packages without parts that they can do without, and this program does."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Let imports of these modules fail inside, unless they are imported already."""
    hidden = set(names) - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # what the import system takes as: is not there
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


class _Later(ModuleType):
    """A module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_with_later(package: str, wanted: str, **needed: Any) -> None:
    """Import `package`, to which `wanted` comes when it is used; `needed` is what it needs of that at once."""
    later = None
    if wanted not in sys.modules and find_spec(wanted):
        sys.modules[wanted] = later = _Later(wanted)
        vars(later).update(needed)
    try:
        importlib.import_module(package)
    finally:
        if later and sys.modules.get(wanted) is later:
            del sys.modules[wanted]


_OWN_HASHES = ("_md5", "_sha1", "_sha3", "_blake2")
"""Python's own code for hashes, which some distributions leave out."""


def unneeded_tls() -> list[str]:
    """The modules that load OpenSSL, unless API_URL or a proxy in the environment may need it: 20 ms, and 4 MB.

    With METRICS_PORT they are needed, too: `prometheus_client` imports what urllib has only with them.
    """
    urls = (value for name, value in os.environ.items() if name == "API_URL" or name.lower().endswith("_proxy"))
    if os.environ.get("METRICS_PORT") or any(value.strip().lower().startswith("https:") for value in urls):
        return []
    return ["ssl", "_hashlib"] if all(map(find_spec, _OWN_HASHES)) else ["ssl"]
