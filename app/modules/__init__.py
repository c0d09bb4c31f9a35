"""`app.modules.NAME` is `modules.NAME`: the same module object, not a second copy.

The module guide writes `from app.modules.cool import CoolModule`, while the configuration names
`modules.cool.CoolModule`. Sharing only `__path__` would load each file twice and give two `BaseModule` classes, so
that `isinstance` fails between them; a finder that hands out the one module does not.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PREFIX = __name__ + "."


class _Alias(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        return ModuleSpec(fullname, self) if fullname.startswith(_PREFIX) else None

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what stands in sys.modules afterwards, so a module may replace itself there.
        sys.modules[module.__name__] = importlib.import_module(module.__name__.removeprefix("app."))


if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Alias())
