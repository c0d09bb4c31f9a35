"""The error of a failed call, and what requests and urllib3 say about its cause."""

from collections.abc import Iterator

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError


class SessionError(Exception):
    """A call failed. The text is for a person, and holds neither the server's address nor a secret.

    Attributes:
        status: The response's status; 0 if there was no whole response.
        partial: The part of the response that arrived.
    """

    def __init__(self, message: str, status: int = 0, partial: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.partial = partial


class PollCutError(SessionError):
    """A poll that waited for a job was cut: by a proxy that has no patience, or by a server that goes down."""


def reason(error: BaseException) -> str:
    """Say why a request failed, in the words of the innermost cause."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if isinstance(error, requests.exceptions.InvalidSchema) and "SOCKS" in str(error):
        return "a SOCKS proxy needs the package PySocks: pip install PySocks"
    if isinstance(error, requests.Timeout):
        return "no response in time"
    innermost = list(_causes(error))[-1]
    return str(innermost) or type(innermost).__name__


def is_unreachable(error: BaseException | None) -> bool:
    """Return whether no connection to the server came about."""
    return any(isinstance(cause, NewConnectionError | ConnectTimeoutError) for cause in _causes(error))


def is_dropped(error: BaseException) -> bool:
    """Return whether the server closed the connection before it responded."""
    return any(isinstance(cause, ConnectionResetError | BrokenPipeError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, the outermost first. requests and urllib3 put a cause into `args`, `reason` or
    `__context__`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        error = next((one for one in inner if isinstance(one, BaseException) and id(one) not in seen), None)
