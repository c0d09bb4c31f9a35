"""Server-side data: JSON objects that the API server keeps under `/data/{module}/{name}`.

A task process asks the supervisor, which asks the server: the API token must not reach a module. Other processes (an
author's tests, a process that the module forked) ask the server themselves, without a token.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from app.config import Config, shown_url
from app.exceptions import ClientError
from app.formats import quote_part
from ipc.messages import MAX_BODY, MAX_NAME, Data, Get, Put

TIMEOUT = (5, 30)
"""Seconds to wait for a connection to the API server, and for each next byte of its answer."""

SERVERS_OWN = frozenset({"_id", "name"})
"""Keys that the server adds to what it keeps."""

_NOT_FOUND = 404


class ServerData:
    """Fetches and stores server-side data. Any thread may use it.

    Every failure is a `ClientError` whose message names the address and the problem.
    """

    def __init__(self) -> None:
        self._exchange: Callable[[Get | Put], Data] | None = None
        self._owner = 0

    def connect(self, exchange: Callable[[Get | Put], Data]) -> None:
        """Ask through `exchange` from now on. A process forked from this one still asks the server itself."""
        self._owner = os.getpid()
        self._exchange = exchange

    def get(self, module: str, name: str) -> dict[str, Any] | None:
        """Fetch an object, without the keys that the server adds; `None` if there is none of that name."""
        where = address(module, name)
        answer = self._ask(Get(module, name))
        if answer.status == _NOT_FOUND:
            return None
        _require_success(where, answer)
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise ClientError(message=f"{where} does not answer with JSON: {error}") from error
        if not isinstance(found, dict):
            raise ClientError(message=f"{where} does not answer with a JSON object")
        return {key: value for key, value in found.items() if key not in SERVERS_OWN}

    def put(self, module: str, name: str, object: Mapping[str, Any]) -> None:
        """Store `object`, in the place of an older one of that name."""
        where = address(module, name)
        body = _encoded(object, where)
        _require_success(where, self._ask(Put(module, name, body)))

    def _ask(self, request: Get | Put) -> Data:
        if self._exchange is not None and os.getpid() == self._owner:
            answer = self._exchange(request)
        else:
            answer = _over_http(request)
        if answer.status == 0:
            raise ClientError(message=f"{shown_url(Config.API_URL)} does not answer: {answer.error}")
        return answer


server_data = ServerData()
"""The server-side data of this task process."""


def address(module: str, name: str) -> str:
    """The URL of an object, for a person.

    Raises:
        ClientError: The server cannot keep an object of that name.
    """
    return shown_url(_url(module, name))


def _url(module: str, name: str) -> str:
    return f"{Config.API_URL.rstrip('/')}/data/{_quoted(module)}/{_quoted(name)}"


def _quoted(name: str) -> str:
    if not isinstance(name, str):
        raise ClientError(message=f"the name of server-side data must be text, not {type(name).__name__}")
    if len(name) > MAX_NAME:
        raise ClientError(
            message=f"the name {name[:40]!r}… of server-side data has {len(name)} characters; at most {MAX_NAME} can be"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ClientError(message=f"{name!r} cannot be a name of server-side data: it is no UTF-8") from error
    if not name.strip("."):
        raise ClientError(message=f"{name!r} cannot be a name of server-side data: in an address it means another one")
    return quote_part(name)


def _encoded(object: Mapping[str, Any], where: str) -> str:
    """`object` as JSON text in ASCII, if JSON can hold it and the server would not change it."""
    if not isinstance(object, Mapping):
        raise ClientError(message=f"{where} can keep an object (a dict), not a {type(object).__name__}")
    if taken := sorted(SERVERS_OWN & object.keys()):
        raise ClientError(message=f"{where} cannot keep the key {taken[0]!r}: it is the server's own")
    try:
        body = json.dumps(dict(object), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ClientError(message=f"{where} can keep only what JSON can hold: {error}") from error
    if len(body) > MAX_BODY:
        raise ClientError(message=f"{where} cannot be sent {len(body)} bytes of JSON; at most {MAX_BODY} can be")
    return body


def _require_success(where: str, answer: Data) -> None:
    if answer.status // 100 != 2:
        raise ClientError(message=f"{where} answers with status {answer.status}")


def _over_http(request: Get | Put) -> Data:
    import requests  # takes 50 ms, and few tasks need it

    url = _url(request.module, request.name)
    try:
        match request:
            case Get():
                answer = requests.get(url, timeout=TIMEOUT, allow_redirects=False)
            case Put(body=body):
                headers = {"Content-Type": "application/json"}
                answer = requests.post(url, body, headers=headers, timeout=TIMEOUT, allow_redirects=False)
    except (requests.RequestException, ValueError) as error:
        return Data(0, error=str(error))
    # A body that is no UTF-8 is no JSON either. The backslashes make the JSON parser refuse it.
    return Data(answer.status_code, answer.content.decode(errors="backslashreplace"))
