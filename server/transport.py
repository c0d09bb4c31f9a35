"""HTTP around the routes: the checks of address, token and body, and the form of responses.

Bodies are parsed here and not by the framework: its parser takes NaN, and its responses to broken JSON differ from case
to case. A wrong request gets a 4xx with `{"message": …}`, never a 500.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Sequence
from email.message import Message as Mail
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from fastapi import HTTPException, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.formats import STRICT_NUMBERS, quote_part
from server.config import ServerSettings
from server.http.tokens import Tokens, TooManyGuessesError, is_worker_call
from server.models import ProblemBody
from server.pages.sessions import is_logged_in
from server.storage.tables import MAX_KEY, to_text

NOTHING = 204

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ProblemBody, "description": "There is none."}}

MAX_BODIES = {"/workers/": 64 << 10, "/data/": 4 << 20, "/farm/login": 8 << 10}
"""Bytes of the largest body, by the beginning of the path."""

MAX_BODY = 16 << 20
"""Bytes of the largest body of another call: a job."""

BIG_BODY = 256 << 10
"""Bytes of a body above which only some are taken at a time."""

BIG_BODIES = 8

BODY_TIME = 60.0
"""Seconds for a whole body to arrive."""

MAX_DEPTH = 100
"""Levels of nested lists and objects. Deeper ones could be stored, but not every client could read them."""

SMALL_BODY = 64 << 10
"""Bytes of the largest body that is parsed in the loop: a switch to another thread would cost more."""

MAX_NAME = 60
"""Characters of a key or a number that a message shows."""

_EXPECTED = {
    "bool_type": "expected true or false",
    "extra_forbidden": "unknown key",
    "float_type": "expected a number",
    "list_type": "expected a list",
    "missing": "missing key",
    "model_attributes_type": "expected an object",
    "model_type": "expected an object",
    "string_unicode": "expected keys without lone surrogates",
}
_EXPECTED_INSTANCE = {"dict": "expected an object", "str": "expected a string"}


class Json(Response):
    """A response in JSON, in ASCII: UTF-8 cannot hold a lone surrogate."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return `content` as JSON. A string is taken for JSON text."""
        return (content if isinstance(content, str) else to_text(content)).encode("ascii")


def nothing() -> Response:
    """Make the response of a call that has no answer."""
    return Response(status_code=NOTHING)


def found(text: str | None, message: str) -> Json:
    """Make a response of JSON text.

    Raises:
        HTTPException: 404 with the message; there is no text.
    """
    if text is None:
        raise HTTPException(404, message)
    return Json(text)


def problem(status: int, message: str, **headers: str) -> Json:
    """Make a response that says what is wrong."""
    return Json({"message": message}, status, headers)


def in_words(errors: Sequence[Any]) -> str:
    """Say which keys of a body are wrong and why, from pydantic's errors."""
    return "; ".join(_in_words(error) for error in errors[:3])


def _in_words(error: Any) -> str:
    path = ""
    for part in error["loc"][1:]:
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{part[:MAX_NAME]}"
    if not path and error["type"] == "missing":
        return "body: expected an object"
    words = error["msg"].replace("Input should be", "expected")
    if error["type"] == "is_instance_of":
        words = _EXPECTED_INSTANCE[error["ctx"]["class"]]
    return f"{path or 'body'}: {_EXPECTED.get(error['type'], words)}"


# --- addresses and the token ---


def _bounded(text: str) -> str:
    if len(to_text(text)) > MAX_KEY:
        raise PydanticCustomError("too_long", "the name is too long")
    return text


NewKey = Annotated[str, AfterValidator(_bounded)]
"""A name under which something is stored."""

Name = Annotated[str, Path(), AfterValidator(unquote)]
"""A part of the path, unquoted; it may hold any character."""

NewName = Annotated[Name, AfterValidator(_bounded)]
"""One under which something is to be stored."""


