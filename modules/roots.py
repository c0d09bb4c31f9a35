"""The limit `roots` in words: why a path is refused. The kernel enforces the limit."""

import os

from modules import context


def find_obstacle(path: str) -> str | None:
    """The reason, for a person, why a task may not use `path`; `None` if it may. Symbolic links are followed."""
    roots = context.current.roots
    if roots is None or "\0" in path:  # no file has that name
        return None
    place = os.path.realpath(path)
    if place == os.devnull or any(_is_below(place, os.path.realpath(root)) for root in roots):
        return None
    return f"is outside of the limit roots ({', '.join(roots)})"


def _is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(root.rstrip("/") + "/")
