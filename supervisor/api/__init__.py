"""The calls to the API server.

`requests` is imported here, without the packages that guess a text's encoding: they take 1.5 MB, and all is JSON.
"""

import sys
import warnings

_GUESSERS = {"chardet", "charset_normalizer"} - sys.modules.keys()

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # requests misses them
    sys.modules.update(dict.fromkeys(_GUESSERS))  # type: ignore[arg-type]  # their import fails, which requests expects
    import requests  # noqa: F401
for _name in _GUESSERS:
    del sys.modules[_name]
