"""A loopback server whose responses a test writes byte by byte, and a client with short waits."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from etl.errors import (
    ApiError,
)
from etl.extract.client import OrchestraClient
from etl.records import ApiResponse

CANARY = "canary-5f1c"
"""The API key of every client here; if it appears in any text, it has leaked."""

CERTIFICATE = Path(__file__).with_name("loopback.pem")
"""A self-signed certificate for 127.0.0.1 and localhost, with its key in the same file."""

BODY = b'[{"id": "a", "n": 1}]'

T = TypeVar("T")
Respond = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
"""A function that writes the response to the server's n-th request (from 0)."""


class Server:
    """A server on loopback with its base URL `url` and the received request heads `heads`."""

    def __init__(self, respond: Respond) -> None:
        self.heads: list[bytes] = []
        self.arrivals: list[float] = []
        self.requested = asyncio.Event()
        self.url = ""
        self._respond = respond

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to the requests of one connection until either side closes it."""
        try:
            while not writer.is_closing():
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                self.arrivals.append(time.monotonic())
                self.requested.set()
                await self._respond(writer, len(self.heads) - 1)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(respond: Respond, *, tls: bool = False) -> AsyncIterator[Server]:
    """Run a server; its connections end with it."""
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE)
    server = Server(respond)
    conversations: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.add(asyncio.create_task(server.talk(reader, writer)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


def client_of(url: str, **settings: Any) -> OrchestraClient:
    """Return a client whose waits are short."""
    return OrchestraClient(
        url, **{"api_key": lambda: CANARY, "max_wait": 0.02, "deadline": 5.0, **settings}
    )


def message(status: int, body: bytes = b"", *headers: str, length: bool = True) -> bytes:
    """Return a whole HTTP response."""
    lines = [
        f"HTTP/1.1 {status} Whatever",
        *headers,
        *([f"Content-Length: {len(body)}"] if length else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answering(*answers: bytes, close: bool = False) -> Respond:
    """Write the responses in order, and repeat the last one."""

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(answers[min(number, len(answers) - 1)])
        await writer.drain()
        if close:
            writer.close()

    return respond


async def fetched(respond: Respond, **settings: Any) -> tuple[ApiResponse, Server]:
    """Return the client's result for such a server, and the server with what it received."""
    async with serving(respond) as server, client_of(server.url, **settings) as client:
        answer = await client.steps("w", "r")
        assert client.requests_sent == len(server.heads)
        return answer, server


async def failed(respond: Respond, **settings: Any) -> tuple[ApiError, Server]:
    """Return the error that the client raises for such a server, and the server."""
    async with serving(respond) as server, client_of(server.url, **settings) as client:
        with pytest.raises(ApiError) as raised:
            await client.steps("w", "r")
        return raised.value, server


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine to its end; fail if it hangs, but not because the machine is busy."""
    return asyncio.run(asyncio.wait_for(test, 120))
