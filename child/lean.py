"""Imports packages without what they want, and the zygote does not need.

loguru wants asyncio for nothing but the running loop. asyncio takes 25 ms of the zygote's start, 2.2 MB and five
libraries, OpenSSL among them, which each fork has to map. Few tasks use it. A module that imports it gets the real one.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

from ipc.lean import without


class _Asyncio(ModuleType):
    """Is loguru's `asyncio`."""

    @staticmethod
    def get_running_loop() -> Any:
        """As asyncio's: while that is not imported, no loop is running."""
        if "asyncio" not in sys.modules:
            raise RuntimeError("no running event loop")
        return sys.modules["asyncio"].get_running_loop()

    def __getattr__(self, name: str) -> Any:  # another version of loguru may want more
        if sys.modules.get("asyncio") is self:
            del sys.modules["asyncio"]
        return getattr(importlib.import_module("asyncio"), name)


if "asyncio" not in sys.modules:
    sys.modules["asyncio"] = _Asyncio("asyncio")
    import loguru  # noqa: F401

    if isinstance(sys.modules["asyncio"], _Asyncio):
        del sys.modules["asyncio"]

with without("typing_extensions"):  # 5 ms, in vain from Python 3.11 on
    import msgspec  # noqa: F401
