"""Words for people that the supervisor and the modules write alike."""

import signal
from collections.abc import Iterable

MAX_NAME = 60
"""Characters of a name that are compared with the known ones: the time grows with their square."""

MAX_VALUE = 60
"""Characters of a value that a message shows."""


def signal_name(number: int) -> str:
    """The name of a signal, such as `SIGSEGV`."""
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time signals have no names of their own
        return f"signal {number}"


def describe_signal(number: int) -> str:
    """A signal's name and the system's words for it: `SIGSEGV (segmentation fault)`."""
    return f"{signal_name(number)} ({(signal.strsignal(number) or 'unknown signal').lower()})"


def suggestion(name: str, known: Iterable[str]) -> str:
    """A hint to the known name that was probably meant, such as ` (did you mean 'tasks'?)`; empty if none is near."""
    import difflib  # takes 2 ms, and few commands find a mistake

    names = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name[:MAX_NAME].lower(), names, n=1)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""


def encodable(text: str) -> str:
    """`text` with `\\udcff` in the place of each character that UTF-8 cannot carry: such a file name's byte."""
    return text.encode("utf-8", "backslashreplace").decode()
