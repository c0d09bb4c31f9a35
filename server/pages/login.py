"""Logging in with the token, and out."""

import hmac
import time
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from server.pages.rendering import render
from server.pages.sessions import COOKIE, LASTS, is_own_request, make_cookie
from server.services import Served

MAX_FORM = 10_000

login = APIRouter(prefix="/farm", include_in_schema=False)


@login.get("/login")
async def show_login(request: Request) -> Response:
    """Ask for the token."""
    return render(request, "login.html", next=_destination(request.query_params.get("next", "")), wrong=False)


@login.post("/login")
async def log_in(request: Request, served: Served) -> Response:
    """Give a cookie for the token, and go where the browser wanted to go."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            break
    form = parse_qs(body.decode(errors="replace"))
    token, to = (form.get(name, [""])[0] for name in ("token", "next"))
    right = served.settings.token
    own = is_own_request("POST", request.headers)
    if not (right and own and hmac.compare_digest(token.strip().encode(errors="replace"), right.encode())):
        return render(request, "login.html", 403, next=_destination(to), wrong=True)
    response = RedirectResponse(request.scope.get("root_path", "") + _destination(to), 303)
    # Of a proxy that speaks HTTPS; who lies here only harms himself.
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(
        COOKIE,
        make_cookie(right, int(time.time()) + LASTS),
        LASTS,
        path=request.scope.get("root_path") or "/",
        httponly=True,
        samesite="strict",
        secure=secure,
    )
    return response


@login.post("/logout")
async def log_out(request: Request) -> Response:
    """Take the cookie back."""
    response = RedirectResponse(request.scope.get("root_path", "") + "/farm/login", 303)
    response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")
    return response


def _destination(wanted: str) -> str:
    """A page of ours: the address may have been made by somebody else."""
    return wanted if wanted.startswith("/farm/") and "\\" not in wanted and wanted.isprintable() else "/"