class Gate:
    """Refuses requests without the token and of foreign web pages, and gives each path one spelling.

    Routes are matched while the parts of the path are quoted: unquoted, a name with a slash in it would be two parts.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, tokens: Tokens) -> None:
        self._app = app
        self._token = settings.token
        self._root_path = settings.root_path
        self._tokens = tokens
        self._names = {"localhost", *(name.lower() for name in settings.allow_host)}
        self._origins = set(settings.cors_origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal: Response | None = None
        scope["root_path"] = self._root_path
        try:
            parts = [unquote(part, errors="strict") for part in scope["raw_path"].decode("ascii").split("/")]
        except UnicodeDecodeError:
            refusal = problem(400, "The address is not UTF-8.")
        else:
            scope["path"] = "/".join(quote_part(part) for part in parts)
            headers = Headers(scope=scope)
            if stranger := self._find_stranger(headers, is_page=is_page(scope, parts)):
                refusal = problem(403, stranger)
            elif not (self._is_open(parts) or self._is_logged_in(scope, headers)):
                refusal = await self._check_token(scope, parts)
        if refusal or scope["method"] != "HEAD" or parts[1:] == ["queue", "poll"]:  # a poll changes something
            await _pass_on(refusal or self._app, scope, receive, send)
        else:
            await self._answer_head(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as to GET, without the body; uvicorn leaves that out. A stream ends at once."""
        is_ended = False

        async def sending(message: Message) -> None:
            nonlocal is_ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not is_ended:
                is_ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        asked = {**scope, "method": "GET"}
        await self._app(asked, receive, sending)
        scope["route"] = asked.get("route")

    def _find_stranger(self, headers: Headers, is_page: bool) -> str:
        """Say why a request may come from a web page of somebody else; empty if it does not."""
        # A page may give its own name this server's address, and is then of the same site (DNS rebinding).
        host = _host_of(headers.get("host", ""))
        if host not in self._names and not _is_address(host):
            return f"This server is not called {host[:MAX_NAME]!a}. If it is, start it with --allow-host."
        is_link = is_page and headers.get("sec-fetch-mode") == "navigate"  # which shows the page, to a person alone
        is_foreign = headers.get("sec-fetch-site") == "cross-site" and not is_link
        if is_foreign and headers.get("origin") not in self._origins:
            return "This is a request of another site's page. If it may do that, start the server with --cors-origin."
        return ""

    def _is_open(self, parts: Sequence[str]) -> bool:
        is_free = parts[1:2] == ["doc"] or parts[1:3] in (["farm", "static"], ["farm", "login"], ["farm", "logout"])
        return not self._token or is_free or parts == ["", "status", "health"]

    def _is_logged_in(self, scope: Scope, headers: Headers) -> bool:
        return is_logged_in(scope["method"], headers, self._token)

    async def _check_token(self, scope: Scope, parts: Sequence[str]) -> Response | None:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not given:
            return self._ask_for_token(scope, parts)
        scheme, _, token = given.partition(b" ")
        try:
            role = await self._tokens.check(token.strip() if scheme.lower() == b"bearer" else b"", address_of(scope))
        except TooManyGuessesError as error:
            return problem(429, str(error), **{"Retry-After": str(error.seconds)})
        scope["state"]["role"] = role
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if role == "worker" and not is_worker_call(method, parts):
            return problem(403, "The token for workers is not for this call.")
        return None if role else self._ask_for_token(scope, parts)

    def _ask_for_token(self, scope: Scope, parts: Sequence[str]) -> Response:
        """Send whoever wants to see a page to the login, and refuse a call."""
        if is_page(scope, parts):
            wanted = scope["path"] + (f"?{query}" if (query := scope["query_string"].decode("latin-1")) else "")
            return RedirectResponse(f"{scope.get('root_path', '')}/farm/login?next={quote_part(wanted)}", 303)
        return problem(401, "The token is missing or wrong.", **{"WWW-Authenticate": "Bearer"})


def is_page(scope: Scope, parts: Sequence[str]) -> bool:
    """Return whether a request is for a view of the page; `parts` are those of the path."""
    return scope["method"] == "GET" and (parts == ["", ""] or parts[1:2] == ["farm"])


async def _pass_on(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Call `app`; answer for it if the server stops and waits no longer, as for a database that hangs."""
    is_answered = False

    async def sending(message: Message) -> None:
        nonlocal is_answered
        is_answered = True
        await send(message)

    try:
        await app(scope, receive, sending)
    except asyncio.CancelledError:
        if not is_answered:
            stopping = problem(503, "The server stops. Perhaps the change was made; look, and try again.")
            await stopping(scope, receive, send)


def address_of(scope: Scope) -> str:
    """The address of a client, or of the proxy before it."""
    return scope["client"][0] if scope["client"] else ""


def _host_of(name: str) -> str:
    try:
        return urlsplit(f"//{name}").hostname or ""
    except ValueError:
        return name


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


# --- bodies ---


class StrictRoute(APIRoute):
    """A route that takes only strict JSON, declared by the content type, neither too large nor too deep."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the framework's handler, for requests whose bodies are read by `_StrictRequest`."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            # Also for safety: a browser lets any page send other types to this server, without asking it first (CORS).
            if self.body_field and not _is_json(request.headers.get("content-type", "")):
                raise HTTPException(415, "The body must be JSON, with the header Content-Type: application/json.")
            async with contextlib.AsyncExitStack() as taken:
                return await handle(_StrictRequest(request, taken))

        return checked


class _StrictRequest(Request):
    def __init__(self, request: Request, taken: contextlib.AsyncExitStack) -> None:
        super().__init__(request.scope, request.receive)
        self._taken = taken
        limits = (size for start, size in MAX_BODIES.items() if request.url.path.startswith(start))
        self._limit = next(limits, MAX_BODY)

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            try:
                async with asyncio.timeout(BODY_TIME):
                    self._body = await self._read()
            except TimeoutError:
                raise HTTPException(
                    408, f"The body did not arrive within {BODY_TIME:.0f} s.", {"Connection": "close"}
                ) from None
            except ClientDisconnect:
                raise HTTPException(400, "The body did not arrive: the client went away.") from None
        return self._body

    async def json(self) -> Any:
        body = await self.body()
        return decode(body) if len(body) <= SMALL_BODY else await run_in_threadpool(decode, body)

    async def _read(self) -> bytes:
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            raise _too_large(self._limit)
        body, is_big = bytearray(), False
        async for chunk in self.stream():
            body += chunk
            if len(body) > self._limit:
                raise _too_large(self._limit)
            if len(body) > BIG_BODY and not is_big:
                is_big = True
                await self._taken.enter_async_context(self.app.state.big_bodies)
        return bytes(body)


def decode(body: bytes) -> Any:
    """Decode JSON.

    Raises:
        HTTPException: 400; it is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(body, **STRICT_NUMBERS)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # also bytes that are not UTF-8
        raise HTTPException(400, f"The body is not JSON: {error}") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]
        if not level:
            return value
    raise _too_deep()


def _children(item: dict[str, Any] | list[Any]) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else item


def _is_json(content_type: str) -> bool:
    message = Mail()
    message["content-type"] = content_type
    kind = message.get_content_type()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _too_large(limit: int) -> HTTPException:
    size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
    return HTTPException(413, f"The body is larger than {size}.")


def _too_deep() -> HTTPException:
    return HTTPException(400, f"The body is nested more than {MAX_DEPTH} levels deep.")
