"""The client's connections: TLS, proxies, and the causes of transport failures."""

from __future__ import annotations

import functools
import os
import ssl
import zlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from etl.errors import ConfigurationError

MAX_HEADER_BYTES, MAX_HEADERS = 64 * 1024, 256
"""The longest header line of a response, and the largest number of headers.

Both exceed the library's defaults, because proxies and single sign-on add many headers.
"""

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)

_CHECK_URL = "check `api.base_url` (ORCHESTRA_BASE_URL)"
_CHECK_PROXY = "check HTTP_PROXY and HTTPS_PROXY, or unset `api.trust_env`"


class Transport(httpx.AsyncBaseTransport):
    """httpx's transport over aiohttp's connections to one origin.

    The package httpx-aiohttp has such a transport, too. It converts headers, URLs, timeouts and
    errors again for each request, which takes a sixth of the request's CPU time.
    """

    def __init__(self, base_url: str, *, trust_env: bool) -> None:
        """Open no connection before the first request.

        Args:
            base_url: a URL of the origin.
            trust_env: use the proxy and certificates that the environment names.

        Raises:
            ConfigurationError: the environment's proxy or certificates cannot be used.
        """
        self._ssl_context = _ssl_context(base_url, trust_env=trust_env)
        self._proxy = _environment_proxy(base_url) if trust_env else None
        self._session: aiohttp.ClientSession | None = None
        self._converted: tuple[httpx.Headers, CIMultiDict[str]] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return its response once the headers have arrived.

        The response's stream is the body as the server sent it, still compressed. Of httpx's
        timeouts, connect and read are kept; by default there is none.

        Raises:
            aiohttp.ClientError, OSError: no response arrived (see `cause_of`). The stream raises
                the same errors; those of httpx would say less.
        """
        if self._session is None:
            self._session = self._open_session()
        response = await self._session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=self._headers(request),
            data=request.read() or None,
            allow_redirects=False,
            timeout=_timeout(request),
        )
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_Body(response), request=request
        )

    def _headers(self, request: httpx.Request) -> CIMultiDict[str]:
        """Return the request's headers for aiohttp; consecutive requests share their headers."""
        if self._converted is None or self._converted[0] is not request.headers:
            self._converted = request.headers, CIMultiDict(request.headers.multi_items())
        return self._converted[1]

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The client already bounds the connections. Idle ones are closed before the 5 s after
            # which common servers close them: a request sent at that moment would fail.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl_context, keepalive_timeout=4),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Not aiohttp's own `trust_env`: it would also read `~/.netrc`, which conflicts with
            # the key's header.
            proxy=self._proxy,
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            middlewares=(_send_once,),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The body of a response, in pieces as they arrive."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.content.iter_any()

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        if not self._response.closed:
            self._response.release()


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    wanted = request.extensions.get("timeout")
    if wanted is None:
        return _NO_TIMEOUT
    return aiohttp.ClientTimeout(sock_connect=wanted["connect"], sock_read=wanted["read"])


async def _send_once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from resending a request by itself when the connection breaks.

    A resent request would bypass the shared budget and the client's count of attempts. aiohttp
    resends only after the two error types that are replaced here.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError from error


def cause_of(error: Exception, base: httpx.URL) -> tuple[str, str]:
    """Return the kind of a transport failure, and what to check."""
    match error:
        case aiohttp.ClientConnectorCertificateError() as found:
            return (
                f"the TLS certificate of {_peer(found)} is not trusted",
                f"{_CHECK_URL}, or set `api.trust_env`",
            )
        case aiohttp.ClientProxyConnectionError():
            return "cannot connect to the proxy", _CHECK_PROXY
        case aiohttp.ClientConnectorDNSError() as found if found.host not in (
            base.host,
            base.raw_host.decode("ascii"),
        ):
            return f"the proxy's name cannot be resolved ({_peer(found)})", _CHECK_PROXY
        case aiohttp.ClientConnectorDNSError() as found:
            return f"the host's name cannot be resolved ({_peer(found)})", _CHECK_URL
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))) as found if (
            number > 0
        ):
            return f"cannot connect to {_peer(found)} ({os.strerror(number)})", _CHECK_URL
        case aiohttp.ClientConnectorError() as found:
            return f"cannot connect to {_peer(found)}", _CHECK_URL
        case aiohttp.ClientHttpProxyError():
            return "the proxy refuses the connection", "check HTTP_PROXY and HTTPS_PROXY"
        case aiohttp.ClientPayloadError() | zlib.error():
            return "the response body is cut off or broken", ""
        case aiohttp.ClientConnectionError():
            return "the server closed the connection", ""
        case aiohttp.ClientResponseError(message=str(text)) if (
            "Got more than" in text or "Too many headers" in text
        ):
            most = f"more than {MAX_HEADER_BYTES:,} bytes, or more than {MAX_HEADERS} headers"
            return f"the response has a header line of {most}", ""
        case aiohttp.ClientResponseError():
            return "the response is not HTTP", _CHECK_URL
        case unforeseen:
            return type(unforeseen).__name__, ""


def _peer(error: aiohttp.ClientConnectorError) -> str:
    return f"{error.host}:{error.port}"


def _environment_proxy(base_url: str) -> str | None:
    """Return the proxy that the environment names; None if it names none for this URL.

    Raises:
        ConfigurationError: the proxy cannot be used. The text leaves out the proxy's URL, which may
            contain a password.
    """
    url = httpx.URL(base_url)
    proxy = None if proxy_bypass(url.host) else getproxies().get(url.scheme)
    if proxy is None:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"{url.scheme.upper()}_PROXY: must be the URL of an HTTP proxy, "
            "such as http://proxy:3128"
        )
    return proxy


def _ssl_context(base_url: str, *, trust_env: bool) -> ssl.SSLContext:
    """Return a TLS context with the certificate authorities, if there can be a TLS connection.

    Raises:
        ConfigurationError: the environment names certificates that cannot be read.
    """
    if not trust_env and urlsplit(base_url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.create_ssl_context() if trust_env else _bundled_context()
    except OSError as error:
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise ConfigurationError(
            f"{variable}: the certificates cannot be read: {error.strerror or 'not in PEM form'}"
        ) from None


@functools.cache
def _bundled_context() -> ssl.SSLContext:
    """Return the TLS context of all clients that trust only the certificates of certifi.

    Parsing them takes 20 ms.
    """
    return httpx.create_ssl_context(trust_env=False)
