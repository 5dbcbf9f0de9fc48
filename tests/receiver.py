"""A receiver of notifications on loopback: it records each request and responds as configured."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Receiver:
    """The server; its fields decide the responses to come."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    drip: float = 0.0
    """Seconds between two bytes of the body; the header of its length promises 1,000 bytes."""
    delay: float = 0.0
    """Seconds before the response."""
    malformed: bool = False
    """Send a header that is not HTTP."""

    def url(self, path: str = "/hook") -> str:
        """Return the address of a plain webhook."""
        return f"http://127.0.0.1:{self.port}{path}"

    def apprise_url(self, path: str = "/hook") -> str:
        """Return the same address for Apprise's JSON scheme."""
        return f"json://127.0.0.1:{self.port}{path}"


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver while the block runs."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.title(): value for name, value in self.headers.items()}
            found.requests.append(Received(self.path, headers, body))
            time.sleep(found.delay)
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "1000" if found.drip else str(len(found.body)))
            self.end_headers()
            if found.malformed:
                self.wfile.write(b"\x00\x01\x02\r\n")
            try:
                while found.drip:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(found.drip)
                self.wfile.write(found.body)
            except OSError:
                pass  # the client has gone

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        found.drip = 0.0
        server.shutdown()
        thread.join()
        server.server_close()
