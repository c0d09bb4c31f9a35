"""`app.modules.NAME` is `modules.NAME`: the same module object, not a second copy.

The module guide writes `from app.modules.cool import CoolModule`, while the configuration names
`modules.cool.CoolModule`. If the two packages only shared `__path__`, each file would be loaded twice, and `isinstance`
would fail between the two `BaseModule` classes. So a finder hands out the one module under both names.
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
        # After this the import system reads sys.modules again, so a module may replace itself there.
        sys.modules[module.__name__] = importlib.import_module(module.__name__.removeprefix("app."))


if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Alias())
