"""Logging in with the token, and out."""

import time
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from server.http.tokens import TooManyGuessesError
from server.pages.rendering import render
from server.pages.sessions import COOKIE, LASTS, is_own_request, make_cookie
from server.services import Served
from server.transport import StrictRoute, address_of

login = APIRouter(prefix="/farm", route_class=StrictRoute, include_in_schema=False)


@login.get("/login")
async def show_login(request: Request) -> Response:
    """Ask for the token."""
    return render(request, "login.html", next=_destination(request.query_params.get("next", "")), problem="")


@login.post("/login")
async def log_in(request: Request, served: Served) -> Response:
    """Give a cookie for the token, and go where the browser wanted to go."""
    form = parse_qs((await request.body()).decode(errors="replace"))
    token, to = (form.get(name, [""])[0] for name in ("token", "next"))
    right = served.settings.token
    own = right and is_own_request("POST", request.headers)
    try:
        role = (
            await served.tokens.check(token.strip().encode(errors="replace"), address_of(request.scope)) if own else ""
        )
    except TooManyGuessesError as error:
        return render(request, "login.html", 429, next=_destination(to), problem=str(error))
    if role != "operator":
        problem = "This is not the token of this server."
        return render(request, "login.html", 403, next=_destination(to), problem=problem)
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
    """Take the cookie back. It may have ended, or another tab may have logged out."""
    response = RedirectResponse(request.scope.get("root_path", "") + "/farm/login", 303)
    if not is_own_request("POST", request.headers):
        return response
    response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")
    return response


def _destination(wanted: str) -> str:
    """A page of ours: the address may have been made by somebody else."""
    return wanted if wanted.startswith("/farm/") and "\\" not in wanted and wanted.isprintable() else "/"
