"""The calls to the API server.

`requests` is imported here, without the packages that guess a text's encoding: they take 1.5 MB, and all is JSON. The
tables of internationalised names, 0.2 MB, come when there is such a name.
"""

import warnings

from ipc.lean import import_with_later, without

with warnings.catch_warnings(), without("chardet", "charset_normalizer"):
    warnings.simplefilter("ignore")  # requests misses them
    import_with_later("requests", "idna")
