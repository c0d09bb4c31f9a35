"""Imports packages without what they want at once, and few tasks use.

loguru wants asyncio for nothing but the running loop. asyncio takes 25 ms of the zygote's start, 2.2 MB and five
libraries, OpenSSL among them, which each fork has to map. python-box wants PyYAML, if it is there: 5 ms and 1 MB.
A module that imports one of them gets the real one, and what is left to loguru and box imports it when it is used.
"""

import sys
from typing import Any

from ipc.lean import import_with_later, without


def _get_running_loop() -> Any:
    """As asyncio's: while that is not imported, no loop is running."""
    if "asyncio" not in sys.modules:
        raise RuntimeError("no running event loop")
    return sys.modules["asyncio"].get_running_loop()


class _YAMLError(Exception):
    """What `box.box_from_file` catches where a file of no known kind is no YAML."""


import_with_later("loguru", "asyncio", get_running_loop=_get_running_loop)
import_with_later("box", "yaml", YAMLError=_YAMLError)
with without("typing_extensions"):  # 5 ms, in vain from Python 3.11 on
    import msgspec  # noqa: F401
