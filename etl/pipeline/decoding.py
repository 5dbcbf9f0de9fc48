"""Where and when responses are decoded: small ones in the event loop, large ones in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Bytes. Larger bodies are decoded in a thread, so that the event loop can renew leases.
LARGE = 1 << 20
# A group is decoded when it has this many responses or bytes, or when its first response has waited
# for GROUP_WAIT seconds. A full group of the usual form takes the event loop 60 ms.
GROUP_RESPONSES = 400
GROUP_BYTES = 4 << 20
GROUP_WAIT = 0.2

# The default threads are not used, because several large responses would occupy all of them, and no
# database query could run. There is one thread, because two would take as long, and twice the
# memory.
_DECODER = ThreadPoolExecutor(1, thread_name_prefix="decode")


async def decoded(size: int, decode: Callable[[], T]) -> T:
    """Return the result of `decode`, which processes `size` bytes."""
    if size <= LARGE:
        return decode()
    return await asyncio.get_running_loop().run_in_executor(_DECODER, decode)


class DecodingGroup:
    """Responses that wait to be decoded one right after the other.

    While the decoder's code and data stay in the processor's caches, it takes less CPU time.
    """

    def __init__(self, on_response: Callable[[], None]) -> None:
        """Start without responses; `on_response` is called after one has begun to wait."""
        self._on_response = on_response
        self._opened = asyncio.Event()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0
        """The number of responses that wait."""

    async def decoded(self, size: int, decode: Callable[[], T]) -> T:
        """Return the result of `decode`, which processes a response of `size` bytes."""
        if size <= LARGE:
            await self._wait(size)
        return await decoded(size, decode)

    async def _wait(self, size: int) -> None:
        opened = self._opened
        self.waiting += 1
        self._bytes += size
        if self.waiting >= GROUP_RESPONSES or self._bytes >= GROUP_BYTES:
            self.open()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GROUP_WAIT, self.open)
        self._on_response()
        await opened.wait()

    def open(self) -> None:
        """Let all responses that wait be decoded now."""
        if self._timer is not None:
            self._timer.cancel()
        self._opened.set()
        self._opened, self._bytes, self._timer, self.waiting = asyncio.Event(), 0, None, 0
