"""The sessions of browsers that have logged in with the token: a cookie in its place.

The cookie holds the time of its end and a signature of that, made with the token. So a server keeps nothing, all
servers with the same token know the cookie, and it ends with the token. A cookie goes along with requests of other
pages, too: those of other sites are kept off by `SameSite=Strict`, those of other ports of this host by
`is_own_request()`.
"""

import hmac
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

COOKIE = "sisyphus_session"

LASTS = 7 * 86400
"""Seconds."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def make_cookie(token: str, end: int) -> str:
    """Return a cookie that is good until `end`, in seconds since 1970."""
    return f"{end}.{hmac.digest(token.encode(), f'{COOKIE} {end}'.encode(), 'sha256').hex()}"


def is_valid(cookie: str, token: str) -> bool:
    """Return whether a cookie was made with the token and has not ended."""
    end = cookie.partition(".")[0]
    return (
        end.isascii()
        and end.isdecimal()
        and len(end) < 20
        and int(end) > time.time()
        and hmac.compare_digest(cookie.encode(), make_cookie(token, int(end)).encode())
    )


def is_own_request(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a request with a cookie may come from our page, or from a person who typed the address.

    Browsers send `Origin` with whatever changes something, and `Sec-Fetch-Site` only to HTTPS and to this machine.
    """
    site = headers.get("sec-fetch-site", "")
    if method in SAFE:
        return site in ("", "none", "same-origin")
    return site in ("", "same-origin") and headers.get("origin", "").partition("//")[2] == headers.get("host")


def is_logged_in(method: str, headers: Mapping[str, str], token: str) -> bool:
    """Return whether a request counts as one with the token."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return False
    return COOKIE in cookies and is_own_request(method, headers) and is_valid(cookies[COOKIE].value, token)
