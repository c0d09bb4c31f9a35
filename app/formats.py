"""Text forms that the client and the server share: ids, JSON, parts of a URL's path."""

import json
import math
import re
import sys
from typing import Any, NoReturn
from urllib.parse import quote

ID = re.compile(r"[A-Za-z0-9._@+-]{1,200}")
"""An id of a job or a worker. It stands in log lines, process titles, names of temporary files and URLs."""

ID_FORM = "letters, digits and . _ - @ +, at most 200 of them"
"""`ID` for a person."""


MAX_NUMBER = 60
"""Characters of a number that a message shows."""

SERVER_HEADER = "X-Sisyphus-Server"
"""A response header by which a client knows the embedded server: its jobs are as their submitters wrote them."""


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which JSON does not have: the `parse_constant` of `json.loads`.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is no number in JSON")


def _whole(text: str) -> int:
    # A longer one is no float, and pages, metrics and progress make floats of what others tell.
    return int(text) if len(text) <= sys.float_info.max_10_exp else refuse_constant(f"{text[:MAX_NUMBER]}…")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else refuse_constant(text[:MAX_NUMBER])


STRICT_NUMBERS: dict[str, Any] = {
    "parse_int": _whole,
    "parse_float": _finite,
    "parse_constant": refuse_constant,
}
"""Arguments of `json.loads` that refuse what is no finite float, or none for others: 1e999, and integers as large."""


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object in which no key stands twice: the `object_pairs_hook` of `json.loads`.

    Raises:
        ValueError: a key does.
    """
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return document


def toml(value: Any) -> str:
    """Return a value of JSON's types as TOML writes it, on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            # The rules for strings are JSON's but for one character (DEL).
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def quote_part(text: str) -> str:
    """Quote one part of a URL's path, such as a job's id or a name of stored data."""
    quoted = quote(text, safe="", errors="surrogatepass")
    # `/workers/..` would be shortened to `/`: RFC 3986, 5.2.4.
    return quoted.replace(".", "%2E") if set(text) == {"."} else quoted
