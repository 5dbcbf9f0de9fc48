"""A port on loopback that sends each client the same bytes, or nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def listener(response: bytes | None) -> Iterator[int]:
    """Open a port whose server sends `response` to each client, or stays silent if it is None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    one = server.accept()[0]
                except OSError:
                    return
                taken.append(one)
                if response is not None:
                    one.recv(1)
                    one.sendall(response)

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()  # Otherwise it could still take a client, which nobody would close.
        for one in taken:
            one.close()
