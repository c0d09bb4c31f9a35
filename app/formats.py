"""Text forms that the client and the server share: ids, JSON, parts of a URL's path."""

import json
import re
from typing import Any, NoReturn
from urllib.parse import quote

ID = re.compile(r"[A-Za-z0-9._@+-]{1,200}")
"""An id of a job or a worker. It stands in log lines, process titles, names of temporary files and URLs."""

ID_FORM = "letters, digits and . _ - @ +, at most 200 of them"
"""`ID` for a person."""


SERVER_HEADER = "X-Sisyphus-Server"
"""A response header by which a client knows the embedded server: its jobs are as their submitters wrote them."""


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which JSON does not have: the `parse_constant` of `json.loads`.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is no number in JSON")


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
