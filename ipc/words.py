"""Words for people that the supervisor and the modules write alike."""

import signal


def signal_words(number: int) -> tuple[str, str]:
    """A signal's name, such as SIGSEGV, and the system's words for it, such as "segmentation fault"."""
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal has no name of its own
        name = f"signal {number}"
    return name, (signal.strsignal(number) or "unknown signal").lower()


def encodable(text: str) -> str:
    """`text` with `\\udcff` in the place of each character that UTF-8 cannot carry: such a file name's byte."""
    return text.encode("utf-8", "backslashreplace").decode()
