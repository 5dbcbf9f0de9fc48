"""The server of health and metrics on real sockets: no client blocks others or exceeds limits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.service import http_server
from etl.service.health import Health
from etl.service.http_server import HttpResponse, Limits
from tests.support import free_port, wait_in_loop

LARGE = b"x" * (8 << 20)
"""A body larger than the sockets' buffers."""
Talk = Callable[[int], Awaitable[None]]


def _boom() -> HttpResponse:
    raise RuntimeError("a defect of a page")


PAGES: dict[str, Callable[[], HttpResponse]] = {
    "/livez": lambda: HttpResponse(b"ok\n"),
    "/large": lambda: HttpResponse(LARGE),
    "/broken": _boom,
}


def _serve(talk: Talk, limits: Limits) -> None:
    """Serve the pages while `talk` runs with the server's port."""

    async def work() -> None:
        port = free_port()
        async with http_server.served(PAGES, "127.0.0.1", port, limits):
            await talk(port)

    asyncio.run(work())


async def _send(port: int, request: bytes = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    """Return all that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


@asynccontextmanager
async def _held(port: int, count: int, first: bytes) -> AsyncIterator[None]:
    """Hold `count` connections open that send `first` and then do nothing."""
    loop, held = asyncio.get_running_loop(), []
    try:
        for _ in range(count):
            one = socket.socket()
            held.append(one)
            one.setblocking(False)
            await loop.sock_connect(one, ("127.0.0.1", port))
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(one, first)
        yield
    finally:
        for one in held:
            one.close()


def _files() -> int:
    """Return the number of open sockets and files of this process."""
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nX-Slow: ",
        b"GET /large HTTP/1.1\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: 9\r\n",
    ],
    ids=["silent", "half a header", "never reads", "slow body"],
)
def test_connections_that_never_end_block_no_client(first: bytes) -> None:
    """150 unfinished connections delay no client, and the server holds no more than its limit."""
    limits = Limits(connections=20, seconds=300)  # longer than a client waits here

    async def talk(port: int) -> None:
        before = _files()
        async with _held(port, 150, first):
            assert (await _send(port)).endswith(b"\r\n\r\nok\n")
            # The 150 client sockets are in this process, too.
            assert _files() - before <= 150 + limits.connections + 1

    _serve(talk, limits)


@pytest.mark.parametrize(
    "first", [b"", b"GET /li", b"GET /large HTTP/1.1\r\n\r\n"], ids=["silent", "header", "reader"]
)
def test_a_connection_ends_at_its_time_limit(first: bytes) -> None:
    """A silent, slow or unread connection is closed at its time limit, and not before."""

    async def talk(port: int) -> None:
        before, began = _files(), time.monotonic()
        async with _held(port, 1, first):
            # In each turn, so that an end before the time limit is not missed.
            await wait_in_loop(lambda: _files() - before == 2, pause=0)
            await wait_in_loop(lambda: _files() - before == 1)
            assert time.monotonic() - began >= 0.5

    _serve(talk, Limits(seconds=0.5))


def test_a_connection_is_closed_after_its_response() -> None:
    """A response is complete and announces that the connection is closed."""

    async def talk(port: int) -> None:
        response = await _send(port, b"GET /large HTTP/1.1\r\n\r\n")
        head, _, body = response.partition(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert body == LARGE

    _serve(talk, Limits())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez?verbose HTTP/1.1\nHost: x\n\n", 200),
        (b"GET http://host/livez HTTP/1.1\r\n\r\n", 200),
        (b"HEAD /livez HTTP/1.1\r\n\r\n", 200),
        (b"POST /livez HTTP/1.1\r\n\r\n", 405),
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"GET http://[/livez HTTP/1.1\r\n\r\n", 404),
        (b"GET /broken HTTP/1.1\r\n\r\n", 500),
        (b"\x16\x03\x01 hello\r\n\r\n", 405),
        (b"GET /" + b"x" * 9000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000, 431),
    ],
)
def test_requests(request_: bytes, status: int) -> None:
    """Each request gets its status, a malformed one too, and the next client is served."""

    async def talk(port: int) -> None:
        response = await _send(port, request_)
        assert response.startswith(b"HTTP/1.1 %d " % status)
        assert response.endswith(b"\r\n\r\n") is request_.startswith(b"HEAD")
        assert (await _send(port)).endswith(b"ok\n")

    _serve(talk, Limits())


def test_a_request_in_pieces() -> None:
    """A request head that arrives byte by byte is understood."""

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in b"GET /livez HTTP/1.1\r\nA: b\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        assert (await reader.read()).endswith(b"ok\n")
        writer.close()

    _serve(talk, Limits())


def test_an_address_that_is_in_use() -> None:
    """An error about an address in use names the address and the setting."""

    async def twice() -> None:
        port = free_port()
        async with http_server.served(PAGES, "127.0.0.1", port):
            words = rf"cannot listen on 127.0.0.1:{port} \(Address already in use\): .*service.port"
            with pytest.raises(ConfigurationError, match=words):
                async with http_server.served(PAGES, "127.0.0.1", port):
                    pass

    asyncio.run(twice())


# Readiness.


def test_one_failing_workflow_leaves_the_service_ready() -> None:
    """/readyz stays 200 while one workflow fails; if all or a shared part fail, it is 503."""
    health = Health()
    health.watch(["a", "b"])
    assert health.fail("sweep a", "404, no such thing \x1b[31m", workflow_id="a")
    assert health._ready() == HttpResponse(b"ok\nsweep a: 404, no such thing \\x1b[31m\n")
    health.fail("workflow a", "no complete sweep", workflow_id="a")
    assert health.ready
    health.fail("sweep b", "403", workflow_id="b")
    assert health._ready().status == 503
    health.recover("sweep b")
    assert health.ready
    health.fail("database", "gone")
    assert health._ready().status == 503


def test_a_missing_response_makes_the_service_unready_until_another_workflow_gets_one() -> None:
    """A missing response counts as an API outage until the API responds for another workflow."""
    health = Health()
    health.watch(["a", "b"])
    health.responded("b")
    health.fail("sweep a", "status 500", workflow_id="a", no_response=True)
    assert not health.ready
    health.responded("a")
    assert not health.ready
    health.responded("b")
    assert health.ready
    health.fail("sweep a", "status 502", workflow_id="a", no_response=True)
    assert health.ready
    health.recover("sweep a")
    health.fail("sweep a", "status 500", workflow_id="a", no_response=True)
    assert not health.ready
