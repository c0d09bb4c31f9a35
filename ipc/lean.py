"""Imports of packages without parts that they can do without, and this program does."""

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec


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
