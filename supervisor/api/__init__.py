"""The calls to the API server.

`requests` is imported here, without the packages that guess a text's encoding: they take 1.5 MB, and all is JSON.
"""

import warnings

from ipc.lean import without

with warnings.catch_warnings(), without("chardet", "charset_normalizer"):
    warnings.simplefilter("ignore")  # requests misses them
    import requests  # noqa: F401
