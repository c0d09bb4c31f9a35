"""Connections to the API server: its address, the credentials, and what the environment says of proxy and certificates.

Not those of `requests`, which is made of the same package: a call would take twice the time, and 3 MB more would be
imported.
"""

import contextlib
import importlib.util
import ipaddress
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout, make_headers
from urllib3.util import parse_url

from app.config import VERSION, Settings, shown_url

CONNECT_TIMEOUT = 10.0
"""Seconds for making a connection. A deadline cannot interrupt this: it bounds how long a cut call holds its thread."""

POOL = 64
"""Connections that are kept, at most."""


class Connections:
    """Sends requests to the server at `settings.api_url`, from any thread. Close it at the end.

    Attributes:
        through: Words about the proxy that stands between, for errors; empty if there is none.
    """

    def __init__(self, settings: Settings, change: Callable[[type[Any]], type[Any]] = lambda kind: kind) -> None:
        """`change` makes another class of one of urllib3's connections, which is used instead."""
        self._url = shown_url(settings.api_url)
        self._change = change
        self._proxy = _proxy_for(self._url)
        self._pools: PoolManager | None = None
        self._headers = {"User-Agent": f"sisyphus-client/{VERSION}", "Accept-Encoding": "gzip, deflate"}
        self._headers |= _credentials(settings)
        self.through = f" (through the proxy {shown_url(self._proxy)})" if self._proxy else ""

    def open(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> BaseHTTPResponse:
        """Send a request; returns the response, of which the body is still to be read. It must be read or closed.

        Redirects are not followed: a POST would become a GET, and the token would go elsewhere.

        Raises:
            HTTPError, OSError, ValueError: there is no response.
        """
        pools = self._pools = self._pools or self._make_pools()
        return pools.urlopen(
            method,
            self._url + path,
            body=content,
            headers={**self._headers, **headers},
            timeout=Timeout(connect=CONNECT_TIMEOUT, read=timeout),
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def close(self) -> None:
        """Close all connections that are not in use."""
        if self._pools:
            self._pools.clear()

    def _make_pools(self) -> PoolManager:
        pools = self._choose_pools()
        classes: dict[str, Any] = pools.pool_classes_by_scheme
        pools.pool_classes_by_scheme = {
            scheme: type(pool.__name__, (pool,), {"ConnectionCls": self._change(pool.ConnectionCls)})
            for scheme, pool in classes.items()
        }
        return pools

    def _choose_pools(self) -> PoolManager:
        options = {"maxsize": POOL} | (_certificates() if self._url.startswith("https:") else {})
        if not self._proxy:
            return PoolManager(**options)
        if self._proxy.lower().startswith("socks"):
            if not importlib.util.find_spec("socks"):
                raise ValueError("a SOCKS proxy needs the package PySocks: pip install PySocks")
            from urllib3.contrib.socks import SOCKSProxyManager

            return SOCKSProxyManager(self._proxy, **options)
        user = parse_url(self._proxy).auth
        headers = make_headers(proxy_basic_auth=unquote(user)) if user else None
        return ProxyManager(self._proxy, proxy_headers=headers, **options)


def _certificates() -> dict[str, Any]:
    """The certificates that are trusted: those that the variables of requests and curl name, or certifi's."""
    place = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not place:
        import certifi

        place = certifi.where()
    if not os.path.exists(place):
        raise OSError(f"the certificates that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names are missing: {place}")
    return {"ca_cert_dir" if os.path.isdir(place) else "ca_certs": place}


def _proxy_for(url: str) -> str:
    """The proxy that the environment names for a server; empty for none. A loopback address has none."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        if host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback:
            return ""
    if not any(name.lower().endswith("_proxy") and value for name, value in os.environ.items()):
        return ""
    from requests.utils import get_environ_proxies, select_proxy  # knows networks in NO_PROXY, as no other does

    proxy = select_proxy(url, get_environ_proxies(url)) or ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _credentials(settings: Settings) -> dict[str, str]:
    """The token, or else the user name and password that are in the server's address."""
    if settings.api_token:
        return {"Authorization": f"Bearer {settings.api_token}"}
    parts = urlsplit(settings.api_url)
    if not parts.username or parts.password is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password)}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
