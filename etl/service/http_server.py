"""A small HTTP server for a few read-only pages.

Its clients can neither block it nor exhaust the process's file descriptors:

- A connection carries one request and one response. It is closed after `Limits.seconds`, even if
  the client sends half a header, sends a body, stays silent, or does not read the response.
- If there are more than `Limits.connections`, the oldest one that has not sent its request yet is
  closed. So a client that sends its request at once always gets a response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http.client import responses
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog

from etl.errors import ConfigurationError, system_reason

log = structlog.get_logger(__name__)


class Limits(NamedTuple):
    """The limits for clients."""

    connections: int = 64
    """Maximum number of open connections; each takes a file descriptor of the process."""
    seconds: float = 10.0
    """Maximum duration of a connection."""
    head_bytes: int = 8192
    """Maximum size of the request line and the headers."""


LIMITS = Limits()


class HttpResponse(NamedTuple):
    """The response to a request."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


@asynccontextmanager
async def served(
    pages: Mapping[str, Callable[[], HttpResponse]], host: str, port: int, limits: Limits = LIMITS
) -> AsyncIterator[None]:
    """Serve these pages, by path, until the block ends.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    open_connections: dict[_Connection, None] = {}
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(pages, limits, open_connections), host, port
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({system_reason(error)}): "
            "set service.port to a free port, or to 0 to serve nothing"
        ) from None
    try:
        yield
    finally:
        server.close()
        for connection in list(open_connections):
            connection.abort()
        await server.wait_closed()


class _Connection(asyncio.Protocol):
    """One connection: reads one request, sends the response, and closes."""

    def __init__(
        self,
        pages: Mapping[str, Callable[[], HttpResponse]],
        limits: Limits,
        others: dict[_Connection, None],
    ) -> None:
        self._pages = pages
        self._limits = limits
        self._others = others  # all open connections, including this one, the oldest first
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None
        self._responded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._others[self] = None
        self._end = asyncio.get_running_loop().call_later(self._limits.seconds, self.abort)
        if len(self._others) > self._limits.connections:
            waiting = (one for one in self._others if not one._responded and one is not self)
            next(waiting, next(iter(self._others))).abort()

    def data_received(self, data: bytes) -> None:
        if self._responded:
            return
        # The end of the headers may be split between two chunks.
        start = max(0, len(self._head) - 3)
        self._head += data
        if self._head.find(b"\r\n\r\n", start) >= 0 or self._head.find(b"\n\n", start) >= 0:
            self._respond(*_request(bytes(self._head)))
        elif len(self._head) > self._limits.head_bytes:
            self._send(HttpResponse(b"the request line and headers are too long\n", 431))

    def connection_lost(self, error: Exception | None) -> None:
        self._others.pop(self, None)
        if self._end is not None:
            self._end.cancel()

    def abort(self) -> None:
        """Close the connection at once, without sending the rest of the response."""
        # Remove it now: until the event loop calls `connection_lost`, it would still count, and
        # could be chosen again.
        self._others.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def _respond(self, method: str, path: str) -> None:
        page = self._pages.get(path)
        if method not in {"GET", "HEAD"}:
            self._send(HttpResponse(b"only GET and HEAD\n", 405))
        elif page is None:
            self._send(HttpResponse(b"no such page\n", 404))
        else:
            try:
                response = page()
            except Exception as error:
                log.error(
                    "response_failed", path=path, problem=type(error).__name__, exc_info=error
                )
                response = HttpResponse(b"the page failed; the log shows why\n", 500)
            self._send(response, with_body=method == "GET")

    def _send(self, page: HttpResponse, *, with_body: bool = True) -> None:
        self._responded = True
        self._head.clear()
        assert self._transport is not None
        head = (
            f"HTTP/1.1 {page.status} {responses[page.status]}\r\n"
            f"Content-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + (page.body if with_body else b""))
        # The connection closes when everything is sent, or when its time is up.
        self._transport.close()


def _request(head: bytes) -> tuple[str, str]:
    """Return the method and the path of a request; both are empty if its first line is invalid."""
    line = head.lstrip(b"\r\n").partition(b"\n")[0].rstrip(b"\r").decode("latin-1").split(" ")
    if len(line) != 3 or not line[2].startswith("HTTP/"):
        return "", ""
    try:
        return line[0], urlsplit(line[1]).path
    except ValueError:
        return line[0], ""
