"""A proxy between worker and PostgreSQL that reads statements and can pass, cut or swallow them.

To swallow is to acknowledge everything and to forward nothing. The proxy knows just enough of the
protocol to see every statement before the server does. It uses two threads per connection.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_NEGOTIATIONS = (80877103, 80877104)
"""Requests for TLS or GSSAPI encryption, which come before the start-up message."""


class Action(enum.Enum):
    """What the proxy does with a statement."""

    PASS = "it goes to the server"
    CUT_BEFORE = "the connection is cut, and the server never sees it"
    CUT_AFTER = (
        "the server gets it and answers; the connection is cut before the answer reaches the client"
    )
    SWALLOW = "from now on everything is acknowledged and nothing is forwarded, in either direction"


Judge = Callable[[str, "Link"], Action]


def pass_all(statement: str, link: Link) -> Action:
    """Pass every statement: no fault."""
    return Action.PASS


class Link:
    """One client's connection."""

    def __init__(self, client: socket.socket, server: socket.socket, judge: Judge) -> None:
        self.client = client
        self.server = server
        self.transaction: list[str] = []
        """The statements since the last BEGIN."""
        self.parameters: list[bytes] = []
        """The parameters of those statements, as sent over the wire."""
        self._judge = judge
        self._dumb = threading.Event()
        self._cut_at_answer = False

    def start(self) -> None:
        """Forward data in both directions, in threads."""
        for pump in (self._to_server, self._to_client):
            threading.Thread(target=self._pumping, args=(pump,), daemon=True).start()

    def cut(self) -> None:
        """Close both halves at once; the server rolls back what was not committed."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def swallow(self) -> None:
        """Stop forwarding, and go on acknowledging."""
        self._dumb.set()

    def _pumping(self, pump: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            pump()
        if not self._dumb.is_set():
            self.cut()

    def _to_client(self) -> None:
        while chunk := self.server.recv(1 << 16):
            if self._cut_at_answer:
                return
            if not self._dumb.is_set():
                self.client.sendall(chunk)

    def _to_server(self) -> None:
        stream = self.client.makefile("rb")
        while True:
            length, code = struct.unpack("!ii", head := _exactly(stream.read, 8))
            self.server.sendall(head + _exactly(stream.read, length - 8))
            if code not in _NEGOTIATIONS:
                break
        while True:
            kind, length = struct.unpack("!ci", head := _exactly(stream.read, 5))
            body = _exactly(stream.read, length - 4)
            action = self._judged(kind, body)
            if self._dumb.is_set():
                continue
            if action is Action.CUT_BEFORE:
                return
            self._cut_at_answer = action is Action.CUT_AFTER
            self.server.sendall(head + body)

    def _judged(self, kind: bytes, body: bytes) -> Action:
        if kind == b"B":
            self.parameters.append(body)
        if kind not in (b"Q", b"P"):
            return Action.PASS
        # A parse message begins with the name of the statement, a query message with its text.
        statement = body.split(b"\0")[0 if kind == b"Q" else 1].decode(errors="replace")
        if statement.startswith("BEGIN"):
            self.transaction, self.parameters = [], []
        else:
            self.transaction.append(statement)
        action = self._judge(statement, self)
        if action is Action.SWALLOW:
            self.swallow()
        return action


class Proxy:
    """A listening proxy; `judge` may be replaced at any time."""

    def __init__(self, listener: socket.socket, upstream: Path, judge: Judge) -> None:
        self.judge = judge
        self.links: list[Link] = []
        self._listener = listener
        self._upstream = upstream

    def accept(self) -> None:
        """Serve clients until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._upstream))
            except OSError:
                client.close()
                server.close()
                continue
            link = Link(client, server, lambda statement, link: self.judge(statement, link))
            self.links.append(link)
            link.start()

    def close(self) -> None:
        """Close the listener and cut every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self.links:
            link.cut()
            link.client.close()
            link.server.close()


@contextlib.contextmanager
def proxied(upstream: Path, listener: socket.socket, judge: Judge = pass_all) -> Iterator[Proxy]:
    """Provide a proxy from a listening socket to a server's Unix socket.

    Its threads run in the caller's network namespace.
    """
    listener.listen(64)
    proxy = Proxy(listener, upstream, judge)
    thread = threading.Thread(target=proxy.accept, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


@contextlib.contextmanager
def unix_proxy(
    upstream: Path, folder: Path, judge: Judge = pass_all
) -> Iterator[tuple[Proxy, str]]:
    """Provide a proxy on a Unix socket in `folder`, and the host to put into its URL."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / ".s.PGSQL.5432"))
    with proxied(upstream, listener, judge) as proxy:
        yield proxy, str(folder)


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size) if size else b""
    if len(data) != size:
        raise ConnectionError("closed")
    return data
